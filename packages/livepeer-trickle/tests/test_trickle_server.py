"""Our server, as go-livepeer's answers: seen with bare requests."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from livepeer.trickle import ChannelNotFound, Transport, TrickleServer


async def ask(transport: Transport, method: str, url: str, **options: Any) -> tuple[int, Any, bytes]:
    async with transport.request(method, url, **options) as response:
        return response.status, response.headers, await response.read()


async def test_write_and_read(server: TrickleServer, transport: Transport) -> None:
    url = server.channel_url("c")
    status, headers, body = await ask(
        transport, "POST", f"{url}/0", data=b"abc", headers={"Content-Type": "a/b"}
    )
    assert (status, headers["Lp-Trickle-Seq"], body) == (200, "0", b"")
    status, headers, body = await ask(transport, "GET", f"{url}/0")
    assert (status, headers["Lp-Trickle-Seq"], headers["Lp-Trickle-Latest"], body) == (200, "0", "1", b"abc")
    assert headers["Content-Type"] == "a/b"
    await ask(transport, "POST", f"{url}/1", data=b"d", headers={"Content-Type": "c/d"})
    assert (await ask(transport, "GET", f"{url}/1"))[1]["Content-Type"] == "a/b"  # the channel's


async def test_next(server: TrickleServer, transport: Transport) -> None:
    server.create("c")
    for seq in range(3):
        status, headers, body = await ask(transport, "GET", f"{server.channel_url('c')}/next")
        assert (status, headers["Lp-Trickle-Latest"], body) == (200, str(seq), str(seq).encode())
        assert server.publish("c", b"x") == seq


async def test_a_blocked_read_sends_nothing_until_the_first_byte(server: TrickleServer) -> None:
    server.create("c")
    host, port = server.url.split("/")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /ai/trickle/c/0 HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)
    server.publish("c", b"first")
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"200" in head
    assert b"Lp-Trickle-Latest" not in head  # absent for the head itself
    writer.close()
    await writer.wait_closed()


async def test_470_and_its_headers(server: TrickleServer, transport: Transport) -> None:
    server.create("c")
    for _ in range(7):
        server.publish("c", b"x")
    for seq in (1, 9):
        status, headers, body = await ask(transport, "GET", f"{server.channel_url('c')}/{seq}")
        assert (status, body) == (470, b"Entry not found")
        assert (headers["Lp-Trickle-Latest"], headers["Lp-Trickle-Seq"]) == ("7", str(seq))


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "nope/0", 404, b"Stream not found\n"),
        ("GET", "nope/next", 404, b"Stream not found\n"),
        ("POST", "nope", 404, b"Stream not found\n"),
        ("POST", "nope/0", 404, b"Stream not found\n"),
        ("DELETE", "nope", 400, b"Invalid stream\n"),
        ("DELETE", "nope/0", 404, b"Stream not found\n"),
        ("DELETE", "c/0", 400, b"Nonexistent segment\n"),
        ("DELETE", "c/x", 400, b"Invalid idx\n"),
        ("GET", "c/x", 400, b"Invalid idx\n"),
        ("POST", "c/x", 400, b"Invalid idx\n"),
        ("POST", "c", 200, b""),
        ("DELETE", "c", 200, b""),
    ],
)
async def test_statuses(transport: Transport, method: str, path: str, status: int, body: bytes) -> None:
    async with TrickleServer.serve(autocreate=False) as server:
        server.create("c")
        found, headers, text = await ask(transport, method, f"{server.url}/{path}")
        assert (found, text) == (status, body)
        # Go's http.Error: by these two a client knows whose answer it is.
        assert (headers.get("X-Content-Type-Options") == "nosniff") == (status >= 400)


@pytest.mark.parametrize(("method", "path"), [("GET", "c/-3"), ("POST", "c/-2"), ("DELETE", "c/-1")])
async def test_numbers_that_mean_nothing_drop_the_connection(
    server: TrickleServer, transport: Transport, method: str, path: str
) -> None:
    server.create("c")
    with pytest.raises((aiohttp.ClientConnectionError, ConnectionResetError)):
        await ask(transport, method, f"{server.url}/{path}")


async def test_create_takes_the_mime_type(server: TrickleServer, transport: Transport) -> None:
    url = server.channel_url("c")
    assert (await ask(transport, "POST", url, headers={"Expect-Content": "x/y"}))[0] == 200
    server.publish("c", b"x")
    assert (await ask(transport, "GET", f"{url}/0"))[1]["Content-Type"] == "x/y"


def waited_for(server: TrickleServer, seq: int) -> bool:
    """Whether a GET waits for this segment of channel "c"."""
    segment = server._channels["c"].segment(seq)
    return segment is not None and bool(segment._watchers)


async def test_the_end_reaches_who_waits_and_who_reads(
    server: TrickleServer, transport: Transport, until: Any
) -> None:
    server.create("c")
    url = server.channel_url("c")
    begun = asyncio.Event()

    async def half() -> Any:
        yield b"half"
        begun.set()
        await asyncio.Event().wait()

    writing = asyncio.create_task(ask(transport, "POST", f"{url}/0", data=half()))
    await begun.wait()
    reading = await transport.request("GET", f"{url}/0")
    waiting = asyncio.create_task(ask(transport, "GET", f"{url}/1"))
    assert await reading.content.readany() == b"half"
    await until(lambda: waited_for(server, 1))
    assert (await ask(transport, "DELETE", url))[0] == 200
    assert await reading.read() == b""  # a normal end
    status, headers, body = await waiting
    assert (status, headers["Lp-Trickle-Closed"], body) == (200, "terminated", b"")
    assert (await ask(transport, "GET", f"{url}/1"))[0] == 404 or server.autocreate
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_a_closed_segment_answers_early_and_swallows(
    server: TrickleServer, transport: Transport
) -> None:
    server.create("c")
    url = server.channel_url("c")
    server.publish("c", b"x")

    async def endless() -> Any:
        while True:
            yield b"y" * 1000
            await asyncio.sleep(0.001)

    async with transport.request("POST", f"{url}/0", data=endless()) as response:
        assert (response.status, response.headers["Connection"]) == (200, "close")
        assert response.headers["Lp-Trickle-Seq"] == "0"
        response.close()
    assert (await ask(transport, "GET", f"{url}/0"))[2] == b"x"


async def test_reset_closes_what_a_broken_writer_left_open(
    server: TrickleServer, transport: Transport
) -> None:
    server.create("c")
    url = server.channel_url("c")
    server._channels["c"].for_write(0).append(b"half")
    server._channels["c"].next_write = 1
    response = await transport.request("GET", f"{url}/0")
    assert await response.content.readany() == b"half"
    rest = asyncio.create_task(response.read())
    await ask(transport, "POST", f"{url}/1", data=b"new", headers={"Lp-Trickle-Reset": "1"})
    assert await rest == b""


async def test_closing_one_segment(server: TrickleServer, transport: Transport, until: Any) -> None:
    server.create("c")
    url = server.channel_url("c")
    waiting = asyncio.create_task(ask(transport, "GET", f"{url}/0"))
    await until(lambda: waited_for(server, 0))
    assert (await ask(transport, "DELETE", f"{url}/0"))[0] == 200
    status, headers, body = await waiting
    assert (status, body) == (200, b"")
    assert "Lp-Trickle-Closed" not in headers


async def test_a_waiting_writer_gets_provisional_answers(
    server: TrickleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livepeer.trickle.server._KEEPALIVE", 0.05)
    host, port = server.url.split("/")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /ai/trickle/c/0 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(2):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"1\r\nx\r\n0\r\n\r\n")
    while b"200" not in (head := await reader.readuntil(b"\r\n\r\n")):
        assert b"100" in head
    writer.close()
    await writer.wait_closed()


async def test_idle_channels_are_swept(until: Callable[..., Awaitable[None]]) -> None:
    closed: list[str] = []
    options = {"idle_timeout": 0.05, "sweep_interval": 0.02}
    async with TrickleServer.serve(on_close=closed.append, **options) as server, Transport() as transport:
        server.create("c")
        server.create("_internal")
        waiting = asyncio.create_task(ask(transport, "GET", f"{server.channel_url('c')}/0"))
        assert (await waiting)[1]["Lp-Trickle-Closed"] == "terminated"
        assert server.channel_names() == ["_internal"]
    assert closed == ["c", "_internal"]


async def test_a_reader_that_went_away_is_forgotten(
    server: TrickleServer, until: Callable[..., Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livepeer.trickle.server._TICK", 0.02)
    async with TrickleServer.serve() as other:
        other.create("c")
        host, port = other.url.split("/")[2].split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"GET /ai/trickle/c/0 HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: (s := other._channels["c"].segment(0)) is not None and s._watchers)
        segment = other._channels["c"].segment(0)
        assert segment is not None
        await until(lambda: not segment._watchers)


async def test_the_python_side() -> None:
    closed: list[str] = []
    server = TrickleServer(on_close=closed.append)
    with pytest.raises(ChannelNotFound, match="nope"):
        server.publish("nope", b"x")
    server.create("a")
    server.create("b")
    server.create("a")
    assert server.channel_names() == ["a", "b"]
    assert server.close_channel("a")
    assert not server.close_channel("a")
    assert closed == ["a"]


async def test_mounted_in_another_application(transport: Transport) -> None:
    server = TrickleServer(prefix="/elsewhere/")
    app = web.Application()
    server.add_routes(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.create("c")
        server.publish("c", b"x")
        base = f"http://127.0.0.1:{runner.addresses[0][1]}/elsewhere/c"
        assert (await ask(transport, "GET", f"{base}/0"))[2] == b"x"
    finally:
        await runner.cleanup()
    assert server.channel_names() == []
