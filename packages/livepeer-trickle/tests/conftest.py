"""Fixtures: a server of our own, a wire that can be cut, a transport. Real sockets, all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from livepeer.trickle import Transport, TrickleServer


class Wire:
    """A TCP proxy before a server, which can be cut and refused, and remembers what went through."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.connections = 0
        self.sent = bytearray()  # from clients to the server
        self._target = target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    def url(self, url: str) -> str:
        return url.replace(f":{self._target}", f":{self.port}")

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Refuse new connections and cut the present ones, until `start`."""
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Cut every connection with a reset."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            await asyncio.gather(
                self._pump(reader, far_writer, self.sent), self._pump(far_reader, writer, None)
            )
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray | None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if record is not None:
                    record += data
                writer.write(data)
                await writer.drain()
        writer.transport.abort() if record is None else None

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        tasks = [t for t in asyncio.all_tasks() if getattr(t.get_coro(), "__qualname__", "") == "Wire._serve"]
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def server() -> AsyncIterator[TrickleServer]:
    async with TrickleServer.serve() as running:
        yield running


@pytest.fixture
async def wire(server: TrickleServer) -> AsyncIterator[Wire]:
    port = int(server.url.split(":")[2].split("/")[0])
    proxy = Wire(port)
    await proxy.start()
    yield proxy
    await proxy.aclose()


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport() as made:
        yield made


@pytest.fixture
def certificate() -> Callable[[str], Path]:
    """The path of one of two self-signed certificates, as orchestrators make them: ``a`` or ``b``."""
    return lambda name: Path(__file__).parent / "certs" / f"{name}.pem"


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Wait until something is so."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture
async def left_over() -> Callable[[], set[str]]:
    """The names of the tasks that were begun since the test began and are not done."""
    before = asyncio.all_tasks()
    return lambda: {
        task.get_name()
        for task in asyncio.all_tasks() - before
        if task.get_name().startswith(("trickle-post", "trickle-get", "livepeer"))
    }
