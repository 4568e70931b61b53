"""The gateway's connections: one `Transport` per event loop, and what their failures are called."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import ssl
import weakref
import zlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError, PayloadEncodingError
from yarl import URL

from livepeer.trickle.transport import CONNECT_PATIENCE, CertificateChanged, TLSPolicy, Transport

from ._elsewhere import Elsewhere
from ._fork import abandon, on_fork
from ._observing import Observer
from ._urls import redact
from ._version import __version__
from .errors import (
    ConfigurationError,
    ConnectionFailed,
    ConnectTimeout,
    FirstByteTimeout,
    IdleTimeout,
    LivepeerError,
    ResponseError,
    StreamError,
)

if TYPE_CHECKING:
    from .routes import Answer

__all__ = ["Pool", "payload", "running_loop", "translated", "unsent", "within"]

_logger = logging.getLogger("livepeer.client")
_LARGE = 256 * 1024  # bytes
_LAST_WORDS = 5.0  # seconds that the end of a loop waits for sessions to be stopped


class _Closable(Protocol):
    async def aclose(self) -> None: ...


class Pool:
    """A `Transport` for each event loop that a gateway is used on.

    Each is held by an asynchronous generator that was started on its loop: `asyncio.run` ends those when it
    has cancelled the tasks and before it closes the loop, so nobody has to close a gateway.
    """

    def __init__(
        self,
        tls: TLSPolicy,
        observer: Observer | None = None,
        credentials: Mapping[str, str] | None = None,
    ) -> None:
        self.tls = tls
        self._credentials = credentials
        self.observer: Observer = observer or Observer()
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Held] = weakref.WeakKeyDictionary()
        self._elsewhere = Elsewhere()
        on_fork(self)

    async def transport(self) -> Transport:
        """The transport of the running loop."""
        return self._here().transport

    def track(self, answer: Answer) -> None:
        """Close this answer with the connections of its loop, when nobody did before."""
        self._here().answers.add(answer)

    def enlist(self, session: _Closable) -> None:
        """Close this session with the connections of its loop, unless it is discharged before."""
        self._here().sessions.add(session)

    def discharge(self, session: _Closable) -> None:
        """Forget a session that is over."""
        self._here().sessions.discard(session)

    def adopt(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        """Begin work that outlives its caller; `aclose` waits for it.

        Args:
            make: Makes the coroutine. It is called once more when the first one is cancelled, which is what
                `asyncio.run` does to every task before the connections are closed.
        """
        return self._here().begin(make)

    @contextlib.asynccontextmanager
    async def reserving(self, where: str, **details: Any) -> AsyncGenerator[None, None]:
        """Inside, a place is asked for that only the answer names; `aclose` waits for it, for some seconds.

        Args:
            where: Who is asked, for the error.
            details: `request_id` and `orchestrator` for the error.

        Raises:
            ConnectionFailed: The connections are being closed.
        """
        mine = self._here()
        if mine.settling:
            await asyncio.sleep(0)  # who tries again at once, in a task that starts eagerly, lets it go on
            raise ConnectionFailed(
                f"{redact(where)} was not asked: the gateway is being closed.", retryable=True, **details
            )
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mine.reserving.add(answered)
        try:
            yield
        finally:
            mine.reserving.discard(answered)
            if not answered.done():
                answered.set_result(None)

    async def aclose(self) -> None:
        """Wait for adopted work, and close the connections of the running loop."""
        loop = running_loop()
        held = self._loops.get(loop)
        if held is None:
            return
        mine, holding = held
        async with mine.closing:
            if self._loops.get(loop) is held:
                await asyncio.gather(*mine.work, return_exceptions=True)
                await holding.aclose()

    def close_elsewhere(self, *, wait: bool) -> None:
        """Close the connections of other threads' loops; see `Elsewhere.run`."""
        self._elsewhere.run(self.loops(), self.aclose, wait=wait)

    async def aclose_elsewhere(self) -> None:
        """The same, awaited."""
        await self._elsewhere.arun(self.loops(), self.aclose)

    def loops(self) -> list[asyncio.AbstractEventLoop]:
        """The loops with open connections."""
        # By `keyrefs`, which is one step: another thread's loop may come in the midst of an iteration.
        loops = [reference() for reference in self._loops.keyrefs()]
        return [loop for loop in loops if loop is not None and not loop.is_closed()]

    def forget(self, loop: asyncio.AbstractEventLoop) -> None:
        """The connections of a loop are being closed; its next call opens others."""
        held = self._loops.pop(loop, None)
        if held is not None and held[0].orphaned is not None:
            held[0].orphaned.detach()

    def _here(self) -> _OnLoop:
        loop = running_loop()
        held = self._loops.get(loop)
        if held is None:
            mine = _OnLoop(self._make())
            holding = _hold(mine, weakref.ref(self), loop)
            with contextlib.suppress(StopIteration):
                holding.__anext__().send(None)  # to its yield, which it reaches without waiting
            held = self._loops[loop] = (mine, holding)
            # Referred to from here too, because in a cycle with the gateway (which an exception's traceback
            # easily makes) the connections would be collected before they are closed.
            mine.orphaned = weakref.finalize(self, _end, loop, holding)
            mine.orphaned.atexit = False
        return held[0]

    def _make(self) -> Transport:
        agent = f"livepeer-client/{__version__}"
        return Transport(tls=self.tls, user_agent=agent, credentials=self._credentials)

    def _after_fork(self) -> None:
        for loop in [reference() for reference in self._loops.keyrefs()]:
            if loop is not None:
                abandon(loop)
                abandon(self._loops[loop])
        self._loops = weakref.WeakKeyDictionary()


class _OnLoop:
    """What a pool has on one loop."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.answers: weakref.WeakSet[Answer] = weakref.WeakSet()
        self.sessions: set[_Closable] = set()
        self.work: set[asyncio.Task[Any]] = set()
        self.closing = asyncio.Lock()
        self.reserving: set[asyncio.Future[None]] = set()
        self.settling = False
        self.orphaned: weakref.finalize[..., Any] | None = None
        self._cut_off: list[Callable[[], Coroutine[Any, Any, Any]]] = []

    def begin(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        """Start adopted work."""

        def ended(task: asyncio.Task[Any]) -> None:
            self.work.discard(task)
            if task.cancelled():
                self._cut_off.append(make)
            elif error := task.exception():
                _logger.debug("what a call left behind failed: %r", error)

        task = asyncio.get_running_loop().create_task(make())
        self.work.add(task)
        task.add_done_callback(ended)
        return task

    async def settle(self) -> None:
        """Give back what is still reserved."""
        self.settling = True
        if self.reserving:
            await asyncio.wait(set(self.reserving), timeout=_LAST_WORDS)
        open_now = [*self.answers, *self.sessions]
        ending = [asyncio.ensure_future(one.aclose()) for one in open_now]
        cut_off, self._cut_off = self._cut_off, []
        ending += [self.begin(make) for make in cut_off]
        ending += self.work
        if ending:
            await asyncio.wait(ending, timeout=_LAST_WORDS)


_Held = tuple[_OnLoop, AsyncGenerator[None, None]]


def _end(loop: asyncio.AbstractEventLoop, holding: AsyncGenerator[None, None]) -> None:
    """Close the connections of a gateway that was collected; any thread may be the one that collects it."""
    if not loop.is_closed():
        with contextlib.suppress(RuntimeError):  # closed in between, and its generators with it
            loop.call_soon_threadsafe(lambda: loop.create_task(holding.aclose()))


async def _hold(
    mine: _OnLoop, pool: weakref.ref[Pool], loop: asyncio.AbstractEventLoop
) -> AsyncGenerator[None, None]:
    """Close what a pool has on a loop, at the end of either; so it must not keep the pool alive."""
    process = os.getpid()
    try:
        yield
    finally:
        # A child that unwinds an inherited loop must not touch its parent's connections.
        if os.getpid() == process:
            try:
                await mine.settle()
            finally:
                if owner := pool():
                    owner.forget(loop)
                await mine.transport.aclose()


def running_loop() -> asyncio.AbstractEventLoop:
    """The running asyncio loop.

    Raises:
        ConfigurationError: There is none: the caller runs on another library's loop, such as trio's.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "The asynchronous verbs need a running asyncio event loop, and there is none here.",
            hint="Under trio, call the synchronous verb in a thread: "
            "await trio.to_thread.run_sync(functools.partial(gw.run, …)).",
        ) from None


class within:  # a class: an asynchronous generator can't begin once a loop closes its own
    """Gives a peer some seconds for the whole of what is asked inside, its name, TLS and all.

    Args:
        seconds: How many.
        where: The URL that is called.
        details: `request_id` and `orchestrator` for the error.

    Raises:
        FirstByteTimeout: They have passed.
    """

    __slots__ = ("_details", "_limit", "_seconds", "_where")

    def __init__(self, seconds: float, where: str, **details: Any) -> None:
        self._seconds = seconds
        self._where = where
        self._details = details
        self._limit = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError as late:
            raise FirstByteTimeout(
                f"{redact(self._where)} did not answer within {self._seconds:g} s.",
                waited=self._seconds,
                retryable=True,
                **self._details,
            ) from late


class translated:  # a class, which costs a call less than a generator does
    """Raises this SDK's error for whatever aiohttp, ssl or the socket raises inside.

    Args:
        where: The URL that is called.
        connect: The seconds that a connection may take; None is what a `Transport` allows by itself.
        details: `request_id` and `orchestrator` for the error.
    """

    __slots__ = ("_details", "_where")

    def __init__(self, where: str | URL, **details: Any) -> None:
        self._where = where
        self._details = details

    def __enter__(self) -> None:
        """Nothing happens before something is raised."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, _TRANSLATED) and not isinstance(error, LivepeerError):
            raise as_livepeer_error(error, redact(str(self._where)), **self._details) from error


# aiohttp wraps what its parser raises in a `ClientError` of its own; its parser in pure Python, which it uses
# where the other one isn't built, does not do so for a body that is being waited for.
_TRANSLATED = (
    aiohttp.ClientError,
    HttpProcessingError,
    OSError,
    ValueError,
    RuntimeError,
    asyncio.IncompleteReadError,
    zlib.error,
)


def as_livepeer_error(
    error: Exception, where: str, *, connect: float | None = None, **details: Any
) -> LivepeerError:
    """What this SDK calls an error of the libraries below it."""
    match error:
        case CertificateChanged():
            return ConnectionFailed(
                f"The certificate of {where} is not the one that was pinned; nothing was sent.",
                hint=f"An orchestrator makes a certificate at each start, so this may be a restart: "
                f"{_acceptance(error.accepted_in)}",
                retryable=error.accepted_in is not None,
                **details,
            )
        case aiohttp.ConnectionTimeoutError():
            seconds = connect if connect is not None else CONNECT_PATIENCE
            return ConnectTimeout(
                f"No connection to {where} within {seconds:g} s.",
                hint="Nothing was sent. Check that it runs there, and that no firewall is in between.",
                waited=seconds,
                retryable=True,
                **details,
            )
        case aiohttp.ServerTimeoutError() | TimeoutError():
            return IdleTimeout(f"{where} sent nothing for too long.", **details)
        case aiohttp.ClientConnectorDNSError():
            return ConnectionFailed(
                f"The host of {where} has no address: {error.os_error.strerror or error.os_error}.",
                hint="Check the URL for a typing mistake, and that this machine can resolve names.",
                **details,
            )
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            return ConnectionFailed(
                f"TLS with {where} failed: {error}.",
                hint="An http:// orchestrator called as https:// fails like this; so does tls='verify' with "
                "a certificate that the orchestrator signed itself.",
                **details,
            )
        case aiohttp.ClientConnectorError():
            return ConnectionFailed(
                f"No connection to {where}: {_reason(error.os_error)}.",
                hint="Check that the orchestrator runs there and that the port is right.",
                retryable=True,
                **details,
            )
        case (
            aiohttp.ClientPayloadError()
            | PayloadEncodingError()
            | asyncio.IncompleteReadError()
            | zlib.error()
        ):
            return StreamError(
                f"The answer of {where} broke off before its end.",
                hint="The worker, or the orchestrator before it, died or closed the connection.",
                **details,
            )
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return ConfigurationError(f"{where} is not a URL that can be called.", **details)
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return ResponseError(f"The answer of {where} can't be read: {error.message}.", **details)
        case aiohttp.ClientError() | OSError():
            return ConnectionFailed(
                f"{where} closed the connection before it answered.",
                hint="Whether the work was done is unknown.",
                **details,
            )
        case RuntimeError():
            return ConnectionFailed(f"The connection to {where} was closed on this side.", **details)
    return ConfigurationError(f"The request to {where} can't be made: {error}.", **details)


def unsent(error: LivepeerError) -> bool:
    """Whether nothing of a request was sent: there was no connection, or its peer was not the one that it has
    to be."""
    return isinstance(error, ConnectTimeout) or isinstance(
        error.__cause__,
        aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.ServerFingerprintMismatch,
    )


def _acceptance(seconds: float | None) -> str:
    """When a changed certificate is accepted."""
    if seconds is None:
        return "tls='pin-strict' refuses it for as long as this gateway lives; another Gateway accepts it."
    if seconds > 0:
        return f"but the second one within a minute; a call is accepted again in {seconds:.0f} s."
    return "a call that begins now accepts it, unless tls='pin-strict'."


def _reason(error: OSError) -> str:
    if error.errno:
        return os.strerror(error.errno)  # asyncio's own text is "Connect call failed" and an address
    return error.strerror or str(error) or "the other side closed it"


def payload(content: bytes) -> bytes | io.BytesIO:
    """A body as aiohttp likes it: it warns of large `bytes`, which it would write in one piece."""
    return content if len(content) < _LARGE else io.BytesIO(content)


def same_slash(sent: URL, location: str) -> URL | None:
    """Where a redirect leads, when it only adds the missing slash on the same origin; else None."""
    try:
        target = sent.join(URL(location))
    except ValueError:
        return None  # a worker may write there what it likes
    if not target.host:
        return None
    if target.origin() == sent.origin() and target.path == sent.path + "/" and target.query == sent.query:
        return target
    return None
