"""What becomes of a live session when something breaks: each fault, and its expected outcome.

Within two seconds of being knowable, on both networks. "All" are a reader of frames, the writer of frames, the
iteration of events and ``control.write``; a reason is that of `SessionEnded`, also in ``session.reason``.
Nothing is logged above DEBUG, no task's exception is left unseen, and frames are counted in and out.

| fault | expected |
|---|---|
| worker killed, also without media, also during `close` | all raise, "worker gone"; frames that had come back are read, the others can be counted |
| worker paused for 10 s | within `stall_timeout`: it goes on. With segments of 4 s nothing is lost; of those of 1 s perhaps what falls out of the orchestrator's ring of five, in one place and counted. Else all raise `SessionStalled`, the worker fell silent |
| worker needs 1 s a frame, and longer for the first | nothing is lost, and it is no stall: the first may take `startup_timeout` |
| worker takes everything and gives nothing | `SessionStalled`, the worker fell silent, with counts |
| the input pauses | no stall |
| orchestrator killed | all raise `SessionLost`, "orchestrator gone"; `close` takes no second |
| network lets nothing through, and refuses nothing | `SessionStalled`, the orchestrator fell silent |
| media-in closed by somebody, media-out closed by somebody | a worker ends the session: readers end normally, writers raise, "ended"; where it doesn't, all raise, "channel closed" |
| events, control closed by somebody | video goes on; events end normally; ``control.write`` raises `ChannelClosed` or `ChannelNotFound` |
| the worker ends the session | readers and events end normally, writers raise, with the worker's own reason |
| TCP cut under the reader | nothing is lost |
| TCP cut in the middle of a segment that is written | what isn't there was in that segment, and is counted as lost |
| a reader pauses for 20 s | one of frames skips, and counts that; one that drops nothing, and one of packets, lose nothing |
| random bytes | readers of frames raise `MediaError`; the session goes on |
| a truncated segment | its begin and what follows, in order |
| a segment of 50 MB | every byte, every frame |
| timestamps that jump ahead, back, and around | every frame, in the order of arrival |
"""  # noqa: E501

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from harness import Network, Worker, until
from live_harness import FPS, BareWorker, Link, WorkerProcess, encoded, number_of, picture

from livepeer.client import (
    ChannelClosed,
    ChannelNotFound,
    Gateway,
    LivepeerError,
    MediaError,
    SessionEnded,
    SessionLost,
    SessionStalled,
)
from livepeer.trickle.media import MediaPublish

SOON = 8.0  # seconds; 2 are promised, and the machine may be busy


@pytest.fixture
async def gateway(network: Network) -> AsyncIterator[Gateway]:
    async with Gateway(orch_url=network.url) as gw:
        yield gw


@pytest.fixture(scope="module")
def passing(network: Network) -> Iterator[str]:
    """A worker that gives every frame back, shared by tests that don't harm it: its app."""
    with WorkerProcess(network) as process:
        yield process.app


@pytest.fixture
def process(network: Network) -> Iterator[WorkerProcess]:
    """The same in a process of the test's own."""
    with WorkerProcess(network) as process:
        yield process


@pytest.fixture
async def bare(worker: Worker) -> BareWorker:
    return await BareWorker(worker).register()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever breaks, the log is not where it is told."""
    caplog.set_level(logging.INFO, logger="livepeer")
    yield
    assert [record for record in caplog.get_records("call") if record.levelno > logging.DEBUG] == []


class Use:
    """A session in use: frames go in at their pace, what comes out is noted, until something raises."""

    def __init__(self, session: Any, **options: Any) -> None:
        self.session = session
        self.options = options
        self.numbers: list[int | None] = []
        self.events: list[Any] = []
        self.written = 0
        self.raised: dict[str, tuple[float, BaseException | None]] = {}
        self.tasks = {
            name: asyncio.create_task(self._note(name, work()))
            for name, work in (("frames", self._frames), ("write", self._write), ("events", self._events))
        }

    async def _note(self, name: str, work: Any) -> None:
        error: BaseException | None = None
        try:
            await work
        except LivepeerError as failed:
            error = failed
        self.raised[name] = (time.monotonic(), error)

    async def _frames(self) -> None:
        async for frame in self.session.subscribe().frames(drop=None):
            self.numbers.append(number_of(frame))

    async def _events(self) -> None:
        async for event in self.session.events:
            self.events.append(event)

    async def _write(self) -> None:
        publish = self.session.publish(fps=FPS, **self.options)
        while True:
            await publish.write_frame(picture(self.written))
            self.written += 1
            await asyncio.sleep(1 / FPS)

    async def running(self, frames: int = 10) -> None:
        """Wait until frames come back."""
        await until(lambda: len(self.numbers) >= frames, 20)

    async def ends(self, patience: float = SOON) -> dict[str, BaseException | None]:
        """What each of them raised (None: it ended normally), once all have ended."""
        await asyncio.wait(self.tasks.values(), timeout=patience)
        still = [name for name, task in self.tasks.items() if not task.done()]
        assert not still, f"{still} still hang"
        return {name: error for name, (_, error) in self.raised.items()}

    async def stop(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def read_all(session: Any, **options: Any) -> list[int | None]:
    """The numbers of the frames that come back, to the normal end."""
    return [number_of(frame) async for frame in session.subscribe().frames(drop=None, **options)]


def by_way_of(link: Link, session: Any, *roles: str) -> None:
    """Send a session's channels (all of them, when none is named) and requests through a link."""
    started = session._session
    for role in roles or tuple(started.urls):
        started.urls[role] = link.through(started.urls[role])
    if not roles:
        started.app_url = link.through(started.app_url)


def reasons(ends: dict[str, BaseException | None]) -> dict[str, str | None]:
    """The reason of each end; None for an ordinary one."""
    return {
        name: None if error is None else getattr(error, "reason", repr(error)) for name, error in ends.items()
    }


async def test_a_killed_worker(gateway: Gateway, process: WorkerProcess) -> None:
    """In the middle of video, of messages, and of the end of a session."""
    async with (
        gateway.live(process.app) as session,
        gateway.live(process.app) as talking,
        gateway.live(process.app, params={"delay": 0.3}) as ending,
    ):
        assert await anext(talking.events) == {"type": "begun"}
        use, last = Use(session), Use(ending)
        await asyncio.gather(use.running(), last.running(3))
        closing = asyncio.create_task(ending.close(drain=60))
        await asyncio.sleep(0.2)
        process.kill()

        assert reasons(await use.ends()) == dict.fromkeys(use.tasks, "worker gone")
        assert (session.status, session.reason) == ("ended", "worker gone")
        with pytest.raises(SessionEnded, match="gone"):
            await session.control.write({})
        with pytest.raises(SessionEnded, match="gone"):
            session.publish(fps=FPS)

        await talking.control.write({"delay": 0})
        with pytest.raises(SessionEnded, match="gone"):
            await asyncio.wait_for(anext(talking.events), SOON)
        assert talking.reason == "worker gone"

        await asyncio.wait_for(closing, SOON)
        assert ending.reason == "worker gone"
        assert reasons(await last.ends())["frames"] == "worker gone"
    # The last frames were inside of it; how many can be seen.
    stats = session.stats()
    assert use.numbers == list(range(len(use.numbers)))
    assert stats.media_in.frames >= use.written - 1
    assert stats.media_out.frames == len(use.numbers) <= stats.media_in.frames


async def test_a_slow_worker_loses_nothing(gateway: Gateway, passing: str) -> None:
    """A second a frame, and longer than `stall_timeout` for the first one."""
    session = await gateway.live(passing, params={"first_delay": 2.5, "delay": 1.0}, stall_timeout=2.0)
    reading = asyncio.create_task(read_all(session))
    await asyncio.sleep(0)
    publish = session.publish(fps=FPS)
    for number in range(4):
        await publish.write_frame(picture(number))
    await session.close(drain=15)
    assert await reading == list(range(4))
    assert (session.reason, session.error) == ("closed", None)


async def test_a_first_frame_that_never_comes(gateway: Gateway, passing: str) -> None:
    async with gateway.live(
        passing, params={"first_delay": 60}, stall_timeout=0.5, startup_timeout=2.0
    ) as session:
        use = Use(session)
        ends = await use.ends(2.0 + SOON)
        assert reasons(ends) == dict.fromkeys(use.tasks, "stalled")
        error = ends["frames"]
        assert isinstance(error, SessionStalled)
        assert (error.silent, error.frames_out) == ("worker", 0)
        assert error.frames_in > 10
        assert error.waited is not None
        assert error.waited >= 2.0


async def test_a_killed_orchestrator(fresh_network: Network) -> None:
    with WorkerProcess(fresh_network) as process:
        gateway = Gateway(orch_url=fresh_network.url)
        session = await gateway.live(process.app)
        use = Use(session)
        await use.running()
        fresh_network.kill()
        ends = await use.ends()
        for name, error in ends.items():
            assert isinstance(error, SessionLost), name
        assert (session.status, session.reason) == ("ended", "orchestrator gone")
        with pytest.raises(SessionLost):
            await session.control.write({})
        began = time.monotonic()
        await session.close()
        assert time.monotonic() - began < SOON
        await gateway.aclose()
        assert use.numbers == list(range(len(use.numbers)))


async def test_a_network_that_lets_nothing_through(network: Network, gateway: Gateway, passing: str) -> None:
    """Nobody refuses and nobody answers: only the clock tells."""
    async with Link(network.url) as link:
        session = await gateway.live(passing, stall_timeout=3.0)
        by_way_of(link, session)
        use = Use(session)
        await use.running()
        link.hold()
        ends = await use.ends(4 + SOON)
        error = ends["frames"]
        assert isinstance(error, SessionStalled)
        assert error.silent == "orchestrator"
        assert reasons(ends) == dict.fromkeys(use.tasks, "stalled")
        await asyncio.wait_for(session.close(), SOON)


async def close_channel(worker: Worker, session: Any, role: str) -> None:
    """End a channel as somebody does who knows its URL."""
    status, text = await worker.ask("DELETE", session.raw[f"{role}_url"])
    assert status == 200, text


async def write_for_ever(session: Any) -> None:
    """Write control messages until that raises."""
    while True:
        await session.control.write({})
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("role", ["publish", "subscribe"])
async def test_media_that_is_closed_by_somebody(
    gateway: Gateway, passing: str, worker: Worker, role: str
) -> None:
    """The worker takes it for the end and ends the session, in order: readers end normally."""
    async with gateway.live(passing) as session:
        use = Use(session)
        await use.running()
        await close_channel(worker, session, role)
        ends = reasons(await use.ends())
        # The worker notices that its output was closed with its next segment, which may be sooner or later
        # than a second, when the session is given up.
        expected = {"ended"} if role == "publish" else {"ended", "channel closed"}
        assert ends["frames"] is None
        assert ends["write"] == session.reason in expected
        assert session.status == "ended"
        with pytest.raises(SessionEnded):
            await session.control.write({})
    assert use.numbers == list(range(len(use.numbers)))


async def test_messages_that_are_closed_by_somebody(gateway: Gateway, passing: str, worker: Worker) -> None:
    """Video goes on; events end normally, and control says that it was closed."""
    async with gateway.live(passing) as session:
        use = Use(session)
        await use.running()
        await close_channel(worker, session, "events")
        await close_channel(worker, session, "control")
        await until(lambda: use.tasks["events"].done())
        assert use.raised["events"][1] is None
        with pytest.raises((ChannelClosed, ChannelNotFound)):
            await asyncio.wait_for(write_for_ever(session), SOON)
        await use.running(len(use.numbers) + 10)
        assert (session.status, session.reason) == ("live", None)
        await use.stop()


async def test_media_that_is_closed_under_a_worker_that_goes_on(
    gateway: Gateway, bare: BareWorker, worker: Worker
) -> None:
    """The worker doesn't care, so nothing will ever come again: the session is over."""
    for role in ("publish", "subscribe"):
        async with gateway.live(bare.app) as session, bare.writing("events") as events:
            use = Use(session)
            await until(lambda: session.stats().media_in.frames > 10)
            await close_channel(worker, session, role)
            ends = reasons(await use.ends())
            assert ends["write"] == ends["events"] == "channel closed"
            assert ends["frames"] == (None if role == "subscribe" else "channel closed")
            assert session.reason == "channel closed"
            await events.abort()


@pytest.mark.parametrize("farewell", ["idle", None])
async def test_a_worker_that_ends_the_session(
    gateway: Gateway, bare: BareWorker, farewell: str | None
) -> None:
    async with gateway.live(bare.app) as session:
        use = Use(session)
        await until(lambda: session.stats().media_in.frames > 10)
        async with bare.writing("events") as events:
            if farewell:
                await events.write(b'{"type": "ended", "reason": "idle"}')
                await until(lambda: use.events)
            await bare.stop()
        ends = reasons(await use.ends())
        assert ends == {"frames": None, "events": None, "write": farewell or "ended"}
        assert session.reason == (farewell or "ended")


async def test_a_silent_worker_that_answers(gateway: Gateway, bare: BareWorker) -> None:
    """It is there, takes everything, and sends nothing any more."""
    async with gateway.live(bare.app, stall_timeout=1.5) as session:
        use = Use(session)
        async with bare.writing() as out:
            publisher = MediaPublish(out.url, transport=bare.transport, start=0)
            for number in range(10):
                await publisher.write_frame(picture(number))
            await publisher.close(delete=False)
        await use.running(10)
        ends = await use.ends(1.5 + SOON)
        assert reasons(ends) == dict.fromkeys(use.tasks, "stalled")
        error = ends["write"]
        assert isinstance(error, SessionStalled)
        assert (error.silent, error.frames_out) == ("worker", 10)


async def test_a_pause_of_the_input_is_no_stall(gateway: Gateway, passing: str) -> None:
    async with gateway.live(passing, stall_timeout=1.0) as session:
        reading = asyncio.create_task(read_all(session))
        publish = session.publish(fps=FPS)
        for number in range(20):
            if number == 10:
                await asyncio.sleep(3.5)  # longer than what counts as a pause
            await publish.write_frame(picture(number))
            await asyncio.sleep(1 / FPS)
    assert await reading == list(range(20))


async def test_connections_that_are_cut(network: Network, gateway: Gateway, passing: str) -> None:
    """A cut of the reading side loses nothing; one of the writing side a segment's rest, which is counted."""
    async with Link(network.url) as link_in, Link(network.url) as link_out:
        session = await gateway.live(passing)
        by_way_of(link_in, session, "publish")
        by_way_of(link_out, session, "subscribe")
        use = Use(session)
        for cuts in range(3):
            await use.running(20 + 40 * cuts)
            link_out.cut()
        lost = session.stats().media_in.lost
        assert lost == 0
        assert use.numbers == list(range(len(use.numbers)))
        link_in.cut()
        await use.running(len(use.numbers) + 30)
        use.tasks["write"].cancel()
        await session.close(drain=10)
        assert reasons(await use.ends())["frames"] is None
        stats = session.stats()
        missing = set(range(use.written)) - set(use.numbers)
        assert len(missing) <= stats.media_in.lost
        assert stats.media_in.lost <= 2 * FPS
        assert not missing or max(missing) - min(missing) < 2 * FPS  # all in one place


async def test_random_bytes_from_the_worker(gateway: Gateway, bare: BareWorker) -> None:
    async with gateway.live(bare.app) as session:
        frames = session.subscribe().frames()
        reading = asyncio.ensure_future(anext(frames))
        async with bare.writing() as out:
            for _ in range(3):
                await out.write(os.urandom(700_000))
            with pytest.raises(MediaError, match="MPEG-TS"):
                await asyncio.wait_for(reading, 30)
        assert session.status == "live"


async def test_a_truncated_segment(gateway: Gateway, bare: BareWorker) -> None:
    """Its beginning, what follows, and nothing that isn't the truth."""
    segments = await encoded(3)
    async with gateway.live(bare.app) as session:
        reading = asyncio.create_task(read_all(session))
        output = session.subscribe()
        async with bare.writing() as out:
            await out.write(segments[0])
            segment = out.segment()
            await segment.write(segments[1][: len(segments[1]) // 2])
            await until(lambda: output.frames_in > 31)
            await segment.abort()
            await out.write(segments[2])
            await until(lambda: output.frames_in > 61)
            await bare.stop()
        numbers = await asyncio.wait_for(reading, 30)
        assert numbers[:30] == list(range(30))
        assert set(range(60, 90)) <= set(numbers)
        assert numbers == sorted(numbers)  # type: ignore[type-var]


async def test_a_segment_of_50_megabytes(gateway: Gateway, bare: BareWorker) -> None:
    segments = await encoded(1)
    stuffing = (b"\x47\x1f\xff\x10" + bytes(184)) * 5000  # packets that mean nothing
    async with gateway.live(bare.app) as session:
        output = session.subscribe()
        reading = asyncio.create_task(read_all(session))

        async def count() -> int:
            return sum([len(chunk) async for chunk in output.bytes()])

        counting = asyncio.create_task(count())
        async with bare.writing() as out, out.segment() as segment:
            await segment.write(segments[0])
            size = len(segments[0])
            while size < 50_000_000:
                await segment.write(stuffing)
                size += len(stuffing)
            await until(lambda: output.bytes_in == size, 30)
            await bare.stop()
        assert await asyncio.wait_for(counting, 30) == size
        assert await asyncio.wait_for(reading, 30) == list(range(30))


async def test_timestamps_that_jump(gateway: Gateway, bare: BareWorker) -> None:
    """An hour ahead, back to the start, and around the end of MPEG-TS's clock: every frame comes."""
    async with gateway.live(bare.app) as session:
        reading = asyncio.create_task(read_all(session))
        output = session.subscribe()
        written = 0
        async with bare.writing() as out:
            for first in (100.0, 3700.0, 0.0, 2**33 / 90_000 - 0.5):
                publisher = MediaPublish(out.url, transport=bare.transport)
                for number in range(30):
                    await publisher.write_frame(picture(written), timestamp=first + number / FPS)
                    written += 1
                await publisher.close(delete=False)
                await until(lambda expected=written: output.frames_in == expected)
            await bare.stop()
        assert await asyncio.wait_for(reading, 30) == list(range(written))


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_long_pauses(gateway: Gateway, process: WorkerProcess, passing: str) -> None:
    """At once, because they take so long: a worker that is paused, and a reader that is."""
    await asyncio.gather(_paused_worker(gateway, process), _paused_reader(gateway, passing))


async def _paused_worker(gateway: Gateway, process: WorkerProcess) -> None:
    async with (
        gateway.live(process.app, stall_timeout=30) as patient,
        gateway.live(process.app, stall_timeout=4) as hasty,
        gateway.live(process.app, stall_timeout=30) as long,
    ):
        uses = Use(patient), Use(hasty), Use(long, gop=4.0)
        await asyncio.gather(*(use.running() for use in uses))
        process.pause()
        await asyncio.sleep(10)
        assert reasons(await uses[1].ends(0.1)) == dict.fromkeys(uses[1].tasks, "stalled")
        assert isinstance(hasty.error, SessionStalled)
        assert hasty.error.silent == "worker"
        process.resume()
        for session, use in ((patient, uses[0]), (long, uses[2])):
            await use.running(len(use.numbers) + 150)
            use.tasks["write"].cancel()
            await session.close(drain=20)
            assert reasons(await use.ends()) == {"frames": None, "events": None}
        assert uses[2].numbers == list(range(uses[2].written))
        missing = sorted(set(range(uses[0].written)) - set(uses[0].numbers))
        assert not missing or missing == list(range(missing[0], missing[-1] + 1))
        stats = patient.stats()
        assert stats.lag == 0
        assert len(missing) == stats.media_in.frames - stats.media_out.frames


async def _paused_reader(gateway: Gateway, app: str) -> None:
    session = await gateway.live(app)
    output = session.subscribe()
    use = Use(session)  # one that drops nothing, and never pauses
    skipping = output.frames()
    waiting = output.frames(drop=None)
    packets = output.packets()
    seen: dict[str, list[Any]] = {"skipping": [], "waiting": [], "packets": []}

    async def pausing(name: str, reader: Any) -> None:
        async for item in reader:
            seen[name].append(item.timestamp)
            if len(seen[name]) == 10:
                await asyncio.sleep(20)

    reading = [
        asyncio.create_task(pausing(name, reader))
        for name, reader in (("skipping", skipping), ("waiting", waiting), ("packets", packets))
    ]
    await use.running()
    await asyncio.sleep(20)
    assert session.status == "live"  # the one that drops nothing holds the others up, and that is no stall
    await until(lambda: len(seen["packets"]) > 300, 20)
    use.tasks["write"].cancel()
    await session.close(drain=20)
    await asyncio.wait(reading, timeout=30)
    times = [number / FPS for number in range(use.written)]
    assert seen["waiting"] == pytest.approx(times)
    assert seen["packets"] == pytest.approx(times)
    assert use.numbers == list(range(use.written))
    assert len(seen["skipping"]) + skipping.dropped == use.written
    assert session.stats().media_out.missed == 0
