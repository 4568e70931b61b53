from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from livepeer.devkit.network.orchestrator import Orchestrator

Register = Callable[..., Awaitable[dict[str, Any]]]
ServeWorker = Callable[[web.Application], Awaitable[str]]


@pytest.fixture
def call(
    orchestrator: Orchestrator, register: Register, serve_worker: ServeWorker
) -> Callable[..., Awaitable[str]]:
    """Serve a handler and return the address by which the orchestrator leads to it."""

    async def published(handler: Any) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = await register(await serve_worker(app))
        return f"{orchestrator.url}/apps/{runner['runner_id']}/app/"

    return published


async def used(http: aiohttp.ClientSession, orchestrator: Orchestrator) -> int:
    async with http.get(f"{orchestrator.url}/discovery") as answer:
        return sum(runner["capacity_used"] for runner in (await answer.json())[0]["runners"])


async def test_events_are_passed_on_one_by_one(call: Any, http: aiohttp.ClientSession) -> None:
    go_on = asyncio.Event()

    async def worker(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for number in range(3):
            await answer.write(f"data: {number}\n\n".encode())
            await go_on.wait()
            go_on.clear()
        return answer

    async with http.get(await call(worker)) as answer:
        for number in range(3):  # the next one is not written before this one was read
            assert await answer.content.readuntil(b"\n\n") == f"data: {number}\n\n".encode()
            go_on.set()
        assert await answer.content.read() == b""


async def test_an_upload_streams(call: Any, http: aiohttp.ClientSession) -> None:
    arrived = asyncio.Event()

    async def worker(request: web.Request) -> web.Response:
        first = await request.content.readany()
        arrived.set()
        return web.Response(body=first + await request.content.read())

    async def body() -> Any:
        yield b"first "
        await asyncio.wait_for(arrived.wait(), 20)
        yield b"second"

    async with http.post(await call(worker), data=body()) as answer:
        assert await answer.read() == b"first second"


@pytest.mark.parametrize("began", [False, True])
async def test_a_client_that_leaves_is_noticed_at_once(
    call: Any, http: aiohttp.ClientSession, orchestrator: Orchestrator, began: bool
) -> None:
    here, left = asyncio.Event(), asyncio.Event()

    async def worker(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        if began:
            await answer.prepare(request)
            await answer.write(b"x")
        here.set()
        try:
            await asyncio.sleep(60)
        finally:
            left.set()
        return answer

    url = await call(worker)
    request = asyncio.create_task(http.get(url).__aenter__())
    await asyncio.wait_for(here.wait(), 20)
    assert await used(http, orchestrator) == 1
    if began:
        (await request).close()
    else:
        request.cancel()
    await asyncio.wait_for(left.wait(), 20)
    async with asyncio.timeout(20):
        while await used(http, orchestrator):
            await asyncio.sleep(0)


@pytest.mark.parametrize("length", [None, 100_000, 100])
async def test_a_worker_that_dies_leaves_a_truncated_body(
    call: Any, http: aiohttp.ClientSession, orchestrator: Orchestrator, length: int | None
) -> None:
    async def worker(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        answer.content_length = length
        await answer.prepare(request)
        await answer.write(b"x" * (50 if length == 100 else 50_000))
        assert request.transport is not None
        request.transport.close()
        return answer

    url = await call(worker)
    if length == 100:  # Go still holds the head of so short an answer
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await http.post(url)
    else:
        async with http.get(url) as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
    assert await used(http, orchestrator) == 0


async def test_a_worker_that_is_not_there(
    orchestrator: Orchestrator, http: aiohttp.ClientSession, register: Register
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runner = await register(f"http://127.0.0.1:{port}")
    async with http.get(f"{orchestrator.url}/apps/{runner['runner_id']}/app/") as answer:
        assert answer.status == 502
        assert await answer.text() == f"dial tcp 127.0.0.1:{port}: connect: connection refused\n"


async def test_a_worker_that_hangs_up(call: Any, http: aiohttp.ClientSession) -> None:
    async def worker(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with http.post(await call(worker)) as answer:
        assert (answer.status, await answer.text()) == (502, "EOF\n")


@pytest.mark.parametrize("status", [201, 204, 302, 304, 404, 422, 500, 599])
async def test_statuses_and_headers_pass(call: Any, http: aiohttp.ClientSession, status: int) -> None:
    async def worker(request: web.Request) -> web.Response:
        headers = {"X-Thing": "1", "Keep-Alive": "5", "Location": "/elsewhere", "Set-Cookie": "a=b"}
        return web.Response(status=status, headers=headers)

    async with http.get(await call(worker), allow_redirects=False) as answer:
        assert answer.status == status
        assert answer.headers["X-Thing"] == "1"
        assert answer.headers["Location"] == "/elsewhere"
        assert answer.headers["Set-Cookie"] == "a=b"
        assert "Keep-Alive" not in answer.headers


async def test_gzip_is_asked_for_and_undone(call: Any, http: aiohttp.ClientSession) -> None:
    async def worker(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "gzip"
        return web.Response(body=gzip.compress(b"words " * 100), headers={"Content-Encoding": "gzip"})

    async with http.get(await call(worker), skip_auto_headers=["Accept-Encoding"]) as answer:
        assert "Content-Encoding" not in answer.headers
        assert await answer.read() == b"words " * 100


async def test_a_missing_type_is_guessed(call: Any, http: aiohttp.ClientSession) -> None:
    async def worker(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwords")
        request.transport.close()
        return web.Response()

    async with http.get(await call(worker)) as answer:
        assert (await answer.read(), answer.headers["Content-Type"]) == (
            b"words",
            "text/plain; charset=utf-8",
        )


async def test_a_refusal_comes_before_the_body(
    orchestrator: Orchestrator, http: aiohttp.ClientSession
) -> None:
    sent = []

    async def body() -> Any:
        sent.append(True)
        yield b"x" * 1_000_000

    url = f"{orchestrator.url}/apps/unknown/app/"
    async with http.post(url, data=body(), expect100=True) as answer:
        assert answer.status == 404
    assert not sent


async def test_websockets_both_ways(
    call: Any, http: aiohttp.ClientSession, orchestrator: Orchestrator
) -> None:
    closed: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def worker(request: web.Request) -> web.WebSocketResponse:
        peer = web.WebSocketResponse(protocols=["mine"])
        await peer.prepare(request)
        async for message in peer:
            if message.type is aiohttp.WSMsgType.TEXT:
                await peer.send_str(message.data[::-1])
            else:
                await peer.send_bytes(message.data[::-1])
        closed.set_result(peer.close_code)
        return peer

    url = await call(worker)
    async with http.ws_connect(url, protocols=["mine"], compress=15) as socket_:
        assert socket_.protocol == "mine"
        await socket_.send_str("hello")
        assert await socket_.receive_str() == "olleh"
        await socket_.send_bytes(b"x" * 300_000 + b"y")
        assert await socket_.receive_bytes() == b"y" + b"x" * 300_000
        assert await used(http, orchestrator) == 1
        await socket_.close(code=4001)
    assert await asyncio.wait_for(closed, 20) == 4001
    async with asyncio.timeout(20):
        while await used(http, orchestrator):
            await asyncio.sleep(0)


async def test_a_refused_websocket(call: Any, http: aiohttp.ClientSession) -> None:
    async def worker(request: web.Request) -> web.Response:
        return web.Response(status=403, text="not you")

    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(await call(worker))
    assert refused.value.status == 403
