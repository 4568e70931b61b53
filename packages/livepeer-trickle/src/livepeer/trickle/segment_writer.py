"""One segment being written: a POST whose body grows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ._wire import BROKEN, connection_error, is_refused
from .errors import TrickleError
from .protocol import Outcome

if TYPE_CHECKING:
    from ._exchange import Exchange
    from .publisher import TricklePublisher

__all__ = ["SegmentWriter"]

_GATHER = 64 * 1024  # bytes that go into one chunk, and that may wait for the connection


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
            self._publisher._state.on_sent(self.seq)
        self._publisher._unanswered.add(self)
        if self._publisher._current is self:
            self._publisher._current = None

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
            headers, body = publisher._state.headers(publisher.mime_type), b"".join(pieces)
            self._exchange = publisher._endpoint.start(
                "POST", f"/{self.seq}", headers, body, after=publisher._last
            )
            publisher._last = self._exchange
            return
        framed = pieces
        if size:
            framed = [b"%x\r\n" % size, *pieces, b"\r\n0\r\n\r\n" if last else b"\r\n"]
        elif last:
            framed = [b"0\r\n\r\n"]
        if self._exchange is None:
            headers = publisher._state.headers(publisher.mime_type)
            self._exchange = publisher._endpoint.upload(
                f"/{self.seq}", headers, b"".join(framed), after=publisher._last
            )
            publisher._last = self._exchange
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
        self._publisher._unanswered.discard(self)
        if self._publisher._current is self:
            self._publisher._current = None
