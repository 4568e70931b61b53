"""What `GET /discovery` says, field by field."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from aiohttp import web
from harness import Network, Worker, until


async def listing(worker: Worker) -> list[dict[str, Any]]:
    """The runners of the network's only entry."""
    async with worker.request("GET", f"{worker.network.url}/discovery") as answer:
        assert answer.status == 200
        [entry] = await answer.json()
        assert entry["address"] == worker.network.url
        return list(entry.get("runners", []))


async def shown(worker: Worker, app: str) -> dict[str, Any]:
    """The only runner of an app."""
    [runner] = [runner for runner in await listing(worker) if runner["app"] == app]
    return runner


def counts(runner: dict[str, Any]) -> tuple[int, int, int]:
    return runner["capacity"], runner["capacity_used"], runner["capacity_available"]


async def test_a_single_shot_runner(worker: Worker) -> None:
    gpu = {"id": "0", "name": "H100", "vram_mb": 81920}
    runner = await worker.register(
        mode="single-shot", capacity=3, version="1.2.3", metadata='{"run": "/<ü>&"}', gpu=gpu
    )
    assert await shown(worker, runner["app"]) == {
        "url": f"{worker.network.url}/apps/{runner['runner_id']}/app",
        "gpu": gpu,
        "app": runner["app"],
        "version": "1.2.3",
        "metadata": '{"run": "/<ü>&"}',
        "mode": "single-shot",
        "capacity": 3,
        "capacity_used": 0,
        "capacity_available": 3,
    }


async def test_a_persistent_runner_without_anything_optional(worker: Worker) -> None:
    runner = await worker.register(app=f"pipeline/{uuid.uuid4().hex}", mode="persistent", capacity=1)
    assert await shown(worker, runner["app"]) == {
        "url": f"{worker.network.url}/apps/{runner['runner_id']}/session",
        "app": runner["app"],
        "mode": "persistent",
        "capacity": 1,
        "capacity_used": 0,
        "capacity_available": 1,
    }


async def test_the_content_type_is_json(worker: Worker) -> None:
    async with worker.request("GET", f"{worker.network.url}/discovery") as answer:
        assert answer.headers["Content-Type"] == "application/json"
        assert int(answer.headers["Content-Length"]) == len(await answer.read())
        assert "X-Content-Type-Options" not in answer.headers


async def test_runners_are_absent_when_there_are_none(fresh_network: Network) -> None:
    async with Worker(fresh_network) as worker:
        status, text = await worker.ask("GET", f"{fresh_network.url}/discovery")
        assert (status, text) == (200, f'[{{"address":"{fresh_network.url}"}}]')


async def test_sessions_count_as_used(worker: Worker) -> None:
    runner = await worker.register(mode="persistent", capacity=2)
    app = runner["app"]
    first = await worker.reserve(runner)
    assert counts(await shown(worker, app)) == (2, 1, 1)
    second = await worker.reserve(runner)
    assert counts(await shown(worker, app)) == (2, 2, 0)
    for session, left in (first, 1), (second, 2):
        assert await worker.ask("POST", f"{session.control_url}/stop") == (204, "")
        assert counts(await shown(worker, app)) == (2, 2 - left, left)


async def test_a_single_shot_call_counts_while_it_runs(worker: Worker) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def run(_: web.Request) -> web.Response:
        arrived.set()
        await go_on.wait()
        return web.Response()

    worker.routes.add_post("/run", run)
    runner = await worker.register(capacity=1)
    call = asyncio.create_task(worker.ask("POST", f"{runner['url']}/app/run"))
    await arrived.wait()
    assert counts(await shown(worker, runner["app"])) == (1, 1, 0)
    go_on.set()
    assert (await call)[0] == 200

    async def released() -> bool:
        return counts(await shown(worker, runner["app"])) == (1, 0, 1)

    await until(released)


async def test_capacity_can_fall_below_what_is_used(worker: Worker) -> None:
    runner = await worker.register(mode="persistent", capacity=2)
    await worker.reserve(runner)
    await worker.reserve(runner)
    fewer = {**runner["body"], "runner_id": runner["runner_id"], "capacity": 1}
    status, _ = await worker.heartbeat(fewer, runner["heartbeat_secret"])
    assert status == 200
    assert counts(await shown(worker, runner["app"])) == (1, 2, -1)


@pytest.mark.parametrize(("given", "listed"), [({}, {}), ({"name": "A"}, {"name": "A"}), (-1, {"id": "-1"})])
async def test_a_gpu_in_parts(worker: Worker, given: Any, listed: dict[str, Any]) -> None:
    runner = await worker.register(gpu=given)
    assert (await shown(worker, runner["app"]))["gpu"] == listed


@pytest.mark.parametrize("unit", ["hour", "720p", "fixed"])
async def test_no_price_offchain(worker: Worker, unit: str) -> None:
    runner = await worker.register(price_info={"price": "1.5", "currency": "usd", "unit": unit})
    assert "price_info" not in await shown(worker, runner["app"])


async def test_a_proxied_single_shot_runner_shows_another_url(worker: Worker) -> None:
    runner = await worker.register(proxy=True)
    assert (await shown(worker, runner["app"]))["url"] == f"{worker.network.url}/run/{runner['runner_id']}"


async def test_a_proxied_persistent_runner_shows_the_ordinary_url(worker: Worker) -> None:
    runner = await worker.register(mode="persistent", proxy=True)
    assert (await shown(worker, runner["app"]))["url"] == f"{runner['url']}/session"


async def test_the_runners_own_address_is_nowhere(worker: Worker) -> None:
    runner = await worker.register(label="my-label")
    _, text = await worker.ask("GET", f"{worker.network.url}/discovery")
    assert runner["app"] in text
    assert runner["body"]["runner_url"] not in text
    assert "my-label" not in text


async def test_filters_are_not_heard(worker: Worker) -> None:
    runner = await worker.register()
    _, text = await worker.ask("GET", f"{worker.network.url}/discovery?app=other&caps=other")
    assert runner["app"] in text


async def test_other_methods(worker: Worker) -> None:
    url = f"{worker.network.url}/discovery"
    async with worker.request("HEAD", url) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
    async with worker.request("POST", url) as answer:
        assert (answer.status, await answer.text()) == (405, "Method Not Allowed\n")
        assert answer.headers["Allow"] == "GET, HEAD"


async def test_an_unknown_path(worker: Worker) -> None:
    async with worker.request("GET", f"{worker.network.url}/no-such-thing") as answer:
        assert (answer.status, await answer.text()) == (404, "404 page not found\n")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
