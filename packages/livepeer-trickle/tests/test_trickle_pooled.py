"""Which connection a request goes over: an idle one that its server hasn't closed, or one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator

import aiohttp
import pytest

from livepeer.trickle import Transport
from livepeer.trickle.transport import ConnectFailed

Post = Callable[..., Awaitable[str]]
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Counts connections and requests; each connection takes as many requests as `most`, and is closed then.

    In a thread, so that it goes on while the client's event loop is blocked. `extra` follows an answer.
    """

    def __init__(self) -> None:
        self.most = 1000
        self.extra = b""
        self.answering = True
        self.connections: list[int] = []
        self.closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        workers = []
        with contextlib.suppress(OSError):
            while True:
                opened, _ = self._listener.accept()
                self.connections.append(0)
                workers.append(threading.Thread(target=self._serve, args=(opened, len(self.connections) - 1)))
                workers[-1].start()
        for worker in workers:
            worker.join()

    def _serve(self, opened: socket.socket, number: int) -> None:
        with opened, contextlib.suppress(OSError):
            opened.settimeout(30)
            while self.connections[number] < self.most and opened.recv(65536):
                self.connections[number] += 1
                if not self.answering:
                    break
                opened.sendall(ANSWER + self.extra)
        self.closed.set()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(30)


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.stop()


@pytest.fixture(params=["send", "request"])
def post(request: pytest.FixtureRequest) -> Post:
    """A POST of one byte, each way in which a transport sends it."""

    async def post(transport: Transport, url: str, *, fresh: bool = False) -> str:
        if request.param == "send":
            async with await transport.send("POST", url, body=b"x", fresh=fresh) as reply:
                return (await reply.read()).decode()
        async with transport.request("POST", url, data=b"x", fresh=fresh) as response:
            return str(await response.text())

    return post


async def test_what_the_server_closed_while_nobody_looked_is_not_used(server: Server, post: Post) -> None:
    server.most = 1
    async with Transport() as transport:
        for number in range(3):
            server.closed.clear()
            assert await post(transport, server.url) == "ok"
            assert server.closed.wait(30)  # the event loop doesn't run meanwhile
            assert server.connections == [1] * (number + 1)


async def test_what_nobody_asked_for_is_not_read_as_the_next_answer(server: Server, post: Post) -> None:
    server.extra = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    async with Transport() as transport:
        assert await post(transport, server.url) == "ok"
        assert await post(transport, server.url) == "ok"


@pytest.mark.parametrize("cut", [1, 20, 45])
async def test_what_comes_in_the_midst_of_nothing_is_not_read_either(server: Server, cut: int) -> None:
    """Half an answer behind an answer, in the same packet; the rest behind the next one."""
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    server.extra = evil[:cut]
    async with Transport() as transport:
        for _ in range(2):
            async with await transport.send("POST", server.url, body=b"x") as reply:
                assert (reply.status, await reply.read()) == (200, b"ok")
        assert server.connections == [1, 1]


async def test_a_post_that_was_sent_is_never_sent_again(server: Server, post: Post) -> None:
    async with Transport() as transport:
        assert await post(transport, server.url) == "ok"
        server.answering = False
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await post(transport, server.url)
        assert server.connections == [2], "the connection was good until the request was there"
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await post(transport, server.url)
        assert server.connections == [2, 1]


async def test_a_fresh_connection_is_nobody_elses(server: Server, post: Post) -> None:
    async with Transport() as transport:
        for _ in range(2):
            assert await post(transport, server.url) == "ok"
        for _ in range(2):
            assert await post(transport, server.url, fresh=True) == "ok"
        assert await post(transport, server.url) == "ok"
        assert server.connections == [3, 1, 1]
        answers = await asyncio.gather(*(post(transport, server.url, fresh=True) for _ in range(4)))
        assert answers == ["ok"] * 4
        assert server.connections == [3, 1, 1, 1, 1, 1, 1]


async def test_a_body_that_goes_on_with_no_http_ends_in_an_error() -> None:
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await asked.wait()
        writer.write(b"no size\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server, Transport() as transport, transport.request("GET", url) as answer:
        assert await answer.content.readany() == b"ok"
        asked.set()
        async with asyncio.timeout(30):
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.content.readany()


async def test_who_reads_a_body_learns_that_this_side_is_closed() -> None:
    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(begin, "127.0.0.1", 0) as started:
        transport = Transport()
        url = f"http://127.0.0.1:{started.sockets[0].getsockname()[1]}/"
        async with transport.request("GET", url) as response:
            assert await response.content.readexactly(5) == b"begun"
            reading = asyncio.ensure_future(response.content.readany())
            await asyncio.sleep(0)
            await transport.aclose()
            with pytest.raises(aiohttp.ClientConnectionError, match="closed on this side"):
                await asyncio.wait_for(reading, 30)


async def test_a_connection_that_was_made_ahead_carries_its_request(server: Server) -> None:
    async with Transport() as transport:
        for large in (b"x", b"x" * 300_000):
            ahead = transport.ahead(server.url)
            while len(server.connections) < 1 + (len(large) > 1):
                await asyncio.sleep(0.01)
            async with await transport.send("POST", server.url, body=large, fresh=True, ahead=ahead) as reply:
                assert await reply.read() == b"ok"
        assert len(server.connections) == 2
        at_once = transport.ahead(server.url)
        async with await transport.send("POST", server.url, body=b"x", fresh=True, ahead=at_once) as reply:
            assert await reply.read() == b"ok"
        assert len(server.connections) == 3


async def test_one_that_was_made_ahead_and_is_no_good_is_replaced(server: Server) -> None:
    other = Server()
    async with Transport() as transport:
        elsewhere = transport.ahead(other.url)
        while not other.connections:
            await asyncio.sleep(0.01)
        closed = transport.ahead(server.url)
        closed.close()
        other.most = 0
        for ahead in (elsewhere, closed):
            async with await transport.send("POST", server.url, body=b"x", fresh=True, ahead=ahead) as reply:
                assert await reply.read() == b"ok"
        assert server.connections.count(1) == 2
        assert other.connections == [0]
        given_up = transport.ahead(server.url)
        given_up.close()
    other.stop()


async def test_one_ahead_to_where_nobody_is_says_that_nothing_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    async with Transport() as transport:
        ahead = transport.ahead(url)
        while ahead.error is None:
            await asyncio.sleep(0.01)
        with pytest.raises(ConnectFailed):
            await transport.send("POST", url, body=b"x", fresh=True, ahead=ahead)
        with pytest.raises(ConnectFailed):
            await transport.send("POST", url, body=b"x", fresh=True, ahead=transport.ahead(url))
