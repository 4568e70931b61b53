"""`gw.live("live-video-to-video")` over the built-in pipeline: the client, and bare containers or our own."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from ai_harness import Container
from aiohttp import web
from harness import Network, until
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

from livepeer.client import (
    CapabilityError,
    CapabilityNotFound,
    ConfigurationError,
    ConnectionFailed,
    Gateway,
    InputError,
    LivepeerError,
    OrchestratorError,
    SessionEnded,
    SessionLost,
    SessionStalled,
    Timeout,
)
from livepeer.client.inputs import Body
from livepeer.client.live import lifecycle
from livepeer.client.routes import Call
from livepeer.client.routes.lv2v import LV2VRoute

NAME = "live-video-to-video"


@pytest.fixture
async def gateway(ai_network: Network) -> AsyncIterator[Gateway]:
    async with Gateway(orch_url=ai_network.url) as gw:
        yield gw


class Passing(Container):
    """A bare container that gives back what it gets."""

    def __init__(self, network: Network, model_id: str = "noop") -> None:
        super().__init__(network.models, model_id)
        self.relays: list[Relay] = []
        self.hold: float | None = None
        self.start = self.relay

    async def relay(self, _: web.Request) -> web.StreamResponse:
        self.relays.append(Relay(self.started[-1], self.hold))
        return web.json_response({})

    async def stop(self) -> None:
        relays, self.relays = self.relays, []
        for relay in relays:
            await relay.aclose()
        await super().stop()

    async def over(self) -> bool:
        """Whether no job has a channel any more."""
        return not any([await exists(told[name]) for told in self.started for name in URLS])


URLS = ("subscribe_url", "publish_url", "control_url", "events_url")


@pytest.fixture
async def container(ai_network: Network) -> AsyncIterator[Passing]:
    async with Passing(ai_network) as made:
        yield made


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever breaks, the log is not where it is told."""
    caplog.set_level(logging.INFO, logger="livepeer")
    yield
    assert [record for record in caplog.get_records("call") if record.levelno > logging.DEBUG] == []


async def test_nothing_is_lost(gateway: Gateway, container: Passing) -> None:
    """Not at the start, not in the middle, and not at the end, although that ends all four channels."""
    async with gateway.live(NAME, model="noop", params={"a": 1}, stream_id="s") as session:
        await session.control.write({"n": 1})
        reading = await through(session, 75)
        await session.update({"n": 2})
    assert await reading == list(range(75))
    assert [event async for event in session.events] == [{"n": 1}, {"n": 2}]
    assert session.reason == "closed"
    (told,) = container.started
    assert (told["params"], told["stream_id"]) == ({"a": 1}, "s")
    assert told["gateway_request_id"] == session.request_id
    assert session.manifest_id == told["manifest_id"]
    assert session.orchestrator == container_url(gateway)
    stats = session.stats()
    assert (stats.media_in.frames, stats.media_out.frames, stats.media_out.lost) == (75, 75, 0)
    await until(container.over)


def container_url(gateway: Gateway) -> str:
    return gateway._config.orchestrators[0]


async def test_a_container_that_takes_its_time(gateway: Gateway, container: Passing) -> None:
    """What is in it when the session is closed is waited for: nothing could fetch it later."""
    container.hold = 0.7
    async with gateway.live(NAME, model="noop") as session:
        reading = await through(session, 75)
    assert await reading == list(range(75))


async def test_our_own_container(gateway: Gateway, ai_network: Network) -> None:
    """A `LivePipeline` in the container's place: media, parameters and events; then it is killed."""
    with WorkerProcess(ai_network, ai_network.port_of("noop")) as process:
        async with gateway.live(NAME, model="noop", params={"delay": 0.002}) as session:
            reading = await through(session, 45)
            await session.update({"delay": 0.001})
            async for event in session.events:
                if event["type"] == "params":
                    break
            assert event == {"type": "params", "delay": 0.001}
            for number in range(45, 60):
                await session.publish(fps=FPS).write_frame(picture(number))
        assert await reading == list(range(60))

        with pytest.raises(CapabilityError) as refused:
            await gateway.live(NAME, model="noop", params={"refuse": "why not"})
        assert (refused.value.status, "why not" in str(refused.value)) == (422, True)

        async with gateway.live(NAME, model="noop", stall_timeout=1.0) as session:
            with pytest.raises(SessionStalled, match="worker has sent nothing") as stalled:
                await used(session, after=10, then=process.kill)
        assert (stalled.value.silent, stalled.value.reason) == ("worker", "stalled")


async def test_somebody_ends_the_job(gateway: Gateway, container: Passing) -> None:
    """The end of media-in, by whom ever, is the end of the session."""

    async def end() -> None:
        async with container.relays[0]._http.delete(container.started[0]["subscribe_url"]) as answer:
            assert answer.status == 200

    async with gateway.live(NAME, model="noop") as session:
        await asyncio.wait_for(used(session, after=10, then=end), 20)  # readers end normally
        await until(lambda: session.error is not None)
        assert session.reason == "ended"
        with pytest.raises(SessionEnded):
            await session.control.write(1)


# Starts that fail


def answers(status: int, body: Any, content_type: str = "application/json") -> Any:
    async def start(_: web.Request) -> web.Response:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, content_type=content_type)

    return start


DETAIL = {"detail": {"msg": "why"}}
PROBLEM = {"detail": [{"type": "t", "loc": ["body", "x"], "msg": "no number"}]}


@pytest.mark.parametrize(
    ("answer", "error", "status", "text"),
    [
        (answers(400, DETAIL), CapabilityError, 400, "answered 400: why"),
        (answers(401, DETAIL), CapabilityError, 401, "answered 401: why"),
        (answers(422, PROBLEM), CapabilityError, 422, "no number"),
        (answers(422, DETAIL), CapabilityError, 422, "can't read"),
        (answers(500, DETAIL), CapabilityError, 500, "answered 500: why"),
        (answers(500, {}), CapabilityError, 500, "without a text"),
        (answers(200, "["), CapabilityError, 500, "can't read"),
        (answers(404, DETAIL), ConnectionFailed, None, "dropped the connection"),
        (answers(503, DETAIL), ConnectionFailed, None, "dropped the connection"),
        (answers(200, "hello", "text/plain"), ConnectionFailed, None, "dropped the connection"),
    ],
)
async def test_a_container_that_refuses(
    gateway: Gateway, container: Passing, answer: Any, error: type[LivepeerError], status: int, text: str
) -> None:
    container.start = answer
    with pytest.raises(error, match=text) as failed:
        await gateway.live(NAME, model="noop")
    assert getattr(failed.value, "status", None) == status
    assert failed.value.orchestrator == container_url(gateway)
    assert failed.value.request_id
    assert not failed.value.retryable
    assert len(container.started) == 1, "it may have begun, and is not tried again"


async def test_starts_that_reach_no_container(gateway: Gateway, ai_network: Network) -> None:
    with pytest.raises(CapabilityNotFound, match=r"Its models are: noop, other\.") as unknown:
        await gateway.live(NAME, model="never")
    assert unknown.value.available == (f"{NAME}/noop", f"{NAME}/other")
    with pytest.raises(ConfigurationError, match="model= one of noop, other"):
        await gateway.live(NAME)
    with pytest.raises(OrchestratorError, match="is not there") as down:
        await gateway.live(NAME, model="noop")
    assert down.value.retryable
    with pytest.raises(InputError):
        await gateway.live(NAME, model="noop", params={"a": float("nan")})
    with pytest.raises(ConfigurationError, match="path="):
        await gateway.live(NAME, model="noop", path="/x")
    call = Call(NAME, Body(b"{}", "application/json"), Timeout(), "r")
    with pytest.raises(ConfigurationError, match=r"gw\.live"):
        await LV2VRoute(ai_network.url, gateway._pool).open(call)


async def test_a_container_that_hangs_up(gateway: Gateway, container: Passing) -> None:
    async def start(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    container.start = start
    with pytest.raises(OrchestratorError, match="broke off"):
        await gateway.live(NAME, model="noop")
    assert len(container.started) == 1


async def test_an_orchestrator_without_an_ai_worker(network: Network) -> None:
    async with Gateway(orch_url=network.url) as gw:
        with pytest.raises(CapabilityNotFound, match=NAME):
            await gw.live(NAME, model="noop")


async def test_only_a_session_of_channels(gateway: Gateway, container: Passing) -> None:
    async with gateway.live(NAME, model="noop") as session:
        with pytest.raises(ConfigurationError, match="channels only"):
            await session.request("GET", "/health")
        with pytest.raises(ConfigurationError, match="channels only"):
            session.websocket("/ws")
        with pytest.raises(ConfigurationError, match="no data channel"):
            await anext(session.data)


# Slow starts


class Slow:
    """The start of a container that waits until it may go on."""

    def __init__(self, container: Passing) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self._container = container
        container.start = self

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.asked.set()
        await self.go.wait()
        return await self._container.relay(request)


async def test_a_slow_start_is_waited_for(gateway: Gateway, container: Passing) -> None:
    slow = Slow(container)
    starting = asyncio.ensure_future(gateway.live(NAME, model="noop").__aenter__())
    await slow.asked.wait()
    await asyncio.sleep(1.5)
    assert not starting.done()
    slow.go.set()
    session = await starting
    assert session.status == "live"
    await session.close()
    await until(container.over)


@pytest.mark.parametrize("patience", [5.0, 0.05])
async def test_a_cancelled_start_leaves_no_job(
    gateway: Gateway, container: Passing, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    """Whoever is cancelled waits some seconds for the answer; later ones are the gateway's to end."""
    monkeypatch.setattr(lifecycle, "_PATIENCE", patience)
    slow = Slow(container)
    starting = asyncio.ensure_future(gateway.live(NAME, model="noop").__aenter__())
    await slow.asked.wait()
    starting.cancel()
    if patience < 1:
        with pytest.raises(asyncio.CancelledError):
            await starting
        closing = asyncio.create_task(gateway.aclose())
        await asyncio.sleep(0.1)
        assert not closing.done(), "it waits for the job"
        slow.go.set()
        await closing
    else:
        await asyncio.sleep(0.1)
        assert not starting.done()
        slow.go.set()
        with pytest.raises(asyncio.CancelledError):
            await starting
    await until(container.over)


async def test_a_start_cancelled_anywhere_leaves_no_job(ai_network: Network, container: Passing) -> None:
    """At each await, when it begins and when it has just ended."""

    async def opening(gateway: Gateway) -> None:
        async with gateway.live(NAME, model="noop"):
            pass

    await cancelled_everywhere(ai_network.url, opening)
    await until(container.over)
    assert len(container.started) > 2


# The orchestrators


async def test_a_live_runner_of_that_name_comes_first(gateway: Gateway, ai_network: Network) -> None:
    with WorkerProcess(ai_network, name=f"{NAME}/noop") as process:
        async with gateway.live(NAME, model="noop") as session:
            assert (await session.request("GET", "/health")).status == 200
            reading = await through(session, 10)
        assert await reading == list(range(10))
        await asyncio.to_thread(process.stop)  # the other tests would find one that was killed for a while


async def test_the_one_that_has_it_is_found(
    network: Network, ai_network: Network, container: Passing
) -> None:
    """Of several: one without an AI worker, one that is down, and one that has it."""
    urls = ["https://127.0.0.1:1", network.url, ai_network.url]
    async with Gateway(orch_url=urls) as gw:
        async with gw.live(NAME, model="noop") as session:
            assert session.orchestrator == ai_network.url
        with pytest.raises(CapabilityNotFound, match="noop, other"):
            await gw.live(NAME, model="never")
    await until(container.over)


async def test_an_orchestrator_that_is_killed_and_comes_back(
    fresh_ai_network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    """The session is lost at once; the certificate of the next one is another, which a new call accepts."""
    network = fresh_ai_network
    async with Passing(network) as container, Gateway(orch_url=network.url) as gw:
        async with gw.live(NAME, model="noop") as session:
            with pytest.raises(SessionLost):
                await asyncio.wait_for(used(session, after=5, then=network.kill), 20)
        assert session.reason == "orchestrator gone"
        await asyncio.to_thread(network.restart)
        # By the question for what there is, or, when its answer is still known, by that for a token.
        with pytest.raises(LivepeerError, match="not the one that was pinned") as changed:
            await gw.live(NAME, model="noop")
        assert changed.value.retryable
        assert ["changed from" in record.message for record in caplog.records] == [True]
        caplog.clear()
        async with gw.live(NAME, model="noop") as session:
            reading = await through(session, 10)
        assert await reading == list(range(10))
        assert len(container.started) == 2
