"""The embedded gateway node and BYOC on the embedded chain, as far as the wire tests don't see it."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Iterator
from fractions import Fraction
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from livepeer.devkit import LocalNetwork, PaidMode
from livepeer.trickle.errors import ConfigurationError

PRICE = 10**9  # wei per second; a ticket is worth 8 seconds
Call = Callable[..., Awaitable[tuple[int, bytes]]]


@pytest.fixture(scope="module")
def network() -> Iterator[LocalNetwork]:
    mode = PaidMode(payment_interval=0.05, gateways={"gw": {}, "bare": {"deposit": 0}})
    with LocalNetwork(samples=False, paid=mode) as running:
        yield running


@pytest.fixture
async def call(
    network: LocalNetwork,
    http: aiohttp.ClientSession,
    serve_worker: Callable[[web.Application], Awaitable[str]],
) -> Call:
    """Makes a job through a node: the status, and the body."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path != "/stream":
            return web.Response(body=b"yes")
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        await stream.write(b"data: a\n\n")
        return stream

    app = web.Application()
    app.router.add_post("/{target:.*}", answer)
    body = {"name": "work", "url": await serve_worker(app), "capacity": 9, "price_per_unit": PRICE}
    headers = {"Authorization": network.orch_secret}
    async with http.post(f"{network.orch_url}/capability/register", json=body, headers=headers) as done:
        assert await done.text() == "ok"

    async def make(route: str, timeout: int = 60, *, node: str = "gw") -> tuple[int, bytes]:
        job: dict[str, Any] = {
            "id": "job",
            "request": "{}",
            "parameters": "{}",
            "capability": "work",
            "timeout_seconds": timeout,
        }
        sent = {"Livepeer": base64.b64encode(json.dumps(job).encode()).decode()}
        url = f"{network.gateways[node].url}/process/request/{route}"
        async with http.post(url, headers=sent) as got:
            return got.status, await got.read()

    return make


async def test_what_is_paid_is_credited_and_charged(network: LocalNetwork, call: Call) -> None:
    before = network.credited("work")
    assert await call("run") == (200, b"yes")
    ticket = (network.credited("work") - before) / 8
    assert 8 * 10**9 <= ticket < 8 * 10**9 + 1  # 60 s are 8 tickets
    assert network.balance("work") == network.credited("work") - network.debited("work")
    assert network.debited("work").denominator == 1


async def test_a_stream_ends_with_its_funds(network: LocalNetwork, call: Call) -> None:
    """The worker is done long before, but a stream without [DONE] goes on, and is charged 5 s at a time."""
    status, body = await call("stream", 120)
    assert status == 200
    assert body.startswith(b"data: a\n\n")
    assert body.endswith(b'event: insufficient balance\ndata: {"balance": 0}\n\ndata: [DONE]\n')
    assert -5 * PRICE <= network.balance("work") < Fraction(0)


async def test_a_node_without_funds_answers_nothing(call: Call) -> None:
    assert await call("run", node="bare") == (200, b"")


def test_a_free_network_has_none() -> None:
    with pytest.raises(ConfigurationError, match="paid=True"):
        _ = LocalNetwork(samples=False).gateways
