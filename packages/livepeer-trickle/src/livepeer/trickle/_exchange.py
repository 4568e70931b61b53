"""One HTTP/1.1 request and its answer, and the connection under them, which carries one at a time.

A live session makes a request for each message and each group of pictures, and reads long answers in small
pieces: here each costs a few callbacks. httptools parses; what is sent is bytes that are made already.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import httptools
from multidict import CIMultiDict

if TYPE_CHECKING:
    from ._connections import Connections, Origin

__all__ = ["ConnectFailed", "Connection", "Exchange", "ExchangeClosed", "MalformedAnswer"]

_READ_AHEAD = 256 * 1024  # bytes of an answer that wait for their reader before the connection is paused
_WRITE_AHEAD = 256 * 1024  # bytes of a request that wait for the connection
_MAX_HEAD = 256 * 1024  # bytes without an end of the headers in them
_MAX_REST = 64 * 1024  # bytes of an answer's body that are worth reading to keep its connection


class ConnectFailed(ConnectionError):
    """No connection was made, so the server can't have seen a byte of the request."""


class MalformedAnswer(ConnectionError):
    """What came is no HTTP."""


class ExchangeClosed(ConnectionError):
    """This side gave the request up."""


class Exchange:
    """One request and its answer. `Connections.start` makes it, and has sent it, or is connecting.

    Attributes:
        status: The answer's status; 0 until it is there.
        headers: The answer's headers.
        error: Why the connection broke; None while it didn't.
        connected: Whether the server can have seen a byte of the request.
    """

    __slots__ = (
        "_began",
        "_chunks",
        "_connection",
        "_loop",
        "_size",
        "_unsent",
        "_waiters",
        "answered_at",
        "complete",
        "connected",
        "connecting",
        "error",
        "headers",
        "replay",
        "request_ended",
        "status",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, *, replay: bytes | None) -> None:
        self.status: int = 0
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.error: Exception | None = None
        self.connected = False
        self.complete = False
        self.request_ended = replay is not None
        self.replay = replay
        self.connecting: asyncio.Task[None] | None = None
        self.answered_at: float | None = None
        self._loop = loop
        self._began = loop.time()
        self._connection: Connection | None = None
        self._unsent: list[bytes] = []
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def lifetime(self) -> float:
        """Seconds from the request to its answer or its failure, or until now."""
        return (self.answered_at or self._loop.time()) - self._began

    # The request

    def write(self, data: bytes) -> None:
        """Send bytes, or keep them until there is a connection."""
        if self._connection is not None:
            self._connection.write(data)
        elif self.error is None:
            self._unsent.append(data)

    def end(self) -> None:
        """The request was written to its end; its connection can be used again after the answer."""
        self.request_ended = True

    async def drain(self) -> None:
        """Wait until the connection takes more, or the answer or an error is there."""
        while not (self.status or self.error) and (self._connection is None or self._connection.is_full):
            await self._change()

    # The answer

    async def answer(self) -> None:
        """Wait for the answer's headers; raises an `OSError` when the connection can't be made, or breaks."""
        while not self.status:
            if self.error is not None:
                raise self.error
            await self._change()

    async def readany(self) -> bytes:
        """The next bytes of the answer's body as they came; b"" at its end. Raises `OSError`."""
        chunks = self._chunks
        while not chunks:
            if self.complete:
                return b""
            if self.error is not None:
                raise self.error
            await self._change()
        data = chunks.popleft() if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._size = 0
        if self._connection is not None:
            self._connection.resume_reading()
        return data

    async def finish(self) -> bytes:
        """Wait for the whole of an answer, and return it; of a long one the beginning. Raises `OSError`."""
        body = b""
        try:
            await self.answer()
            while data := await self.readany():
                body += data
                if len(body) > _MAX_REST:
                    break
        finally:
            self.close()
        return body

    def close(self) -> None:
        """Give the exchange up, unless it is complete; nobody waits for it any more."""
        if self.complete or self.error is not None:
            return
        self.fail(ExchangeClosed("the request was given up"))
        if self.connecting is not None:
            self.connecting.cancel()
        if self._connection is not None:
            self._connection.abort()

    # What connections tell

    def attach(self, connection: Connection) -> bytes:
        """The connection is there: what is to be sent first."""
        self._connection, self.connected, self.connecting = connection, True, None
        unsent, self._unsent = b"".join(self._unsent), []
        self.wake()
        return unsent

    def detach(self) -> None:
        """The connection is gone, or carries something else from now on."""
        self._connection = None

    def on_head(self, status: int, headers: CIMultiDict[str]) -> None:
        """The answer's headers are there."""
        self.answered_at = self._loop.time()
        self.status, self.headers = status, headers
        self.wake()

    def on_body(self, data: bytes) -> bool:
        """Bytes of the body are there; whether too many of them wait now."""
        self._chunks.append(data)
        self._size += len(data)
        self.wake()
        return self._size >= _READ_AHEAD

    def on_end(self) -> None:
        """The answer is complete."""
        self.complete = True
        self.wake()

    def fail(self, error: Exception) -> None:
        """Nothing more comes."""
        if self.error is None and not self.complete:
            self.error = error
            self.answered_at = self.answered_at or self._loop.time()
            self._unsent.clear()
            self.wake()

    def wake(self) -> None:
        """Something changed."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter


class Connection(asyncio.Protocol):
    """One connection of a pool: idle, or with one exchange."""

    def __init__(self, pool: Connections, origin: Origin) -> None:
        self.origin = origin
        self.idle_since = 0.0
        self.is_full = False
        self._pool = pool
        self._transport: Any = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
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
        """Carry an exchange: send what it has."""
        self._exchange, self._answered, self._head_size, self._until_eof = exchange, False, 0, False
        self.write(exchange.attach(self))

    def write(self, data: bytes) -> None:
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

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = transport
        self._transport.set_write_buffer_limits(high=_WRITE_AHEAD)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.detach()
            if self._until_eof and error is None:
                exchange.on_end()
            elif self._used and not self._answered and exchange.replay is not None and not exchange.error:
                # The server had closed it while it was idle.
                self._pool.restart(self.origin, exchange)
            else:
                exchange.fail(error or ConnectionResetError("the server closed the connection"))
        self._parser = None
        self._pool.forget(self)

    def pause_writing(self) -> None:
        """The connection is slower than the writer."""
        self.is_full = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self.is_full = False
        if self._exchange is not None:
            self._exchange.wake()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        exchange = self._exchange
        if exchange is None:
            self.abort()  # nobody asked
            return
        self._answered = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._refuse(f"the answer is no HTTP ({error})")
            return
        if not exchange.status:
            self._head_size += len(data)
            if self._head_size > _MAX_HEAD:
                self._refuse("the answer's headers have no end")

    def _refuse(self, reason: str) -> None:
        if self._exchange is not None:
            self._exchange.fail(MalformedAnswer(reason))
        self.abort()

    # What httptools calls

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is there."""
        self._fields.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """All headers are there."""
        status = self._parser.get_status_code()
        fields, self._fields = self._fields, []
        if status < 200:  # provisional, which a server sends to keep an idle connection alive
            return
        headers = CIMultiDict(fields)
        self._until_eof = "Content-Length" not in headers and "Transfer-Encoding" not in headers
        if self._exchange is not None:
            self._exchange.on_head(status, headers)

    def on_body(self, data: bytes) -> None:
        """A part of the body is there."""
        if self._exchange is not None and self._exchange.on_body(data) and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The answer is complete, or a provisional one."""
        exchange = self._exchange
        if exchange is None or not exchange.status:
            return
        self._exchange = None
        exchange.detach()
        exchange.on_end()
        self.resume_reading()
        self._used = True
        if exchange.request_ended and self._parser.should_keep_alive():
            self._pool.release(self)
        else:
            self.abort()
