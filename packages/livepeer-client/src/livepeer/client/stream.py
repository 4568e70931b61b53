"""Streams of events, asynchronous and synchronous; the second hands each read over to the loop thread."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from ._loop_thread import LoopThread
from .errors import (
    CapabilityError,
    ConfigurationError,
    DeadlineExceeded,
    IdleTimeout,
    LivepeerError,
    StreamError,
)
from .events import Decoder, StreamEvent
from .failover import Trail
from .payments.ledger import Bill
from .timeouts import Timeout, total_of_call

if TYPE_CHECKING:
    from .routes import Answer

__all__ = ["AsyncStreamResponse", "StreamResponse", "until_error"]

T = TypeVar("T")


class AsyncStreamResponse:
    """The events of a call, as they arrive.

    It can be awaited, entered (``async with``) and iterated (``async for``); whichever comes first opens it,
    and errors of opening raise there. It closes at its end, by `aclose`, by ``async with``, or when nothing
    refers to it any more. A read that is cancelled loses nothing: the next one goes on.

    Attributes:
        complete: Whether the stream came to its own end.
        metadata: What the network said beside the events. Through BYOC: ``"balance"``, the orchestrator's
            books on this caller in wei at the stream's end, and ``"x-metadata"``, the worker's header of
            that name. Empty on live runners.
        request_id: The id that goes with the request.
    """

    def __init__(
        self,
        opener: Callable[[Trail], Awaitable[Answer]],
        *,
        capability: str,
        timeout: Timeout,
        request_id: str,
        allow_incomplete: bool = False,
        bill: Bill | None = None,
    ) -> None:
        self.complete: bool = False
        self.metadata: dict[str, Any] = {}
        self.request_id: str = request_id
        self._opener = opener
        self._trail = Trail(request_id)
        self._capability = capability
        self._timeout = timeout
        self._allow_incomplete = allow_incomplete
        self._deadline: float | None = None
        self._answer: Answer | None = None
        self._decoder: Decoder | None = None
        self._bill = bill or Bill()
        self._pending: deque[StreamEvent] = deque()
        self._failure: LivepeerError | None = None
        self._over = False

    @property
    def orchestrator(self) -> str:
        """The URL of the orchestrator that answers; empty before the stream is open."""
        return self._answer.orchestrator if self._answer else ""

    @property
    def cost(self) -> int:
        """What was paid for it up to now, in wei; see `Response.cost`."""
        return self._bill.cost

    @property
    def content_type(self) -> str:
        """The media type of the body; empty before the stream is open."""
        return self._answer.content_type if self._answer else ""

    async def aclose(self) -> None:
        """Close the connection; the worker notices at once. Closing twice does nothing."""
        self._over = True
        self._failure = None
        self._pending.clear()
        if self._answer is not None:
            await self._answer.aclose()

    async def read_batch(self) -> list[StreamEvent]:
        """Wait for the next events and return all that came with one read; an empty list is the end."""
        with self._trail:
            return await self._next_batch()

    async def _next_batch(self) -> list[StreamEvent]:
        await self._open()
        if self._pending:
            batch = list(self._pending)
            self._pending.clear()
            return batch
        if not self._over:
            await self._read()
            return await self._next_batch()
        if self._failure is not None:
            raise self._failure
        return []

    async def __anext__(self) -> StreamEvent:
        if not self._pending:
            self._pending.extend(await self.read_batch())
        if not self._pending:
            raise StopAsyncIteration
        return self._pending.popleft()

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self

    def __await__(self) -> Generator[Any, None, AsyncStreamResponse]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> AsyncStreamResponse:
        with self._trail:
            await self._open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def _open(self) -> None:
        if self._answer is not None:
            return
        if self._over:
            raise ConfigurationError("This stream was closed before it was opened; make another.")
        from ._http import running_loop

        loop = running_loop()
        if self._timeout.total is not None:
            self._deadline = loop.time() + self._timeout.total
        self._answer = await self._before(self._deadline, self._opener(self._trail))
        self._decoder = self._answer.decoder()
        self.metadata = self._decoder.metadata
        weakref.finalize(self, _abandon, loop, self._answer).atexit = False
        if self._over:
            await self._answer.aclose()  # closed while it was opening

    async def _read(self) -> None:
        """Read until an event, the end or a limit; what came is pending then, whoever asks for it next."""
        assert self._decoder is not None
        assert self._answer is not None
        if self._answer.inherited:
            raise StreamError(
                "This stream was opened before a fork and belongs to the parent process.",
                hint="Open another one in the child; the gateway can be used there.",
            )
        idle = self._timeout.idle
        until = self._deadline
        if idle is not None:
            # Counted from here to the next event: comments and halves of events don't end the silence.
            quiet_until = asyncio.get_running_loop().time() + idle
            until = quiet_until if until is None else min(until, quiet_until)
        size = 0
        try:
            while True:
                chunk = await self._before(until, self._chunk())
                size += len(chunk)
                events = self._decoder.feed(chunk) if chunk else self._decoder.finish()
                events, failure = until_error(events, self._capability, self.orchestrator)
                self._pending.extend(events)
                if self._decoder.done or failure or not chunk:
                    self._conclude(failure)
                    await self._end()
                    return
                if events:
                    return
                self._answer.check_size(size)  # of one event, since a stream may be endless
        except LivepeerError as error:
            if self._over:
                return  # closed by its reader, in another task or thread
            self._answer.failure = error
            await self._end()
            raise

    def _conclude(self, failure: LivepeerError | None) -> None:
        """Note how the stream ended."""
        assert self._decoder is not None
        cut = self._decoder.incomplete
        if failure is None and not (cut and self._allow_incomplete):
            failure = self._decoder.failure
        if failure is not None:
            failure.orchestrator = failure.orchestrator or self.orchestrator
            failure.request_id = failure.request_id or self.request_id
        self.complete, self._failure = failure is None and not cut, failure
        assert self._answer is not None
        self._answer.failure = failure

    async def _chunk(self) -> bytes:
        from ._http import translated

        assert self._answer is not None
        response = self._answer.response
        async with self._answer.paying():
            with translated(response.url, orchestrator=self.orchestrator, request_id=self.request_id):
                return await response.content.readany()

    async def _end(self) -> None:
        self._over = True
        assert self._answer is not None
        await self._answer.aclose()

    async def _before(self, deadline: float | None, work: Awaitable[T]) -> T:
        """Await something until a time of the loop's clock; then raise the error that says what was late."""
        try:
            async with asyncio.timeout_at(deadline) as limit:
                total_of_call(limit)
                return await work
        except TimeoutError:
            if not limit.expired():
                raise
        details = {"orchestrator": self.orchestrator or None, "request_id": self.request_id}
        if deadline == self._deadline:
            late = "it had not come to its end" if self._answer is not None else self._trail.waits_for
            raise DeadlineExceeded(
                f"The stream of {self._capability!r} took longer than the {self._timeout.total} s allowed: "
                f"{late}.",
                waited=self._timeout.total,
                **details,
            )
        raise IdleTimeout(
            f"The stream of {self._capability!r} brought no event for {self._timeout.idle} s.",
            waited=self._timeout.idle,
            **details,
        )


class StreamResponse:
    """The events of a call, as they arrive, for synchronous code.

    It is open when `Gateway.stream` returns. It closes at its end, by `close`, by ``with``, or when nothing
    refers to it any more: ``for event in gw.stream(…)`` left by ``break`` closes at once, a stream with a
    name can be iterated further.
    """

    def __init__(self, inner: AsyncStreamResponse, thread: LoopThread) -> None:
        self._inner = inner
        self._thread = thread
        self._pending: deque[StreamEvent] = deque()

    @property
    def complete(self) -> bool:
        """Whether the stream came to its own end."""
        return self._inner.complete and not self._pending

    @property
    def metadata(self) -> dict[str, Any]:
        """What the network said beside the events; see `AsyncStreamResponse`."""
        return self._inner.metadata

    @property
    def request_id(self) -> str:
        """The id that went with the request."""
        return self._inner.request_id

    @property
    def orchestrator(self) -> str:
        """The URL of the orchestrator that answers."""
        return self._inner.orchestrator

    @property
    def cost(self) -> int:
        """What was paid for it up to now, in wei."""
        return self._inner.cost

    @property
    def content_type(self) -> str:
        """The media type of the body."""
        return self._inner.content_type

    def close(self) -> None:
        """Close the connection; the worker notices at once. Closing twice does nothing."""
        self._pending.clear()
        self._thread.run(self._inner.aclose)

    def __next__(self) -> StreamEvent:
        if not self._pending:
            try:
                self._pending.extend(self._thread.run(self._inner.read_batch))
            except KeyboardInterrupt:
                self.close()
                raise
        if not self._pending:
            raise StopIteration
        return self._pending.popleft()

    def __iter__(self) -> Iterator[StreamEvent]:
        return self

    def __enter__(self) -> StreamResponse:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def until_error(
    events: list[StreamEvent], capability: str, orchestrator: str
) -> tuple[list[StreamEvent], LivepeerError | None]:
    """The events before the worker's error event, and the error that it stands for.

    A worker that fails in mid-stream can't change its status any more; it sends an event of the type
    ``error`` with ``{"error": …}`` (`livepeer.runner` does, and so do the well-known model servers).
    """
    for index, event in enumerate(events):
        if event.event != "error":
            continue
        try:
            content = event.json()
        except LivepeerError:
            continue
        found = content.get("error") if isinstance(content, dict) else None
        if found is None:
            continue
        message = found.get("message", found) if isinstance(found, dict) else found
        data = event.data.encode() if isinstance(event.data, str) else event.data
        return events[:index], CapabilityError(
            f"{capability!r} failed in the middle of its stream: {message}.",
            status=200,
            body=data,
            content_type="application/json",
            orchestrator=orchestrator,
        )
    return events, None


def _abandon(loop: asyncio.AbstractEventLoop, answer: Answer) -> None:
    """Close the answer of a stream that was collected; any thread may be the one that collects it."""
    if not loop.is_closed():
        try:
            loop.call_soon_threadsafe(answer.abandon)
        except RuntimeError:
            return  # closed in between, and its connections with it
