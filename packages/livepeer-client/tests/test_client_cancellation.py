"""Cancelled at each await in turn, a call leaves no task, no socket and no session."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from livepeer.client import Gateway

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode has no other way to share a module

from client_steps import awaited, cancelled_at


async def _run(gateway: Gateway) -> None:
    assert await gateway.run_async("answer", input={"text": "[1]"}) == [1]


async def _run_persistent(gateway: Gateway) -> None:
    assert await gateway.run_async("p-answer", input={"text": "[1]"}) == [1]


async def _run_large(gateway: Gateway) -> None:
    assert len(await gateway.run_async("p-echo", input=["x" * 300_000])) == 1


async def _stream(gateway: Gateway) -> None:
    async with gateway.stream_async("tokens") as stream:
        assert [event.data async for event in stream] == ["0", "1", "2"]


async def _stream_persistent(gateway: Gateway) -> None:
    stream = await gateway.stream_async("p-tokens")
    assert [event.data async for event in stream] == ["0", "1", "2"]


async def _stream_left(gateway: Gateway) -> None:
    async for _ in gateway.stream_async("p-tokens", input={"endless": True}):
        break


async def _failing(gateway: Gateway) -> None:
    with pytest.raises(Exception, match="no"):
        await gateway.run_async("p-answer", input={"status": 400, "text": "no"})


async def _live(gateway: Gateway) -> None:
    async with gateway.live("live") as session:
        await session.control.write("hello")
        assert await anext(session.events) == {"got": "hello"}


@pytest.mark.parametrize(
    "work",
    [_run, _run_persistent, _run_large, _stream, _stream_persistent, _stream_left, _failing, _live],
    ids=lambda work: work.__name__,
)
@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
async def test_cancelled_at_each_await(
    orch: Any, work: Callable[[Gateway], Coroutine[Any, Any, None]], late: bool
) -> None:
    here = asyncio.current_task()
    number = 0
    while True:
        gateway = Gateway(orch_url=orch.url)
        task = asyncio.create_task(awaited(cancelled_at(number, late, work(gateway))))
        cancelled = await asyncio.wait_for(task, 30)
        await orch.wait_async(lambda: not orch.sessions, f"the session of {number} is stopped")
        await orch.wait_async(
            lambda: not any(app.calls for app in orch.apps.values()), f"the worker of {number} notices"
        )
        async with asyncio.timeout(20):
            while left := asyncio.all_tasks() - {here}:
                await asyncio.wait(left)
        del task
        await gateway.aclose()
        await orch.wait_async(lambda: orch.connections == 0, f"the connections of {number} are closed")
        if not cancelled:
            break
        number += 1
    assert number >= 2
    assert orch.reserved == orch.stopped
    assert not orch.trickle.channel_names()


@pytest.mark.parametrize("verb", ["run_async", "stream_async"])
async def test_a_reservation_in_flight_is_finished_and_given_back(orch: Any, verb: str) -> None:
    orch.before_reserve = orch.gate("reserve")
    async with Gateway(orch_url=orch.url) as gateway:

        async def call() -> None:
            await getattr(gateway, verb)("p-echo")

        task = asyncio.create_task(call())
        await orch.wait_async(lambda: "reserving" in orch.notes, "the reservation is there")
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        orch.gate("reserve").open()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (orch.reserved, orch.stopped) == (1, 1)


async def test_a_live_start_in_flight_is_finished_and_stopped(orch: Any) -> None:
    async with Gateway(orch_url=orch.url) as gateway:
        task = asyncio.create_task(gateway.live("live", params={"gate": "start"}).__aenter__())
        await orch.wait_async(lambda: "live starting" in orch.notes, "the start is there")
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        orch.gate("start").open()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not orch.sessions
    assert (orch.reserved, orch.stopped) == (1, 1)


async def test_a_slow_live_start_goes_on_in_the_gateways_care(
    orch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livepeer.client.live.lifecycle._PATIENCE", 0.05)
    gateway = Gateway(orch_url=orch.url)
    task = asyncio.create_task(gateway.live("live", params={"gate": "start"}).__aenter__())
    await orch.wait_async(lambda: "live starting" in orch.notes, "the start is there")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert orch.sessions
    closing = asyncio.create_task(gateway.aclose())
    await asyncio.wait({closing}, timeout=0.05)
    assert not closing.done(), "aclose waits for the start"
    orch.gate("start").open()
    await closing
    assert (orch.reserved, orch.stopped) == (1, 1)


async def test_a_second_cancellation_does_not_wait(orch: Any) -> None:
    gateway = Gateway(orch_url=orch.url)
    task = asyncio.create_task(gateway.live("live", params={"gate": "start"}).__aenter__())
    await orch.wait_async(lambda: "live starting" in orch.notes, "the start is there")
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    orch.gate("start").open()
    await gateway.aclose()
    assert (orch.reserved, orch.stopped) == (1, 1)


async def test_events_are_not_lost_when_the_end_of_a_stream_is_cancelled(orch: Any) -> None:
    """The last events come with the end, which stops the session; cancelling that keeps them."""
    orch.before_stop = orch.gate("stop")
    async with Gateway(orch_url=orch.url) as gateway:
        stream = await gateway.stream_async("p-tokens", input={"count": 2})
        reading = asyncio.create_task(anext(stream))
        await orch.wait_async(
            lambda: "stopping" in orch.notes or reading.done(), "the session is being stopped"
        )
        reading.cancel()
        events = [] if reading.cancelled() or not reading.done() else [reading.result()]
        await asyncio.gather(reading, return_exceptions=True)
        orch.gate("stop").open()
        events += [event async for event in stream]
        assert [event.data for event in events] == ["0", "1"]
        assert stream.complete
    assert (orch.reserved, orch.stopped) == (1, 1)


async def test_a_read_that_is_cancelled_loses_nothing(orch: Any) -> None:
    async with (
        Gateway(orch_url=orch.url) as gateway,
        gateway.stream_async("tokens", input={"count": 1, "gate": "later"}) as stream,
    ):
        assert (await anext(stream)).data == "0"
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.01)
        orch.gate("later").open()
        assert [event.data async for event in stream] == ["later"]


async def test_one_cancelled_caller_does_not_disturb_the_shared_discovery(orch: Any) -> None:
    async with Gateway(orch_url=orch.url) as gateway:
        calls = [asyncio.create_task(gateway.run_async("echo", input=n)) for n in range(5)]
        await asyncio.sleep(0)
        calls[0].cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[1:] == [1, 2, 3, 4]
        assert sum(1 for seen in orch.seen if seen.path == "/discovery") == 1
