"""From a verb's arguments to a result: send what is asked, decode what comes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from ._http import Pool, running_loop, translated
from .catalogue import Capability, Price
from .config import Config
from .errors import DeadlineExceeded, IdleTimeout
from .events import StreamEvent
from .failover import Trail
from .inputs import Body
from .resolution import Resolver
from .results import Response, decode
from .routes import Answer, Call, LiveCall, Route, Started
from .selection import Verb
from .stream import until_error
from .timeouts import Timeout, total_of_call

if TYPE_CHECKING:
    from .diagnosis import Diagnosis
    from .explanation import Explanation
    from .payments.wallet import Wallet

__all__ = ["Calls", "request_id"]


def request_id() -> str:
    """An id for a call, as it goes to the worker and into errors."""
    return os.urandom(16).hex()


class Calls:
    """What the verbs of a gateway do; asynchronous, on whichever loop they are called.

    Attributes:
        most: How many bytes of an answer are taken; None is any number.
    """

    def __init__(
        self,
        config: Config,
        pool: Pool,
        max_response_bytes: int | None = None,
        wallet: Wallet | None = None,
    ) -> None:
        self._pool = pool
        self.most: int | None = max_response_bytes
        self._config = config
        self._resolver = Resolver(config, pool, wallet)

    def request(
        self,
        capability: str,
        body: Body,
        timeout: Timeout,
        path: str | None,
        model: str | None,
        *,
        max_price: Price | None,
    ) -> Coroutine[Any, Any, Response]:
        """Call a capability under an id of its own."""
        call = Call(capability, body, timeout, request_id(), path, max_price=max_price)
        return self.call(call, model)

    async def call(self, call: Call, model: str | None) -> Response:
        """Make a request and read its answer to the end."""
        running_loop()
        began = time.monotonic()
        total = call.timeout.total
        trail = Trail(call.request_id)
        answer: Answer | None = None
        response: Response | None = None
        with trail:
            try:
                async with asyncio.timeout(total) as limit:
                    total_of_call(limit)
                    answer = await self.open_stream(call, model, trail)
                    try:
                        response = await self._response(answer, call, began)
                    except BaseException as error:
                        answer.failure = error
                        raise
                    finally:
                        await answer.aclose()
                    return response
            except TimeoutError:
                if not limit.expired():
                    raise
            if response is not None:
                return response  # only the worker's place isn't given back yet, which the gateway sees to
            late = "its answer had not come to its end" if answer is not None else trail.waits_for
            raise DeadlineExceeded(
                f"{call.capability!r} did not finish within the {total} s allowed: {late}.",
                hint="Whether the work was done is unknown; timeout= allows it longer.",
                waited=total,
            )

    async def open_stream(self, call: Call, model: str | None, trail: Trail) -> Answer:
        """Make a request and return when the head of its answer is there."""
        trail.paid, trail.bill = call.paid, call.bill
        answer = await self._resolver.go(
            call.capability, model, "call", lambda route: self._opened(route, call), trail,
            max_price=call.max_price,
        )  # fmt: skip
        answer.most = self.most
        return answer

    async def open_live(self, call: LiveCall) -> Started:
        """Start a live session."""
        trail = Trail(call.request_id)
        trail.bill = call.bill
        with trail:
            return await self._resolver.go(
                call.capability, call.model, "live", lambda route: self._started(route, call), trail,
                max_price=call.max_price,
            )  # fmt: skip

    async def _opened(self, route: Route, call: Call) -> Answer:
        """The answer of a route, which counts as under way until it is closed."""
        with self._under_way(route) as ended:
            answer = await route.open(call)
        answer.on_end = ended
        return answer

    async def _started(self, route: Route, call: LiveCall) -> Started:
        """The session that a route starts, which counts as under way until it is stopped."""
        with self._under_way(route) as ended:
            started = await route.open_live(call)
        stop, counted = started.stop, [ended]

        async def stopped() -> None:
            if counted:
                counted.pop()()
            await stop()

        started.stop = stopped
        return started

    @contextlib.contextmanager
    def _under_way(self, route: Route) -> Iterator[Callable[[], None]]:
        """Count a place as taken, until what this gives is called, or the block fails."""
        records, place = self._resolver.records, route.place
        records.began(place)
        try:
            yield lambda: records.ended(place)
        except BaseException:
            records.ended(place)
            raise

    async def capabilities(self) -> list[Capability]:
        """Everything that the configured places have."""
        running_loop()
        from ._survey import survey

        return await survey(self._resolver, self._pool)

    async def explain(
        self, capability: str, model: str | None, verb: Verb, max_price: Price | None
    ) -> Explanation:
        """Every candidate for a call, and what stands for and against it."""
        running_loop()
        from ._explaining import explain

        return await explain(self._resolver, capability, model, verb, max_price)

    async def check(self, *, sign: bool) -> Diagnosis:
        """What works of the configuration."""
        running_loop()
        from ._doctor import diagnose

        return await diagnose(self._config, self._pool, self._resolver, sign=sign)

    async def schema(
        self, capability: str, model: str | None, *, pay: bool, max_price: Price | None, timeout: Timeout
    ) -> dict[str, Any]:
        """A capability's JSON Schema."""
        running_loop()
        from ._schema import schema

        try:
            async with asyncio.timeout(timeout.total) as limit:
                return await schema(
                    self, self._resolver, self._pool,
                    capability=capability, model=model, pay=pay, max_price=max_price, timeout=timeout,
                    request_id=request_id(),
                )  # fmt: skip
        except TimeoutError:
            if not limit.expired():
                raise
        raise DeadlineExceeded(
            f"The schema of {capability!r} did not come within the {timeout.total} s allowed.",
            hint="timeout= allows it longer.",
            waited=timeout.total,
        )

    async def _response(self, answer: Answer, call: Call, began: float) -> Response:
        """The whole of an answer."""
        response = answer.response
        data = await self._result(answer, call)
        return Response(
            data=data,
            content_type=answer.content_type,
            headers=response.headers,
            status=response.status,
            orchestrator=answer.orchestrator,
            app=answer.app,
            price=answer.price,
            cost=call.bill.cost,
            elapsed=time.monotonic() - began,
            request_id=call.request_id,
        )

    async def _result(self, answer: Answer, call: Call) -> Any:
        """The value of an answer: its body decoded, or all events of a stream."""
        response = answer.response
        media_type = response.content_type
        if media_type != "text/event-stream":
            body = bytearray()
            while chunk := await _piece(answer, call, _from_now(call.timeout.idle)):
                body += chunk
                answer.check_size(len(body))
                if response.content.at_eof():
                    break
            content = bytes(body)
            return decode(content, answer.restore_type(content), response.charset)
        events: list[StreamEvent] = []
        decoder = answer.decoder()
        quiet_until = _from_now(call.timeout.idle)
        size = 0
        while not decoder.done:
            chunk = await _piece(answer, call, quiet_until)
            size += len(chunk)
            answer.check_size(size)
            found = decoder.feed(chunk) if chunk else decoder.finish()
            found, failure = until_error(found, call.capability, answer.orchestrator)
            failure = failure or decoder.failure
            if failure is not None:
                raise failure
            events += found
            if found:
                quiet_until = _from_now(call.timeout.idle)  # comments and halves of events end no silence
            if not chunk:
                break
        return events


def _from_now(seconds: float | None) -> float | None:
    """A time of the loop's clock; None for never."""
    return None if seconds is None else asyncio.get_running_loop().time() + seconds


async def _piece(answer: Answer, call: Call, quiet_until: float | None) -> bytes:
    """The next bytes of an answer's body as they come; nothing at its end."""
    response = answer.response
    if quiet_until is None:
        async with answer.paying():
            with translated(response.url, request_id=call.request_id):
                return await response.content.readany()
    try:
        async with asyncio.timeout_at(quiet_until) as limit, answer.paying():
            with translated(response.url, request_id=call.request_id):
                return await response.content.readany()
    except TimeoutError:
        if not limit.expired():
            raise
    idle = call.timeout.idle
    raise IdleTimeout(
        f"{call.capability!r} paused in the middle of its answer for more than {idle} s.", waited=idle
    )
