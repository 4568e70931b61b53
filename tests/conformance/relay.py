"""A TCP relay before a network: what lies between two real peers, and can be cut, held and refused."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Self
from urllib.parse import urlsplit

__all__ = ["Relay"]


class Relay:
    """Passes bytes to a server, TLS or not, until the test has other plans.

    Args:
        url: A URL of the server.
        idle: Seconds without a byte in either direction after which a connection is cut, as proxies do.
    """

    def __init__(self, url: str, *, idle: float | None = None) -> None:
        parts = urlsplit(url)
        self._target = parts.hostname, parts.port
        self._idle = idle
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.opened = 0
        self.cuts = 0

    def url(self, url: str) -> str:
        """The same URL, by way of the relay."""
        parts = urlsplit(url)
        return parts._replace(netloc=f"{parts.hostname}:{self.port}").geturl()

    def cut(self) -> None:
        """Cut every connection with a reset."""
        self.cuts += len(self._serving)
        for end in self._ends:
            end.transport.abort()

    def hold(self) -> None:
        """Let no byte pass in either direction until `flow`, as a dead link does."""
        self._flowing.clear()

    def flow(self) -> None:
        """Let bytes pass again."""
        self._flowing.set()

    async def refuse(self) -> None:
        """Cut what is connected and refuse what wants to be, until `listen`."""
        assert self._server is not None
        self._server.close()
        self.cut()

    async def listen(self) -> None:
        """Take connections (again)."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.flow()
        await self.refuse()
        while self._serving:
            self.cut()
            await asyncio.wait(self._serving, timeout=0.1)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        serving = asyncio.ensure_future(self._serve(reader, writer))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        self._ends |= ends
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            ends.add(far_writer)
            self._ends |= ends
            for end in ends:
                _reset_at_close(end)
            idle = _Idle(self._idle, ends)
            pumps = self._pump(reader, far_writer, idle), self._pump(far_reader, writer, idle)
            await asyncio.gather(*pumps)
            idle.stop()
            self.cuts += idle.over
        except OSError:
            pass  # the server is gone
        finally:
            self._ends -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: _Idle) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                idle.touch()
                writer.write(data)
                await writer.drain()
        idle.cut()  # one direction is over: so is the other


class _Idle:
    """Cuts a connection which was silent for so long."""

    def __init__(self, seconds: float | None, ends: set[asyncio.StreamWriter]) -> None:
        self.over = False
        self._seconds = seconds
        self._ends = ends
        self._timer: asyncio.TimerHandle | None = None
        self.touch()

    def touch(self) -> None:
        """A byte passed."""
        self.stop()
        if self._seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire)

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    def cut(self) -> None:
        """Cut it."""
        for end in self._ends:
            end.transport.abort()

    def _expire(self) -> None:
        self.over = True
        self.cut()


def _reset_at_close(writer: asyncio.StreamWriter) -> None:
    """A link that breaks says no goodbye."""
    made: socket.socket = writer.get_extra_info("socket")
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
