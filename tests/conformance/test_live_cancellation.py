"""Cancelled anywhere, a live session leaves no task, no thread, no socket and no remote session behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import Network, until
from live_harness import FPS, WorkerProcess, cancelled_at, number_of, picture

from livepeer.client import Gateway

_AT_ONCE = 8  # sessions that are cancelled together, each somewhere else


@pytest.fixture(scope="module")
def passing(network: Network) -> Iterator[str]:
    """A worker that gives every frame back: its app."""
    with WorkerProcess(network) as process:
        yield process.app


async def opening(gateway: Gateway, app: str) -> None:
    """`__aenter__`, and an ordinary end."""
    async with gateway.live(app):
        pass


async def writing(gateway: Gateway, app: str) -> None:
    """`write_frame`, with a queue that is full at once, and control."""
    async with gateway.live(app) as session:
        publish = session.publish(fps=FPS, queue_size=1)
        for number in range(6):
            await publish.write_frame(picture(number))
        await session.control.write({"delay": 0})
        await session.update({"delay": 0})


async def reading(gateway: Gateway, app: str) -> None:
    """`frames()`, packets and events."""
    async with gateway.live(app) as session:
        publish, output = session.publish(fps=FPS), session.subscribe()
        frames, packets = output.frames(drop=None), output.packets()
        for number in range(4):
            await publish.write_frame(picture(number))
        for number in range(3):
            assert number_of(await anext(frames)) == number
            await anext(packets)
        assert await anext(session.events) == {"type": "begun"}


async def closing(gateway: Gateway, app: str) -> None:
    """`close`, with frames on their way."""
    session = await gateway.live(app, params={"delay": 0.02})
    publish, frames = session.publish(fps=FPS), session.subscribe().frames(drop=None)
    for number in range(4):
        await publish.write_frame(picture(number))
    await anext(frames)
    await session.close()


async def asking(gateway: Gateway, app: str) -> None:
    """`request`."""
    async with gateway.live(app) as session:
        assert (await session.request("GET", "/health")).status == 200


async def _one(network: Network, app: str, work: Callable[..., Any], number: int, late: bool) -> bool:
    """Cancel the work at one await; whether it came so far."""
    gateway, reached = Gateway(orch_url=network.url), False

    async def stepped() -> None:
        nonlocal reached
        reached = True
        reached = await cancelled_at(number, late, work(gateway, app))

    await _ended(asyncio.create_task(stepped()))
    await gateway.aclose()
    return reached


async def _timed(network: Network, app: str, work: Callable[..., Any], seconds: float) -> bool:
    """Cancel the work after some time; whether it still ran."""
    gateway = Gateway(orch_url=network.url)
    task = asyncio.create_task(work(gateway, app))
    await asyncio.wait({task}, timeout=seconds)
    reached = not task.done()
    task.cancel()
    await _ended(task)
    await gateway.aclose()
    return reached


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait_for(asyncio.wait({task}), 30)
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error


def _threads() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name.startswith("livepeer-")}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("work", [opening, writing, reading, closing, asking], ids=lambda work: work.__name__)
async def test_cancelled_anywhere(network: Network, passing: str, work: Callable[..., Any]) -> None:
    """At each await of the caller, when it begins and when it has just ended; and every 60 ms."""
    before = _threads()
    gateway = Gateway(orch_url=network.url)

    async def nobody_is_left() -> bool:
        listed = {c.name: c for c in await gateway.capabilities_async()}
        return listed[passing].available == listed[passing].capacity

    for kind in ("early", "late", "timed"):
        first, reached = 0, True
        while reached:
            numbers = range(first, first + _AT_ONCE)
            first += _AT_ONCE
            tries = [
                _timed(network, passing, work, 0.06 * number)
                if kind == "timed"
                else _one(network, passing, work, number, kind == "late")
                for number in numbers
            ]
            reached = all(await asyncio.gather(*tries))
            await until(nobody_is_left)
    await gateway.aclose()
    here = asyncio.current_task()
    await until(lambda: not asyncio.all_tasks() - {here})
    await until(lambda: _threads() <= before)
