"""One `LivePipeline` for every caller: BYOC streams, the container of LV2V, and live-runner sessions."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import BaseModel

from livepeer.runner import HTTPError, LivePipeline, RunningServer, running
from livepeer.runner.contracts.byoc import ByocContract
from livepeer.trickle import ChannelReader, ChannelWriter

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode has no other way to share a module

from runner_callers import LV2V, Byoc, Caller

numpy = pytest.importorskip("numpy")
pytest.importorskip("av")

from livepeer.trickle.media import MediaOutput, MediaPublish  # noqa: E402

PICTURE = numpy.full((48, 64, 3), 40, numpy.uint8)


class Params(BaseModel):
    on: bool = True
    refuse: int = 0


class Invert(LivePipeline):
    name = "live-video-to-video/noop"
    version = "1.2.3"
    capacity = 2

    def on_stream_start(self, params: Params) -> None:
        if params.refuse:
            raise HTTPError(params.refuse, "not for you")
        self.on = params.on
        self.emit_event({"started": self.on})

    def process_video(self, frame: Any) -> Any:
        return frame.replace(255 - frame.array) if self.on else frame

    def on_params_update(self, params: dict[str, Any]) -> None:
        if params.get("fail"):
            raise HTTPError(params["fail"], "no such thing")
        self.on = params["on"]
        self.emit_event({"on": self.on})

    def on_stream_stop(self) -> None:
        self.emit_event({"stopped": True})


class Remote(LivePipeline):
    """No media: parameters in, events and data out."""

    def on_stream_start(self, params: dict[str, Any]) -> None:
        self.emit_event({"params": params})

    def on_params_update(self, params: dict[str, Any]) -> None:
        self.emit_data(params)

    def on_stream_stop(self) -> None:
        self.emit_event({"stopped": True})


class Count(LivePipeline):
    """Pictures in, their number out as data."""

    def on_stream_start(self, params: dict[str, Any]) -> None:
        self.seen = 0

    def process_video(self, frame: Any) -> Any:
        self.seen += 1
        self.emit_data({"seen": self.seen})
        return frame


@contextlib.asynccontextmanager
async def serving(pipeline: LivePipeline, **options: Any) -> AsyncIterator[RunningServer]:
    async with running(pipeline, **options) as server:
        yield server


async def until(true: Callable[[], Any], patience: float = 20) -> None:
    async with asyncio.timeout(patience):
        while not true():
            await asyncio.sleep(0.01)


async def told(caller: Caller) -> list[Any]:
    async with ChannelReader(caller.urls["events"], start=0) as events:
        return [event async for event in events]


def mean(frame: Any) -> int:
    return int(frame.array.mean())


@pytest.mark.parametrize("kind", [Byoc, LV2V])
async def test_video_goes_through_and_changes_midway(
    kind: type[Byoc | LV2V], orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    async with serving(Invert()) as server:
        stream = kind(orchestrator, server, http)
        assert await stream.start({"on": True}) == 200, stream.body
        assert server.health()["in_use"] == 1
        events = asyncio.create_task(told(stream))
        async with MediaOutput(stream.urls["subscribe"]) as media_out:
            frames = media_out.frames(drop=None)
            media_in = MediaPublish(stream.urls["publish"], fps=30)
            await media_in.write_frame(PICTURE)
            assert abs(mean(await anext(frames)) - 215) < 6
            control = ChannelWriter(stream.urls["control"])
            await control.write({"on": False})
            received: list[int] = []
            while not received or abs(received[-1] - 40) > 6:
                await media_in.write_frame(PICTURE)
                received.append(mean(await anext(frames)))
            await control.close(delete=False)
            await media_in.close()
            assert [frame async for frame in frames] == []
        assert await asyncio.wait_for(events, 30) == [{"started": True}, {"on": False}, {"stopped": True}]
        await until(lambda: not server.health()["in_use"])
        await until(lambda: stream.alive() <= {"-control"} if kind is LV2V else not stream.alive())


async def test_places_are_shared_by_every_kind_of_caller(
    orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    orchestrator.interval = "50ms"
    async with serving(Invert(), orch_url=orchestrator.url, secret=orchestrator.secret) as server:
        runner_id = await server.registered()
        async with http.post(f"{orchestrator.url}/apps/{runner_id}/session") as response:
            session = await response.json()
        async with http.post(f"{session['app_url']}/live", json={}) as response:
            assert response.status == 200
        byoc, container = Byoc(orchestrator, server, http), LV2V(orchestrator, server, http)
        assert await byoc.start({}) == 200
        assert await container.start({}) == 500
        assert container.body["detail"]["msg"].startswith("503 All 2 places of live-video-to-video/noop")
        assert await byoc.stop() == 200
        assert server.health()["in_use"] == 1
        assert await container.start({}) == 200
        late = Byoc(orchestrator, server, http)
        assert await late.start({}) == 503
        assert late.body["error"]["type"] == "Unavailable"
        # What the orchestrator says of its own sessions is no matter to the streams of other callers.
        seen = len(orchestrator.heartbeats)
        orchestrator.release(session["session_id"])
        await until(lambda: server.health()["in_use"] == 1)
        await orchestrator.until(lambda: len(orchestrator.heartbeats) > seen + 2)
        assert orchestrator.heartbeats[-1]["session_ids"] == []
        assert server.health()["in_use"] == 1
    assert not byoc.alive()
    assert "" not in container.alive()


@pytest.mark.parametrize("kind", [Byoc, LV2V])
async def test_an_idle_stream_ends_and_leaves_no_channel(
    kind: type[Byoc | LV2V], orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    async with serving(Invert(), idle_timeout=0.3) as server:
        stream = kind(orchestrator, server, http)
        assert await stream.start({}) == 200
        assert (await told(stream))[-2:] == [{"stopped": True}, {"type": "ended", "reason": "idle"}]
        await until(lambda: not server.health()["in_use"])
        await until(lambda: "" not in stream.alive() and "-out" not in stream.alive())


@pytest.mark.parametrize("kind", [Byoc, LV2V])
async def test_streams_end_when_the_runner_stops(
    kind: type[Byoc | LV2V], orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    async with serving(Invert()) as server:
        stream = kind(orchestrator, server, http)
        assert await stream.start({}) == 200
        events = asyncio.create_task(told(stream))
    assert (await asyncio.wait_for(events, 30))[-1] == {"type": "ended", "reason": "shutdown"}
    assert "" not in stream.alive()
    await until(lambda: not [one.name for one in threading.enumerate() if "livepeer-runner" in one.name])


async def test_a_byoc_stream_is_updated_and_stopped_by_its_id(
    orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    async with serving(Invert()) as server:
        stream = Byoc(orchestrator, server, http)
        assert await stream.start({"on": True}) == 200
        assert stream.body == {"stream_id": stream.id}
        assert await stream.update({"on": False}) == 200
        assert await stream.update({"params": {"on": True}}) == 200
        assert await stream.update({"params": '{"on": false}'}) == 200
        assert await stream.update({"fail": 409}) == 409
        assert stream.body["error"]["message"] == "no such thing"
        assert await stream.update({"fail": 401}) == 403  # at a 401 an orchestrator forgets the capability
        assert await stream.update({"other": 1}) == 500
        assert stream.body["error"]["type"] == "KeyError"
        assert await stream.update([1]) == 422
        assert await stream.update(b"no JSON") == 422
        assert await stream.update(b"[" * 100_000) == 422
        twice = Byoc(orchestrator, server, http)
        twice.id = stream.id
        assert await twice.start({}) == 409
        events = asyncio.create_task(told(stream))
        assert await stream.stop() == 200
        assert await events == [
            {"started": True},
            {"on": False},
            {"on": True},
            {"on": False},
            {"stopped": True},
        ]
        assert server.health()["in_use"] == 0
        assert await stream.stop() == 200
        assert await stream.update({"on": True}) == 404
        assert await stream.post("/stream/stop", b"") == 400
        assert await stream.post("/stream/params", {}) == 400
        assert await stream.start({"on": True}) == 200  # its id is free again


@pytest.mark.parametrize(
    ("body", "params"),
    [
        ({"params": {"a": 1}, "model_id": "m", "b": 2}, {"a": 1}),
        ({"params": '{"a": 1}', "stream_name": "n", "stream_id": "s"}, {"a": 1}),
        ({"params": ""}, {}),
        ({"a": 1, "prompt": "a cat", "stream_id": "s", "rtmp_output": ""}, {"a": 1, "prompt": "a cat"}),
        ({}, {}),
    ],
)
async def test_the_parameters_in_a_clients_body(
    body: dict[str, Any], params: dict[str, Any], orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    async with serving(Remote()) as server:
        stream = Byoc(orchestrator, server, http)
        assert await stream.start(**body) == 200, stream.body
        async with ChannelReader(stream.urls["events"], start=0) as events:
            assert await anext(events) == {"params": params}
        await stream.stop()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"params": [1]}, 422, "params"),
        ({"params": "[1]"}, 422, "the text of one"),
        ({"params": {"on": "perhaps"}}, 422, "on: Input should be a valid boolean"),
        ({"params": {"refuse": 409}}, 409, "not for you"),
        ({"params": {"refuse": 401}}, 403, "not for you"),
        ({"control_url": "http://127.0.0.1:9/mine"}, 400, "one server"),
        ({"data_url": "file:///etc/passwd"}, 400, "one server"),
        ({"subscribe_url": None}, 422, "enable_video_ingress"),
    ],
)
async def test_a_byoc_start_that_can_not_work(
    body: dict[str, Any], status: int, says: str, orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    async with serving(Invert()) as server:
        stream = Byoc(orchestrator, server, http)
        assert await stream.start(**body) == status, stream.body
        assert says in stream.body["error"]["message"]
        assert server.health()["in_use"] == 0


async def test_channels_that_a_pipeline_has_no_use_for_end_at_once(
    orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    async with serving(Remote()) as server:
        stream = Byoc(orchestrator, server, http)
        assert await stream.start({}) == 200
        assert stream.alive() == {"-control", "-events", "-data"}
        async with ChannelReader(stream.urls["data"]) as data:
            assert await stream.update({"a": 1}) == 200
            assert await anext(data) == {"a": 1}
        # Without media the end of the control channel is the end, as when its orchestrator lost the stream.
        orchestrator.trickle.close_channel(f"{stream.id}-control")
        await until(lambda: not server.health()["in_use"])
        await until(lambda: "-control" not in stream.alive())


@pytest.mark.parametrize(("kind", "pipeline"), [(Byoc, Invert()), (Byoc, Remote()), (LV2V, Invert())])
async def test_a_stream_ends_when_its_orchestrator_is_gone(
    kind: type[Byoc | LV2V], pipeline: LivePipeline, orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    async with serving(pipeline) as server:
        stream = kind(orchestrator, server, http)
        assert await stream.start({}) == 200
        assert server.health()["in_use"] == 1
        await orchestrator.stop()
        await until(lambda: not server.health()["in_use"])


class Slowly(Invert):
    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def on_stream_start(self, params: Params) -> None:
        self.begun.set()
        self.go.wait(20)
        super().on_stream_start(params)


@pytest.mark.parametrize("kind", [Byoc, LV2V])
async def test_a_start_that_its_orchestrator_gave_up_leaves_nothing(
    kind: type[Byoc | LV2V], orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    pipeline = Slowly()
    async with serving(pipeline) as server:
        stream = kind(orchestrator, server, http)
        starting = asyncio.create_task(stream.start({}))
        await until(pipeline.begun.is_set)
        starting.cancel()
        await asyncio.wait({starting})
        for suffix in stream.alive():
            orchestrator.trickle.close_channel(stream.id + suffix)
        pipeline.go.set()
        await until(lambda: not server.health()["in_use"])


async def test_pictures_that_nobody_wants_back(orchestrator: Any, http: aiohttp.ClientSession) -> None:
    async with serving(Count()) as server:
        stream = Byoc(orchestrator, server, http)
        assert await stream.start({}, without="subscribe") == 200, stream.body
        async with ChannelReader(stream.urls["data"], start=0) as data:
            async with MediaPublish(stream.urls["publish"], fps=30) as media_in:
                for _ in range(40):
                    await media_in.write_frame(PICTURE)
            counted = [message["seen"] async for message in data]
        assert counted == list(range(1, 41))
        await until(lambda: not server.health()["in_use"])


async def test_a_stream_without_events_says_that_it_lives(
    orchestrator: Any, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ByocContract, "heartbeat", 0.05)
    async with serving(Invert()) as server:
        stream = Byoc(orchestrator, server, http)
        assert await stream.start({}) == 200

        async def segment(number: int) -> bytes:
            async with http.get(f"{stream.urls['events']}/{number}") as response:
                return await response.read()

        assert await segment(0) == b'{"started":true}'
        assert [await segment(number) for number in (1, 2, 3)] == [b'{"keep":"alive"}'] * 3
        await stream.stop()


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"params": {"refuse": 400}}, 400, {"msg": "not for you"}),
        ({"params": {"refuse": 403}}, 500, {"msg": "403 not for you"}),
        ({"params": {"refuse": 429}}, 500, {"msg": "429 not for you"}),
        ({"control_url": "http://127.0.0.1:9/mine"}, 400, None),
    ],
)
async def test_a_containers_refusal_is_one_that_an_ai_worker_passes_on(
    body: dict[str, Any], status: int, detail: Any, orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    async with serving(Invert()) as server:
        stream = LV2V(orchestrator, server, http)
        assert await stream.start(**body) == status
        assert detail is None or stream.body["detail"] == detail
        assert server.health()["in_use"] == 0


async def test_a_container_names_the_fields_that_are_wrong(
    orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    async with serving(Invert()) as server:
        stream = LV2V(orchestrator, server, http)
        assert await stream.start({"on": "perhaps"}) == 422
        (field,) = stream.body["detail"]
        assert (field["loc"], field["type"]) == (["on"], "bool_parsing")
        assert await stream.start(subscribe_url=None) == 422
        assert stream.body["detail"][0]["loc"] == ["subscribe_url"]
        assert await stream.start({}) == 200
        twice = LV2V(orchestrator, server, http)
        twice.id = stream.id
        assert await twice.start({}) == 500
        assert twice.body["detail"]["msg"].startswith(f"409 {stream.id} has a stream already")


class Slow(Invert):
    def __init__(self) -> None:
        self.go = threading.Event()

    def setup(self) -> None:
        self.go.wait(20)


async def test_a_container_that_loads_is_waited_for(orchestrator: Any, http: aiohttp.ClientSession) -> None:
    pipeline = Slow()
    async with serving(pipeline, wait=False, gpu={"id": "G", "name": "RTX", "vram_mb": 2}) as server:

        async def get(path: str) -> tuple[int, Any]:
            async with http.get(server.url + path) as response:
                return response.status, await response.json()

        status, health = await get("/health")
        assert (status, health["status"]) == (200, "LOADING")
        stream = LV2V(orchestrator, server, http)
        starting = asyncio.create_task(stream.start({}))
        await asyncio.sleep(0.1)
        assert not starting.done()
        pipeline.go.set()
        assert await starting == 200
        assert stream.body["manifest_id"] == stream.id
        status, health = await get("/health")
        assert (status, health["status"]) == (200, "OK")
        named = {"pipeline": "live-video-to-video", "model_id": "noop"}
        assert await get("/version") == (200, named | {"version": "1.2.3"})
        memory = 2 * 1024 * 1024
        gpu = {"id": "G", "name": "RTX", "memory_total": memory, "memory_free": 0, "major": 0, "minor": 0}
        assert await get("/hardware/info") == (200, named | {"gpu_info": {"0": gpu}})
    async with serving(Remote()) as server:
        stream = LV2V(orchestrator, server, http)
        assert await stream.start({}) == 422
        assert "takes no media" in stream.body["detail"][0]["msg"]


class Broken(Invert):
    def setup(self) -> None:
        raise OSError("no such model")


async def test_a_container_that_failed_says_so(orchestrator: Any, http: aiohttp.ClientSession) -> None:
    async with serving(Broken(), wait=False) as server:
        stream = LV2V(orchestrator, server, http)
        assert await stream.start({}) == 500
        assert stream.body["detail"]["msg"].startswith("503 live-video-to-video/noop could not be set up")
        async with http.get(server.url + "/health") as response:
            assert (response.status, (await response.json())["status"]) == (503, "ERROR")
