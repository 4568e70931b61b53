"""One list of all that a network can do; and the schemas of what is in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from harness import Network, Worker, free_port

from livepeer.client import (
    Capability,
    CapabilityError,
    CapabilityNotFound,
    ConfigurationError,
    Gateway,
    ResponseError,
)

SCHEMA = {"livepeer": 1, "name": "it", "input": {"type": "object"}, "output": {"type": "string"}}


@pytest.fixture
async def gw(network: Network) -> AsyncIterator[Gateway]:
    """A gateway for the network, used asynchronously."""
    async with Gateway(orch_url=network.url) as made:
        yield made


async def listed(gw: Gateway) -> dict[tuple[str, str | None, str], Capability]:
    """The list, by name, model and transport."""
    return {(one.name, one.model, one.transport): one for one in await gw.capabilities_async()}


@pytest.fixture
def calls() -> list[str]:
    """Every call of `counting`: its method and path."""
    return []


@pytest.fixture
async def counting(worker: Worker, calls: list[str]) -> Worker:
    """A worker that answers every call with a schema, and notes it."""

    async def count(request: web.Request) -> web.Response:
        calls.append(f"{request.method} {request.path}")
        return web.json_response(SCHEMA)

    worker.routes.add_route("*", "/{any:.*}", count)
    return worker


async def test_one_list_of_live_runners_and_byoc(
    gw: Gateway, counting: Worker, calls: list[str], network: Network
) -> None:
    name = await counting.register_byoc(capacity=3)
    dead = await counting.register_byoc(capacity=1, url=f"http://127.0.0.1:{free_port()}")
    app = (await counting.register(name, capacity=2))["app"]
    session = (await counting.register(mode="persistent"))["app"]
    found = await listed(gw)
    byoc, runner = found[name, None, "byoc"], found[app, None, "live-runner"]
    assert (byoc.mode, byoc.capacity, byoc.available) == ("single-shot", None, 3)
    assert (runner.mode, runner.capacity, runner.available) == ("single-shot", 2, 2)
    assert found[session, None, "live-runner"].mode == "persistent"
    assert (dead, None, "byoc") in found, "nobody looks whether a worker is alive"
    for one in (byoc, runner):
        assert one.price is None
        assert one.orchestrators == (network.url,)
    assert await asyncio.to_thread(gw.capabilities) == list(found.values())
    assert calls == [], "no worker is called"
    await counting.unregister_byoc(name)
    assert (name, None, "byoc") not in await listed(gw)


async def test_an_orchestrator_without_tls_says_what_it_has_too(plain_network: Network) -> None:
    async with Worker(plain_network) as worker, Gateway(orch_url=plain_network.url) as gw:
        name = await worker.register_byoc()
        assert set(await listed(gw)) == {(name, None, "byoc")}


async def test_a_price_of_byoc_that_nobody_asks_for(gw: Gateway, counting: Worker) -> None:
    """Offchain an orchestrator lists what its workers ask for, and asks for nothing."""
    name = await counting.register_byoc(price_per_unit=7)
    assert (await listed(gw))[name, None, "byoc"].price is None
    assert await gw.run_async(name) == SCHEMA


async def test_a_place_that_is_taken(gw: Gateway, worker: Worker) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def work(request: web.Request) -> web.Response:
        entered.set()
        await leave.wait()
        return web.json_response(None)

    worker.routes.add_post("/{any}", work)
    name = await worker.register_byoc(capacity=1)
    call = asyncio.create_task(gw.run_async(name))
    await entered.wait()
    assert (await listed(gw))[name, None, "byoc"].available == 0
    leave.set()
    await call


async def test_built_in_models(ai_network: Network) -> None:
    async with Gateway(orch_url=ai_network.url) as gw, Worker(ai_network) as worker:
        name = await worker.register_byoc()
        found = await listed(gw)
        assert (name, None, "byoc") in found
        for model in ("noop", "other"):
            one = found["live-video-to-video", model, "lv2v"]
            assert one.mode == "persistent"
            assert (one.capacity, one.available) == (None, None), "an external container counts nothing"
            assert one.price is None
            assert one.orchestrators == (ai_network.url,)
        with pytest.raises(ConfigurationError, match="orchestrators' own"):
            await gw.schema_async("live-video-to-video", model="noop")


# Schemas


@pytest.mark.parametrize("mode", ["single-shot", "persistent"])
async def test_the_schema_of_a_live_runner(
    gw: Gateway, counting: Worker, calls: list[str], mode: str
) -> None:
    app = (await counting.register(mode=mode, capacity=1))["app"]
    assert await gw.schema_async(app) == SCHEMA
    assert await asyncio.to_thread(gw.schema, app) == SCHEMA
    assert calls == ["GET /schema"] * 2


async def test_the_schema_of_byoc(gw: Gateway, counting: Worker, calls: list[str]) -> None:
    name = await counting.register_byoc()
    assert await gw.schema_async(name) == SCHEMA
    assert calls == ["POST /schema"]


async def test_a_public_schema_comes_first(
    gw: Gateway, counting: Worker, calls: list[str], network: Network
) -> None:
    """It is on the orchestrator itself here: another runner's page."""
    page = await counting.register()
    url = f"{page['url']}/app/public.json"
    app = (await counting.register(metadata=json.dumps({"livepeer": 1, "schema_url": url})))["app"]
    assert (await listed(gw))[app, None, "live-runner"].schema_url == url
    assert await gw.schema_async(app) == SCHEMA
    assert calls == ["GET /public.json"]


async def test_a_public_schema_that_is_not_there(
    gw: Gateway, counting: Worker, calls: list[str], network: Network
) -> None:
    """The worker is asked, where it is free."""
    url = f"{network.url}/apps/nobody/app/public.json"
    app = (await counting.register(metadata=json.dumps({"livepeer": 1, "schema_url": url})))["app"]
    assert await gw.schema_async(app) == SCHEMA
    assert calls == ["GET /schema"]


async def test_no_schema(gw: Gateway, worker: Worker) -> None:
    runner = (await worker.register())["app"]
    name = await worker.register_byoc()
    for capability in (runner, name):
        with pytest.raises(CapabilityError, match=r"has no /schema") as caught:
            await gw.schema_async(capability)
        assert caught.value.status == 404
    with pytest.raises(CapabilityNotFound):
        await gw.schema_async("test-nobody")


async def test_what_is_no_schema(gw: Gateway, worker: Worker) -> None:
    async def text(request: web.Request) -> web.Response:
        return web.Response(text="a schema? no")

    worker.routes.add_route("*", "/schema", text)
    runner = (await worker.register())["app"]
    name = await worker.register_byoc()
    for capability in (runner, name):
        with pytest.raises(ResponseError, match="no JSON object"):
            await gw.schema_async(capability)
