"""Live sessions: real video through a real runner, control, events, and ends that lose nothing."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import av
import numpy as np
import pytest
from harness import Network, Worker, until

from livepeer.client import ConfigurationError, Gateway, SessionEnded
from livepeer.devkit.demo import numbers

WIDTH, HEIGHT, FPS = 640, 360, 30


def picture(number: int) -> av.VideoFrame:
    """A frame with its number drawn into it, over a gradient."""
    array = np.zeros((HEIGHT * 3 // 2, WIDTH), np.uint8)
    array[:HEIGHT] = np.linspace(40, 200, WIDTH, dtype=np.uint8)
    array[HEIGHT:] = 128
    numbers.draw(array[:HEIGHT], number)
    return av.VideoFrame.from_ndarray(array, format="yuv420p")


async def write_frames(session: Any, count: int, *, realtime: bool = False) -> None:
    publish = session.publish(fps=FPS)
    for number in range(count):
        await publish.write_frame(picture(number))
        if realtime:
            await asyncio.sleep(1 / FPS)


async def read_numbers(session: Any) -> list[int | None]:
    found = []
    async for frame in session.subscribe().frames(drop=None):
        luma = frame.raw.reformat(format="yuv420p").to_ndarray()[:HEIGHT]
        found.append(numbers.read(luma))
    return found


async def test_every_frame_comes_back(gateway: Gateway) -> None:
    """Written faster than real time, and all of them come back, the first and the last included."""
    async with gateway.live("video-filter", params={"effect": "invert"}) as session:
        reading = asyncio.create_task(read_numbers(session))
        await write_frames(session, 90)
    assert await reading == list(range(90))


async def test_frames_in_real_time_come_back_at_once(gateway: Gateway) -> None:
    async with gateway.live("video-filter", params={"effect": "none"}) as session:
        reading = asyncio.create_task(read_numbers(session))
        await write_frames(session, 60, realtime=True)
        await until(lambda: session.stats().media_out.frames >= 55)
    assert await reading == list(range(60))
    stats = session.stats()
    assert (stats.media_in.frames, stats.media_out.frames, stats.media_in.dropped) == (60, 60, 0)


async def test_control_changes_the_picture_and_events_say_so(gateway: Gateway) -> None:
    async with gateway.live("video-filter", params={"effect": "none"}) as session:
        publish, frames = session.publish(fps=FPS), session.subscribe().frames(drop=None)
        number = 0

        async def brightness() -> float:
            """Of the right edge, far from the drawn number."""
            nonlocal number
            await publish.write_frame(picture(number))
            number += 1
            frame = await anext(frames)
            return float(frame.array[300:, 600:].mean())

        assert await brightness() > 150
        await session.control.write({"effect": "invert"})
        seen = []
        async for event in session.events():
            seen.append(event.get("effect"))
            if event.get("effect") == "invert":
                break
        assert seen[0] == "none"
        async with asyncio.timeout(20):
            while await brightness() > 100:
                pass


async def test_a_session_is_over_at_both_ends(gateway: Gateway, samples: Network) -> None:
    session = await gateway.live("video-filter")
    assert session.status == "live"
    assert session.manifest_id
    assert session.orchestrator == samples.url
    await session.close()
    assert session.status == "ended"
    with pytest.raises(SessionEnded):
        await session.control.write({})
    with pytest.raises(SessionEnded):
        session.publish()
    await session.close()

    async def free() -> bool:
        listed = {c.name: c for c in await gateway.capabilities_async()}
        return listed["video-filter"].available == listed["video-filter"].capacity

    await until(free)


async def test_one_publisher_a_session(gateway: Gateway) -> None:
    async with gateway.live("video-filter") as session:
        publish = session.publish(fps=25)
        assert session.publish(fps=25) is publish
        with pytest.raises(ConfigurationError, match="fps"):
            session.publish(fps=30)


async def test_an_error_in_the_block_ends_the_session_and_goes_on(gateway: Gateway) -> None:
    session = gateway.live("video-filter")

    async def fail() -> None:
        async with session:
            await write_frames(session, 5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert session.status == "ended"


async def plain_application(worker: Worker) -> str:
    """An HTTP application with sessions and a WebSocket, and no channels."""
    from aiohttp import WSMsgType, web

    async def hello(request: web.Request) -> web.Response:
        return web.json_response({"path": request.path_qs, "body": (await request.read()).decode()})

    async def socket(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            if message.type == WSMsgType.TEXT:
                await ws.send_str(message.data[::-1])
        return ws

    worker.routes.add_route("*", "/hello", hello)
    worker.routes.add_get("/ws", socket)
    answer = await worker.register(mode="persistent")
    name: str = answer["app"]
    return name


async def test_a_plain_application_has_requests_and_websockets(gateway: Gateway, worker: Worker) -> None:
    app = await plain_application(worker)
    async with gateway.live(app) as session:
        response = await session.request("PUT", "/hello?a=b%20c", input={"x": 1})
        assert response.data == {"path": "/hello?a=b%20c", "body": '{"x":1}'}
        async with session.websocket("/ws") as ws:
            await ws.send_str("abc")
            assert await ws.receive_str() == "cba"
        with pytest.raises(ConfigurationError, match="no control channel"):
            await session.control.write({})
        with pytest.raises(ConfigurationError, match="takes no media"):
            session.publish()


async def test_a_start_that_is_given_up_is_finished_and_stopped(gateway: Gateway, worker: Worker) -> None:
    """Cancelled while the worker still opens its channels: the session is stopped once it is known."""
    from aiohttp import web

    asked, go_on = asyncio.Event(), asyncio.Event()

    async def live(request: web.Request) -> web.Response:
        asked.set()
        await go_on.wait()
        return web.json_response({"manifest_id": "m"})

    worker.routes.add_post("/live", live)
    app = (await worker.register(mode="persistent", capacity=1))["app"]
    opening = asyncio.create_task(gateway.live(app).__aenter__())
    await asked.wait()
    opening.cancel()
    await asyncio.sleep(0)
    assert not opening.done()  # it waits for the answer, for some seconds
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await opening

    async def free() -> bool:
        listed = {c.name: c for c in await gateway.capabilities_async()}
        return listed[app].available == 1

    await until(free)


@pytest.mark.parametrize("moment", range(0, 40, 3))
async def test_cancelling_the_opening_at_any_await_leaves_nothing(gateway: Gateway, moment: int) -> None:
    async def use() -> None:
        async with gateway.live("video-filter") as session:
            await session.control.write({"effect": "gray"})
            await asyncio.sleep(60)

    task = asyncio.create_task(use())
    for _ in range(moment):
        await asyncio.sleep(0.0005)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

    async def free() -> bool:
        listed = {c.name: c for c in await gateway.capabilities_async()}
        return listed["video-filter"].available == listed["video-filter"].capacity

    await until(free)
    await gateway.aclose()
    assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []
