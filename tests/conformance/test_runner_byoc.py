"""Our runner as a BYOC worker, and a bare client: calls, streams of events, live streams, registration."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from byoc_harness import job, token
from harness import Network, Worker, until
from live_harness import encoded
from live_pipelines import Passing, Remote
from runner_harness import ByocStream

from livepeer.runner import (
    Event,
    HTTPError,
    LivePipeline,
    Pipeline,
    RegistrationError,
    RunningServer,
    running,
)
from livepeer.runner.contracts.byoc import ByocContract
from livepeer.runner.registration import capability

pytestmark = pytest.mark.timeout(90)


@contextlib.asynccontextmanager
async def serving(
    network: Network, pipeline: Pipeline | LivePipeline, **options: Any
) -> AsyncIterator[RunningServer]:
    """A runner that is registered for BYOC, under a name of the test's own."""
    where = {"orch_url": network.url, "secret": network.secret, "tls": "insecure", "register": "byoc"}
    named = {"name": f"test-{uuid.uuid4().hex[:8]}"}
    async with running(pipeline, **{**where, **named, **options}) as server:
        await server.registered()
        yield server


@contextlib.asynccontextmanager
async def asking(
    worker: Worker, server: RunningServer, route: str, *, timeout: int = 20, **options: Any
) -> AsyncIterator[aiohttp.ClientResponse]:
    """``POST /process/request/{route}``."""
    url = f"{worker.network.url}/process/request/{route}"
    headers = job(server.app_name, timeout=timeout)
    async with worker.request("POST", url, headers=headers, **options) as answer:
        yield answer


async def call(worker: Worker, server: RunningServer, route: str, **options: Any) -> tuple[int, Any]:
    """The same, with the whole answer: JSON, or text that is none."""
    async with asking(worker, server, route, **options) as answer:
        text = await answer.text()
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, text


class Words(Pipeline):
    """Takes a text and gives it back in several ways."""

    capacity = 2
    closed = 0

    async def run(self, text: str = "", how: str = "json", wait: float = 0) -> Any:
        if how == "json":
            await asyncio.sleep(wait)
            return {"text": text}
        if how == "refuse":
            raise HTTPError(int(text), "not for you")
        return self._events(text, how)

    async def _events(self, text: str, how: str) -> AsyncIterator[Any]:
        try:
            for word in text.split():
                yield word
            if how == "done":
                yield {"said": "[DONE]"}
                yield Event({"balance": 3}, event="mine")
            elif how == "large":
                yield "x" * 61 * 1024
                yield "never"
            while how == "endless":
                yield "more"
                await asyncio.sleep(0.01)
        finally:
            Words.closed += 1


async def test_a_call_and_what_goes_wrong_with_it(network: Network, worker: Worker) -> None:
    async with serving(network, Words()) as server:
        for route in (server.app_name, "run"):
            assert await call(worker, server, route, json={"text": "a b"}) == (200, {"text": "a b"})
        status, answer = await call(worker, server, "run", json={"txt": "a"})
        assert (status, answer["error"]["fields"][0]["field"]) == (422, "txt")
        status, answer = await call(worker, server, "nowhere", json={})
        assert (status, answer["error"]["message"].split(".")[0]) == (404, "Not Found: POST /nowhere")
        status, schema = await call(worker, server, "schema", json={})
        assert (status, schema["input"]["properties"].keys()) == (200, {"text", "how", "wait"})
        status, health = await call(worker, server, "health", data=b"")
        assert (status, health["status"]) == (200, "IDLE")
        # A 401 would make the orchestrator forget the capability.
        status, answer = await call(worker, server, "run", json={"how": "refuse", "text": "401"})
        assert (status, answer["error"]["message"]) == (403, "not for you")
        assert await call(worker, server, "run", json={"text": "still here"}) == (200, {"text": "still here"})


async def test_it_limits_itself_to_its_capacity(network: Network, worker: Worker) -> None:
    """The orchestrator passes on as many calls as come."""
    async with serving(network, Words()) as server:
        answers = await asyncio.gather(
            *(call(worker, server, "run", json={"text": "a", "wait": 2}) for _ in range(4))
        )
        assert sorted(status for status, _ in answers) == [200, 200, 503, 503]
        full = next(answer for status, answer in answers if status == 503)
        assert full["error"]["message"] == f"All 2 places of {server.app_name} are taken."
        assert server.health()["in_use"] == 0


async def test_a_stream_of_events_ends_with_done(network: Network, worker: Worker) -> None:
    async with serving(network, Words()) as server:
        lines = b""
        async with asking(worker, server, "run", json={"text": "two words", "how": "done"}) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            async for data in answer.content.iter_any():
                lines += data
                if lines.rstrip().endswith(b"data: [DONE]"):
                    break
        events = [block for block in lines.decode().split("\n\n") if block.strip()]
        balance = events[2].strip()
        assert json.loads(balance.removeprefix("data: ")) == {"balance": 0}
        assert [event.strip() for event in events] == [
            "data: two",
            "data: words",
            balance,  # the orchestrator's, before each line with that word
            'data: {"said":"[DONE]"}',
            'event: mine\ndata: {"balance":3}',
            balance,
            "data: [DONE]",
        ]
        await until(lambda: server.health()["in_use"] == 0)


async def test_an_event_that_would_be_cut_off_is_an_error_instead(network: Network, worker: Worker) -> None:
    async with serving(network, Words()) as server:
        lines = b""
        async with asking(worker, server, "run", json={"text": "one", "how": "large"}) as answer:
            async for data in answer.content.iter_any():
                lines += data
                if b"\n\n" in lines.partition(b"event: error")[2]:
                    break
        assert lines.startswith(b"data: one\n\nevent: error\ndata: ")
        error = json.loads(lines.partition(b"event: error\ndata: ")[2].partition(b"\n")[0])["error"]
        assert "60 KiB" in error["message"]
        await until(lambda: server.health()["in_use"] == 0)


async def test_a_client_that_leaves_is_noticed(network: Network, worker: Worker) -> None:
    async with serving(network, Words()) as server:
        closed = Words.closed
        async with asking(worker, server, "run", json={"how": "endless"}) as answer:
            assert await answer.content.readline() == b"data: more\n"
            answer.close()
        await until(lambda: Words.closed == closed + 1)
        await until(lambda: server.health()["in_use"] == 0)
        waiting = asyncio.create_task(call(worker, server, "run", json={"wait": 60}))
        await until(lambda: server.health()["in_use"] == 1)
        waiting.cancel()
        await until(lambda: server.health()["in_use"] == 0)


async def test_a_live_stream_from_its_start_to_its_end(network: Network, worker: Worker) -> None:
    segments = await encoded(2)
    async with serving(network, Passing()) as server:
        stream = ByocStream(network, worker, server.app_name)
        status, text = await stream.start({"params": {"strength": 0.5}})
        assert (status, text) == (200, "")
        assert set(stream.urls) == {"control", "events", "publish", "subscribe", "data"}
        await stream.until_event({"type": "begun", "strength": 0.5})
        watching = asyncio.create_task(stream.watch())
        await stream.write(0, segments[0])
        assert (await stream.update({"strength": 0.6}))[0] == 200
        await stream.until_event({"type": "params", "strength": 0.6})
        await stream.control(0, {"strength": 0.7})
        await stream.until_event({"type": "params", "strength": 0.7})
        status, text = await stream.update({"refuse": 409})
        assert (status, json.loads(text)["error"]["message"]) == (409, "no such thing")
        first = await stream.read("data", 0)
        assert first is not None
        assert json.loads(first.splitlines()[0]) == {"frame": 1}
        await stream.write(1, segments[1])
        await stream.end_input()  # what was read before comes out to its end
        await watching
        assert stream.numbers() == list(range(60))
        await until(lambda: server.health()["in_use"] == 0)
        await until(stream.over)
        assert (await stream.stop())[0] == 200
        assert (await stream.update({"strength": 1}))[0] == 404
        assert (await stream.start({}))[0] == 200  # the id is free again
        assert (await stream.stop())[0] == 200
        assert server.health()["in_use"] == 0


async def test_a_start_that_is_refused_has_its_status(network: Network, worker: Worker) -> None:
    async with serving(network, Passing()) as server:
        for body, status, says in (
            ({"params": {"refuse": 409}}, 409, "not for you"),
            ({"params": {"refuse": 401}}, 403, "not for you"),
            ({"params": {"strength": "much"}}, 422, "strength: Input should be a valid number"),
            ({"events_url": "http://127.0.0.1:9/mine"}, 400, "one server"),
        ):
            stream = ByocStream(network, worker, server.app_name)
            refused, text = await stream.start(body)
            assert (refused, says in text) == (status, True), text
            await until(stream.over)
        stream = ByocStream(network, worker, server.app_name)
        status, text = await stream.start({}, video_egress=True)
        assert (status, "enable_video_ingress" in text) == (422, True)
        streams = [ByocStream(network, worker, server.app_name) for _ in range(3)]
        answers = [await one.start({}) for one in streams]
        assert [status for status, _ in answers] == [200, 200, 503]
        assert "All 2 places" in answers[2][1]
        for one in streams[:2]:
            assert (await one.stop())[0] == 200
        assert server.health()["in_use"] == 0


async def test_a_second_start_of_an_id_ends_the_stream_and_leaks_nothing(
    network: Network, worker: Worker
) -> None:
    async with serving(network, Passing()) as server:
        stream = ByocStream(network, worker, server.app_name)
        assert (await stream.start({}))[0] == 200
        status, text = await stream.start({})
        assert (status, "has a stream already" in text) == (409, True)
        await until(lambda: server.health()["in_use"] == 0)  # its channels went with the second one's
        assert (await stream.stop())[0] == 200


async def test_idle_streams_end_and_quiet_ones_say_that_they_live(
    network: Network, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ByocContract.heartbeat == 10  # seconds; a gateway node gives up after 30
    monkeypatch.setattr(ByocContract, "heartbeat", 0.2)
    async with serving(network, Passing(), idle_timeout=1.5) as server:
        stream = ByocStream(network, worker, server.app_name)
        assert (await stream.start({}))[0] == 200
        assert await stream.read("events", 1) == b'{"keep":"alive"}'
        await stream.until_event({"type": "ended", "reason": "idle"})
        await until(stream.over)
        assert server.health()["in_use"] == 0


async def test_a_stream_without_media(network: Network, worker: Worker) -> None:
    async with serving(network, Remote()) as server:
        stream = ByocStream(network, worker, server.app_name)
        assert (await stream.start({"prompt": "a cat", "stream_id": "mine"}))[0] == 200
        await stream.until_event({"type": "begun", "prompt": "a cat"})
        assert await stream.over("publish", "subscribe")
        assert (await stream.update({"prompt": "a dog"}))[0] == 200
        assert await stream.read("data", 0) == b'{"prompt":"a dog"}'
        assert (await stream.stop())[0] == 200
        assert server.health()["in_use"] == 0


async def test_streams_end_before_the_runner_is_unregistered(network: Network, worker: Worker) -> None:
    async with serving(network, Passing()) as server:
        stream = ByocStream(network, worker, server.app_name)
        assert (await stream.start({}))[0] == 200
        assert (await token(worker, server.app_name))["available_capacity"] == 1
        reading = asyncio.create_task(stream.until_event({"type": "ended", "reason": "shutdown"}))
    await reading
    await until(stream.over)
    assert "available_capacity" not in await token(worker, server.app_name)


async def test_a_wrong_secret_is_refused(network: Network) -> None:
    with pytest.raises(RegistrationError, match="refuses the secret") as refused:
        async with serving(network, Words(), secret="wrong"):
            pass
    assert refused.value.status == 400


async def test_it_comes_back_after_a_restart_and_when_it_was_forgotten(
    fresh_network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (capability._PACE, capability._LOOK) == (20, 10)  # seconds
    monkeypatch.setattr(capability, "_PACE", 4.0)
    monkeypatch.setattr(capability, "_LOOK", 1.0)
    registered_at: list[float] = [time.monotonic()]
    async with Worker(fresh_network) as worker, serving(fresh_network, Words(), tls="pin") as server:

        async def works() -> bool:
            try:
                found = (await call(worker, server, "run", json={"text": "a"}))[0] == 200
            except aiohttp.ClientError:
                found = False
            if not found:
                await asyncio.sleep(0.3)  # requests beside a registration can crash the orchestrator
            return found

        assert await works()
        await asyncio.to_thread(fresh_network.restart)
        await until(works, patience=30)
        registered_at.append(time.monotonic())
        await worker.unregister_byoc(server.app_name)
        assert not await works()
        await until(works, patience=30)
        registered_at.append(time.monotonic())
    # `works` is asked at times, so what it saw came up to a second before.
    assert all(later - earlier > 3 for earlier, later in itertools.pairwise(registered_at))
