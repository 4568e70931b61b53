"""Live sessions: what a client of the orchestrator sees of a `LivePipeline`."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from pydantic import BaseModel

from livepeer.runner import ConfigurationError, HTTPError, LivePipeline, RunningServer, _host, running
from livepeer.trickle import ChannelReader, ChannelWriter


class Session:
    """A client's session, by hand."""

    def __init__(self, orchestrator: Any, server: RunningServer, http: aiohttp.ClientSession) -> None:
        self.orchestrator = orchestrator
        self.server = server
        self.http = http

    async def open(self) -> Session:
        url = f"{self.orchestrator.url}/apps/{self.server.runner_id}/session"
        async with self.http.post(url) as response:
            opened = await response.json()
        self.id = opened["session_id"]
        self.app_url = opened["app_url"]
        self.control_url = opened["control_url"]
        return self

    async def live(self, **body: Any) -> tuple[int, dict[str, Any]]:
        async with self.http.post(f"{self.app_url}/live", json=body) as response:
            self.urls: dict[str, Any] = await response.json()
            return response.status, self.urls

    async def stop(self) -> None:
        async with self.http.post(f"{self.control_url}/stop") as response:
            assert response.status in (204, 404)

    async def until_free(self) -> None:
        async with asyncio.timeout(30):
            while self.server.health()["in_use"]:
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving(orchestrator: Any, pipeline: LivePipeline, **options: Any) -> AsyncIterator[RunningServer]:
    async with running(pipeline, orch_url=orchestrator.url, secret=orchestrator.secret, **options) as server:
        await server.registered()
        yield server


async def started(
    orchestrator: Any, server: RunningServer, http: aiohttp.ClientSession, **params: Any
) -> Session:
    session = await Session(orchestrator, server, http).open()
    status, urls = await session.live(params=params)
    assert status == 200, urls
    return session


class Params(BaseModel):
    effect: str = "none"
    strength: float = 1.0


class Remote(LivePipeline):
    """No video: parameters in, events and data out."""

    capacity = 2

    def setup(self) -> None:
        self.model = object()

    def on_stream_start(self, params: Params) -> None:
        if params.effect == "refuse":
            raise HTTPError(403, "not for you")
        if params.effect == "break":
            raise OSError("hidden")
        self.effect = params.effect
        self.thread = threading.get_ident()
        self.emit_event({"started": params, "model": id(self.model)})

    async def on_params_update(self, params: dict[str, Any]) -> None:
        if "burst" in params:
            for i in range(params["burst"]):
                self.emit_data({"i": i})
        if "raise" in params:
            raise ValueError("hidden")
        self.effect = params.get("effect", self.effect)
        self.emit_event({"effect": self.effect})

    def on_stream_stop(self) -> None:
        assert threading.get_ident() == self.thread
        self.emit_event({"stopped": self.effect})


async def test_a_session_from_its_start_to_its_end(orchestrator: Any, http: aiohttp.ClientSession) -> None:
    remote = Remote()
    async with serving(orchestrator, remote) as server:
        assert orchestrator.heartbeats[0]["mode"] == "persistent"
        assert orchestrator.heartbeats[0]["metadata"] == '{"livepeer":1,"live":"/live"}'
        session = await started(orchestrator, server, http, effect="blur")
        assert set(session.urls) == {"manifest_id", "control_url", "events_url", "data_url"}
        assert session.urls["manifest_id"] == session.id
        async with (
            ChannelReader(session.urls["events_url"]) as events,
            ChannelReader(session.urls["data_url"]) as data,
            ChannelWriter(session.urls["control_url"]) as control,
        ):
            assert await anext(events) == {
                "started": {"effect": "blur", "strength": 1.0},
                "model": id(remote.model),
            }
            await control.write({"keep": "alive"})
            await control.write({"effect": "gray"})
            assert await anext(events) == {"effect": "gray"}
            await control.write({"burst": 50})
            assert [(await anext(data))["i"] for _ in range(50)] == list(range(50))
            await session.stop()
            await session.until_free()
        assert not hasattr(remote, "effect")
        assert orchestrator.stopped == [session.id]


async def test_two_sessions_have_their_own_state(orchestrator: Any, http: aiohttp.ClientSession) -> None:
    async with serving(orchestrator, Remote()) as server:
        one = await started(orchestrator, server, http, effect="a")
        two = await started(orchestrator, server, http, effect="b")
        third = await Session(orchestrator, server, http).open()
        status, answer = await third.live()
        assert (status, answer["error"]["type"]) == (503, "Unavailable")
        for session, effect in ((one, "a"), (two, "b")):
            async with (
                ChannelReader(session.urls["events_url"]) as events,
                ChannelWriter(session.urls["control_url"]) as control,
            ):
                await anext(events)
                await control.write({})
                assert await anext(events) == {"effect": effect}
        assert (await one.live())[0] == 409


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"params": {"effect": "refuse"}}, 403, "not for you"),
        ({"params": {"effect": "break"}}, 500, "on_stream_start raised OSError"),
        ({"params": {"effect": 3}}, 422, "effect"),
        ({"params": [1]}, 422, "params"),
    ],
)
async def test_a_refused_start_leaves_nothing(
    orchestrator: Any, http: aiohttp.ClientSession, body: dict[str, Any], status: int, says: str
) -> None:
    async with serving(orchestrator, Remote()) as server:
        session = await Session(orchestrator, server, http).open()
        answered, answer = await session.live(**body)
        assert (answered, says in answer["error"]["message"]) == (status, True)
        assert "hidden" not in str(answer)
        await session.until_free()
        assert [name for name in orchestrator.trickle.channel_names() if name.startswith(session.id)] in (
            [],
            [f"{session.id}-control"],
        )


class Leaves(LivePipeline):
    """A start can be cancelled in its midst, as an author's own task group may do it."""

    media = True

    async def on_stream_start(self, params: dict[str, Any]) -> None:
        if params.get("leave"):
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)


async def test_a_start_that_is_cancelled_gives_its_place_back(
    orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    async with serving(orchestrator, Leaves()) as server:
        session = await Session(orchestrator, server, http).open()
        with contextlib.suppress(aiohttp.ClientError):  # how a server answers then is its own business
            status, _ = await session.live(params={"leave": True})
            assert status >= 500
        await session.until_free()
        await session.stop()
        again = await started(orchestrator, server, http)
        await again.stop()


@pytest.mark.parametrize("control", ["", "x", "http://", "http://[bad", "https://x:99999/", "ftp://x/"])
async def test_a_stream_needs_a_session(http: aiohttp.ClientSession, control: str) -> None:
    told = {"Id": "s", "Token": "t", "Control": control}
    headers = {f"Livepeer-Session-{name}": text for name, text in told.items()}
    async with (
        running(Remote()) as server,
        http.post(server.url + "/live", json={}, headers=headers) as response,
    ):
        assert response.status == 400
        assert "inside a session" in (await response.json())["error"]["message"]


async def test_an_error_in_an_update_is_an_event(orchestrator: Any, http: aiohttp.ClientSession) -> None:
    async with serving(orchestrator, Remote()) as server:
        session = await started(orchestrator, server, http)
        async with (
            ChannelReader(session.urls["events_url"]) as events,
            ChannelWriter(session.urls["control_url"]) as control,
        ):
            await anext(events)
            await control.write({"raise": True})
            event = await anext(events)
            assert (event["type"], event["error"]["type"]) == ("error", "ValueError")
            assert "hidden" not in str(event)
            await control.write({"effect": "on"})
            assert await anext(events) == {"effect": "on"}


async def test_an_idle_session_is_ended_and_released(orchestrator: Any, http: aiohttp.ClientSession) -> None:
    async with serving(orchestrator, Remote(), idle_timeout=0.3) as server:
        session = await started(orchestrator, server, http, effect="x")
        async with ChannelReader(session.urls["events_url"]) as events:
            received = [event async for event in events]
        assert received[1:] == [{"stopped": "x"}, {"type": "ended", "reason": "idle"}]
        await session.until_free()
        await orchestrator.until(lambda: orchestrator.stopped == [session.id])


async def test_sessions_end_before_the_runner_unregisters(
    orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    async with serving(orchestrator, Remote()) as server:
        session = await started(orchestrator, server, http, effect="x")
        reader = ChannelReader(session.urls["events_url"])
        await anext(reader)
        rest = asyncio.create_task(_all(reader))
    async with asyncio.timeout(20):
        assert await rest == [{"stopped": "x"}, {"type": "ended", "reason": "shutdown"}]
    await reader.aclose()
    assert (orchestrator.stopped, len(orchestrator.unregistered)) == ([session.id], 1)


async def _all(reader: ChannelReader) -> list[Any]:
    return [message async for message in reader]


async def test_a_session_after_a_session_finds_a_place(
    orchestrator: Any, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_host, "_PATIENCE", 3.0)
    async with serving(orchestrator, Remote(), capacity=1) as server:
        for _ in range(5):
            session = await started(orchestrator, server, http)
            await session.stop()


class Emits(LivePipeline):
    def on_params_update(self, params: Any) -> None: ...


def test_events_need_a_session() -> None:
    with pytest.raises(ConfigurationError, match="inside a session"):
        Emits().emit_event({})
    assert (Emits.has_data(), Remote.has_data(), Remote.has_media()) == (False, True, False)
