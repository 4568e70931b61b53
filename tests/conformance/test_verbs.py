"""run, stream, call and capabilities over the samples, synchronous and asynchronous by the same tests."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from harness import Network, Worker, until
from PIL import Image

from livepeer.client import (
    Blob,
    CapabilityError,
    CapabilityNotFound,
    CapacityError,
    Gateway,
    OrchestratorError,
    StreamError,
    StreamEvent,
)

Verb = Callable[..., Awaitable[Any]]


class Verbs:
    """The verbs of a gateway, awaited either way."""

    def __init__(self, gateway: Gateway, kind: str) -> None:
        self.gateway, self.kind = gateway, kind

    async def run(self, *args: Any, **kwargs: Any) -> Any:
        if self.kind == "async":
            return await self.gateway.run_async(*args, **kwargs)
        return await asyncio.to_thread(self.gateway.run, *args, **kwargs)

    async def call(self, *args: Any, **kwargs: Any) -> Any:
        if self.kind == "async":
            return await self.gateway.call_async(*args, **kwargs)
        return await asyncio.to_thread(self.gateway.call, *args, **kwargs)

    async def events(self, *args: Any, stop_after: int | None = None, **kwargs: Any) -> list[StreamEvent]:
        """The events of a stream, left early after some of them."""
        found: list[StreamEvent] = []
        if self.kind == "async":
            async with self.gateway.stream_async(*args, **kwargs) as stream:
                async for event in stream:
                    found.append(event)
                    if len(found) == stop_after:
                        break
            return found

        def gather() -> list[StreamEvent]:
            for event in self.gateway.stream(*args, **kwargs):
                found.append(event)
                if len(found) == stop_after:
                    break
            return found

        return await asyncio.to_thread(gather)

    async def capabilities(self) -> Any:
        if self.kind == "async":
            return await self.gateway.capabilities_async()
        return await asyncio.to_thread(self.gateway.capabilities)


@pytest.fixture(params=["sync", "async"])
def verbs(gateway: Gateway, request: pytest.FixtureRequest) -> Verbs:
    return Verbs(gateway, request.param)


async def test_text_comes_back_reversed(verbs: Verbs) -> None:
    assert await verbs.run("text-reverse", input={"text": "hello"}) == {"text": "olleh"}


async def test_a_picture_comes_back_inverted(verbs: Verbs) -> None:
    sent = io.BytesIO()
    Image.new("RGB", (32, 16), (250, 20, 3)).save(sent, "PNG")
    result = await verbs.run("image-invert", input=sent.getvalue())
    assert isinstance(result, Blob)
    assert result.content_type == "image/png"
    picture = Image.open(io.BytesIO(result)).convert("RGB")
    assert picture.size == (32, 16)
    assert picture.getpixel((5, 5)) == (5, 235, 252)


async def test_a_call_tells_where_it_went(verbs: Verbs, samples: Network) -> None:
    response = await verbs.call("text-reverse", input={"text": "hello"})
    assert response.data == {"text": "olleh"}
    assert (response.status, response.app, response.orchestrator) == (200, "text-reverse", samples.url)
    assert response.content_type == "application/json"
    assert len(response.request_id) == 32
    assert 0 < response.elapsed < 10
    assert response.price is None
    assert response.cost == 0


async def test_tokens_arrive_one_at_a_time(verbs: Verbs) -> None:
    """Each event is read long before the next is made: the pause between two is the worker's."""
    messages = [{"role": "user", "content": "hi"}]
    events = await verbs.events("llm-chat", input={"messages": messages, "max_tokens": 5, "pause": 0.001})
    assert len(events) == 5
    assert all(isinstance(event.data, str) for event in events)
    began = time.monotonic()
    first = await verbs.events(
        "llm-chat", input={"messages": messages, "max_tokens": 100, "pause": 0.3}, stop_after=2
    )
    assert len(first) == 2
    assert time.monotonic() - began < 10  # of the 30 seconds that all of them would take


async def test_the_worker_notices_an_early_exit(verbs: Verbs) -> None:
    messages = [{"role": "user", "content": "hi"}]
    await verbs.events(
        "llm-chat", input={"messages": messages, "max_tokens": 500, "pause": 0.02}, stop_after=3
    )

    async def closed() -> bool:
        told = await verbs.run("llm-chat", input={"messages": [], "stats": True})
        stats = told[0].json()
        return stats["open_streams"] == 0 and stats["last_stream"]["finished"] is False

    await until(closed)


async def test_capabilities_lists_the_samples(verbs: Verbs, samples: Network) -> None:
    listed = {capability.name: capability for capability in await verbs.capabilities()}
    assert {"echo", "text-reverse", "llm-chat", "image-invert", "video-filter"} <= set(listed)
    assert listed["text-reverse"].mode == "single-shot"
    assert listed["video-filter"].mode == "persistent"
    assert listed["echo"].orchestrators == (samples.url,)
    assert listed["echo"].price is None


async def test_an_unknown_capability_names_those_there_are(verbs: Verbs) -> None:
    with pytest.raises(CapabilityNotFound, match="text-reverse") as caught:
        await verbs.run("text-revers", input={})
    assert "text-reverse" in caught.value.available
    assert caught.value.capability == "text-revers"


async def test_a_wrong_input_is_the_workers_422(verbs: Verbs, samples: Network) -> None:
    with pytest.raises(CapabilityError, match="text") as caught:
        await verbs.run("text-reverse", input={"texxt": "hello"})
    assert caught.value.status == 422
    assert caught.value.orchestrator == samples.url
    assert caught.value.request_id


async def test_a_full_runner_says_so(verbs: Verbs, worker: Worker) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def run(request: Any) -> Any:
        entered.set()
        await leave.wait()
        from aiohttp import web

        return web.json_response({"done": True})

    worker.routes.add_post("/run", run)
    app = (await worker.register(capacity=1))["app"]
    first = asyncio.create_task(verbs.run(app))
    await entered.wait()
    with pytest.raises(CapacityError) as caught:
        await verbs.run(app)
    assert caught.value.retryable
    leave.set()
    assert await first == {"done": True}


async def test_a_runner_that_is_not_there_any_more(verbs: Verbs, worker: Worker) -> None:
    from aiohttp import web

    async def run(request: Any) -> Any:
        return web.json_response({"done": True})

    worker.routes.add_post("/run", run)
    app = (await worker.register())["app"]
    assert await verbs.run(app) == {"done": True}
    await worker.stop()
    with pytest.raises(OrchestratorError) as caught:
        await verbs.run(app)  # on the connection of the call before, if the node hasn't noticed its end
    assert caught.value.status == 502
    with pytest.raises(OrchestratorError, match="not there") as caught:
        await verbs.run(app)
    assert caught.value.status == 502


async def test_a_worker_that_dies_in_mid_stream(verbs: Verbs, worker: Worker) -> None:
    from aiohttp import web

    async def run(request: Any) -> Any:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: one\n\ndata: tw")
        request.transport.abort()
        return response

    worker.routes.add_post("/run", run)
    app = (await worker.register())["app"]
    with pytest.raises(StreamError, match="broke off"):
        await verbs.events(app)


async def test_a_runner_that_registered_again_is_found(verbs: Verbs, worker: Worker) -> None:
    """A listing that is moments old leads to a runner that is gone; the call looks again."""
    from aiohttp import web

    async def run(request: Any) -> Any:
        return web.json_response({"done": True})

    worker.routes.add_post("/run", run)
    first = await worker.register()
    assert await verbs.run(first["app"]) == {"done": True}
    assert await worker.unregister(first) == 204
    await worker.register(first["app"])
    assert await verbs.run(first["app"]) == {"done": True}


@pytest.mark.parametrize("mode", ["single-shot", "persistent"])
async def test_a_cancelled_call_reaches_the_worker_and_frees_its_place(
    gateway: Gateway, worker: Worker, mode: str
) -> None:
    from aiohttp import web

    entered, left = asyncio.Event(), asyncio.Event()

    async def run(request: Any) -> Any:
        entered.set()
        try:
            await asyncio.sleep(60)
        finally:
            left.set()
        return web.Response()

    worker.routes.add_post("/run", run)
    app = (await worker.register(capacity=1, mode=mode))["app"]
    task = asyncio.create_task(gateway.run_async(app))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(left.wait(), 20)

    async def free() -> bool:
        listed = await gateway.capabilities_async()
        return next(c.available for c in listed if c.name == app) == 1

    await until(free)
