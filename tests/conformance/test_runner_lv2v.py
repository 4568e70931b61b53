"""A `LivePipeline` as the container of live-video-to-video, behind an AI worker, and a bare client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from harness import Network, Worker, until
from live_harness import encoded
from live_pipelines import Passing
from runner_harness import Job, orchestrator_info

from livepeer.runner import LivePipeline, RunningServer, running

pytestmark = pytest.mark.timeout(60)


@contextlib.asynccontextmanager
async def serving(
    network: Network, pipeline: LivePipeline | None = None, **options: Any
) -> AsyncIterator[RunningServer]:
    """The container of the model "noop"."""
    options = {"name": "noop", "port": network.port_of("noop"), "tls": "insecure", **options}
    async with running(pipeline or Passing(), **options) as server:
        yield server


@pytest.fixture
async def http(ai_network: Network) -> AsyncIterator[Worker]:
    async with Worker(ai_network) as made:
        yield made


async def test_a_job_from_its_start_to_its_end(ai_network: Network, http: Worker) -> None:
    segments = await encoded(2)
    async with serving(ai_network) as server:
        job = Job(ai_network, http)
        status, text = await job.start({"strength": 0.5})
        assert status == 200, text
        assert server.health()["in_use"] == 1
        await job.until_event({"type": "begun", "strength": 0.5})
        watching = asyncio.create_task(job.watch())
        for number, segment in enumerate(segments):
            await job.write(number, segment)
        await job.control(0, {"strength": 0.7})
        await job.until_event({"type": "params", "strength": 0.7})
        # The end of the input is the end of everything, so the output is read first.
        await until(lambda: len(job.numbers()) == 60, patience=30)
        await job.end_input()
        await watching
        assert job.numbers() == list(range(60))
        assert await job.over()
        await until(lambda: server.health()["in_use"] == 0)


async def test_a_refusal_reaches_the_client_with_its_text(ai_network: Network, http: Worker) -> None:
    async with serving(ai_network) as server:
        failures = [
            (
                {"strength": "much"},
                '422: {"detail":[{"loc":["strength"],"msg":"Input should be a valid number',
            ),
            ({"refuse": 400}, "400: not for you"),
            ({"refuse": 401}, "401: not for you"),
            ({"refuse": 403}, "500: 403 not for you"),
            ({"refuse": 429}, "500: 429 not for you"),
        ]
        for params, says in failures:
            status, text = await Job(ai_network, http).start(params)
            assert status == 500
            assert f"live-video-to-video container returned {says}" in message(text), text
        assert server.health()["in_use"] == 0
        jobs = [Job(ai_network, http) for _ in range(2)]
        for job in jobs:
            assert (await job.start())[0] == 200
        # An orchestrator gives an external container as many jobs as come: it limits itself.
        status, text = await Job(ai_network, http).start()
        assert (status, message(text)) == (
            500,
            "live-video-to-video container returned 500: 503 All 2 places of noop are taken.",
        )
        await jobs[0].end_input()
        await until(lambda: server.health()["in_use"] == 1)
        assert (await Job(ai_network, http).start())[0] == 200


def message(text: str) -> str:
    """The text of an error, plain or in JSON."""
    with contextlib.suppress(ValueError):
        return str(json.loads(text)["error"]["message"])
    return text.strip()


async def test_an_idle_job_ends_and_the_orchestrator_learns_of_it(ai_network: Network, http: Worker) -> None:
    async with serving(ai_network, idle_timeout=0.5) as server:
        job = Job(ai_network, http)
        assert (await job.start())[0] == 200
        await job.until_event({"type": "ended", "reason": "idle"})
        await until(lambda: server.health()["in_use"] == 0)
        await until(job.over)


async def test_jobs_end_when_the_container_stops(ai_network: Network, http: Worker) -> None:
    async with serving(ai_network):
        job = Job(ai_network, http)
        assert (await job.start())[0] == 200
        reading = asyncio.create_task(job.until_event({"type": "ended", "reason": "shutdown"}))
    await reading
    await until(job.over)


class Slow(Passing):
    """Loads for as long as the test wants."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def setup(self) -> None:
        self.go.wait(40)


async def test_a_node_starts_with_a_container_that_is_loading(unstarted_ai_network: Network) -> None:
    """Its first job waits for the model; the orchestrator advertises the container's version."""
    network, pipeline = unstarted_ai_network, Slow()
    async with serving(network, pipeline, wait=False) as server:
        await asyncio.to_thread(network.start)
        async with Worker(network) as http:
            info = await orchestrator_info(network.url)
            models = info.capabilities.constraints.PerCapability[35].models
            assert models["noop"].runnerVersion == "1.2.3"
            job = Job(network, http)
            starting = asyncio.create_task(job.start())
            await asyncio.sleep(0.3)
            assert not starting.done()
            assert server.health()["status"] == "LOADING"
            pipeline.go.set()
            assert (await starting)[0] == 200
            await job.until_event({"type": "begun", "strength": 1.0})
            await job.end_input()
