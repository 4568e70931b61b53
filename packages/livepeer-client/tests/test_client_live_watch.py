"""How a live session notices that it is over: its clocks, its questions to the worker, its figures."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from livepeer.client import (
    ChannelClosed,
    ChannelNotFound,
    ConfigurationError,
    ConnectionFailed,
    Gateway,
    LivepeerTimeout,
    SessionEnded,
    SessionLost,
    SessionStalled,
)
from livepeer.client.live import control, reader
from livepeer.client.live.control import Pace
from livepeer.client.live.latency import LatencyWindow
from livepeer.client.live.silence import Seen, Silence, Stall


@pytest.fixture
async def gw(orch: Any) -> Any:
    async with Gateway(orch_url=orch.url) as gateway:
        yield gateway


# The clocks


def flowing(now: float, **changes: Any) -> Seen:
    """Input that flows, and output that came at 10 and not since."""
    return Seen(**{"written_at": now - 0.03, "arrived_at": 10.0, "heard_at": 10.0, **changes})


def begun(stall: float | None = 10.0, startup: float | None = 120.0) -> Silence:
    silence = Silence(stall, startup)
    assert silence.look(10.0, flowing(10.0)) is None
    return silence


def test_silence_is_suspicious_and_then_a_stall() -> None:
    silence = begun()
    assert silence.look(10.5, flowing(10.5)) is None
    assert silence.look(10.8, flowing(10.8)) == "ask"
    silence.asked(10.9, "alive", flows=True)
    assert silence.look(11.5, flowing(11.5)) is None
    assert silence.look(13.0, flowing(13.0)) == "ask"
    silence.asked(13.0, "alive", flows=True)
    assert silence.look(20.0, flowing(20.0)) == "ask"
    assert silence.look(20.1, flowing(20.1)) == Stall("worker", pytest.approx(10.1))


def test_output_ends_the_silence() -> None:
    silence = begun()
    assert silence.look(12.0, flowing(12.0)) == "ask"
    silence.asked(12.0, "mute", flows=True)
    assert silence.look(19.0, flowing(19.0, arrived_at=18.9, heard_at=18.9)) is None
    assert silence.look(28.0, flowing(28.0, arrived_at=18.9, heard_at=18.9)) == "ask"
    assert isinstance(silence.look(29.1, flowing(29.1, arrived_at=18.9, heard_at=18.9)), Stall)


def test_events_show_that_it_is_alive_and_not_that_it_works() -> None:
    silence = begun()
    assert silence.look(19.0, flowing(19.0, heard_at=18.9)) is None
    assert isinstance(silence.look(20.1, flowing(20.1, heard_at=20.0)), Stall)


def test_the_first_output_may_take_longer() -> None:
    silence = Silence(1.0, 5.0)
    nothing: dict[str, Any] = {"arrived_at": None, "heard_at": None}
    assert silence.look(10.0, flowing(10.0, **nothing)) is None
    assert silence.look(14.9, flowing(14.9, **nothing)) == "ask"
    assert silence.look(15.1, flowing(15.1, **nothing)) == Stall("worker", pytest.approx(5.13))


def test_a_paused_input_is_nobodys_silence() -> None:
    silence = begun(1.0)
    for now in (10.5, 11.0, 60.0):  # the last frame was written at 10, and answered
        assert silence.look(now, flowing(now, written_at=10.0)) is None or now < 13
    # It goes on a minute later: the clock begins with that.
    assert silence.look(70.0, flowing(70.0, written_at=69.9)) is None
    assert silence.look(70.9, flowing(70.9)) == "ask"
    assert isinstance(silence.look(71.0, flowing(71.0)), Stall)


def test_nothing_is_asked_of_who_got_nothing() -> None:
    silence = Silence(1.0, 1.0)
    assert silence.look(50.0, Seen()) is None
    assert silence.look(50.0, Seen(owed=True)) is None


def test_a_frame_that_is_owed_is_asked_for_ever_less_often() -> None:
    silence = begun()
    asked = []
    now = 14.0
    while now < 100:
        seen = flowing(now, written_at=10.1, owed=True)
        if silence.look(now, seen) == "ask":
            asked.append(now)
            silence.asked(now, "alive", flows=silence.flows(now, seen))
        now += 0.5
    assert asked == [14.0, 16.0, 20.0, 28.0, 43.0, 58.0, 73.0, 88.0]


@pytest.mark.parametrize(
    ("answer", "changes", "silent"),
    [
        ("alive", {}, "worker"),
        ("mute", {}, "worker"),
        ("unreachable", {}, "orchestrator"),
        ("alive", {"waiting": 8, "written_at": 10.0}, "input"),
        ("mute", {"written_at": 10.1, "owed": True}, "worker"),  # all is written, and nobody is there
    ],
)
def test_who_fell_silent(answer: Any, changes: dict[str, Any], silent: str) -> None:
    silence = begun()
    assert silence.look(19.0, flowing(19.0, **changes)) == "ask"
    silence.asked(19.0, answer, flows=True)
    stall = silence.look(20.5, flowing(20.5, **changes))
    assert isinstance(stall, Stall)
    assert stall.silent == silent


@pytest.mark.parametrize("changes", [{"expected": False}, {}])
def test_what_never_stalls(changes: dict[str, Any]) -> None:
    silence = begun(None if not changes else 10.0)
    assert silence.look(1000.0, flowing(1000.0, **changes)) == "ask"


# The questions


GO = {"X-Content-Type-Options": "nosniff", "Content-Type": "text/plain; charset=utf-8"}
REFUSED = "dial tcp 127.0.0.1:1: connect: connection refused\n"


@pytest.mark.parametrize(
    ("status", "text", "headers", "reason"),
    [
        (502, REFUSED, GO, "worker gone"),
        (502, "EOF\n", GO, "worker gone"),
        (404, "runner session not found\n", GO, "ended"),
        (404, "runner not found\n", GO, "ended"),
        (502, "my own proxy failed", {}, None),
        (404, "Not Found", {}, None),
        (500, "broken", {}, None),
        (200, "{}", {}, None),
    ],
)
async def test_what_the_answer_to_the_question_means(
    orch: Any, gw: Gateway, status: int, text: str, headers: dict[str, str], reason: str | None
) -> None:
    live = orch.apps["live"].handler

    async def handler(orch: Any, request: Any) -> Any:
        from aiohttp import web

        if request.match_info["tail"] == "health":
            return web.Response(status=status, text=text, headers=headers)
        return await live(orch, request)

    orch.apps["live"].handler = handler
    async with gw.live("live", params={"lacks": ["control"]}) as session:
        # A write with no answer: the worker of these tests reads no control when it has none.
        session._life._control.written_at = time.monotonic()
        async with asyncio.timeout(30):
            while reason is not None and session.status == "live":
                await asyncio.sleep(0.05)
            while reason is None and not any(seen.path.endswith("/health") for seen in orch.seen):
                await asyncio.sleep(0.05)
        assert session.reason == reason
        if reason is not None:
            assert isinstance(session.error, SessionEnded)
            assert session.error.orchestrator == orch.url
            assert session.error.request_id == session.request_id
            with pytest.raises(SessionEnded, match=r"gone|ended"):
                session.publish()


async def test_a_healthy_session_is_not_asked(orch: Any, gw: Gateway) -> None:
    async with gw.live("live") as session:
        for number in range(10):
            await session.control.write(number)
            assert await anext(session.events) == {"got": number}
        await asyncio.sleep(1.2)
    assert not [seen for seen in orch.seen if seen.path.endswith("/health")]


async def test_an_orchestrator_that_is_gone(orch: Any) -> None:
    other = type(orch)().start()
    other.apps["live"] = orch.apps["live"]
    gateway = Gateway(orch_url=other.url)
    session = await gateway.live("live")
    await asyncio.to_thread(other.stop)
    with pytest.raises(SessionLost):
        await asyncio.wait_for(session.control.write(1), 30)
    assert session.reason == "orchestrator gone"
    with pytest.raises(SessionLost):
        await anext(session.events)
    await session.close()
    await gateway.aclose()


async def test_an_orchestrator_that_is_gone_after_its_channel_of_events(orch: Any) -> None:
    other = type(orch)().start()
    other.apps["live"] = orch.apps["live"]
    gateway = Gateway(orch_url=other.url)
    session = await gateway.live("live")
    reading = asyncio.create_task(anext(session.subscribe().frames()))
    await asyncio.sleep(0)
    other.trickle.close_channel(session.raw["events_url"].rpartition("/")[2])
    assert [event async for event in session.events] == []
    await asyncio.to_thread(other.stop)
    with pytest.raises(SessionLost):
        await asyncio.wait_for(session.control.write(1), 30)
    with pytest.raises(SessionLost):
        await anext(session.events)
    with pytest.raises((SessionLost, StopAsyncIteration)):  # its channel may have come to its end in order
        await asyncio.wait_for(reading, 30)
    await session.close()
    await gateway.aclose()


async def test_a_channel_of_messages_that_somebody_closed(orch: Any, gw: Gateway) -> None:
    async with gw.live("live") as session:
        await session.control.write(1)
        orch.trickle.close_channel(session.raw["control_url"].rpartition("/")[2])
        with pytest.raises((ChannelClosed, ChannelNotFound)):
            await session.control.write(2)
        assert (session.status, session.error) == ("live", None)


async def test_a_channel_that_was_swept_ends_no_session(
    orch: Any, gw: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An orchestrator ends a channel to which nobody writes for five minutes; here for 0.2 s."""
    monkeypatch.setattr(reader, "_SWEPT", 0.2)
    async with gw.live("live") as session:
        await session.control.write(1)
        assert await anext(session.events) == {"got": 1}
        await asyncio.sleep(0.4)
        orch.trickle.close_channel(session.raw["events_url"].rpartition("/")[2])
        assert [event async for event in session.events] == []
        await asyncio.sleep(0.5)
        assert (session.status, session.error, session.events.lapsed) == ("live", None, True)
        await session.control.write(2)


# Arguments, errors, figures


@pytest.mark.parametrize("value", [0, -1, "10", True])
def test_limits_that_cannot_be(value: Any) -> None:
    gateway = Gateway(orch_url="http://127.0.0.1:1")
    for name in ("stall_timeout", "startup_timeout"):
        with pytest.raises(ConfigurationError, match=name):
            gateway.live("live", **{name: value})


def test_errors_are_what_they_are() -> None:
    stalled = SessionStalled("m", silent="worker", waited=10.5, frames_in=3, frames_out=1)
    assert isinstance(stalled, LivepeerTimeout | TimeoutError)
    assert (stalled.reason, stalled.waited, stalled.frames_in, stalled.frames_out) == ("stalled", 10.5, 3, 1)
    lost = SessionLost("m", reason="orchestrator gone")
    assert isinstance(lost, ConnectionFailed)
    assert isinstance(lost, ConnectionError)


def test_latency_is_of_the_last_ten_seconds() -> None:
    window = LatencyWindow()
    assert window.figures() is None
    window.add(100.0, 5.0)
    for number in range(100):
        window.add(120.0 + number / 100, (number + 1) / 1000)
    figures = window.figures()
    assert figures is not None
    assert (figures.p50, figures.p95, figures.max, figures.frames) == (0.051, 0.095, 0.1, 100)


async def test_a_burst_is_spaced_out_unless_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(control, "time", SimpleNamespace(monotonic=lambda: 100.0 + sum(waits)))
    monkeypatch.setattr(control, "asyncio", SimpleNamespace(sleep=sleep))
    pace = Pace()
    for _ in range(3):
        await pace.turn()
    assert waits == []
    for _ in range(4):
        await pace.turn()
    assert sum(waits) == pytest.approx(0.2)
    waits.clear()
    for _ in range(20):
        pace.refill()
        await pace.turn()
    assert waits == []
