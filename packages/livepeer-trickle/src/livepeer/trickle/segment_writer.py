"""The segments of a channel being written: each a POST whose body grows."""

from __future__ import annotations

import asyncio
import time

from ._exchange import Exchange
from ._wire import BROKEN, Endpoint, connection_error, is_refused
from .errors import ChannelClosed, ChannelNotFound, TrickleError
from .protocol import Outcome, WriterState

__all__ = ["Line", "SegmentWriter"]

_GATHER = 64 * 1024  # bytes that go into one chunk, and that may wait for the connection


class Line:
    """What the segments of one writer have in common: where they go, and which number is next."""

    def __init__(self, endpoint: Endpoint, mime_type: str, start: int | None) -> None:
        self.endpoint = endpoint
        self.url: str = endpoint.url
        self.mime_type = mime_type
        self.state: WriterState = WriterState(start)
        self.current: SegmentWriter | None = None
        self.unanswered: set[SegmentWriter] = set()
        """Segments that are finished, and not known to be at the server."""
        self.last: Exchange | None = None
        """The POST that was begun last."""
        self.answered_at: float = float("-inf")
        """The `time.monotonic` at which the server had the last segment."""
        self._seq = start or 0

    @property
    def seq(self) -> int:
        """The number of the next segment (0 while the server was not asked)."""
        return self._seq if self.state.seq is None else self.state.seq

    def open(self) -> list[SegmentWriter]:
        """The segments that wait for something, in the order of their numbers."""
        current = [] if self.current is None else [self.current]
        return sorted({*self.unanswered, *current}, key=lambda segment: segment.seq)

    async def number(self) -> int:
        """The number of the segment that begins now. Raises `TrickleError`."""
        if self.state.seq is None:
            exchange = self.endpoint.start("GET", "/next")
            try:
                body = await exchange.finish()
            except BROKEN as error:
                raise connection_error("GET", f"{self.url}/next", error) from error
            outcome = self.state.on_next(exchange.status, exchange.headers, body.decode("latin-1"))
            if outcome is not Outcome.DONE:
                raise self.error(outcome, "next", exchange.status)
        assert self.state.seq is not None
        self._seq = self.state.seq
        return self._seq

    def error(self, outcome: Outcome, segment: int | str, status: int) -> TrickleError:
        """The error for what became of a segment."""
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

    def __init__(self, line: Line) -> None:
        self._line = line
        line.current = self
        self.seq: int = line.seq
        self._numbered = False
        self._pieces: list[bytes] = []
        self._waiting = 0  # bytes in `_pieces`
        self._sent = 0
        self._flushing: asyncio.Handle | None = None
        self._exchange: Exchange | None = None
        self._finished = False
        self._closed = False

    async def write(self, data: bytes) -> None:
        """Append bytes; returns when they are on their way, or when less than 64 KiB wait for the connection.

        What is written in one turn of the event loop travels together.

        Raises:
            ChannelNotFound: There is no such channel.
            ChannelClosed: The channel ended.
            TrickleError: The segment is lost; with `retryable` the next one may succeed.
        """
        if self._closed or self._finished:
            raise TrickleError(f"Segment {self.seq} of {self._line.url} is closed.")
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

    def write_now(self, data: bytes) -> bool:
        """Give bytes to the connection at once, if that needs no waiting; else return False."""
        exchange = self._exchange
        if exchange is None or exchange.status or exchange.error or exchange.is_full:
            return False
        if self._closed or self._finished:
            return False
        self._pieces.append(data)
        self._waiting += len(data)
        self._flush()
        return True

    def finish(self) -> None:
        """End the segment without waiting for the server's answer, which `close` does later.

        The next segment can be written at once: it travels behind this one on the same connection, so its
        bytes can't come first, and a slow link costs no round trip between the two.
        """
        if self._closed or self._finished:
            return
        if not self._numbered:
            self._release()
            return
        exchange = self._exchange
        if exchange is None or not (exchange.status or exchange.error):
            self._flush(last=True)
            self._finished = True
            self._line.state.on_sent(self.seq)
        self._line.unanswered.add(self)
        if self._line.current is self:
            self._line.current = None

    async def close(self) -> None:
        """End the segment and wait for the server's answer. Raises as `write` does."""
        self.finish()
        if self._closed:
            return
        try:
            await self._settle(complete=self._finished)
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
            self._line.state.on_break(self.seq, sent=self._sent > 0)
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
            self.seq = await self._line.number()
        except BaseException:
            self._release()
            raise
        self._numbered = True

    def _flush(self, *, last: bool = False) -> None:
        """Give what was written to the connection: as one chunk, or as the whole body of a small segment."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        pieces, size, line = self._pieces, self._waiting, self._line
        self._pieces, self._waiting = [], 0
        self._sent += size
        if self._exchange is None and last:
            headers, body = line.state.headers(line.mime_type), b"".join(pieces)
            self._exchange = line.endpoint.start("POST", f"/{self.seq}", headers, body, after=line.last)
            line.last = self._exchange
            return
        framed = pieces
        if size:
            framed = [b"%x\r\n" % size, *pieces, b"\r\n0\r\n\r\n" if last else b"\r\n"]
        elif last:
            framed = [b"0\r\n\r\n"]
        if self._exchange is None:
            headers = line.state.headers(line.mime_type)
            self._exchange = line.endpoint.upload(f"/{self.seq}", headers, b"".join(framed), after=line.last)
            line.last = self._exchange
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
        exchange, line = self._exchange, self._line
        assert exchange is not None
        try:
            await exchange.answer()
            if complete:
                await exchange.finish()
        except BROKEN as error:
            self._release()
            line.state.on_break(self.seq, sent=not is_refused(error))
            raise connection_error("POST", f"{line.url}/{self.seq}", error) from error
        exchange.close()
        self._release()
        outcome = line.state.on_answer(
            self.seq, exchange.status, exchange.headers, sent=self._sent, complete=complete
        )
        if outcome is not Outcome.DONE:
            raise line.error(outcome, self.seq, exchange.status)
        if not complete:
            raise TrickleError(f"Segment {self.seq} of {line.url} ended early.")
        line.answered_at = time.monotonic()

    def _release(self) -> None:
        self._closed = True
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        self._line.unanswered.discard(self)
        if self._line.current is self:
            self._line.current = None
