"""One HTTP/1.1 request and its answer, whatever connection carries them.

A live session makes a request for each message and each group of pictures, and reads long answers in small
pieces: here each costs a few callbacks, no task, and no object of a general client.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._fields import Fields
from ._sockets import CONNECT_PATIENCE

if TYPE_CHECKING:
    from ._connection import Connection
    from ._connections import Origin

__all__ = ["ConnectFailed", "ConnectTimedOut", "Exchange", "ExchangeClosed", "MalformedAnswer"]

_NONE = Fields()
_READ_AHEAD = 256 * 1024  # bytes of an answer that wait for their reader before the connection is paused
_MAX_REST = 64 * 1024  # bytes of an answer's body that are worth reading to keep its connection
_PIECE = 256 * 1024  # bytes of a request's body that are written at once


class ConnectFailed(ConnectionError):
    """No connection was made, so the server can't have seen a byte of the request."""


class ConnectTimedOut(ConnectFailed):
    """The time for it passed."""


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
        on_answer: Called when the answer's headers are there.
        origin: The server.
        patience: Seconds that a connection may take; None is any number.
        alone: Whether its connection is closed with its end.
        bodyless: Whether its answer has no body, whatever its headers say (HEAD).
    """

    __slots__ = (
        "_began",
        "_chunks",
        "_connection",
        "_discarding",
        "_feeding",
        "_followers",
        "_loop",
        "_sink",
        "_size",
        "_unsent",
        "_waiters",
        "alone",
        "answered_at",
        "bodyless",
        "complete",
        "connecting",
        "error",
        "headers",
        "on_answer",
        "origin",
        "patience",
        "replay",
        "request_ended",
        "status",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, origin: Origin, *, replay: bytes | None) -> None:
        self.status: int = 0
        self.headers: Fields = _NONE
        self.error: Exception | None = None
        self.complete: bool = False
        self.request_ended: bool = replay is not None
        self.replay: bytes | None = replay
        self.connecting: asyncio.Task[None] | None = None
        self.answered_at: float | None = None
        self.on_answer: Callable[[], object] | None = None
        self.origin: Origin = origin
        self.patience: float | None = CONNECT_PATIENCE
        self.alone: bool = False
        self.bodyless: bool = False
        self._loop = loop
        self._began = loop.time()
        self._connection: Connection | None = None
        self._unsent: list[bytes | memoryview] = []
        self._chunks: deque[bytes] = deque()
        self._sink: Callable[[bytes], bool] | None = None
        self._size = 0
        self._discarding = False
        self._waiters: list[asyncio.Future[None]] = []
        self._followers: list[Exchange] = []
        self._feeding: asyncio.Task[None] | None = None

    @property
    def lifetime(self) -> float:
        """Seconds from the request to its answer or its failure, or until now."""
        return (self.answered_at or self._loop.time()) - self._began

    @property
    def waiting(self) -> int:
        """How many bytes of the answer wait for their reader."""
        return self._size

    @property
    def at_eof(self) -> bool:
        """Whether the answer is complete and was read to its end."""
        return self.complete and not self._chunks

    @property
    def loop_is_closed(self) -> bool:
        """Whether its event loop is over, and its connection with it."""
        return self._loop.is_closed()

    def is_untouched(self, origin: Origin, age: float) -> bool:
        """Whether it was begun at this server, at most `age` seconds ago, and nobody said anything yet."""
        if self.origin is not origin or self.status or self.error is not None or self.complete:
            return False
        fine = self._connection is None or (self._connection.is_open and not self._connection.is_stale())
        return fine and self._loop.time() - self._began < age

    # The request

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes, or keep them until there is a connection."""
        if self._connection is not None:
            self._connection.write(data)
        elif self.error is None:
            self._unsent.append(data)

    def end(self) -> None:
        """The request was written to its end; its connection can be used again after the answer."""
        self.request_ended = True

    def follow(self, exchange: Exchange) -> bool:
        """Send another request on this one's connection before the answer is there (pipelining).

        Returns:
            Whether that can be: this request was written to its end, and is not answered.
        """
        if not self.request_ended or self.complete or self.error is not None:
            return False
        if self._connection is None:
            self._followers.append(exchange)  # until it is connected
        elif self._connection.is_open:
            self._connection.begin(exchange)
        else:
            return False
        return True

    def feed(self, body: bytes) -> None:
        """Write the rest of a request, as fast as the connection takes it; its answer may come meanwhile."""
        self._feeding = self._loop.create_task(self._feed(body), name="trickle-feed")

    async def _feed(self, body: bytes) -> None:
        rest = memoryview(body)
        for start in range(0, len(rest), _PIECE):
            while self.is_full and not (self.complete or self.error):
                await self._change()
            if self.complete or self.error:
                return
            self.write(rest[start : start + _PIECE])
        self.end()

    @property
    def is_full(self) -> bool:
        """Whether the connection takes no more for now, or isn't there yet."""
        return self._connection is None or self._connection.is_full

    async def drain(self) -> None:
        """Wait until the connection takes more, or the answer or an error is there."""
        while not (self.status or self.error) and self.is_full:
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

    async def relay(self, sink: Callable[[bytes], bool]) -> None:
        """Hand the body to `sink` the moment it comes, outside of any task.

        Returns when `sink` returned False, when bytes wait to be read, at the end, or when there is an error.
        """
        self._sink = sink
        try:
            while self._sink is not None and not (self._chunks or self.complete or self.error is not None):
                await self._change()
        finally:
            self._sink = None

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
        if self._feeding is not None:
            self._feeding.cancel()
        if self.connecting is not None:
            self.connecting.cancel()
        if self._connection is not None:
            self._connection.abort()

    def discard(self) -> None:
        """Nobody wants the answer any more, but others follow on the connection: let it pass by."""
        self._discarding, self.on_answer = True, None
        self._chunks.clear()
        self._size = 0
        if self._connection is not None and self.status:
            self._connection.resume_reading()

    # What connections tell

    def attach(self, connection: Connection) -> None:
        """The connection is there: send what waited for it."""
        self._connection, self.connecting = connection, None
        unsent, self._unsent = b"".join(self._unsent), []
        connection.write(unsent)
        followers, self._followers = self._followers, []
        for exchange in followers:
            connection.begin(exchange)
        self.wake()

    def detach(self) -> None:
        """The connection is gone, or carries something else from now on."""
        self._connection = None

    def on_head(self, status: int, headers: Fields) -> None:
        """The answer's headers are there."""
        self.answered_at = self._loop.time()
        self.status, self.headers = status, headers
        if self.on_answer is not None:
            self.on_answer()
        self.wake()

    def on_body(self, data: bytes) -> bool:
        """Bytes of the body are there; whether too many of them wait now."""
        if self._sink is not None and not self._chunks:
            if not self._sink(data):
                self._sink = None
                self.wake()
            return False
        if self._discarding:
            return False
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
            for exchange in self._followers:
                exchange.fail(error)
            self._followers.clear()
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
