"""Writing a trickle channel: one POST for each segment, one after the other."""

from __future__ import annotations

import asyncio
import logging
import time

from ._wire import BROKEN, Endpoint, connection_error
from .errors import ChannelNotFound, TrickleError
from .protocol import EXPECT_CONTENT, backoff
from .segment_writer import Line, SegmentWriter
from .transport import Transport

__all__ = ["TricklePublisher"]

_logger = logging.getLogger("livepeer.trickle")
_ATTEMPTS = 4
_BURST = 3  # segments after the first that may go out at once, which the server's ring has room for
_LINGER = 0.25  # seconds in which readers can fetch the rest before the server forgets it


class TricklePublisher:
    """Writes the segments of one channel, in order, on the event loop where it is first used.

    Args:
        url: The channel's URL.
        transport: The HTTP session to use; the publisher makes and closes its own when absent.
        mime_type: The content type; readers see that of the channel's creation.
        start: The number of the first segment. When absent the server is asked for the next one, which is
            0 on a fresh channel.
        pace: Seconds between two segments of `write`, on average over more than four of them. The server
            keeps five and waits for nobody, so a reader whose request is scheduled some milliseconds late
            loses segments that come faster. 0 is for readers who say themselves what they have.

    Used as an async context manager it closes the channel at the end.
    """

    def __init__(
        self,
        url: str,
        *,
        transport: Transport | None = None,
        mime_type: str = "application/octet-stream",
        start: int | None = None,
        pace: float = 0.005,
    ) -> None:
        self._line = Line(Endpoint(url, transport), mime_type, start)
        self.url: str = self._line.url
        self.mime_type = mime_type
        self._lock = asyncio.Lock()
        self._pace = pace
        self._due = float("-inf")  # when the next segment of `write` may go out
        self._closed = False

    @property
    def seq(self) -> int:
        """The number of the next segment (0 while the server was not asked)."""
        return self._line.seq

    async def create(self) -> None:
        """Make the channel at a server which lets clients do that; an orchestrator only says if it exists.

        Raises:
            ChannelNotFound: There is no such channel, and the server makes none.
            TrickleConnectionError: The server can't be reached.
        """
        status = await self._simple("POST", {EXPECT_CONTENT: self.mime_type})
        if status != 200:
            raise ChannelNotFound(f"The server makes no channel {self.url} (status {status}).")

    def segment(self) -> SegmentWriter:
        """The next segment, to be written piece by piece: an async context manager.

        Raises:
            TrickleError: The segment before is still open; they are written one after the other.
        """
        if self._closed:
            raise TrickleError(f"The publisher of {self.url} is closed.")
        if self._line.current is not None:
            raise TrickleError(
                f"Segment {self._line.current.seq} of {self.url} is still open; close it before the next one."
            )
        return SegmentWriter(self._line)

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
            await self._turn()
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

    async def close(self, *, delete: bool = True, linger: float = _LINGER) -> None:
        """Finish the open segment, wait for its answer, and end the channel.

        Args:
            delete: Whether to end the channel for everybody; otherwise it only isn't written any more.
            linger: Seconds between the last answer and the end, at which the server forgets every segment,
                also those that a reader has not fetched yet.

        Raises what the last segment's answer says, if it says that data was lost.
        """
        if self._closed:
            return
        try:
            for segment in self._line.open():
                await segment.close()
            left = self._line.answered_at + linger - time.monotonic()
            if delete and left > 0:
                await asyncio.sleep(left)
        finally:
            self._closed = True
            try:
                if delete:
                    await self._delete()
            finally:
                await self._line.endpoint.aclose()

    async def abort(self) -> None:
        """Let go of the channel at once: the open segment is broken off, nothing is deleted."""
        self._closed = True
        for segment in self._line.open():
            await segment.abort()
        await self._line.endpoint.aclose()

    async def __aenter__(self) -> TricklePublisher:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if kind is not None and self._line.current is not None:
            await self._line.current.abort()
        await self.close(linger=0.0 if kind is not None else _LINGER)

    async def _turn(self) -> None:
        now = time.monotonic()
        self._due = max(self._due + self._pace, now - _BURST * self._pace)
        if self._due > now:
            await asyncio.sleep(self._due - now)

    async def _delete(self) -> None:
        try:
            status = await self._simple("DELETE")
        except TrickleError as error:
            _logger.debug("the end of %s was not said: %s", self.url, error)
        else:
            _logger.debug("DELETE %s: %d", self.url, status)

    async def _simple(self, method: str, headers: dict[str, str] | None = None) -> int:
        exchange = self._line.endpoint.start(method, "", headers, b"" if method == "POST" else None)
        try:
            await exchange.finish()
        except BROKEN as error:
            raise connection_error(method, self.url, error) from error
        return exchange.status
