"""One HTTP/1.1 connection, which carries one exchange after the other; httptools parses the answers."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import httptools

from ._exchange import Exchange, MalformedAnswer
from ._fields import Fields
from ._sockets import is_stale

if TYPE_CHECKING:
    from ._connections import Connections, Origin

__all__ = ["Connection"]

_WRITE_AHEAD = 256 * 1024  # bytes of a request that wait for the connection
_MAX_HEAD = 256 * 1024  # bytes without an end of the headers in them
_MAX_FIELD = 64 * 1024  # bytes of one header


class Connection(asyncio.BufferedProtocol):
    """One connection of a pool: idle, or with exchanges, of which the first one is being answered.

    What comes is read into the buffer that all connections of the pool have in common: it is parsed before
    anything else is read, and asyncio's own way makes an object of 256 KiB for each read.
    """

    def __init__(self, pool: Connections, origin: Origin) -> None:
        self.origin: Origin = origin
        self.idle_since: float = 0.0
        self.is_full: bool = False
        self.certificate: bytes | None = None
        self._pool = pool
        self._transport: Any = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._exchanges: deque[Exchange] = deque()  # the first is the one being answered
        self._fields: list[tuple[str, str]] = []
        self._head_size = 0
        self._until_eof = False
        self._reading_paused = False
        self._used = False
        self._answered = False  # something of the present answer came

    @property
    def is_open(self) -> bool:
        """Whether it can carry an exchange."""
        return self._transport is not None and not self._transport.is_closing()

    def begin(self, exchange: Exchange) -> None:
        """Carry an exchange: send what it has. The one before is written to its end, if not answered."""
        if not self._exchanges:
            self._expect_answer()
        self._exchanges.append(exchange)
        exchange.attach(self)

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes."""
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def resume_reading(self) -> None:
        """The reader took what waited."""
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once, without TLS's goodbye, which would wait for the peer's."""
        if self._transport is not None:
            self._transport.abort()

    def hang_up(self, reason: Exception) -> None:
        """The same in the midst of exchanges, which fail for this reason."""
        for exchange in self._exchanges:
            exchange.fail(reason)
        self.abort()

    def is_stale(self) -> bool:
        """Whether the peer has closed it, or said what nobody asked for, which the loop may not have seen."""
        return is_stale(self._transport)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = transport
        self._transport.set_write_buffer_limits(high=_WRITE_AHEAD)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        exchanges, self._exchanges = self._exchanges, deque()
        again: Exchange | None = None
        for exchange in exchanges:
            exchange.detach()
            if self._until_eof and error is None:
                exchange.on_end()
            elif self._used and not self._answered and exchange.replay is not None and not exchange.error:
                # The server had closed it while it was idle, or after the answer before.
                self._pool.restart(exchange, after=again)
                again = exchange
            else:
                exchange.fail(error or ConnectionResetError("the server closed the connection"))
            self._until_eof = False
        self._parser = None
        self._pool.forget(self)

    def pause_writing(self) -> None:
        """The connection is slower than the writer."""
        self.is_full = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self.is_full = False
        for exchange in self._exchanges:
            exchange.wake()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._pool.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        if not self._exchanges:
            self.abort()  # nobody asked
            return
        self._answered = True
        try:
            self._parser.feed_data(self._pool.buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._refuse(f"the answer is no HTTP ({error.__context__ or error})")
            return
        if self._exchanges and not self._exchanges[0].status:
            self._head_size += nbytes
            if self._head_size > _MAX_HEAD:
                self._refuse("the answer's headers have no end")

    def _expect_answer(self) -> None:
        self._answered, self._head_size, self._until_eof = False, 0, False

    def _refuse(self, reason: str) -> None:
        self.hang_up(MalformedAnswer(reason))

    # What httptools calls

    def on_message_begin(self) -> None:
        """The first byte of an answer is there. One that nobody asked for must not be the next one's."""
        if not self._exchanges:
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is there."""
        if len(value) > _MAX_FIELD:
            raise ValueError("one of its headers is too long")
        self._fields.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """All headers are there."""
        status = self._parser.get_status_code()
        fields, self._fields = self._fields, []
        if status < 200:  # provisional, which a server sends to keep an idle connection alive
            return
        headers = Fields(fields)
        self._until_eof = "Content-Length" not in headers and "Transfer-Encoding" not in headers
        if self._exchanges:
            exchange = self._exchanges[0]
            exchange.on_head(status, headers)
            if exchange.bodyless:  # the parser would wait for what the headers announce
                self._exchanges.popleft()
                exchange.detach()
                exchange.on_end()
                self.abort()

    def on_body(self, data: bytes) -> None:
        """A part of the body is there."""
        if self._exchanges and self._exchanges[0].on_body(data) and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The answer is complete, or a provisional one."""
        if not self._exchanges or not self._exchanges[0].status:
            return
        exchange = self._exchanges.popleft()
        exchange.detach()
        exchange.on_end()
        self.resume_reading()
        self._used = True
        if self._exchanges:
            self._expect_answer()
        if not exchange.request_ended or exchange.alone or not self._parser.should_keep_alive():
            self.abort()
        elif not self._exchanges:
            self._pool.release(self)
