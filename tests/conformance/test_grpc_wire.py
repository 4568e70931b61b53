"""`GetOrchestrator` on the wire: what a bare gRPC client is told."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp
import grpc
import pytest
from ai_harness import Caller
from harness import UNVERIFIED, Network, Worker

from livepeer.client._grpc import lp_rpc_pb2 as net

LIVE_VIDEO_TO_VIDEO, BYOC, TEXT_TO_IMAGE = 35, 37, 27
CAPPED = "Invalid orchestrator request: OrchestratorCapped"


@pytest.fixture
async def caller(ai_network: Network) -> AsyncIterator[Caller]:
    async with Caller(ai_network.url) as made:
        yield made


@pytest.fixture
async def plain(network: Network) -> AsyncIterator[Caller]:
    """One to an orchestrator without an AI worker."""
    async with Caller(network.url) as made:
        yield made


def request(
    *models: str, capability: int = LIVE_VIDEO_TO_VIDEO, ignore: bool = False
) -> net.OrchestratorRequest:
    """A question about models, as those who want to start one ask it."""
    asked = net.OrchestratorRequest(ignoreCapacityCheck=ignore)
    asked.capabilities.bitstring.append(1 << capability)
    constraint = asked.capabilities.constraints.PerCapability[capability]
    for name in models:
        constraint.models[name].warm = False
    return asked


async def test_an_orchestrator_says_what_it_has(caller: Caller, ai_network: Network) -> None:
    info = await caller.ask()
    assert info.transcoder == ai_network.url
    assert info.address == bytes(20)
    assert info.capabilities.version.startswith("0.9.1")
    assert info.capabilities.bitstring[0] >> LIVE_VIDEO_TO_VIDEO == 1
    assert info.capabilities.capacities[LIVE_VIDEO_TO_VIDEO] == 1
    assert not info.capabilities.mandatories
    assert set(info.capabilities.constraints.PerCapability) == {LIVE_VIDEO_TO_VIDEO}
    assert not info.nodes


async def test_external_containers_advertise_no_capacity(caller: Caller, ai_network: Network) -> None:
    models = (await caller.ask()).capabilities.constraints.PerCapability[LIVE_VIDEO_TO_VIDEO].models
    assert set(models) == {model["model_id"] for model in ai_network.models} == {"noop", "other"}
    for model in models.values():
        assert (model.warm, model.capacity, model.capacityInUse, model.runnerVersion) == (True, 0, 0, "1.2.3")


async def test_hardware_is_what_the_containers_said(caller: Caller) -> None:
    hardware = (await caller.ask()).hardware
    assert sorted((one.pipeline, one.model_id) for one in hardware) == [
        ("live-video-to-video", "noop"),
        ("live-video-to-video", "other"),
    ]
    assert hardware[0].gpu_info["0"] == net.GPUComputeInfo(
        id="gpu-0", name="None", major=8, minor=9, memory_free=1, memory_total=2
    )


async def test_offchain_there_is_nothing_to_pay(caller: Caller) -> None:
    for asked in (net.OrchestratorRequest(), request("noop")):
        info = await caller.ask(asked)
        assert not info.HasField("price_info")
        assert not info.HasField("ticket_params")
        assert not [price for price in info.capabilities_prices if price.capability != BYOC]


async def test_each_answer_brings_a_token(caller: Caller) -> None:
    tokens = [(await caller.ask(asked)).auth_token for asked in (net.OrchestratorRequest(), request("noop"))]
    for token in tokens:
        assert len(token.token) == 32
        assert len(bytes.fromhex(token.session_id)) == 4
        assert abs(token.expiration - time.time() - 30 * 60) < 60
    assert tokens[0].session_id != tokens[1].session_id


async def test_a_question_with_capabilities_gets_no_lists(caller: Caller) -> None:
    for asked in (request("noop"), net.OrchestratorRequest(capabilities=net.Capabilities())):
        info = await caller.ask(asked)
        assert info.HasField("auth_token")
        assert set(info.capabilities.constraints.PerCapability[LIVE_VIDEO_TO_VIDEO].models) == {
            "noop",
            "other",
        }
        assert not info.hardware
        assert not info.capabilities_prices


async def test_an_unknown_model_gets_a_full_answer(caller: Caller) -> None:
    """An AI worker believes that it could start any model; what comes of it shows the job."""
    for ignore in (True, False):
        info = await caller.ask(request("never", ignore=ignore))
        assert info.HasField("auth_token")


async def test_without_an_ai_worker_it_is_capped(plain: Caller) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await plain.ask(request("noop"))
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.UNKNOWN, CAPPED)
    info = await plain.ask(request("noop", ignore=True))
    assert info.HasField("auth_token")
    assert not info.capabilities.constraints.PerCapability
    assert LIVE_VIDEO_TO_VIDEO not in info.capabilities.capacities
    assert not (await plain.ask()).hardware


async def test_a_question_without_a_model_is_capped_too(caller: Caller) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await caller.ask(request())
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.UNKNOWN, CAPPED)


async def test_other_capabilities_are_not_checked(plain: Caller) -> None:
    assert (await plain.ask(request("never", capability=TEXT_TO_IMAGE))).HasField("auth_token")


async def test_offchain_nobody_looks_at_a_signature(plain: Caller) -> None:
    asked = net.OrchestratorRequest(address=b"\1" * 20, sig=b"anything")
    assert (await plain.ask(asked)).HasField("auth_token")


async def test_byoc_capabilities_are_among_the_prices(plain: Caller, worker: Worker) -> None:
    name = await worker.register_byoc(capacity=3)
    priced = await worker.register_byoc(price_per_unit=7, price_scaling=2)
    info = await plain.ask()
    prices = {price.constraint: price for price in info.capabilities_prices}
    assert prices[name] == net.PriceInfo(pixelsPerUnit=1, capability=BYOC, constraint=name)
    assert prices[priced] == net.PriceInfo(
        pricePerUnit=3, pixelsPerUnit=1, capability=BYOC, constraint=priced
    )
    assert BYOC not in info.capabilities.capacities
    await worker.stop()
    assert name in [price.constraint for price in (await plain.ask()).capabilities_prices], "dead or not"
    await worker.unregister_byoc(name)
    assert name not in [price.constraint for price in (await plain.ask()).capabilities_prices]


async def test_another_method_is_not_there(caller: Caller) -> None:
    call = caller.channel.unary_unary("/net.Orchestrator/Nonsense")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(b"", timeout=10)
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


# One port


async def test_grpc_and_http_share_a_port(caller: Caller, ai_network: Network) -> None:
    """Which of them a connection is for is agreed upon in its TLS handshake."""
    address = urlsplit(ai_network.url)
    for offered in (["h2"], ["http/1.1"], []):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if offered:
            context.set_alpn_protocols(offered)
        with (
            socket.create_connection((address.hostname, address.port), 10) as raw,
            context.wrap_socket(raw) as wrapped,
        ):
            assert wrapped.selected_alpn_protocol() == (offered[0] if offered else None)
    async with aiohttp.ClientSession() as http:
        for _ in range(2):
            assert (await caller.ask()).transcoder == ai_network.url
            async with http.get(f"{ai_network.url}/discovery", ssl=UNVERIFIED) as answer:
                assert answer.status == 200


async def test_an_orchestrator_without_tls_speaks_grpc_too(plain_network: Network) -> None:
    assert plain_network.url.startswith("http://")
    async with Caller(plain_network.url) as caller, aiohttp.ClientSession() as http:
        info = await caller.ask()
        assert info.transcoder == plain_network.url
        async with http.get(f"{plain_network.url}/discovery") as answer:
            assert (await answer.json())[0]["address"] == plain_network.url


async def test_many_calls_share_a_connection(caller: Caller) -> None:
    answers = await asyncio.gather(*(caller.ask() for _ in range(50)))
    assert len({info.auth_token.session_id for info in answers}) == 50


# A restart


async def test_a_restarted_orchestrator_knows_no_token(fresh_ai_network: Network) -> None:
    """Its certificate is another, too; the containers are asked how they are once more."""
    network = fresh_ai_network
    async with Caller(network.url) as before:
        token = (await before.ask()).auth_token
        await asyncio.to_thread(network.restart)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await before.ask()
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert network.stand_in.asked.count(("noop", "/version")) == 2
    segment = base64.b64encode(net.SegData(auth_token=token).SerializeToString()).decode()
    async with Caller(network.url) as after, aiohttp.ClientSession() as http:
        assert (await after.ask()).auth_token != token
        url, headers = f"{network.url}/live-video-to-video", {"Livepeer-Segment": segment}
        async with http.post(url, json={"model_id": "noop"}, headers=headers, ssl=UNVERIFIED) as answer:
            assert (answer.status, await answer.text()) == (403, "invalid auth token\n")
