"""Live sessions of BYOC capabilities: the client, and bare workers or our own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp import web
from harness import Network, Worker, until
from live_harness import (
    FPS,
    Relay,
    WorkerProcess,
    cancelled_everywhere,
    exists,
    picture,
    through,
    used,
)
from live_pipelines import Passing, Remote

from livepeer.client import (
    CapabilityError,
    CapabilityNotFound,
    CapacityError,
    ConfigurationError,
    Gateway,
    LivepeerError,
    OrchestratorError,
    SessionEnded,
    SessionLost,
    SessionStalled,
)
from livepeer.client.live import lifecycle
from livepeer.runner import LivePipeline, running


@pytest.fixture
async def gateway(network: Network) -> AsyncIterator[Gateway]:
    async with Gateway(orch_url=network.url) as gw:
        yield gw


class Bare:
    """A bare BYOC worker of streams that gives back what it gets.

    Attributes:
        asked: What was asked of it: the path's last part, the stream's id, and the body.
        answers: Instead of 200, by the path's last part.
    """

    def __init__(self, worker: Worker) -> None:
        self.name = ""
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: dict[str, Any] = {}
        self.relays: list[Relay] = []
        self._worker = worker
        worker.routes.add_post("/stream/{verb}", self._handle)

    async def __aenter__(self) -> Bare:
        self.name = await self._worker.register_byoc()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.die()

    async def die(self) -> None:
        """Be gone, as a process that is killed."""
        relays, self.relays = self.relays, []
        for relay in relays:
            await relay.aclose()
        await self._worker.stop()

    @property
    def told(self) -> dict[str, Any]:
        """What the newest start brought."""
        found: dict[str, Any] = [body for verb, _, body in self.asked if verb == "start"][-1]
        return found

    async def over(self) -> bool:
        """Whether every stream was stopped, and has no channel any more."""
        started = {stream_id for verb, stream_id, _ in self.asked if verb == "start"}
        stopped = {stream_id for verb, stream_id, _ in self.asked if verb == "stop"}
        told = [body for verb, _, body in self.asked if verb == "start"]
        urls = [url for body in told for name, url in body.items() if name.endswith("_url")]
        return started <= stopped and not any([await exists(url) for url in urls])

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        verb, body = request.match_info["verb"], await request.text()
        self.asked.append((verb, request.headers["X-Stream-Id"], json_or_text(body)))
        answer = self.answers.get(verb)
        if callable(answer):
            response: web.StreamResponse | None = await answer(request)
            if response is not None:
                return response
        elif answer is not None:
            return web.Response(status=answer[0], text=answer[1])
        if verb == "start":
            self.relays.append(Relay(self.asked[-1][2]))
        return web.Response(text="ignored")


def json_or_text(body: str) -> Any:
    import json

    return json.loads(body) if body else body


@pytest.fixture
async def bare(worker: Worker) -> AsyncIterator[Bare]:
    async with Bare(worker) as made:
        yield made


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever breaks, the log is not where it is told."""
    caplog.set_level(logging.INFO, logger="livepeer")
    yield
    assert [record for record in caplog.get_records("call") if record.levelno > logging.DEBUG] == []


async def test_nothing_is_lost(gateway: Gateway, bare: Bare) -> None:
    """Not at the start, not in the middle, and not at the end; nobody says which channels are used."""
    async with gateway.live(bare.name, params={"a": 1}, model="m", stream_id="mine") as session:
        await session.control.write({"n": 1})
        reading = await through(session, 75)
        await session.update({"b": 2})
        assert await anext(session.data) == {"n": 1}
    assert await reading == list(range(75))
    assert [event async for event in session.events] == [{"n": 1}]
    (start, stream_id, told), update, stop = bare.asked
    assert (start, told["params"], told["model_id"], told["stream_id"]) == ("start", {"a": 1}, "m", "mine")
    assert stream_id.startswith("mine-")
    assert session.manifest_id == stream_id == told["gateway_request_id"]
    assert update == ("params", stream_id, {"b": 2})
    assert stop[:2] == ("stop", stream_id)
    assert session.reason == "closed"
    stats = session.stats()
    assert (stats.media_in.frames, stats.media_out.frames, stats.media_out.lost) == (75, 75, 0)
    await until(bare.over)


async def test_ids_are_never_used_twice(gateway: Gateway, bare: Bare) -> None:
    """A start with an id in use would destroy the running stream."""
    async with gateway.live(bare.name, stream_id="x") as one, gateway.live(bare.name, stream_id="x") as two:
        assert one.manifest_id != two.manifest_id
        await one.control.write(1)
        assert await anext(one.events) == 1
    for odd in ("a b", "a/b", "ä", "", "a" * 200):
        with pytest.raises(ConfigurationError, match="stream_id="):
            await gateway.live(bare.name, stream_id=odd)


async def test_our_own_worker(gateway: Gateway, network: Network) -> None:
    """A `LivePipeline`: media, parameters, events; channels that it doesn't use are none."""
    with WorkerProcess(network, register="byoc") as process:
        async with gateway.live(process.app, params={"delay": 0.002}) as session:
            assert set(session._life.started.urls) == {"publish", "subscribe", "control", "events"}
            with pytest.raises(ConfigurationError, match="no data channel"):
                await anext(session.data)
            reading = await through(session, 45)
            await session.update({"delay": 0.001})
            async for event in session.events:
                if event["type"] == "params":
                    break
            assert event == {"type": "params", "delay": 0.001}
            for number in range(45, 60):
                await session.publish(fps=FPS).write_frame(picture(number))
            with pytest.raises(CapabilityError) as refused:
                await gateway.live(process.app, params={"refuse": "why not"})
            assert (refused.value.status, "why not" in str(refused.value)) == (422, True)
        assert await reading == list(range(60))
        last = [event async for event in session.events][-1]
        assert (last["type"], last["frames"]) == ("stopped", 60)

        async with gateway.live(process.app, stall_timeout=1.0) as session:
            with pytest.raises(SessionStalled, match="worker has sent nothing") as stalled:
                await used(session, after=10, then=process.kill)
        assert (stalled.value.silent, stalled.value.reason) == ("worker", "stalled")


@contextlib.asynccontextmanager
async def serving(network: Network, pipeline: LivePipeline) -> AsyncIterator[str]:
    """A runner of this SDK as a BYOC worker: its name."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    options: Any = {"orch_url": network.url, "secret": network.secret, "tls": "insecure", "register": "byoc"}
    async with running(pipeline, name=name, **options) as server:
        await server.registered()
        yield name


async def test_a_worker_without_media(gateway: Gateway, network: Network) -> None:
    async with serving(network, Remote()) as name, gateway.live(name, params={"a": 1}) as session:
        assert await anext(session.events) == {"type": "begun", "a": 1}
        await session.update({"b": 2})
        assert await anext(session.data) == {"b": 2}
        await session.control.write({"c": 3})
        assert await anext(session.data) == {"c": 3}
        with pytest.raises(ConfigurationError, match="takes no media"):
            session.publish()
        with pytest.raises(ConfigurationError, match="sends no media"):
            session.subscribe()


async def test_a_worker_whose_places_are_taken(gateway: Gateway, network: Network) -> None:
    """It counts them itself: orchestrators don't."""
    async with serving(network, Passing()) as name:
        async with gateway.live(name) as one, gateway.live(name):
            with pytest.raises(CapacityError, match=name):
                await gateway.live(name)
            with pytest.raises(CapabilityError) as refused:
                await one.update({"refuse": 451})
            assert refused.value.status == 451
            assert one.status == "live"
        await until_taken(gateway, name)


async def until_taken(gateway: Gateway, name: str) -> None:
    """A place is free again."""

    async def free() -> bool:
        try:
            async with gateway.live(name):
                return True
        except CapacityError:
            return False

    await until(free)


# Starts and updates that fail


@pytest.mark.parametrize(
    ("answer", "error", "text", "retryable"),
    [
        ((400, '{"detail": "no such model"}'), CapabilityError, "400: no such model", False),
        ((404, "not here"), CapabilityError, "takes no live sessions", False),
        ((422, "what is that"), CapabilityError, "what is that", False),
        ((503, "later"), CapabilityError, "503: later", True),
        ((503, '{"error": {"type": "Unavailable", "message": "full"}}'), CapacityError, "no session", True),
        ((500, ""), CapabilityError, "without a text", False),
    ],
)
async def test_a_worker_that_refuses(
    gateway: Gateway, bare: Bare, answer: Any, error: type[LivepeerError], text: str, retryable: bool
) -> None:
    bare.answers["start"] = answer
    with pytest.raises(error, match=text) as failed:
        await gateway.live(bare.name)
    if isinstance(failed.value, CapabilityError):
        assert (failed.value.status, failed.value.body.decode()) == answer
    assert failed.value.orchestrator == gateway._config.orchestrators[0]
    assert (bool(failed.value.request_id), failed.value.retryable) == (True, retryable)
    assert [verb for verb, _, _ in bare.asked] == ["start"]
    assert not any([await exists(url) for name, url in bare.told.items() if name.endswith("_url")])


async def test_starts_that_reach_no_worker(gateway: Gateway, bare: Bare) -> None:
    with pytest.raises(ConfigurationError, match="path="):
        await gateway.live(bare.name, path="/live")
    with pytest.raises(CapabilityNotFound):
        await gateway.live("never-registered")
    assert bare.asked == []
    await bare.die()
    with pytest.raises(OrchestratorError, match="is not there, or took too long") as gone:
        await gateway.live(bare.name)
    assert (gone.value.status, gone.value.retryable) == (500, True)


async def test_a_worker_that_refuses_the_token(gateway: Gateway, bare: Bare) -> None:
    """Its 401 makes the orchestrator forget it."""
    bare.answers["start"] = (401, "who are you")
    with pytest.raises(CapabilityError, match="token") as refused:
        await gateway.live(bare.name)
    assert refused.value.status == 401


async def test_updates_that_fail_end_nothing(gateway: Gateway, bare: Bare) -> None:
    async with gateway.live(bare.name) as session:
        bare.answers["params"] = (422, '{"detail": "no"}')
        with pytest.raises(CapabilityError, match="update of a session with 422: no") as failed:
            await session.update({"a": 1})
        assert failed.value.status == 422
        del bare.answers["params"]
        await session.update({"a": 2})
        assert session.status == "live"
        with pytest.raises(ConfigurationError, match="channels only"):
            await session.request("GET", "/health")
    with pytest.raises(SessionEnded):
        await session.update({"a": 3})


# Slow starts


@pytest.mark.parametrize("patience", [5.0, 0.05])
async def test_a_cancelled_start_leaves_no_stream(
    gateway: Gateway, bare: Bare, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    """Whoever is cancelled waits some seconds for the answer; later ones are the gateway's to end."""
    monkeypatch.setattr(lifecycle, "_PATIENCE", patience)
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> None:
        asked.set()
        await go.wait()

    bare.answers["start"] = slow
    starting = asyncio.ensure_future(gateway.live(bare.name).__aenter__())
    await asked.wait()
    await asyncio.sleep(0.5)
    starting.cancel()
    if patience < 1:
        with pytest.raises(asyncio.CancelledError):
            await starting
        closing = asyncio.create_task(gateway.aclose())
        await asyncio.sleep(0.1)
        assert not closing.done(), "it waits for the stream"
        go.set()
        await closing
    else:
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await starting
    await until(bare.over)


async def test_a_loop_that_ends_during_a_start_leaves_no_stream(
    network: Network, bare: Bare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "_PATIENCE", 0.05)

    async def slow(_: web.Request) -> None:
        await asyncio.sleep(60)

    bare.answers["start"] = slow

    async def start() -> None:
        await Gateway(orch_url=network.url).live(bare.name)

    async def begin() -> None:
        starting = asyncio.create_task(start())
        while not bare.asked:
            await asyncio.sleep(0.01)
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting

    await asyncio.to_thread(asyncio.run, begin())
    assert [verb for verb, _, _ in bare.asked] == ["start", "stop"]
    await until(bare.over)


async def test_a_start_cancelled_anywhere_leaves_no_stream(network: Network, bare: Bare) -> None:
    """At each await, when it begins and when it has just ended."""

    async def opening(gateway: Gateway) -> None:
        async with gateway.live(bare.name):
            pass

    await cancelled_everywhere(network.url, opening)
    await until(bare.over)
    assert len(bare.relays) > 2


# Ends


async def test_a_worker_whose_signs_of_life_stop(gateway: Gateway, bare: Bare, worker: Worker) -> None:
    """A session without media: workers that say that they live are missed when they don't."""
    async with gateway.live(bare.name) as session:
        url = bare.told["events_url"]
        for number in range(4):
            assert (await worker.ask("POST", f"{url}/{number}", data='{"keep": "alive"}'))[0] == 200
            await asyncio.sleep(0.3)
        assert session.status == "live"
        with pytest.raises(SessionEnded, match="is gone") as gone:
            await asyncio.wait_for(anext(session.events), 15)
        assert gone.value.reason == "worker gone"
        with pytest.raises(SessionEnded):
            await session.control.write(1)


async def test_a_worker_that_ends_its_channels(gateway: Gateway, bare: Bare, worker: Worker) -> None:
    """It can't end the stream at the orchestrator; this is what it can do."""

    async def end() -> None:
        for name in ("events_url", "publish_url"):
            assert (await worker.ask("DELETE", bare.told[name]))[0] == 200

    async with gateway.live(bare.name) as session:
        await asyncio.wait_for(used(session, after=10, then=end), 20)
        await until(lambda: session.error is not None)
        assert session.reason == "ended"
        with pytest.raises(SessionEnded):
            await session.control.write(1)
    await until(bare.over)


async def test_an_orchestrator_that_is_killed_and_comes_back(
    fresh_network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    network = fresh_network
    async with Worker(network) as worker, Bare(worker) as bare, Gateway(orch_url=network.url) as gw:
        async with gw.live(bare.name) as session:
            with pytest.raises(SessionLost):
                await asyncio.wait_for(used(session, after=5, then=network.kill), 20)
            with pytest.raises(SessionLost):
                await session.update({"a": 1})
        assert session.reason == "orchestrator gone"
        await asyncio.to_thread(network.restart)
        await worker.register_byoc(bare.name)
        with pytest.raises(LivepeerError, match="not the one that was pinned"):
            await gw.live(bare.name)
        assert ["changed from" in record.message for record in caplog.records] == [True]
        caplog.clear()
        async with gw.live(bare.name) as session:
            reading = await through(session, 10)
        assert await reading == list(range(10))
