"""Writing a trickle channel: one POST for each segment, one after the other."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from ._wire import BROKEN, Endpoint, connection_error, is_refused
from .errors import ChannelClosed, ChannelNotFound, LivepeerError, TrickleError
from .protocol import EXPECT_CONTENT, Outcome, WriterState, backoff
from .transport import Transport

__all__ = ["SegmentWriter", "TricklePublisher"]

_logger = logging.getLogger("livepeer.trickle")
_GATHER = 64 * 1024  # bytes that go into one chunk, and that may wait for the connection
_WHOLE = 512 * 1024  # aiohttp sends a larger body of one piece only under protest
_ATTEMPTS = 4


class TricklePublisher:
    """Writes the segments of one channel, in order, on the event loop where it is first used.

    Args:
        url: The channel's URL.
        transport: The HTTP session to use; the publisher makes and closes its own when absent.
        mime_type: The content type; readers see that of the channel's creation.
        start: The number of the first segment. When absent the server is asked for the next one, which is
            0 on a fresh channel.

    Used as an async context manager it closes the channel at the end.
    """

    def __init__(
        self,
        url: str,
        *,
        transport: Transport | None = None,
        mime_type: str = "application/octet-stream",
        start: int | None = None,
    ) -> None:
        self._endpoint = Endpoint(url, transport)
        self.url: str = self._endpoint.url
        self.mime_type = mime_type
        self._state = WriterState(start)
        self._seq = start or 0
        self._lock = asyncio.Lock()
        self._current: SegmentWriter | None = None
        self._closed = False

    @property
    def seq(self) -> int:
        """The number of the next segment (0 while the server was not asked)."""
        return self._seq if self._state.seq is None else self._state.seq

    async def create(self) -> None:
        """Make the channel at a server which lets clients do that; an orchestrator only says if it exists.

        Raises:
            ChannelNotFound: There is no such channel, and the server makes none.
            TrickleConnectionError: The server can't be reached.
        """
        status = await self._simple("POST", self.url, headers={EXPECT_CONTENT: self.mime_type})
        if status != 200:
            raise ChannelNotFound(f"The server makes no channel {self.url} (status {status}).")

    def segment(self) -> SegmentWriter:
        """The next segment, to be written piece by piece: an async context manager.

        Raises:
            TrickleError: The segment before is still open; they are written one after the other.
        """
        if self._closed:
            raise TrickleError(f"The publisher of {self.url} is closed.")
        if self._current is not None:
            raise TrickleError(
                f"Segment {self._current.seq} of {self.url} is still open; close it before the next one."
            )
        self._current = SegmentWriter(self)
        return self._current

    async def write(self, data: bytes) -> None:
        """Write one whole segment and wait until the server has it. Empty data writes nothing.

        A connection that breaks is made again and the segment written once more, under the next number
        if the server may have seen a part of it: a reader can then get the same data twice, never not at all.

        Raises:
            ChannelNotFound: There is no such channel.
            ChannelClosed: The channel ended.
            TrickleConnectionError: The server can't be reached.
        """
        if not data:
            return
        async with self._lock:
            for attempt in range(1, _ATTEMPTS + 1):
                segment = self.segment()
                try:
                    await segment.send(data)
                except TrickleError as error:
                    if not error.retryable or attempt == _ATTEMPTS:
                        raise
                    _logger.debug("writing segment %d of %s again: %s", segment.seq, self.url, error)
                else:
                    return
                await asyncio.sleep(backoff(attempt))

    async def close(self, *, delete: bool = True, linger: float = 0.0) -> None:
        """Finish the open segment, wait for its answer, and end the channel.

        Args:
            delete: Whether to end the channel for everybody; otherwise it only isn't written any more.
            linger: Seconds to wait before the end. The server forgets every segment at once, also those
                that a reader has not asked for yet.

        Raises what the last segment's answer says, if it says that data was lost.
        """
        if self._closed:
            return
        try:
            if self._current is not None:
                await self._current.close()
            if delete and linger > 0:
                await asyncio.sleep(linger)
        finally:
            self._closed = True
            try:
                if delete:
                    await self._delete()
            finally:
                await self._endpoint.aclose()

    async def abort(self) -> None:
        """Let go of the channel at once: the open segment is broken off, nothing is deleted."""
        self._closed = True
        if self._current is not None:
            await self._current.abort()
        await self._endpoint.aclose()

    async def __aenter__(self) -> TricklePublisher:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if kind is not None and self._current is not None:
            await self._current.abort()
        await self.close()

    async def _delete(self) -> None:
        try:
            status = await self._simple("DELETE", self.url)
        except TrickleError as error:
            _logger.debug("the end of %s was not said: %s", self.url, error)
        else:
            _logger.debug("DELETE %s: %d", self.url, status)

    async def _simple(self, method: str, url: str, **options: Any) -> int:
        try:
            async with self._endpoint.request(method, url, **options) as response:
                await response.read()
                status: int = response.status
                return status
        except BROKEN as error:
            raise connection_error(method, url, error) from error

    async def _number(self) -> int:
        """The number of the segment that begins now."""
        if self._state.seq is None:
            url = f"{self.url}/next"
            try:
                async with self._endpoint.request("GET", url) as response:
                    body = await response.text(errors="replace")
                    outcome = self._state.on_next(response.status, response.headers, body)
            except BROKEN as error:
                raise connection_error("GET", url, error) from error
            if outcome is not Outcome.DONE:
                raise self._error(outcome, "next", response.status)
        assert self._state.seq is not None
        self._seq = self._state.seq
        return self._seq

    def _error(self, outcome: Outcome, segment: int | str, status: int) -> TrickleError:
        where = f"segment {segment} of {self.url}"
        if outcome is Outcome.NOT_FOUND:
            return ChannelNotFound(f"Writing {where}: there is no such channel; it is over, or never was.")
        if outcome is Outcome.CLOSED:
            return ChannelClosed(f"Writing {where}: the channel was closed.")
        retryable = outcome in (Outcome.SWALLOWED, Outcome.BROKEN)
        return TrickleError(f"Writing {where}: {outcome.value} (status {status}).", retryable=retryable)


class SegmentWriter:
    """One segment being written; `TricklePublisher.segment` makes it.

    Its POST begins with the first byte: a segment into which nothing is written takes no number.
    Leaving the context by an exception breaks the segment off.
    """

    def __init__(self, publisher: TricklePublisher) -> None:
        self._publisher = publisher
        self.seq: int = publisher.seq
        self._pieces: deque[bytes] = deque()
        self._waiting = 0  # bytes in `_pieces`
        self._sent = 0
        self._ended = False
        self._complete = False  # the body was handed over to its end
        self._data = asyncio.Event()
        self._room = asyncio.Event()
        self._post: asyncio.Task[LivepeerError | None] | None = None
        self._closed = False

    async def write(self, data: bytes) -> None:
        """Append bytes; returns when they are on their way, or when less than 64 KiB wait for the connection.

        Raises:
            ChannelNotFound: There is no such channel.
            ChannelClosed: The channel ended.
            TrickleError: The segment is lost; with `retryable` the next one may succeed.
        """
        if self._closed:
            raise TrickleError(f"Segment {self.seq} of {self._publisher.url} is closed.")
        if not data:
            return
        await self._begin(None)
        await self._check()
        self._pieces.append(data)
        self._waiting += len(data)
        self._data.set()
        while self._waiting >= _GATHER:
            self._room.clear()
            await self._room.wait()
            await self._check()

    async def close(self) -> None:
        """End the segment and wait for the server's answer. Raises as `write` does."""
        if self._closed:
            return
        self._ended = True
        self._data.set()
        try:
            if self._post is not None:
                error = await self._post
                if error is not None:
                    raise error
        finally:
            self._release()

    async def abort(self) -> None:
        """Break the segment off. Its readers wait until the next segment comes, which resets it."""
        if self._post is not None:
            self._post.cancel()
            await asyncio.gather(self._post, return_exceptions=True)
        self._release()

    async def send(self, data: bytes) -> None:
        """Write the whole segment and close it."""
        try:
            await self._begin(data if len(data) <= _WHOLE else None)
            if len(data) > _WHOLE:
                view = memoryview(data)
                for start in range(0, len(data), _GATHER):
                    await self.write(bytes(view[start : start + _GATHER]))
        except BaseException:
            await self.abort()
            raise
        await self.close()

    async def __aenter__(self) -> SegmentWriter:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if kind is None:
            await self.close()
        else:
            await self.abort()

    async def _begin(self, whole: bytes | None) -> None:
        if self._post is None:
            try:
                self.seq = await self._publisher._number()
            except BaseException:
                self._release()
                raise
            self._post = asyncio.create_task(self._run(whole), name=f"trickle-post-{self.seq}")
            self._post.add_done_callback(lambda _: self._room.set())

    async def _check(self) -> None:
        """Raise what the server said in the middle of the segment."""
        if self._post is not None and self._post.done() and not self._closed:
            error = await self._post
            self._release()
            raise error or TrickleError(f"Segment {self.seq} of {self._publisher.url} ended early.")

    def _release(self) -> None:
        self._closed = True
        if self._publisher._current is self:
            self._publisher._current = None

    async def _body(self) -> AsyncIterator[bytes]:
        while True:
            if self._pieces:
                chunk = self._gather()
                self._sent += len(chunk)
                self._waiting -= len(chunk)
                if self._waiting < _GATHER:
                    self._room.set()
                yield chunk
            elif self._ended:
                self._complete = True
                return
            else:
                self._data.clear()
                await self._data.wait()

    def _gather(self) -> bytes:
        """The pieces that wait, up to `_GATHER` bytes of them, as one."""
        pieces, size = [self._pieces.popleft()], 0
        size = len(pieces[0])
        while self._pieces and size + len(self._pieces[0]) <= _GATHER:
            pieces.append(self._pieces.popleft())
            size += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _run(self, whole: bytes | None) -> LivepeerError | None:
        """Make the POST; returns the error instead of raising it, so that an unasked one makes no noise."""
        state, publisher, url = self._publisher._state, self._publisher, f"{self._publisher.url}/{self.seq}"
        if whole is not None:
            self._sent, self._complete = len(whole), True
        options = {
            "data": self._body() if whole is None else whole,
            "headers": state.headers(publisher.mime_type),
        }
        try:
            async with publisher._endpoint.request("POST", url, **options) as response:
                outcome = state.on_answer(
                    self.seq, response.status, response.headers, sent=self._sent, complete=self._complete
                )
                if self._complete:
                    await response.read()
                else:
                    response.close()
        except BROKEN as error:
            state.on_break(self.seq, sent=not is_refused(error))
            return connection_error("POST", url, error)
        except asyncio.CancelledError:
            state.on_break(self.seq, sent=self._sent > 0)
            raise
        return None if outcome is Outcome.DONE else publisher._error(outcome, self.seq, response.status)
