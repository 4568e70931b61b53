"""How live sessions start over LV2V and BYOC: whose error a refusal is, and which URLs are taken."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from livepeer.client import (
    CapabilityError,
    CapabilityNotFound,
    CapacityError,
    ConfigurationError,
    ConnectionFailed,
    Gateway,
    InsufficientBalance,
    LivepeerError,
    OrchestratorError,
    PaymentUnsupported,
)
from livepeer.client.failover import NO_CAPABILITY, not_begun
from livepeer.client.live.silence import Seen, Silence
from livepeer.client.routes import LiveCall
from livepeer.client.routes._byoc_live import start_stream
from livepeer.client.routes._byoc_stream_verdict import NO_WORKER, stream_verdict
from livepeer.client.routes._health import Health, ask_channels
from livepeer.client.routes._lv2v_verdict import job_refused
from livepeer.client.routes.lv2v import LV2VRoute

WHO: dict[str, Any] = {"orchestrator": "https://orch:8935", "request_id": "r"}
POST = 'Post "http://127.0.0.1:9/live-video-to-video": '
RETURNED = "live-video-to-video container returned"


@pytest.mark.parametrize(
    ("status", "text", "error", "fields"),
    [
        (400, "unexpected EOF", OrchestratorError, {"status": 400}),
        (402, "base64 decode error", PaymentUnsupported, {}),
        (403, "ErrSegSig", PaymentUnsupported, {}),
        (400, "Insufficient balance", PaymentUnsupported, {}),
        (403, "missing auth token", OrchestratorError, {"retryable": True}),
        (403, "invalid auth token", OrchestratorError, {"retryable": True}),
        (403, "ErrorSegEncoding", OrchestratorError, {"retryable": False}),
        (503, "insufficient capacity", CapacityError, {"retryable": True}),
        (500, "no container image found for live pipeline x", CapabilityNotFound, {"retryable": False}),
        (500, f"{RETURNED} 400: why", CapabilityError, {"status": 400, "body": b"why"}),
        (500, f"{RETURNED} 500: 503 All 2 places of x are taken.", CapacityError, {"retryable": True}),
        (500, f"{RETURNED} 500: 409 why", CapabilityError, {"status": 409, "body": b"why"}),
        (500, f"{RETURNED} 401: ", CapabilityError, {"status": 401, "body": b""}),
        (500, f'{RETURNED} 422: {{"detail":[]}}', CapabilityError, {"status": 422}),
        (500, "json: cannot unmarshal string into Go struct field HTTPError.detail", CapabilityError, {}),
        (500, "unexpected end of JSON input", CapabilityError, {"status": 500}),
        (
            500,
            f"{POST}dial tcp 127.0.0.1:9: connect: connection refused",
            OrchestratorError,
            {"retryable": True},
        ),
        (500, f"{POST}EOF", OrchestratorError, {"retryable": True}),
        (500, "Could not create storage to receive results", OrchestratorError, {"retryable": False}),
        (404, "404 page not found", OrchestratorError, {"status": 404}),
    ],
)
def test_why_a_job_is_refused(
    status: int, text: str, error: type[LivepeerError], fields: dict[str, Any]
) -> None:
    found = job_refused(status, f"{text}\n".encode(), model="x", models=("noop",), details=WHO)
    assert type(found) is error
    assert (found.orchestrator, found.request_id) == ("https://orch:8935", "r")
    assert {name: getattr(found, name) for name in fields} == fields
    may_be_tried_elsewhere = "refused" in text or "no container" in text or error is CapacityError
    assert not_begun(found) == may_be_tried_elsewhere


GO = {"X-Content-Type-Options": "nosniff", "Content-Type": "text/plain; charset=utf-8"}
FULL = json.dumps({"error": {"type": "Unavailable", "message": "full"}})


@pytest.mark.parametrize(
    ("status", "text", "headers", "error", "fields"),
    [
        (400, NO_CAPABILITY, GO, OrchestratorError, {"retryable": True, "status": 400}),
        (400, "Could not verify job creds", GO, PaymentUnsupported, {}),
        (
            400,
            "Failed to stop stream, request not valid err=Could not verify job creds",
            GO,
            PaymentUnsupported,
            {},
        ),
        (402, "Insufficient balance for request", GO, InsufficientBalance, {}),
        (400, "Invalid JSON body", GO, OrchestratorError, {"retryable": False}),
        (500, NO_WORKER, GO, OrchestratorError, {"retryable": True, "status": 500}),
        (404, "404 page not found", GO, OrchestratorError, {"status": 404}),
        (404, "404 page not found", {}, CapabilityError, {"status": 404}),
        (500, "Orchestrator worker failure", {}, CapabilityError, {"status": 401}),
        (500, "broken", {}, CapabilityError, {"status": 500, "body": b"broken"}),
        (503, FULL, {}, CapacityError, {"retryable": True}),
        (503, "later", {}, CapabilityError, {"retryable": True}),
        (429, "", {}, CapabilityError, {"retryable": True}),
    ],
)
@pytest.mark.parametrize("verb", ["start", "update"])
def test_why_a_stream_is_refused(
    status: int,
    text: str,
    headers: dict[str, str],
    error: type[LivepeerError],
    fields: dict[str, Any],
    verb: str,
) -> None:
    found = stream_verdict(status, headers, text.encode(), capability="x", verb=verb, details=WHO)
    assert type(found) is error
    assert (found.orchestrator, found.request_id) == ("https://orch:8935", "r")
    assert {name: getattr(found, name) for name in fields} == fields


# URLs


class Orchestrator:
    """What is needed of one: it starts and stops streams, has channels, and notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}
        self.gone: tuple[str, ...] = ()
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        if request.path == "/ai/stream/start":
            return web.Response(headers=self.headers)
        if request.path.endswith("/next"):
            return web.Response(status=404 if request.path.endswith(self.gone) else 200, text="0")
        return web.Response()


@pytest.fixture
async def fake() -> AsyncIterator[Orchestrator]:
    made = Orchestrator()
    app = web.Application()

    async def handle(request: web.Request) -> web.Response:
        return await made.handle(request)

    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = "http://{}:{}".format(*runner.addresses[0][:2])
    yield made
    await runner.cleanup()


@pytest.fixture
async def gw(fake: Orchestrator) -> AsyncIterator[Gateway]:
    async with Gateway(orch_url=fake.url) as made:
        yield made


async def test_channels_of_a_stream(fake: Orchestrator, gw: Gateway) -> None:
    """Those that are told; by their name where the URL may not be called; without those that are gone."""
    fake.headers = {"X-Publish-Url": f"{fake.url}/in", "X-Subscribe-Url": "http://u:p@127.0.0.1/out"}
    fake.gone = ("-data/next",)
    started = await start_stream(fake.url, "x", LiveCall("x", "r", stream_id="mine"), gw._pool)
    base = f"{fake.url}/ai/trickle/{started.session_id}"
    assert started.urls == {
        "publish": f"{fake.url}/in",
        "subscribe": f"{base}-out",
        "control": f"{base}-control",
        "events": f"{base}-events",
    }
    assert started.session_id.startswith("mine-")
    await started.stop()
    assert fake.asked[-1] == "POST /ai/stream/stop"


async def test_a_session_is_there_while_one_of_its_channels_is(fake: Orchestrator, gw: Gateway) -> None:
    started = await start_stream(fake.url, "x", LiveCall("x", "r"), gw._pool)
    transport = await gw._pool.transport()
    assert await started.ask(transport, started) is Health.ALIVE
    fake.gone = ("-control/next", "-events/next")
    assert await ask_channels(transport, started) is Health.ALIVE
    fake.gone = ("/next",)
    assert await ask_channels(transport, started) is Health.SESSION_GONE
    for role in started.urls:
        started.urls[role] = "http://127.0.0.1:1/x"
    assert await ask_channels(transport, started) is Health.LOST


async def test_a_stream_whose_start_broke_off_is_stopped(fake: Orchestrator, gw: Gateway) -> None:
    handle = fake.handle

    async def broken(request: web.Request) -> web.Response:
        answer = await handle(request)
        if request.path == "/ai/stream/start":
            assert request.transport is not None
            request.transport.abort()
        return answer

    fake.handle = broken  # type: ignore[method-assign]
    with pytest.raises(ConnectionFailed, match="before it answered"):
        await start_stream(fake.url, "x", LiveCall("x", "r"), gw._pool)
    await gw.aclose()
    assert "POST /ai/stream/stop" in fake.asked


async def test_a_job_whose_channels_are_elsewhere_is_ended(fake: Orchestrator, gw: Gateway) -> None:
    """Its other URLs may be good, or its name is enough."""
    route = LV2VRoute("http://93.184.216.34", gw._pool)  # a public one may not point into a private network
    with pytest.raises(OrchestratorError, match="refused"):
        await route._started({"manifest_id": "m", "publish_url": f"{fake.url}/in"}, fake.url, "noop")
    assert fake.asked == ["DELETE /ai/trickle/m"]
    near = LV2VRoute(fake.url, gw._pool)
    answer = {"manifest_id": "m", "publish_url": f"{fake.url}/in", "subscribe_url": "file:///etc/passwd"}
    with pytest.raises(OrchestratorError, match="not an http"):
        await near._started(answer, fake.url, "noop")
    assert fake.asked[1:] == ["DELETE /in"]
    started = await near._started({**answer, "subscribe_url": f"{fake.url}/out"}, fake.url, "noop")
    assert (set(started.urls), started.input_ends_all) == ({"publish", "subscribe"}, True)


@pytest.mark.parametrize("odd", [0, "", " ", "a b", "a/b", "..", "é", "a" * 129])
async def test_ids_that_name_no_channels(fake: Orchestrator, gw: Gateway, odd: Any) -> None:
    with pytest.raises(ConfigurationError, match="stream_id="):
        await start_stream(fake.url, "x", LiveCall("x", "r", stream_id=odd), gw._pool)
    assert fake.asked == []


# Signs of life


def test_signs_of_life_that_stay_away() -> None:
    silence = Silence(10.0, 10.0)
    assert not silence.missed(1000.0, Seen(heard_at=10.0)), "it never gave any"
    assert not silence.missed(39.9, Seen(heard_at=10.0, beat=10.0))
    assert silence.missed(40.1, Seen(heard_at=10.0, beat=10.0))
    assert not silence.missed(14.9, Seen(heard_at=10.0, beat=0.1))
    assert silence.missed(15.1, Seen(heard_at=10.0, beat=0.1))
