"""run, stream and call through a gateway node: the client against bare workers that have a price."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from byoc_harness import ByocWorker
from harness import Worker
from node_harness import PRICE, NodeNetwork, answer, events

from livepeer.client import (
    CapabilityError,
    CapabilityNotFound,
    DeadlineExceeded,
    Gateway,
    InsufficientBalance,
    OrchestratorError,
    ResponseError,
    StreamError,
    Timeout,
)


@pytest.fixture
async def byoc(node_worker: Worker) -> ByocWorker:
    """A worker with a price."""
    return await ByocWorker.make(node_worker, capacity=8, price_per_unit=PRICE)


@pytest.fixture
async def gw(node_network: NodeNetwork) -> AsyncIterator[Gateway]:
    """A gateway that calls through the node."""
    async with Gateway(gateway_url=node_network.gateway, orch_url=node_network.url) as made:
        yield made


async def test_a_result_comes_back_as_it_was(gw: Gateway, byoc: ByocWorker) -> None:
    byoc.answer = answer(body=b'{"a": [1]}', kind="application/json")
    response = await gw.call_async(byoc.capability, input={"text": "héllo"}, model="small")
    assert (response.data, response.content_type) == ({"a": [1]}, "application/json")
    assert (response.orchestrator, response.app) == (byoc.network.url, byoc.capability)
    assert (response.headers["X-Metadata"], response.cost) == ("told", 0)
    assert int(response.headers["Livepeer-Balance"]) > 0
    [asked] = byoc.asked
    assert (asked.path, asked.json()) == (f"/{byoc.capability}", {"text": "héllo", "model": "small"})
    assert await asyncio.to_thread(gw.run, byoc.capability) == {"a": [1]}


async def test_bytes_and_text_come_back(gw: Gateway, byoc: ByocWorker) -> None:
    picture = b"\x89PNG\r\n\x1a\n" + bytes(40)
    for body, kind, result in (
        (picture, "image/png", picture),
        (bytes(range(200, 256)), "application/octet-stream", bytes(range(200, 256))),
        ("só".encode(), "text/plain", "só"),
    ):
        byoc.answer = answer(body=body, kind=kind)
        response = await gw.call_async(byoc.capability)
        assert (response.data, response.content_type) == (result, kind)


async def test_a_large_body_passes(gw: Gateway, byoc: ByocWorker) -> None:
    async def echo(_: web.Request) -> web.Response:
        return web.Response(body=byoc.asked[-1].body, content_type="application/octet-stream")

    byoc.answer = echo
    body = bytes(range(256)) * 40_000
    assert await gw.run_async(byoc.capability, input=body) == body


@pytest.mark.parametrize("status", [400, 404, 422, 429])
async def test_a_workers_refusal_is_its_own(gw: Gateway, byoc: ByocWorker, status: int) -> None:
    byoc.answer = answer(status, b'{"error": {"message": "why not"}}', kind="application/json")
    with pytest.raises(CapabilityError, match=f"answered {status}: why not") as caught:
        await gw.run_async(byoc.capability, path="/p")
    assert (caught.value.status, caught.value.body) == (status, b'{"error": {"message": "why not"}}')
    assert len(byoc.asked) == 1


async def test_a_failure_is_never_an_empty_result(node_network: NodeNetwork, byoc: ByocWorker) -> None:
    """And is never made again, though the node knows a second orchestrator that has the capability."""
    worker, name = byoc.worker, byoc.capability
    await node_network.register_at_other(worker, name, price_per_unit=PRICE)
    byoc.answer = answer(500, b"oh")
    places = [node_network.url, node_network.other]
    async with Gateway(gateway_url=node_network.gateway, orch_url=places) as gw:
        with pytest.raises(OrchestratorError, match="answered nothing at all") as caught:
            await gw.run_async(name)
        assert (caught.value.status, len(byoc.asked)) == (200, 1)
        assert [(one.route, one.begun, one.paid) for one in caught.value.attempts] == [
            ("gateway_node", True, True)
        ]
        byoc.answer = events(b"data: a\n\n", b"data: [DONE]\n\n")
        async with gw.stream_async(name) as stream:
            assert [event.data async for event in stream] == ["a"]
        assert len(byoc.asked) == 2
    await node_network.unregister_at_other(worker, name)


async def test_the_next_orchestrator_where_the_first_has_no_place(
    node_network: NodeNetwork, node_worker: Worker
) -> None:
    full = await ByocWorker.make(node_worker, capacity=0, price_per_unit=PRICE)
    full.answer = answer(body=b"yes")
    nowhere = "https://127.0.0.1:1"
    async with Gateway(gateway_url=node_network.gateway, orch_url=[nowhere, node_network.url]) as gw:
        with pytest.raises(CapabilityNotFound, match="any of the 2 orchestrators") as caught:
            await gw.run_async(full.capability)
        assert full.asked == []
        assert {one.begun or one.paid for one in caught.value.attempts} == {False}
        await node_worker.register_byoc(full.capability, capacity=1, price_per_unit=PRICE)
        assert await gw.run_async(full.capability) == "yes"


async def test_a_short_call_is_paid_for_long_enough(gw: Gateway, node_worker: Worker) -> None:
    dear = await ByocWorker.make(node_worker, capacity=4, price_per_unit=10**9)
    dear.answer = answer(body=b"yes")
    assert await gw.run_async(dear.capability, timeout=10) == "yes"


async def test_a_price_that_is_too_high_for_tickets(gw: Gateway, node_worker: Worker) -> None:
    dear = await ByocWorker.make(node_worker, capacity=4, price_per_unit=10**11)
    with pytest.raises(InsufficientBalance, match="does not last for a minute"):
        await gw.run_async(dear.capability)
    assert dear.asked == []


async def test_events(gw: Gateway, byoc: ByocWorker) -> None:
    byoc.answer = events("data: hé\n\n".encode(), b"event: x\ndata: b\n\n", b"data: [DONE]\n\n")
    async with gw.stream_async(byoc.capability) as stream:
        assert [(event.event, event.data) async for event in stream] == [(None, "hé"), ("x", "b")]
        assert stream.complete
        assert stream.orchestrator == byoc.network.url
        assert stream.metadata["x-metadata"] == "told"
        assert stream.metadata["balance"] > 0
    found = await asyncio.to_thread(lambda: list(gw.stream(byoc.capability)))
    assert [event.data for event in found] == ["hé", "b"]
    assert [event.data for event in await gw.run_async(byoc.capability)] == ["hé", "b"]


async def test_events_come_one_by_one(gw: Gateway, byoc: ByocWorker) -> None:
    go = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        await stream.write(b"data: a\n\n")
        await go.wait()
        await stream.write(b"data: b\n\ndata: [DONE]\n\n")
        return stream

    byoc.answer = handle
    async with gw.stream_async(byoc.capability) as stream:
        assert (await anext(stream)).data == "a"
        go.set()
        assert [event.data async for event in stream] == ["b"]


async def test_json_lines_and_json_as_streams(gw: Gateway, byoc: ByocWorker) -> None:
    byoc.answer = answer(body=b'{"a": 1}\n{"b": 2}\n', kind="application/x-ndjson")
    async with gw.stream_async(byoc.capability) as stream:
        assert [event.json() async for event in stream] == [{"a": 1}, {"b": 2}]
        assert stream.content_type == "application/x-ndjson"
    byoc.answer = answer(body=b'{"a":\n1}', kind="application/json")
    async with gw.stream_async(byoc.capability) as stream:
        assert [event.json() async for event in stream] == [{"a": 1}]


async def test_a_stream_without_its_end(gw: Gateway, byoc: ByocWorker) -> None:
    byoc.answer = events(b"data: a\n\n")
    async with gw.stream_async(byoc.capability) as stream:
        assert (await anext(stream)).data == "a"
        with pytest.raises(StreamError, match=r"without \[DONE\]"):
            await anext(stream)
    async with gw.stream_async(byoc.capability, allow_incomplete=True) as stream:
        assert [event.data async for event in stream] == ["a"]
        assert not stream.complete


async def test_limits_hold(node_network: NodeNetwork, byoc: ByocWorker) -> None:
    byoc.answer = answer(body=b"x" * 2000)
    options: dict[str, Any] = {"gateway_url": node_network.gateway, "orch_url": node_network.url}
    async with Gateway(**options, max_response_bytes=1000) as gw:
        with pytest.raises(ResponseError, match="more than 1000 bytes"):
            await gw.run_async(byoc.capability)

    async def wait(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    byoc.answer = wait
    began = time.monotonic()
    async with Gateway(**options) as gw:
        with pytest.raises(DeadlineExceeded):
            await gw.run_async(byoc.capability, timeout=Timeout(total=0.5))
        assert time.monotonic() - began >= 0.5
        await asyncio.wait_for(byoc.gone.wait(), 30)  # the node leaves, too, and the worker notices


async def test_a_stream_that_is_left_early(gw: Gateway, byoc: ByocWorker) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        while True:
            await stream.write(b"data: a\n\n")
            await asyncio.sleep(0.01)

    byoc.answer = handle
    async with gw.stream_async(byoc.capability) as stream:
        assert (await anext(stream)).data == "a"
    await asyncio.wait_for(byoc.gone.wait(), 30)
