"""Live video-to-video's parts: tokens, models, and the start of their containers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from livepeer.client._grpc import lp_rpc_pb2 as net
from livepeer.devkit import LocalNetwork
from livepeer.devkit.network.ai_worker import AIWorker
from livepeer.devkit.network.credentials import VALID_FOR, AuthTokens
from livepeer.devkit.network.models import checked_models
from livepeer.devkit.network.orchestrator import Orchestrator, listen
from livepeer.devkit.network.validation import Refused
from livepeer.trickle.errors import ConfigurationError, LivepeerError

ServeWorker = Callable[[web.Application], Awaitable[str]]
PIPELINE = "live-video-to-video"
WELL = {
    "/health": {"status": "OK"},
    "/hardware/info": {"pipeline": PIPELINE, "model_id": "noop", "gpu_info": {"0": {"id": "a", "major": 8}}},
    "/version": {"pipeline": PIPELINE, "model_id": "noop", "version": "1.2.3"},
}


def container(about: dict[str, Any]) -> web.Application:
    """One that says this of itself, by path, and takes every job."""

    async def answer(request: web.Request) -> web.Response:
        found = about.get(request.path)
        if isinstance(found, str):
            return web.Response(text=found)
        return web.json_response(found or {}, status=200 if found is not None else 404)

    async def start(_request: web.Request) -> web.Response:
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    app.router.add_post(f"/{PIPELINE}", start)
    return app


def test_a_token_is_good_for_half_an_hour() -> None:
    now = [1000.0]
    tokens = AuthTokens(lambda: now[0])
    token, session, expiration = tokens.issue()
    assert expiration == 1000 + VALID_FOR
    now[0] += VALID_FOR
    tokens.check(token, session, expiration)
    now[0] += 1
    with pytest.raises(Refused, match="expired auth token"):
        tokens.check(token, session, expiration)
    with pytest.raises(Refused, match="invalid auth token"):
        AuthTokens(lambda: now[0]).check(token, session, expiration)
    for wrong in (0, -1, 1 << 62):
        with pytest.raises(Refused, match="invalid auth token"):
            tokens.check(token, session, wrong)


def test_models_are_checked_before_anything_starts() -> None:
    good = {"model_id": "noop", "url": "http://127.0.0.1:1/"}
    assert checked_models([good]) == [{**good, "pipeline": PIPELINE, "url": "http://127.0.0.1:1"}]
    for wrong, match in (
        ({**good, "pipeline": "llm"}, "'noop' is of the pipeline 'llm'; the embedded network runs"),
        ({**good, "port": 5}, "'noop' has port"),
        ({"model_id": "noop"}, "needs its model_id and the url"),
        ({"url": "http://127.0.0.1:1"}, "needs its model_id and the url"),
        ({**good, "url": "127.0.0.1:1"}, "needs its model_id and the url"),
    ):
        with pytest.raises(ConfigurationError, match=match):
            LocalNetwork(lv2v=[wrong])


async def started(url: str) -> AIWorker:
    worker = AIWorker(checked_models([{"model_id": "noop", "url": url}]))
    await worker.start()
    await worker.aclose()
    return worker


async def test_what_a_container_says_is_noted(serve_worker: ServeWorker) -> None:
    (model,) = (await started(await serve_worker(container(WELL)))).models
    assert (model.version, model.hardware) == ("1.2.3", WELL["/hardware/info"])


@pytest.mark.parametrize("status", ["LOADING", "IDLE", "OK"])
async def test_a_container_that_says_nothing_more_will_do(status: str, serve_worker: ServeWorker) -> None:
    (model,) = (await started(await serve_worker(container({"/health": {"status": status}})))).models
    assert model.version == "0.0.0"
    assert model.hardware == {"pipeline": PIPELINE, "model_id": "noop", "gpu_info": {}}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/version", {**WELL["/version"], "model_id": "other"}),
        ("/version", {**WELL["/version"], "version": "newest"}),
        ("/hardware/info", {"gpu_info": {"0": {"major": "eight"}}}),
        ("/hardware/info", {"gpu_info": {"0": 5}}),
        ("/hardware/info", {"gpu_info": [1]}),
        ("/hardware/info", {"gpu_info": {"0": {"major": -1}}}),
        ("/hardware/info", {"gpu_info": {"0": {"memory_free": 1 << 70}}}),
        ("/hardware/info", "text"),
    ],
)
async def test_nonsense_is_not_passed_on(path: str, told: Any, serve_worker: ServeWorker) -> None:
    (model,) = (await started(await serve_worker(container({**WELL, path: told})))).models
    if path == "/version":
        assert model.version == ""
    else:
        assert model.hardware["gpu_info"] == {}


async def test_a_container_that_comes_later_is_waited_for(serve_worker: ServeWorker) -> None:
    about: dict[str, Any] = {}
    starting = asyncio.create_task(started(await serve_worker(container(about))))
    await asyncio.sleep(0.1)
    assert not starting.done()
    about |= WELL
    assert (await starting).models[0].version == "1.2.3"


@pytest.mark.parametrize("said", [{"status": "ERROR"}, "fine"])
async def test_a_broken_container_stops_the_start(said: Any, serve_worker: ServeWorker) -> None:
    url = await serve_worker(container({**WELL, "/health": said}))
    with pytest.raises(LivepeerError, match=r"container of the model 'noop' at .* answers GET /health with"):
        await started(url)


async def test_the_network_says_why_it_does_not_start(serve_worker: ServeWorker) -> None:
    url = await serve_worker(container({"/health": {"status": "ERROR"}}))
    with pytest.raises(LivepeerError, match=r"container of the model 'noop' .*'ERROR'.* is needed"):
        await LocalNetwork(samples=False, lv2v=[{"model_id": "noop", "url": url}]).__aenter__()


async def test_an_input_that_is_swept_ends_the_job(
    serve_worker: ServeWorker, http: aiohttp.ClientSession
) -> None:
    """As the trickle server does with every channel that nobody has written to for five minutes."""
    models = checked_models([{"model_id": "noop", "url": await serve_worker(container(WELL))}])
    async with Orchestrator(listen(), secret="", models=models) as orchestrator:
        token, session, expiration = orchestrator.tokens.issue()
        segment = net.SegData(
            auth_token=net.AuthToken(token=token, session_id=session, expiration=expiration)
        )
        headers = {"Livepeer-Segment": base64.b64encode(segment.SerializeToString()).decode()}
        url = f"{orchestrator.url}/{PIPELINE}"
        async with http.post(url, json={"model_id": "noop"}, headers=headers) as answer:
            manifest_id = (await answer.json())["manifest_id"]
        names = [manifest_id + suffix for suffix in ("", "-out", "-control", "-events")]
        assert orchestrator.trickle.channel_names() == names
        orchestrator.trickle.close_channel(manifest_id)
        assert orchestrator.trickle.channel_names() == []
