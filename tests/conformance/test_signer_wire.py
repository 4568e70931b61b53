"""A remote signer, on the wire: its answers and refusals, those of its webhook, no funds, faults."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from harness import until
from paid_harness import PaidNetwork
from paid_workers import KINDS, PRICES, PaidWorker
from payer import Payer, message

from livepeer.client._grpc import lp_rpc_pb2 as net

WEI = {"seconds": 50_000_000_000, "720p-pixel-seconds": 251, "fixed": 250_000_000_000}
HIDDEN = "Internal Server Error"  # the reason is in the signer's log only


@pytest.fixture
async def hooked(paid_network: PaidNetwork) -> AsyncIterator[Payer]:
    """Who pays by the signer that asks a webhook."""
    async with Payer(paid_network, "hooked") as made:
        yield made
    paid_network.webhook.reset()


async def test_it_says_who_pays(paid_network: PaidNetwork, payer: Payer) -> None:
    for signer in paid_network.signers.values():
        answer = await payer.post(f"{signer.url}/sign-orchestrator-info", json={})
        assert answer.status == 200
        told = answer.json()
        assert sorted(told) == ["address", "signature"]
        assert told["address"].lower() == signer.address.lower()
        assert re.fullmatch("0x[0-9a-fA-F]{40}", told["address"])
        assert re.fullmatch("0x[0-9a-f]{130}", told["signature"])


async def test_what_is_no_request_for_a_payment(paid_worker: PaidWorker, payer: Payer) -> None:
    challenge = await payer.challenge((await paid_worker.price("seconds")).entry)
    info = net.OrchestratorInfo.FromString(base64.b64decode(challenge["payment_params"]))

    def without(*names: str) -> dict[str, Any]:
        copied = net.OrchestratorInfo()
        copied.CopyFrom(info)
        for name in names:
            copied.ClearField(name)
        return {"payment_params": base64.b64encode(copied.SerializeToString()).decode()}

    for changed, words in (
        ({"payment_params": ""}, "missing orchestrator"),
        (without("price_info"), "missing or zero priceInfo"),
        (without("ticket_params"), "missing ticketParams in OrchestratorInfo"),
        (
            without("auth_token"),
            "remote signer could not check whether to refresh session: missing auth token",
        ),
    ):
        answer = await payer.try_to_sign(challenge | changed, "live")
        assert (answer.status, message(answer)) == (400, words)
    url = f"{payer.signer.url}/generate-live-payment"
    assert (await payer.post(url, data=b"{")).status == 400
    assert (await payer.post(url, json={})).status == 400
    assert (await payer.post(url, method="GET")).status == 405
    assert (await payer.post(f"{payer.signer.url}/sign-byoc-job", json={})).status == 404  # no release has it


# ---------------------------------------------------------------------- prices


@pytest.mark.parametrize("unit", PRICES)
async def test_a_price_over_the_callers_ceiling(unit: str, paid_worker: PaidWorker, payer: Payer) -> None:
    challenge = await payer.challenge((await paid_worker.price(unit)).entry)
    kind, price = KINDS[unit], WEI[unit]

    async def sign(most: int | str, unit: str = unit, currency: str = "wei") -> tuple[int, str]:
        ceiling = {"price": most, "currency": currency, "unit": unit}
        answer = await payer.try_to_sign(challenge, kind, maxPrice=ceiling)
        return answer.status, message(answer) if answer.status != 200 else ""

    assert await sign(price) == (200, "")
    assert await sign(f"{price}.5") == (200, "")
    assert await sign(price - 1) == (
        481,
        f"orchestrator price {price}.000 exceeds request maxPrice ceiling {price - 1}.000",
    )
    assert await sign(price, currency="usd") == (400, "maxPrice.currency must be wei")
    assert await sign(0) == (400, "maxPrice.price must be a positive decimal")
    wrong = next(name for name in PRICES if name != unit)
    assert await sign(price, unit=wrong) == (400, f"maxPrice.unit must be {unit} for payment type {kind}")


async def test_a_price_that_was_raised_in_mid_session(paid_worker: PaidWorker, payer: Payer) -> None:
    _, _, state, _ = await payer.session(await paid_worker.price("seconds"))
    dear = await payer.challenge((await paid_worker.price("seconds", price="0.4")).entry)
    answer = await payer.try_to_sign(dear, "live", state)
    assert answer.status == 481
    assert message(answer) == (
        "orchestrator price 55555555555.000 exceeds initial session price ceiling 50000000000.000"
    )


# ---------------------------------------------------------------------- no funds


async def test_wallets_that_have_too_little(paid_network: PaidNetwork, paid_worker: PaidWorker) -> None:
    runner = await paid_worker.price("seconds")
    for name, reason in (
        ("poor", "ticket faceValue 350000000000000 > max faceValue 100000000000000"),
        ("broke", "no sender deposit"),
    ):
        async with Payer(paid_network, name) as payer:
            answer = await payer.try_to_sign(await payer.challenge(runner.entry), "live")
        assert answer.status == 400
        assert message(answer) == f"remote signer could not check whether to refresh session: {reason}"
    async with Payer(paid_network, "unreserved") as payer:  # whom no orchestrator gives a challenge
        answer = await payer.post(runner.entry, headers=payer.known)
        assert answer.said == (500, "insufficient sender reserve\n")


# ---------------------------------------------------------------------- the webhook


@pytest.mark.parametrize("status", [401, 403, 429, 483])
async def test_a_webhook_refuses(
    status: int, paid_network: PaidNetwork, paid_worker: PaidWorker, hooked: Payer
) -> None:
    challenge = await hooked.challenge((await paid_worker.price("seconds")).entry)
    paid_network.webhook.answer = {"status": status, "reason": "not you"}
    answer = await hooked.try_to_sign(challenge, "live")
    assert (answer.status, message(answer)) == (status, "not you")
    paid_network.webhook.answer = {"status": status}
    answer = await hooked.try_to_sign(challenge, "live")
    assert (answer.status, message(answer)) == (status, f"signer auth rejected request with status {status}")


async def test_a_webhook_out_of_order_is_the_signers_fault(
    paid_network: PaidNetwork, paid_worker: PaidWorker, hooked: Payer
) -> None:
    challenge = await hooked.challenge((await paid_worker.price("seconds")).entry)
    hook = paid_network.webhook
    hook.status = 503
    answer = await hooked.try_to_sign(challenge, "live")
    assert (answer.status, message(answer)) == (500, HIDDEN)
    hook.status = 200
    hook.answer = {}
    answer = await hooked.try_to_sign(challenge, "live")
    assert (answer.status, message(answer)) == (500, HIDDEN)


async def test_a_webhook_is_asked_with_the_callers_headers_until_its_expiry(
    paid_network: PaidNetwork, paid_worker: PaidWorker, hooked: Payer
) -> None:
    hook = paid_network.webhook
    challenge = await hooked.challenge((await paid_worker.price("seconds")).entry)
    hook.answer = {"status": 200, "auth_id": "somebody"}
    answer = await hooked.try_to_sign(challenge, "live", headers={"Authorization": "Bearer one"})
    assert answer.status == 200
    (asked,) = hook.asked
    assert asked["headers"]["Authorization"] == ["Bearer one"]
    state = answer.json()["state"]

    hook.answer = {"status": 200, "auth_id": "somebody", "expiry": int(time.time()) + 600}
    answer = await hooked.try_to_sign(challenge, "live", state)
    assert (answer.status, len(hook.asked)) == (200, 2)
    state = answer.json()["state"]

    hook.answer = {"status": 403}
    answer = await hooked.try_to_sign(challenge, "live", state)  # without credentials, too
    assert (answer.status, len(hook.asked)) == (200, 2)
    assert (await hooked.try_to_sign(challenge, "live")).status == 403  # nothing says until when
    assert len(hook.asked) == 3

    hook.answer = {"status": 200, "auth_id": "another"}
    answer = await hooked.try_to_sign(challenge, "live")
    state = answer.json()["state"]
    hook.answer = {"status": 200, "auth_id": "somebody"}
    answer = await hooked.try_to_sign(challenge, "live", state)
    assert (answer.status, message(answer)) == (500, HIDDEN)


async def test_a_webhook_has_a_ceiling_of_its_own(
    paid_network: PaidNetwork, paid_worker: PaidWorker, hooked: Payer
) -> None:
    hook = paid_network.webhook
    challenge = await hooked.challenge((await paid_worker.price("seconds")).entry)
    hook.answer = {"status": 200, "maxPrice": {"price": 1, "currency": "wei", "unit": "seconds"}}
    answer = await hooked.try_to_sign(challenge, "live")
    assert answer.status == 481
    assert message(answer) == "orchestrator price 50000000000.000 exceeds auth webhook maxPrice ceiling 1.000"
    hook.answer = {"status": 200, "maxPrice": {"price": 1, "currency": "wei", "unit": "fixed"}}
    assert (await hooked.try_to_sign(challenge, "live")).status == 502


# ---------------------------------------------------------------------- discovery, faults


async def test_its_discovery_tells_runners_and_prices(
    paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    """It looks every three seconds here, by default every 25 minutes."""
    runner = await paid_worker.price("seconds")
    found: list[dict[str, Any]] = []

    async def seen(path: str) -> list[dict[str, Any]]:
        answer = await payer.post(f"{payer.signer.url}/discover-orchestrators{path}", method="GET")
        told = answer.json() if answer.status == 200 else []
        return [one for entry in told for one in entry.get("runners") or [] if one["app"] == runner.app]

    async def there() -> bool:
        found[:] = await seen("")
        return bool(found)

    await until(there)
    assert found[0]["price_info"] == {"price": WEI["seconds"], "currency": "wei", "unit": "seconds"}
    assert await seen(f"?caps={runner.app}") == found
    assert await seen("?caps=nothing/here") == []


async def test_a_state_outlives_its_signer(
    paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    challenge, _, state, _ = await payer.session(await paid_worker.price("seconds"))
    payer.signer.kill()
    try:
        with pytest.raises(aiohttp.ClientConnectionError):
            await payer.try_to_sign(challenge, "live", state)
    finally:
        await asyncio.to_thread(payer.signer.restart)
    more, _ = await payer.sign(challenge, "live", state)
    assert (await payer.post(challenge["payment_url"], headers=more)).status == 200


async def test_a_signer_that_hangs_goes_on_where_it_was(paid_worker: PaidWorker, payer: Payer) -> None:
    challenge = await payer.challenge((await paid_worker.price("seconds")).entry)
    with payer.signer.paused():
        waiting = asyncio.create_task(payer.try_to_sign(challenge, "live"))
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not done
    assert (await waiting).status == 200
