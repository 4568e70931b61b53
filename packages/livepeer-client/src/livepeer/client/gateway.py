"""`Gateway` and its verbs, and nothing else."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar, overload

from . import live as _live
from ._headers import HeadersLike
from ._loop_thread import loop_thread
from ._observing import Observer, RequestRecord
from ._secrets import hidden, hidden_urls
from .catalogue import Capability, Price
from .config import Urls, read_config
from .diagnosis import Diagnosis
from .errors import ConfigurationError
from .explanation import Explanation
from .failover import Trail
from .inputs import Body, encode_input, is_large
from .payments.ledger import Bill, Ledger
from .prices import EthUsd, as_budget, as_price, check_rate
from .results import Response, convert
from .stream import AsyncStreamResponse, StreamResponse
from .timeouts import Timeout, TimeoutValue, as_timeout

__all__ = ["Gateway"]

T = TypeVar("T")

_SCHEMA_TIMEOUT = 30.0  # seconds
_MOST = 1024**3  # bytes of an answer, uncompressed
_RUN_TIMEOUT = 600.0  # seconds; a cold model can take minutes, a lost call shouldn't take for ever


class Gateway:
    """The way into the Livepeer network: `run`, `stream` and `live` any capability by its name.

    It carries configuration and keeps connections; use one for any number of calls, from any number of
    threads and event loops, before and after a `fork`. It can be pickled (without its connections). Closing
    it is good manners and never a must.

    Args:
        token: What a dashboard hands out.
        signer_url: A signer's URL, or several, of which the next one is asked when one fails. It signs the
            payments for live runners that have a price, and lists orchestrators where no other place to call
            is named beside it.
        signer_headers: Headers for the signer alone; see `discovery_headers`.
        discovery_url: A URL that answers with a list of orchestrators; or several, as with signers.
        discovery_headers: Headers for that URL alone: a dict, or a function, ordinary or async, that returns
            one. It is called for each request; or, when it returns ``(headers, expires_at)`` (seconds since
            1970, or a datetime), again before those expire; and when they are refused. An ordinary function
            runs in a thread.
        orch_url: An orchestrator's URL, or several in the order of preference.
        tls: How certificates of orchestrators are checked: ``"pin"`` (accept at first use, then only that
            one), ``"pin-strict"``, ``"verify"`` or ``"insecure"``.
        tls_ca: For ``tls="verify"``, the path of a PEM file with the authorities to trust instead of the
            system's.
        timeout: The limits of a call that names none; seconds in total, or a `Timeout`.
        max_response_bytes: The most that is taken of an answer, and of one event of a stream; 1 GiB by
            default, None is any number. What comes compressed counts uncompressed.
        on_request: Called with a `RequestRecord` at the end of every request: calls with all their tries,
            and what the gateway asks for its own (discovery, prices, reservations). Not for segments of live
            media, which `LiveSession.stats` counts. It runs on the event loop of the request, so it returns
            at once: it counts, or puts the record into a queue. What it raises is logged. It is pickled
            with the gateway.
        max_price: The most that a call may cost, per unit, where it names no other: a `Price`, or a text such
            as ``"900 gwei/second"``, ``"2e12 wei/call"`` or ``"20 wei/pixel"``. Whoever costs more isn't
            called, nor is who has a price in another unit. Whoever raises the price after it was listed is
            not paid. With `eth_usd` it may be in USD: ``"0.40 usd/hour"``.
        gateway_url: A go-livepeer gateway node's URL, or several, of which the next one is called when one
            can't be reached. It pays from its own wallet, as its operator limits it, and leads `run`,
            `stream` and `call` to BYOC capabilities. It is asked to use exactly one orchestrator for a call,
            as it would make one that fails again on each: those of `orch_url` in their order, each spelt as
            the node has it, or those that a discovery, a signer or a token leads to. A further one is used
            only where the node found nobody at the one before. For `max_price` it takes a signer beside it,
            which lets orchestrators tell their prices. A stream without a limit of time has an hour, and any
            call at least a minute, as the node pays in advance for as long as it may take.
        budget: The most that this gateway may spend, in wei or as a text (``"0.01 eth"``, ``"2.50 usd"``). It
            is looked at before a payment is signed, for calls at the same time, too: what a payment may come
            to is set aside first. A gateway that was pickled, and a process that was forked, begin anew.
        eth_usd: What one ETH costs in USD, or a function that returns it: for a `max_price` in USD, at each
            call; and for a `budget`, at the beginning.

    The first of arguments, token and environment that names a place to call decides where calls go:
    ``LIVEPEER_TOKEN``, ``LIVEPEER_GATEWAY_URL``, ``LIVEPEER_ORCH_URL``, ``LIVEPEER_DISCOVERY_URL``,
    ``LIVEPEER_SIGNER_URL``. Inside it orchestrators come before discovery, and that before signers.

    The loggers ``livepeer.client`` and ``livepeer.trickle`` say nothing up to INFO when all is in order; at
    DEBUG, one line for each request. ``LIVEPEER_LOG=debug`` (or ``info``, ``warning``, ``error``) in the
    environment shows that on stderr, unless the application has set these loggers up itself.

    Raises:
        ConfigurationError: Nothing is configured, or a value can't be used.
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        signer_url: Urls | None = None,
        signer_headers: HeadersLike | None = None,
        discovery_url: Urls | None = None,
        discovery_headers: HeadersLike | None = None,
        orch_url: Urls | None = None,
        gateway_url: Urls | None = None,
        max_price: Price | str | None = None,
        budget: int | str | None = None,
        eth_usd: EthUsd = None,
        tls: str = "pin",
        tls_ca: str | os.PathLike[str] | None = None,
        timeout: TimeoutValue = None,
        on_request: Callable[[RequestRecord], object] | None = None,
        max_response_bytes: int | None = _MOST,
    ) -> None:
        # From here on, a traceback that shows local variables doesn't show what they hold.
        token, signer_headers, discovery_headers = map(hidden, (token, signer_headers, discovery_headers))
        signer_url, discovery_url, orch_url = map(hidden_urls, (signer_url, discovery_url, orch_url))
        self._config = read_config(
            token=token,
            signer_url=signer_url,
            signer_headers=signer_headers,
            discovery_url=discovery_url,
            discovery_headers=discovery_headers,
            orch_url=orch_url,
            gateway_url=hidden_urls(gateway_url),
        )
        self._timeout = as_timeout(timeout) if timeout is not None else None
        self._eth_usd = check_rate(eth_usd)
        self._max_price = max_price
        self._limit(None)  # so that what can't be read is said now
        self._budget = as_budget(budget, eth_usd=eth_usd)
        if self._budget is not None and self._config.gateways:
            raise ConfigurationError(
                "budget= and gateway_url= don't go together: a gateway node pays from its own wallet, and "
                "nothing here can hold it to a budget.",
                hint="Leave budget= out; the node's own settings limit what it pays.",
            )
        if tls_ca is not None and tls != "verify":
            raise ConfigurationError(f"tls_ca= goes with tls='verify'; with tls={tls!r} nobody looks at it.")
        self._tls_mode = tls, None if tls_ca is None else os.fspath(tls_ca)
        self._on_request = _synchronous(on_request)
        self._most = _whole(max_response_bytes)
        self._connect()

    def _connect(self) -> None:
        # What calls need is loaded here: `import livepeer.client` stays light, and the first call quick.
        from livepeer.trickle.transport import TLSPolicy

        from ._calls import Calls
        from ._http import Pool
        from ._logs import configure

        configure()
        mode, ca = self._tls_mode
        tls = TLSPolicy(mode, ca=ca)  # type: ignore[arg-type]
        self._pool = Pool(tls, Observer(self._on_request), self._config.credentials)
        self._ledger = Ledger(self._budget)
        wallet = None
        if self._config.signers:
            from .payments.wallet import Wallet

            wallet = Wallet(self._config, self._pool, self._ledger)
        self._calls = Calls(self._config, self._pool, self._most, wallet)

    @overload
    def run(
        self,
        capability: str,
        *,
        input: Any = ...,
        model: str | None = ...,
        path: str | None = ...,
        timeout: TimeoutValue = ...,
        max_price: Price | str | None = ...,
        output_type: type[T],
    ) -> T: ...
    @overload
    def run(
        self,
        capability: str,
        *,
        input: Any = ...,
        model: str | None = ...,
        path: str | None = ...,
        timeout: TimeoutValue = ...,
        max_price: Price | str | None = ...,
        output_type: None = ...,
    ) -> Any: ...
    def run(
        self,
        capability: str,
        *,
        input: Any = None,
        model: str | None = None,
        path: str | None = None,
        timeout: TimeoutValue = _RUN_TIMEOUT,
        max_price: Price | str | None = None,
        output_type: Any = None,
    ) -> Any:
        """Call a capability and return its result.

        Args:
            capability: Its name, such as ``"text-reverse"``.
            input: JSON values go as JSON; `bytes`, a `pathlib.Path`, an open file or a PIL image is the body
                itself; nested in JSON those become base64.
            model: The model: ``"model"`` of a JSON input, and the app ``capability/model`` if there is one.
            path: The path below the worker; its own choice when absent.
            timeout: Seconds in total (600 by default), a `Timeout`, or None.
            max_price: The most that it may cost; see `Gateway`.
            output_type: A pydantic model, a dataclass or another type to make of the result.

        Returns:
            JSON as a Python value, ``text/*`` as `str`, a stream as a list of `StreamEvent`, anything else
            as a `Blob`.

        Raises:
            CapabilityNotFound: No orchestrator has it.
            NoOrchestratorError: None could be asked, or none may be used.
            CapabilityError: The worker's own error, with its status.
            CapacityError: Every place is taken.
            ConnectionFailed, LivepeerTimeout, StreamError: The network failed.
            InputError: The input can't be sent.
            ResponseError: The answer is not what it says it is.
        """
        return convert(
            self.call(
                capability, input=input, model=model, path=path, timeout=timeout, max_price=max_price
            ).data,
            output_type,
        )

    @overload
    async def run_async(
        self,
        capability: str,
        *,
        input: Any = ...,
        model: str | None = ...,
        path: str | None = ...,
        timeout: TimeoutValue = ...,
        max_price: Price | str | None = ...,
        output_type: type[T],
    ) -> T: ...
    @overload
    async def run_async(
        self,
        capability: str,
        *,
        input: Any = ...,
        model: str | None = ...,
        path: str | None = ...,
        timeout: TimeoutValue = ...,
        max_price: Price | str | None = ...,
        output_type: None = ...,
    ) -> Any: ...
    async def run_async(
        self,
        capability: str,
        *,
        input: Any = None,
        model: str | None = None,
        path: str | None = None,
        timeout: TimeoutValue = _RUN_TIMEOUT,
        max_price: Price | str | None = None,
        output_type: Any = None,
    ) -> Any:
        """`run`, awaited."""
        response = await self.call_async(
            capability, input=input, model=model, path=path, timeout=timeout, max_price=max_price
        )
        return convert(response.data, output_type)

    def call(
        self,
        capability: str,
        *,
        input: Any = None,
        model: str | None = None,
        path: str | None = None,
        timeout: TimeoutValue = _RUN_TIMEOUT,
        max_price: Price | str | None = None,
    ) -> Response:
        """`run`, returning the result with what came along: status, headers, orchestrator, time, id."""
        limit = self._limit(max_price)
        limits, body = self._limits(timeout, _RUN_TIMEOUT), encode_input(input, model)
        return loop_thread.run(
            lambda: self._calls.request(capability, body, limits, path, model, max_price=limit)
        )

    async def call_async(
        self,
        capability: str,
        *,
        input: Any = None,
        model: str | None = None,
        path: str | None = None,
        timeout: TimeoutValue = _RUN_TIMEOUT,
        max_price: Price | str | None = None,
    ) -> Response:
        """`call`, awaited."""
        limit = self._limit(max_price)
        limits = self._limits(timeout, _RUN_TIMEOUT)
        body = await _encode(input, model) if is_large(input) else encode_input(input, model)
        return await self._calls.request(capability, body, limits, path, model, max_price=limit)

    def stream(
        self,
        capability: str,
        *,
        input: Any = None,
        model: str | None = None,
        path: str | None = None,
        timeout: TimeoutValue = None,
        max_price: Price | str | None = None,
        allow_incomplete: bool = False,
    ) -> StreamResponse:
        """Call a capability and iterate over what it sends, as it sends it.

        Server-sent events, JSON lines and chunks of a body all become `StreamEvent`. The stream is open when
        this returns, so errors of opening raise here; leaving it early closes the connection.

        Args:
            capability, input, model, path, max_price: As for `run`.
            timeout: Seconds in total, a `Timeout`, or None (the default) for no limit but that of connecting;
                through BYOC a stream has 24 hours then.
            allow_incomplete: Whether an end without ``[DONE]`` is an end. On live runners it always is;
                through BYOC it may have been cut, and raises `StreamError` after the last event.

        Raises:
            StreamError: While iterating: the stream broke off.
            CapabilityError: The worker's own error, at the start or in mid-stream.
        """
        limit = self._limit(max_price)
        limits, body = self._limits(timeout, None), encode_input(input, model)
        inner = self._stream(
            capability,
            lambda: _ready(body),
            model,
            path,
            limits,
            max_price=limit,
            allow_incomplete=allow_incomplete,
        )
        loop_thread.run(inner.__aenter__)
        return StreamResponse(inner, loop_thread)

    def stream_async(
        self,
        capability: str,
        *,
        input: Any = None,
        model: str | None = None,
        path: str | None = None,
        timeout: TimeoutValue = None,
        max_price: Price | str | None = None,
        allow_incomplete: bool = False,
    ) -> AsyncStreamResponse:
        """`stream` for asynchronous code: iterate, enter or await what it returns; that opens it."""
        limit = self._limit(max_price)
        return self._stream(
            capability,
            lambda: _encode(input, model),
            model,
            path,
            self._limits(timeout, None),
            max_price=limit,
            allow_incomplete=allow_incomplete,
        )

    def live(
        self,
        capability: str,
        *,
        model: str | None = None,
        params: dict[str, Any] | None = None,
        request_id: str | None = None,
        stream_id: str | None = None,
        path: str | None = None,
        stall_timeout: float | None = 10.0,
        startup_timeout: float | None = 120.0,
    ) -> _live.LiveSession:
        """A live session: ``async with gw.live(…) as session``, or await it and close it yourself.

        It goes to a live runner of that name; else, for ``"live-video-to-video"``, to the pipeline that an
        orchestrator's AI worker has; else to a BYOC worker. A worker may take long to start, and is waited
        for. A caller that is cancelled meanwhile waits for up to 5 s more; a start that is in flight even
        then is ended by the gateway once it is answered, which `aclose` waits for.

        Args:
            capability: Its name.
            model: Its model. ``"live-video-to-video"`` needs one where an orchestrator has several.
            params: The worker's parameters at the start; `LiveSession.update` changes them.
            request_id: An id of yours for the worker's log, and for errors; one is made when absent. BYOC
                workers don't get it.
            stream_id: A name of yours for the stream; for BYOC workers letters, digits, "-" and "_", as the
                name of their stream begins with it.
            path: The worker's path that opens a session; its own choice when absent. For live runners only.
            stall_timeout: Seconds that output may stay away while input flows, before the session ends with
                `SessionStalled`; None is for ever. A live runner that is dead is noticed sooner.
            startup_timeout: The same before the first output, which may have to wait for a model that loads
                or compiles; at least `stall_timeout`.

        Raises:
            ConfigurationError: An argument can't be used.

        Entering the session raises:
            CapabilityNotFound: No orchestrator has the capability, or its model.
            CapabilityError: The worker refused, with its own status.
            CapacityError: Every place is taken.
            OrchestratorError: The worker is not there, or the orchestrator refused.
            ConnectionFailed: No connection; or it dropped during the start, and a job may have begun. Nothing
                is started a second time then.
        """
        from ._calls import request_id as make_id
        from .routes import LiveCall

        if params is not None and not isinstance(params, Mapping):
            raise ConfigurationError(f"params= is a {type(params).__name__}; it is a dict.")
        stall = _seconds("stall_timeout", stall_timeout)
        startup = _seconds("startup_timeout", startup_timeout)
        call = LiveCall(
            capability, request_id or make_id(), model, params, stream_id, path, max_price=self._limit(None)
        )
        return _live.LiveSession(
            self._calls,
            self._pool,
            call,
            stall_timeout=stall,
            startup_timeout=None if startup is None else max(startup, stall or 0.0),
        )

    def capabilities(self) -> list[Capability]:
        """What the network can do now, by name: live runners, BYOC capabilities, and the pipelines and models
        that orchestrators bring along. Orchestrators are asked, never a worker.

        Raises:
            NoOrchestratorError: None could be asked.
        """
        return loop_thread.run(self._calls.capabilities)

    async def capabilities_async(self) -> list[Capability]:
        """`capabilities`, awaited."""
        return await self._calls.capabilities()

    def explain(
        self,
        capability: str,
        *,
        model: str | None = None,
        live: bool = False,
        max_price: Price | str | None = None,
    ) -> Explanation:
        """Where a call would go, and why: every candidate, those which can't be used with the reason.

        Orchestrators are asked, never a worker. Print it: as text it has one line for each.

        Args:
            capability, model, max_price: As for `run`.
            live: Whether it is about `live` instead of `run` and `stream`.

        Raises:
            ConfigurationError: An argument can't be used.
        """
        limit = self._limit(max_price)
        return loop_thread.run(
            lambda: self._calls.explain(capability, model, "live" if live else "call", limit)
        )

    async def explain_async(
        self,
        capability: str,
        *,
        model: str | None = None,
        live: bool = False,
        max_price: Price | str | None = None,
    ) -> Explanation:
        """`explain`, awaited."""
        limit = self._limit(max_price)
        return await self._calls.explain(capability, model, "live" if live else "call", limit)

    def check(self, *, sign: bool = False) -> Diagnosis:
        """What works of this gateway's configuration, and what has to be done about the rest.

        Every place is asked: whether it is reached, whether it takes the headers, what can be told of the
        wallet's funds, which capabilities there are and what they cost. Nothing is called, and nothing paid.
        Print it: as text it is a table, in which no secret stands.

        Args:
            sign: Whether to ask the signer for one ticket, too, which is thrown away. That tells whether the
                wallet's deposit is enough. An unsent ticket costs nothing, though a signer may count it.
        """
        return loop_thread.run(lambda: self._calls.check(sign=sign))

    async def check_async(self, *, sign: bool = False) -> Diagnosis:
        """`check`, awaited."""
        return await self._calls.check(sign=sign)

    def map(self, *arguments: object, **options: object) -> NoReturn:
        """Not in this version: raises `ConfigurationError`. `run_async` in a task group does many at once."""
        raise _later("map")

    def map_async(self, *arguments: object, **options: object) -> NoReturn:
        """Not in this version: raises `ConfigurationError`."""
        raise _later("map_async")

    def schema(
        self,
        capability: str,
        *,
        model: str | None = None,
        pay: bool = False,
        timeout: TimeoutValue = _SCHEMA_TIMEOUT,
    ) -> dict[str, Any]:
        """What a capability takes and gives, as its author describes it: an object with JSON Schemas.

        It is read at the public URL that its runner advertises; without one the worker is asked for
        ``/schema``, which is a call of it, and takes a place for a moment. Of a runner of this SDK it has
        ``"input"`` and ``"output"`` (JSON Schema), ``"mode"``, ``"accepts"``, ``"returns"`` and more.

        Args:
            capability: Its name.
            model: Its model.
            pay: Whether to pay for the answer, where the worker isn't free and names no public schema.
            timeout: Seconds in total (30 by default), or a `Timeout`.

        Raises:
            PaymentUnsupported: The answer costs money; through a gateway node that is never known.
            CapabilityError: The worker has no schema (404 or 405), or failed.
            OrchestratorError: The advertised URL leads where it must not.
            ResponseError: What is there is no schema.
            CapabilityNotFound, NoOrchestratorError, ConnectionFailed, LivepeerTimeout: As for `run`.
        """
        limits = self._limits(timeout, _SCHEMA_TIMEOUT)
        limit = self._limit(None)
        return loop_thread.run(
            lambda: self._calls.schema(capability, model, pay=pay, max_price=limit, timeout=limits)
        )

    async def schema_async(
        self,
        capability: str,
        *,
        model: str | None = None,
        pay: bool = False,
        timeout: TimeoutValue = _SCHEMA_TIMEOUT,
    ) -> dict[str, Any]:
        """`schema`, awaited."""
        limits = self._limits(timeout, _SCHEMA_TIMEOUT)
        return await self._calls.schema(
            capability, model, pay=pay, max_price=self._limit(None), timeout=limits
        )

    @property
    def spent(self) -> int:
        """What this gateway has paid, in wei.

        It is the expected value of the tickets that orchestrators took: their face value times their
        probability to win, as orchestrators credit it. A payment of which it can't be known whether it was
        taken counts. What a gateway node pays from its own wallet doesn't.
        """
        return self._ledger.spent

    def close(self) -> None:
        """Close every connection, on every event loop; a later call opens others.

        Calls that are open end with `ConnectionFailed`. Inside a running event loop this returns at once, and
        the connections are closed a moment later; `aclose` waits.
        """
        here = asyncio._get_running_loop()
        if here is not None:
            self._closing = here.create_task(self._pool.aclose())
        self._pool.close_elsewhere(wait=here is None)

    async def aclose(self) -> None:
        """Finish what is still being stopped, and close every connection, on every event loop."""
        await self._pool.aclose()
        await self._pool.aclose_elsewhere()

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Gateway:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        from ._urls import redact

        if not hasattr(self, "_config"):
            return "<Gateway without a configuration>"  # in the traceback of its constructor
        places = *self._config.gateways, *self._config.places
        return f"<Gateway {', '.join(map(redact, places))} ({self._config.source})>"

    def __getstate__(self) -> dict[str, Any]:
        return {
            "config": self._config,
            "timeout": self._timeout,
            "max_price": self._max_price,
            "eth_usd": self._eth_usd,
            "budget": self._budget,
            "tls": self._tls_mode,
            "on_request": self._on_request,
            "most": self._most,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._config = state["config"]
        self._timeout = state["timeout"]
        self._max_price = state["max_price"]
        self._eth_usd = state["eth_usd"]
        self._budget = state["budget"]
        self._tls_mode = state["tls"]
        self._on_request = state["on_request"]
        self._most = state["most"]
        self._connect()

    def _stream(
        self,
        capability: str,
        encode: Any,
        model: str | None,
        path: str | None,
        timeout: Timeout,
        *,
        max_price: Price | None,
        allow_incomplete: bool,
    ) -> AsyncStreamResponse:
        from ._calls import request_id
        from .routes import Answer, Call

        call_id = request_id()

        bill = Bill()

        async def open_stream(trail: Trail) -> Answer:
            call = Call(
                capability, await encode(), timeout, call_id, path,
                max_price=max_price, bill=bill, streamed=True,
            )  # fmt: skip
            return await self._calls.open_stream(call, model, trail)

        return AsyncStreamResponse(
            open_stream,
            capability=capability,
            timeout=timeout,
            request_id=call_id,
            allow_incomplete=allow_incomplete,
            bill=bill,
        )

    def _limit(self, given: Price | str | None) -> Price | None:
        """The most that a call may cost: its own word, else the gateway's."""
        return as_price(given if given is not None else self._max_price, eth_usd=self._eth_usd)

    def _limits(self, given: TimeoutValue, default: float | None) -> Timeout:
        """The limits of a call: its own, else the gateway's, else the verb's."""
        if given == default and self._timeout is not None:
            return self._timeout
        return as_timeout(given)


async def _encode(value: Any, model: str | None) -> Body:
    """Encode an input, in a thread of its own when that may take long."""
    from ._http import running_loop

    running_loop()
    if is_large(value):
        from ._threads import in_daemon_thread

        return await in_daemon_thread(lambda: encode_input(value, model))
    return encode_input(value, model)


async def _ready(body: Body) -> Body:
    return body


def _synchronous(hook: Any) -> Any:
    """Refuse what can't be called at the end of a request."""
    if hook is None or (callable(hook) and not inspect.iscoroutinefunction(hook)):
        return hook
    raise ConfigurationError(
        f"on_request= is a {'coroutine function' if callable(hook) else type(hook).__name__}; it is an "
        "ordinary function that takes a RequestRecord.",
        hint="It can put the record into an asyncio.Queue that a task of yours reads.",
    )


def _whole(most: int | None) -> int | None:
    """A number of bytes over 0, or None."""
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise ConfigurationError(
            f"max_response_bytes={most!r} can't be; it is a whole number over 0, or None."
        )
    return most


def _seconds(name: str, value: float | None) -> float | None:
    """A number of seconds over 0, or None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise ConfigurationError(f"{name}={value!r} can't be; it is seconds, over 0, or None for ever.")
    return value


def _later(verb: str) -> ConfigurationError:
    return ConfigurationError(
        f"Gateway.{verb} is not part of this version of livepeer-client.",
        hint="What there is: run, stream, live, call, capabilities and schema.",
    )
