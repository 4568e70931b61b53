"""Answers to the SDK's own questions that have no end, plain or packed: each ends at a fixed size.

What a worker answers to a call ends at `max_response_bytes` (see test_client_errors.py).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from livepeer.client import Gateway, NoOrchestratorError, ResponseError, Timeout, _bodies
from livepeer.client.routes import LiveCall
from livepeer.client.routes._byoc_live import start_stream

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode has no other way to share a module

from client_places import Asked, Place

LIMITS = Timeout(total=120)  # only for who would wait for ever
PACKED = zlib.compressobj(wbits=31)
BOMB = PACKED.compress(bytes(1 << 24)) + PACKED.flush(zlib.Z_SYNC_FLUSH)  # 16 MiB in 16 KiB
MORE = PACKED.compress(bytes(1 << 24)) + PACKED.flush(zlib.Z_SYNC_FLUSH)


class Endless:
    """An orchestrator, a service and a signer in one, of which one path never comes to an end."""

    def __init__(self, path: str, kind: str) -> None:
        self.path, self.kind = path, kind
        self.url = ""
        self.asked: collections.Counter[str] = collections.Counter()
        self.left = 0  # answers that somebody hung up on
        self.apps: list[dict[str, Any]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path] += 1
        if request.path == self.path:
            return await self._endless(request)
        match request.path:
            case "/discovery" | "/list" | "/discover-orchestrators":
                answer: Any = [{"address": self.url, "runners": self.apps}]
            case "/process/token":
                answer = {"available_capacity": 1}
            case "/apps/it/session":
                session = f"{self.url}/apps/it/session/s"
                answer = {"session_id": "s", "app_url": f"{session}/app", "control_url": session}
            case _:
                answer = {}
        return web.json_response(answer)

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        if self.kind == "packed":
            answer.headers["Content-Encoding"] = "gzip"
        await answer.prepare(request)
        try:
            await answer.write(BOMB if self.kind == "packed" else b'["')
            while True:
                await answer.write(MORE if self.kind == "packed" else b"x" * 65536)
        finally:
            self.left += 1


def runner(url: str, mode: str = "persistent", **fields: Any) -> dict[str, Any]:
    return {"url": f"{url}/apps/it/session", "app": "it", "mode": mode, **fields}


@pytest.fixture(params=["plain", "packed"])
async def endless(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Any]]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(path: str) -> Endless:
            made = Endless(path, request.param)
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", made.answer)
            server = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await server.setup()
            stack.push_async_callback(server.cleanup)
            await web.TCPSite(server, "127.0.0.1", 0).start()
            made.url = "http://{}:{}".format(*server.addresses[0][:2])
            return made

        yield start


async def hung_up(server: Endless) -> None:
    """The server was hung up on, so that nothing comes of it any more."""
    async with asyncio.timeout(60):
        while not server.left:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("place", "path"),
    [("orch_url", "/discovery"), ("discovery_url", "/list"), ("signer_url", "/discover-orchestrators")],
)
async def test_a_list(endless: Any, place: str, path: str) -> None:
    server = await endless(path)
    where = f"{server.url}/list" if place == "discovery_url" else server.url
    async with Gateway(**{place: where}) as gateway:
        with pytest.raises(NoOrchestratorError, match=r"more than \d+ bytes, or no end") as caught:
            await gateway.run_async("it", timeout=LIMITS)
        await hung_up(server)
    assert caught.value.rejections[0].where in where


async def test_a_job_token(endless: Any) -> None:
    server = await endless("/process/token")
    async with Gateway(orch_url=server.url) as gateway:
        with pytest.raises(NoOrchestratorError, match=r"job token .* bytes, or no end"):
            await gateway.run_async("it", timeout=LIMITS)
        await hung_up(server)
    assert "/process/request/it" not in server.asked


@pytest.mark.parametrize("path", ["/apps/it/session", "/apps/it/session/s/app/live"])
async def test_the_start_of_a_session(endless: Any, path: str) -> None:
    server = await endless(path)
    server.apps = [runner(server.url)]
    async with Gateway(orch_url=server.url) as gateway:
        with pytest.raises(ResponseError, match="bytes, or no end") as caught:
            await gateway.live("it")
        await hung_up(server)
    assert caught.value.request_id
    assert caught.value.orchestrator == server.url
    assert server.asked[path] == 1
    stops = server.asked["/apps/it/session/s/stop"]
    assert stops == (path != "/apps/it/session"), "what was reserved is given back"


async def test_the_reservation_of_a_call(endless: Any) -> None:
    server = await endless("/apps/it/session")
    server.apps = [runner(server.url)]
    async with Gateway(orch_url=server.url) as gateway:
        with pytest.raises(ResponseError, match="reservation of a session has more than"):
            await gateway.run_async("it", timeout=LIMITS)
        await hung_up(server)


async def test_the_start_of_a_job() -> None:
    """LV2V: its channels can't be known then, and nobody else is asked."""

    async def endless(_place: Place, asked: Asked) -> None:
        await asked.read()
        asked.writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
        while True:
            asked.writer.write(bytes(65536))
            await asked.writer.drain()

    first, second = await Place("lv2v", endless).start(), await Place("lv2v").start()
    async with Gateway(orch_url=[first.url, second.url]) as gateway:
        with pytest.raises(ResponseError, match="start of 'noop' has more than") as caught:
            await gateway.live("live-video-to-video", model="noop")
    assert caught.value.orchestrator == first.url
    assert (len(first.counted), len(second.counted)) == (1, 0)
    for place in (first, second):
        await place.stop()


@pytest.mark.parametrize("path", ["/ai/stream/start", "/ai/stream/stop"])
async def test_what_says_nothing_is_not_read(endless: Any, path: str) -> None:
    """Of a BYOC stream's start the headers count, and of a stop nothing: an endless body is left alone."""
    server = await endless(path)
    async with Gateway(orch_url=server.url) as gateway:
        started = await start_stream(server.url, "it", LiveCall("it", "r"), gateway._pool)
        assert started.urls
        await started.stop()
        await hung_up(server)
    assert server.asked["/ai/stream/start"] == server.asked["/ai/stream/stop"] == 1


async def test_a_schema(endless: Any) -> None:
    server = await endless("/schema.json")
    told = json.dumps({"livepeer": 1, "schema_url": f"{server.url}/schema.json"})
    server.apps = [runner(server.url, metadata=told, price_info={"price": 1, "unit": "seconds"})]
    async with Gateway(orch_url=server.url) as gateway:
        with pytest.raises(ResponseError, match=r"schema of 'it' .* bytes, or no end"):
            await gateway.schema_async("it")
        await hung_up(server)


async def test_what_a_session_is_asked(endless: Any) -> None:
    server = await endless("/apps/it/session/s/app/x")
    server.apps = [runner(server.url)]
    async with (
        Gateway(orch_url=server.url, max_response_bytes=100_000) as gateway,
        gateway.live("it") as session,
    ):
        with pytest.raises(ResponseError, match="more than 100000 bytes") as caught:
            await session.request("GET", "/x")
        assert "max_response_bytes" in str(caught.value)
        await hung_up(server)
        assert (await session.request("GET", "/y")).data == {}


async def test_the_limit_is_exact(endless: Any) -> None:
    server = await endless("/none")

    async def sized(request: web.Request) -> web.Response:
        return web.Response(body=bytes(int(request.query["size"])))

    app = web.Application()
    app.router.add_get("/", sized)
    other = web.AppRunner(app, access_log=None)
    await other.setup()
    await web.TCPSite(other, "127.0.0.1", 0).start()
    url = "http://{}:{}".format(*other.addresses[0][:2])
    async with Gateway(orch_url=server.url) as gateway:
        transport = await gateway._pool.transport()
        for size in (0, 1, 99_999, 100_000):
            async with transport.request("GET", f"{url}/?size={size}") as answer:
                assert len(await _bodies.whole(answer, 100_000, "It")) == size
        async with transport.request("GET", f"{url}/?size=100001") as answer:
            with pytest.raises(ResponseError, match="It has more than 100000 bytes"):
                await _bodies.whole(answer, 100_000, "It")
    await other.cleanup()
