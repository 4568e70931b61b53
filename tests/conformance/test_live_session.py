"""A live session that works: nothing is lost in a burst or at the end, and its figures tell what happened."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Iterator
from typing import Any

import av
import numpy as np
import pytest
from aiohttp import WSMsgType, web
from harness import Network, Worker, until
from live_harness import FPS, BareWorker, WorkerProcess, encoded, number_of, picture

from livepeer.client import CapabilityError, Gateway, OrchestratorError, SessionEnded
from livepeer.trickle import ChannelReader, TLSPolicy, Transport
from livepeer.trickle.media import AudioFrame


@pytest.fixture(scope="module")
def passing(network: Network) -> Iterator[str]:
    """A worker that gives every frame back: its app."""
    with WorkerProcess(network) as process:
        yield process.app


@pytest.fixture
async def gateway(network: Network) -> AsyncIterator[Gateway]:
    async with Gateway(orch_url=network.url) as gw:
        yield gw


async def test_a_burst_of_control_messages(gateway: Gateway, passing: str) -> None:
    """Written without a pause: a worker of this SDK gets all of them, in order."""
    async with gateway.live(passing) as session:
        for number in range(300):
            await session.control.write({"n": number})
        got = []
        async for event in session.events:
            if "n" in event:
                got.append(event["n"])
            if event.get("n") == 299:
                break
        assert got == list(range(300))
        stats = session.stats()
        assert (stats.control.frames, stats.control.bytes > 2000) == (300, True)
        assert (stats.events.dropped, stats.events.missed) == (0, 0)
        assert stats.events.bytes > 2000


async def test_control_messages_for_any_worker(gateway: Gateway, worker: Worker) -> None:
    """Each in a segment of its own, and no faster than a worker some way off can read them."""
    bare = await BareWorker(worker).register()
    async with Transport(tls=TLSPolicy("insecure")) as transport, gateway.live(bare.app) as session:
        got = []

        async def read() -> None:
            async with ChannelReader(bare.inner["control"], transport=transport) as reader:
                async for message in reader:
                    got.append(message)
                    await asyncio.sleep(0.03)

        reading = asyncio.create_task(read())
        await asyncio.gather(*(session.control.write(number) for number in range(20)))
        await until(lambda: len(got) == 20)
        assert got == list(range(20))
        await session.close()
        await reading


@pytest.mark.parametrize("reads", [True, False], ids=["reading", "not reading"])
async def test_the_last_event_is_read(gateway: Gateway, passing: str, reads: bool) -> None:
    """What the worker says when its input is over, after every frame was processed."""
    async with gateway.live(passing, params={"delay": 0.01}) as session:
        if reads:
            reading = asyncio.create_task(read_all(session))
            await asyncio.sleep(0)
        publish = session.publish(fps=FPS)
        for number in range(25):
            await publish.write_frame(picture(number))
        await session.close(drain=30)
    events = [event async for event in session.events]
    assert events == [{"type": "begun"}, {"type": "stopped", "frames": 25}]
    if reads:
        assert await reading == list(range(25))


async def read_all(session: Any) -> list[int | None]:
    return [number_of(frame) async for frame in session.subscribe().frames(drop=None)]


async def test_update_and_figures(gateway: Gateway, passing: str) -> None:
    async with gateway.live(passing) as session:
        assert session.stats().lag is None
        assert session.stats().latency is None
        reading = asyncio.create_task(read_all(session))
        await asyncio.sleep(0)
        publish = session.publish(fps=FPS)
        for number in range(30):
            await publish.write_frame(picture(number))
            await asyncio.sleep(1 / FPS)
        await session.update({"delay": 0.3})
        async for event in session.events:
            if event.get("type") == "params":
                assert event["delay"] == 0.3
                break
        for number in range(30, 36):
            await publish.write_frame(picture(number))
        await until(lambda: (session.stats().lag or 0) > 0.05)
    assert await reading == list(range(36))
    stats = session.stats()
    assert (stats.media_in.frames, stats.media_out.frames) == (36, 36)
    assert stats.media_in.bytes > 5000
    assert stats.media_out.bytes > 5000
    assert (stats.media_in.dropped, stats.media_in.lost, stats.media_out.lost) == (0, 0, 0)
    assert stats.lag == 0
    assert stats.latency is not None
    assert stats.latency.frames == 36
    assert 0 < stats.latency.p50 <= stats.latency.p95 <= stats.latency.max
    assert stats.latency.max > 0.3


async def test_sound_alone_is_drained(gateway: Gateway, passing: str) -> None:
    async with gateway.live(passing) as session:
        output = session.subscribe()
        pieces = []

        async def read() -> None:
            async for piece in output.frames("audio", drop=None):
                pieces.append(piece)

        reading = asyncio.create_task(read())
        publish = session.publish(gop=0.2)
        tone = np.sin(np.arange(48_000) * 0.05).astype(np.float32) * 0.3
        for start in range(0, 48_000, 4800):
            await publish.write_frame(AudioFrame.from_array(tone[start : start + 4800], 48_000))
    await reading
    assert sum(piece.samples for piece in pieces) >= 48_000
    stats = session.stats()
    assert stats.media_out.audio >= stats.media_in.audio > 40


async def test_packets_and_bytes_are_drained(gateway: Gateway, passing: str) -> None:
    segments = await encoded(2)
    async with gateway.live(passing) as session:
        reading = asyncio.create_task(read_all(session))
        await asyncio.sleep(0)
        publish = session.publish()
        for segment in segments:
            for start in range(0, len(segment), 1316):
                await publish.write_bytes(segment[start : start + 1316])
    assert await reading == list(range(60))

    async with gateway.live(passing) as session:  # the same frames once more, as packets
        reading = asyncio.create_task(read_all(session))
        await asyncio.sleep(0)
        publish = session.publish()
        with av.open(io.BytesIO(b"".join(segments)), format="mpegts") as container:
            for packet in container.demux(video=0):
                if packet.size:
                    await publish.write_packet(packet)
    assert await reading == list(range(60))


async def application(worker: Worker) -> tuple[str, dict[str, asyncio.Event]]:
    """An HTTP application behind a session, which notes when a caller leaves."""
    left = {"request": asyncio.Event(), "socket": asyncio.Event(), "asked": asyncio.Event()}

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read(), content_type=request.content_type)

    async def fail(request: web.Request) -> web.Response:
        return web.json_response({"error": "teapot"}, status=418)

    async def wait(request: web.Request) -> web.Response:
        left["asked"].set()
        try:
            await asyncio.sleep(60)
        finally:
            left["request"].set()
        return web.Response()

    async def socket(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            if message.type == WSMsgType.BINARY:
                await ws.send_bytes(message.data[::-1])
        left["socket"].set()
        return ws

    worker.routes.add_post("/echo", echo)
    worker.routes.add_get("/fail", fail)
    worker.routes.add_get("/wait", wait)
    worker.routes.add_get("/ws", socket)
    return (await worker.register(mode="persistent"))["app"], left


async def test_requests_and_sockets(gateway: Gateway, worker: Worker) -> None:
    """Bytes both ways; a worker's error with its status; and a caller who leaves is noticed by the worker."""
    app, left = await application(worker)
    async with gateway.live(app) as session:
        body = bytes(range(256)) * 5000
        answer = await session.request("POST", "/echo", input=body)
        assert answer.data == body
        with pytest.raises(CapabilityError) as failed:
            await session.request("GET", "/fail")
        assert failed.value.status == 418
        assert failed.value.request_id == session.request_id

        asking = asyncio.create_task(session.request("GET", "/wait"))
        await left["asked"].wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(left["request"].wait(), 30)

        async with session.websocket("/ws") as ws:
            await ws.send_bytes(b"abc" * 10_000)
            assert await ws.receive_bytes() == b"cba" * 10_000

        async def talk() -> None:
            async with session.websocket("/ws") as ws:
                await ws.receive()

        left["socket"].clear()
        talking = asyncio.create_task(talk())
        await asyncio.sleep(0.2)
        talking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await talking
        await asyncio.wait_for(left["socket"].wait(), 30)

        with pytest.raises(CapabilityError, match="instead of opening a WebSocket"):
            async with session.websocket("/fail"):
                pass
    with pytest.raises((OrchestratorError, SessionEnded)):
        await session.request("GET", "/fail")
