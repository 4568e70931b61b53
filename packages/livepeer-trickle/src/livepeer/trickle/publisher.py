"""Writing a trickle channel: one POST for each segment, one after the other."""

from __future__ import annotations

import asyncio
import logging

from ._exchange import Exchange
from ._wire import BROKEN, Endpoint, connection_error, is_refused
from .errors import ChannelClosed, ChannelNotFound, TrickleError
from .protocol import EXPECT_CONTENT, Outcome, WriterState, backoff
from .transport import Transport

__all__ = ["SegmentWriter", "TricklePublisher"]

_logger = logging.getLogger("livepeer.trickle")
_GATHER = 64 * 1024  # bytes that go into one chunk, and that may wait for the connection
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
            status = await self._simple("DELETE")
        except TrickleError as error:
            _logger.debug("the end of %s was not said: %s", self.url, error)
        else:
            _logger.debug("DELETE %s: %d", self.url, status)

    async def _simple(self, method: str, headers: dict[str, str] | None = None) -> int:
        exchange = self._endpoint.start(method, "", headers, b"" if method == "POST" else None)
        try:
            await exchange.finish()
        except BROKEN as error:
            raise connection_error(method, self.url, error) from error
        return exchange.status

    async def _number(self) -> int:
        """The number of the segment that begins now."""
        if self._state.seq is None:
            exchange = self._endpoint.start("GET", "/next")
            try:
                body = await exchange.finish()
            except BROKEN as error:
                raise connection_error("GET", f"{self.url}/next", error) from error
            outcome = self._state.on_next(exchange.status, exchange.headers, body.decode("latin-1"))
            if outcome is not Outcome.DONE:
                raise self._error(outcome, "next", exchange.status)
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
        self._numbered = False
        self._pieces: list[bytes] = []
        self._waiting = 0  # bytes in `_pieces`
        self._sent = 0
        self._flushing: asyncio.Handle | None = None
        self._exchange: Exchange | None = None
        self._closed = False

    async def write(self, data: bytes) -> None:
        """Append bytes; returns when they are on their way, or when less than 64 KiB wait for the connection.

        What is written in one turn of the event loop travels together.

        Raises:
            ChannelNotFound: There is no such channel.
            ChannelClosed: The channel ended.
            TrickleError: The segment is lost; with `retryable` the next one may succeed.
        """
        if self._closed:
            raise TrickleError(f"Segment {self.seq} of {self._publisher.url} is closed.")
        if not data:
            return
        if not self._numbered:
            await self._begin()
        exchange = self._exchange
        if exchange is not None and (exchange.status or exchange.error):
            await self._settle(complete=False)
        self._pieces.append(data if type(data) is bytes else bytes(data))
        self._waiting += len(data)
        if self._waiting >= _GATHER:
            self._flush()
            await self._drain()
        elif self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_soon(self._flush)

    async def close(self) -> None:
        """End the segment and wait for the server's answer. Raises as `write` does."""
        if self._closed:
            return
        if not self._numbered:
            self._release()
            return
        exchange = self._exchange
        complete = exchange is None or not (exchange.status or exchange.error)
        if complete:
            self._flush(last=True)
        try:
            await self._settle(complete=complete)
        except asyncio.CancelledError:
            await self.abort()
            raise

    async def abort(self) -> None:
        """Break the segment off. Its readers wait until the next segment comes, which resets it."""
        if self._closed:
            return
        self._release()
        exchange = self._exchange
        if exchange is not None and not exchange.complete:
            self._publisher._state.on_break(self.seq, sent=self._sent > 0)
            exchange.close()

    async def send(self, data: bytes) -> None:
        """Write the whole segment and close it."""
        try:
            if not self._numbered:
                await self._begin()
            self._pieces.append(data if type(data) is bytes else bytes(data))
            self._waiting += len(data)
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

    async def _begin(self) -> None:
        try:
            self.seq = await self._publisher._number()
        except BaseException:
            self._release()
            raise
        self._numbered = True

    def _flush(self, *, last: bool = False) -> None:
        """Give what was written to the connection: as one chunk, or as the whole body of a small segment."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        pieces, size, publisher = self._pieces, self._waiting, self._publisher
        self._pieces, self._waiting = [], 0
        self._sent += size
        if self._exchange is None and last:
            self._exchange = publisher._endpoint.start(
                "POST", f"/{self.seq}", publisher._state.headers(publisher.mime_type), b"".join(pieces)
            )
            return
        framed = pieces
        if size:
            framed = [b"%x\r\n" % size, *pieces, b"\r\n0\r\n\r\n" if last else b"\r\n"]
        elif last:
            framed = [b"0\r\n\r\n"]
        if self._exchange is None:
            headers = publisher._state.headers(publisher.mime_type)
            self._exchange = publisher._endpoint.upload(f"/{self.seq}", headers, b"".join(framed))
        else:
            if last:
                self._exchange.end()
            self._exchange.write(b"".join(framed))

    async def _drain(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        await exchange.drain()
        if exchange.status or exchange.error:
            await self._settle(complete=False)

    async def _settle(self, *, complete: bool) -> None:
        """Take the server's answer, and raise what it means for the segment.

        Args:
            complete: Whether the body had been sent to its end before the answer came.
        """
        exchange, publisher = self._exchange, self._publisher
        assert exchange is not None
        try:
            await exchange.answer()
            if complete:
                await exchange.finish()
        except BROKEN as error:
            self._release()
            publisher._state.on_break(self.seq, sent=not is_refused(error))
            raise connection_error("POST", f"{publisher.url}/{self.seq}", error) from error
        exchange.close()
        self._release()
        outcome = publisher._state.on_answer(
            self.seq, exchange.status, exchange.headers, sent=self._sent, complete=complete
        )
        if outcome is not Outcome.DONE:
            raise publisher._error(outcome, self.seq, exchange.status)
        if not complete:
            raise TrickleError(f"Segment {self.seq} of {publisher.url} ended early.")

    def _release(self) -> None:
        self._closed = True
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._publisher._current is self:
            self._publisher._current = None
