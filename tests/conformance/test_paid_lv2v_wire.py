"""Live video-to-video that is paid, on the wire: a bare caller, a signer, and a bare container."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from fractions import Fraction
from typing import Any

import aiohttp
import pytest
from ai_harness import Caller, Container
from harness import until
from paid_harness import PaidNetwork
from payer import Answer, Payer, payment_in, value_of

from livepeer.client._grpc import lp_rpc_pb2 as net

EV = 8_000_000_000
LV2V = 35  # the capability's id
MINUTE = 60 * 1280 * 720 * 30  # pixels


@pytest.fixture
async def container(paid_network: PaidNetwork) -> AsyncIterator[Container]:
    async with Container(paid_network.models) as playing:
        yield playing


def capabilities() -> net.Capabilities:
    made = net.Capabilities(bitstring=[1 << LV2V], capacities={LV2V: 1})
    made.constraints.PerCapability[LV2V].models["noop"].warm = True
    return made


async def offer(payer: Payer) -> net.OrchestratorInfo:
    """What the orchestrator wants of this payer."""
    told = (await payer.post(f"{payer.signer.url}/sign-orchestrator-info", json={})).json()
    request = net.OrchestratorRequest(
        address=bytes.fromhex(told["address"][2:]),
        sig=bytes.fromhex(told["signature"][2:]),
        capabilities=capabilities(),
    )
    async with Caller(payer.network.url) as caller:
        return await caller.ask(request)


async def pay(
    payer: Payer, info: net.OrchestratorInfo, state: dict[str, str] | None = None, **fields: Any
) -> tuple[dict[str, str], dict[str, str]]:
    """A payment's headers, and the state; with `inPixels` for so many."""
    asked = {
        "orchestrator": base64.b64encode(info.SerializeToString()).decode(),
        **({} if "inPixels" in fields else {"type": "lv2v"}),
        "capabilities": base64.b64encode(capabilities().SerializeToString()).decode(),
        **({"state": state} if state is not None else {}),
        **fields,
    }
    answer = await payer.ask_signer(**asked)
    assert answer.status == 200, answer
    told = answer.json()
    return {"Livepeer-Payment": told["payment"], "Livepeer-Segment": told["segCreds"]}, told["state"]


async def start(payer: Payer, headers: dict[str, str]) -> Answer:
    body = json.dumps({"model_id": "noop"}).encode()
    return await payer.post(f"{payer.network.url}/live-video-to-video", data=body, headers=headers)


async def test_a_job_is_paid_for_a_minute_and_then_on(
    paid_network: PaidNetwork, payer: Payer, container: Container
) -> None:
    info = await offer(payer)
    price = Fraction(info.price_info.pricePerUnit, info.price_info.pixelsPerUnit)
    assert price == 100
    headers, state = await pay(payer, info)
    value = value_of(headers)
    assert price * MINUTE <= value < price * MINUTE + EV + 1
    answer = await start(payer, headers)
    assert answer.status == 200, answer
    told = answer.json()
    manifest_id = told["manifest_id"]
    assert manifest_id != info.auth_token.session_id
    assert abs(paid_network.credited(manifest_id) - value) < 1
    (job,) = container.started
    assert job["manifest_id"] == manifest_id

    more, state = await pay(payer, info, state, ManifestID=manifest_id)
    answer = await payer.post(f"{paid_network.url}/payment", headers=more)
    assert answer.status == 200, answer
    assert net.PaymentResult.FromString(answer.body).info.ticket_params.recipient == info.address
    assert abs(paid_network.credited(manifest_id) - value - value_of(more)) < 1
    first = [ticket.sender_nonce for ticket in payment_in(headers).ticket_sender_params]
    assert payment_in(more).ticket_sender_params[0].sender_nonce == first[-1] + 1
    again = await payer.post(f"{paid_network.url}/payment", headers=more)
    assert (again.status, "already seen" in again.text) == (400, True), again


async def test_a_job_that_nobody_pays_for_is_refused(payer: Payer, container: Container) -> None:
    info = await offer(payer)
    headers, _ = await pay(payer, info)
    segment = {"Livepeer-Segment": headers["Livepeer-Segment"]}
    payment = {"Livepeer-Payment": headers["Livepeer-Payment"]}
    assert (await start(payer, {})).status == 403
    assert (await start(payer, segment)).status == 403
    assert (await start(payer, payment)).status == 403
    assert (await start(payer, segment | {"Livepeer-Payment": "!"})).status == 402
    assert not container.started


@pytest.mark.slow
async def test_a_job_that_is_not_paid_on_ends_with_a_segment(
    paid_network: PaidNetwork, payer: Payer, container: Container
) -> None:
    """Segments are what is looked at: who sends none is charged nothing for that long."""
    headers, _ = await pay(payer, await offer(payer), inPixels=1)
    told = (await start(payer, headers)).json()
    events, number = told["events_url"], 0
    ends = payer.post(f"{events}/0", method="GET")

    async def send() -> int:
        nonlocal number
        number += 1
        media = {"Content-Type": "video/MP2T"}
        url = f"{told['publish_url']}/{number - 1}"
        return (await payer.post(url, data=b"segment", headers=media)).status

    async def over_now() -> bool:
        with contextlib.suppress(aiohttp.ClientError):  # its end may meet the segment that brings it about
            await send()
        await asyncio.sleep(0.5)
        return (await payer.post(f"{told['publish_url']}/next", method="GET")).status == 404

    reading = asyncio.create_task(ends)
    await until(over_now, 120)
    assert await send() == 404
    over = await reading
    assert (over.status, over.headers["Lp-Trickle-Closed"]) == (200, "terminated")
    for name in ("publish_url", "subscribe_url", "control_url", "events_url"):
        assert (await payer.post(f"{told[name]}/next", method="GET")).status == 404
    manifest_id = told["manifest_id"]
    assert paid_network.debited(manifest_id) == 0
    assert abs(paid_network.credited(manifest_id) - value_of(headers)) < 1
    more, _ = await pay(payer, await offer(payer), ManifestID=manifest_id)
    answer = await payer.post(f"{paid_network.url}/payment", headers=more)
    assert answer.status == 200  # a job has no address of its own: money for one that is over is taken
    assert paid_network.credited(manifest_id) > value_of(more)
