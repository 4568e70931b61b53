"""What calls cost on runners with prices: what the gateway says is what the orchestrator credited."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator

import pytest
from paid_harness import PaidNetwork
from paid_workers import MODES, PRICES, PaidApps, Received

from livepeer.client import BudgetExceeded, Gateway, InsufficientBalance, PriceExceeded

FIRST = {"seconds": 10, "720p-pixel-seconds": 60 * 1280 * 720 * 30, "fixed": 1}
TICKET = 8_000_000_000  # what one is worth, in wei


@pytest.fixture
def gateway(paid_network: PaidNetwork, paid_apps: PaidApps) -> Iterator[Gateway]:
    with Gateway(orch_url=paid_network.url, signer_url=paid_network.signer_url) as gateway:
        yield gateway


def credited(network: PaidNetwork, received: list[Received], cost: int) -> float:
    """What the orchestrator credited the sessions of these requests; a node's log may be a moment behind."""
    sessions = {one.headers["Livepeer-Session-Id"] for one in received}
    until = time.monotonic() + 20
    while True:
        found = sum(network.credited(session) for session in sessions)
        if abs(found - cost) < 1 or time.monotonic() > until:
            return float(found)
        time.sleep(0.05)


@pytest.mark.parametrize("unit", PRICES)
@pytest.mark.parametrize("mode", MODES)
def test_each_kind_of_price_is_paid(
    gateway: Gateway, paid_network: PaidNetwork, paid_apps: PaidApps, unit: str, mode: str
) -> None:
    app, before = f"paid/{unit}/{mode}", len(paid_apps.got)
    response = gateway.call(app, input={"a": 1}, path="/x")
    assert response.data == {"path": "/x", "size": 7}
    assert response.price is not None
    price = int(response.price.split()[0])
    due = price * FIRST[unit]
    assert due <= response.cost < due + TICKET, "whole tickets, and not one more than is due"
    received = paid_apps.got[before:]
    assert len(received) == 1, "the work was done once"
    assert abs(credited(paid_network, received, response.cost) - response.cost) < 1
    # No server-sent events: go-livepeer breaks some of them off where the request has a body, for any client.
    with gateway.stream(app, path="/y") as stream:
        assert [event.json() for event in stream] == [{"path": "/y", "size": 2}]
        assert stream.cost == response.cost
    assert gateway.spent == 2 * response.cost
    assert abs(credited(paid_network, paid_apps.got[before:], gateway.spent) - gateway.spent) < 1


async def test_many_at_once_and_a_budget(paid_network: PaidNetwork, paid_apps: PaidApps) -> None:
    app, before = "paid/fixed/single-shot", len(paid_apps.got)
    async with Gateway(orch_url=paid_network.url, signer_url=paid_network.signer_url) as gateway:
        one = (await gateway.call_async(app, input={})).cost
    async with Gateway(
        orch_url=paid_network.url, signer_url=paid_network.signer_url, budget=4 * one + TICKET
    ) as gateway:
        results = await asyncio.gather(
            *(gateway.run_async(app, input={}) for _ in range(10)), return_exceptions=True
        )
        over = [result for result in results if isinstance(result, BaseException)]
        assert {type(error) for error in over} == {BudgetExceeded}
        assert len(results) - len(over) in (3, 4)
        assert gateway.spent == (len(results) - len(over)) * one <= 4 * one + TICKET
        received = paid_apps.got[before + 1 :]
        cost = gateway.spent
    found = await asyncio.to_thread(credited, paid_network, received, cost)
    assert abs(found - cost) < 1


@pytest.mark.parametrize(
    ("name", "says"), [("poor", "max faceValue"), ("broke", "no sender deposit"), ("unreserved", "reserve")]
)
def test_a_wallet_without_funds_is_named(
    paid_network: PaidNetwork, paid_apps: PaidApps, name: str, says: str
) -> None:
    signer = paid_network.signers[name]
    with (
        Gateway(orch_url=paid_network.url, signer_url=signer.url) as gateway,
        pytest.raises(InsufficientBalance, match=says) as caught,
    ):
        gateway.run("paid/fixed/single-shot", input={})
    assert caught.value.address is not None
    assert caught.value.address.lower() == signer.address.lower()
    assert gateway.spent == 0
    with Gateway(orch_url=paid_network.url, signer_url=[signer.url, paid_network.signer_url]) as gateway:
        assert gateway.call("paid/fixed/single-shot", input={}).cost == gateway.spent > 0


def test_limits_of_prices(gateway: Gateway, paid_apps: PaidApps) -> None:
    price = gateway.call("paid/fixed/single-shot", input={}).price
    assert price is not None
    assert gateway.call("paid/fixed/single-shot", input={}, max_price=price).status == 200
    with pytest.raises(PriceExceeded):
        gateway.run("paid/fixed/single-shot", input={}, max_price="1 wei/call")


def test_a_webhook_says_what_a_signer_may_pay(paid_network: PaidNetwork, paid_apps: PaidApps) -> None:
    fields = {"signer": paid_network.signers["hooked"].url, "orchestrators": [paid_network.url]}
    fields["signer_headers"] = {"Authorization": "Bearer one"}  # type: ignore[assignment]
    token = base64.b64encode(json.dumps(fields).encode()).decode()
    paid_network.webhook.reset()
    try:
        with Gateway(token=token) as gateway:
            assert gateway.call("paid/fixed/single-shot", input={}).cost == gateway.spent > 0
            asked = paid_network.webhook.asked[-1]
            assert asked["headers"]["Authorization"] == ["Bearer one"]
            spent = gateway.spent
            paid_network.webhook.answer = {"status": 483, "reason": "nothing left"}
            with pytest.raises(InsufficientBalance, match="nothing left"):
                gateway.run("paid/fixed/single-shot", input={})
            paid_network.webhook.answer = {
                "status": 200,
                "maxPrice": {"price": 1, "currency": "wei", "unit": "fixed"},
            }
            with pytest.raises(PriceExceeded, match="ceiling"):
                gateway.run("paid/fixed/single-shot", input={})
            assert gateway.spent == spent
    finally:
        paid_network.webhook.reset()
