"""BYOC at orchestrators on a chain: what a client is told that can't pay, or pays through a gateway node."""

from __future__ import annotations

import pytest
from byoc_harness import ByocWorker
from harness import Worker
from node_harness import PRICE, NodeNetwork, answer

from livepeer.client import (
    CapabilityNotFound,
    Gateway,
    InsufficientBalance,
    PaymentUnsupported,
    Price,
    PriceExceeded,
)


@pytest.fixture
async def byoc(node_worker: Worker) -> ByocWorker:
    """A worker with a price."""
    made = await ByocWorker.make(node_worker, capacity=8, price_per_unit=PRICE)
    made.answer = answer(body=b"yes")
    return made


async def test_without_a_wallet_nothing_can_be_known(node_network: NodeNetwork, byoc: ByocWorker) -> None:
    async with Gateway(orch_url=node_network.url) as gw:
        for name in (byoc.capability, "never-was"):
            with pytest.raises(PaymentUnsupported, match="to a signed wallet alone") as caught:
                await gw.run_async(name)
            hint = caught.value.hint or ""
            assert "Gateway(gateway_url=…, orch_url=…)" in hint
            assert "/sign-byoc-job" in hint
    assert byoc.asked == []


async def test_a_wallet_is_told_the_price_and_what_there_is(
    node_network: NodeNetwork, byoc: ByocWorker
) -> None:
    free = await byoc.worker.register_byoc()
    async with Gateway(orch_url=node_network.url, signer_url=node_network.signer) as gw:
        with pytest.raises(PaymentUnsupported, match=f"costs {PRICE} wei/second") as caught:
            await gw.run_async(byoc.capability)
        assert "gateway_url" in (caught.value.hint or "")
        with pytest.raises(PaymentUnsupported, match="free, but takes BYOC jobs that a wallet has signed"):
            await gw.run_async(free)
        with pytest.raises(CapabilityNotFound):
            await gw.run_async("never-was")
        listed = {one.name: one for one in await gw.capabilities_async()}
        assert listed[byoc.capability].price == Price(PRICE, "seconds")
        assert (listed[byoc.capability].available, listed[byoc.capability].transport) == (8, "byoc")
        assert listed[free].price is None
        explained = await gw.explain_async(byoc.capability)
        [candidate] = [one for one in explained.candidates if one.route == "byoc"]
        assert (candidate.usable, candidate.price) == (False, Price(PRICE, "seconds"))
    assert byoc.asked == []


async def test_max_price_holds_through_a_node_with_a_wallet(
    node_network: NodeNetwork, byoc: ByocWorker
) -> None:
    places = {"gateway_url": node_network.gateway, "orch_url": node_network.url}
    async with Gateway(**places, signer_url=node_network.signer) as gw:
        with pytest.raises(PriceExceeded, match="max_price"):
            await gw.run_async(byoc.capability, max_price=f"{PRICE - 1} wei/second")
        with pytest.raises(PriceExceeded, match="max_price"):
            await gw.run_async(byoc.capability, max_price="1 eth/call")  # another unit than its own
        assert byoc.asked == []
        response = await gw.call_async(byoc.capability, max_price=f"{PRICE} wei/second")
        assert (response.data, response.price) == ("yes", f"{PRICE} wei/second")
    async with Gateway(**places) as gw:
        with pytest.raises(PriceExceeded, match="max_price can't be held") as caught:
            await gw.run_async(byoc.capability, max_price="1 eth/second")
        assert "signer_url=" in (caught.value.hint or "")
    assert len(byoc.asked) == 1


async def test_what_a_node_leads_to(node_network: NodeNetwork, byoc: ByocWorker) -> None:
    places = {"gateway_url": node_network.gateway, "orch_url": [node_network.url, node_network.other]}
    await byoc.worker.register(price_info={"price": "0.1", "currency": "usd", "unit": "hour"})
    async with Gateway(**places, signer_url=node_network.signer) as gw:
        listed = await gw.capabilities_async()
        assert {one.transport for one in listed} == {"byoc"}
        [told] = [one for one in listed if one.name == byoc.capability]
        assert told.price == Price(PRICE, "seconds")
        explained = await gw.explain_async(byoc.capability)
        assert [(one.route, one.usable) for one in explained.candidates] == [("gateway_node", True)] * 2
        assert (explained.candidates[0].where, explained.candidates[0].available) == (node_network.url, 8)
        explained = await gw.explain_async(byoc.capability, live=True)
        assert explained.usable == ()
        dear = await gw.explain_async(byoc.capability, max_price="1 wei/second")
        assert node_network.url not in [one.where for one in dear.usable]
        with pytest.raises(PaymentUnsupported, match="schema"):
            await gw.schema_async(byoc.capability)
    assert byoc.asked == []


async def test_a_node_that_nobody_funded_says_so(node_network: NodeNetwork, node_worker: Worker) -> None:
    dear = await ByocWorker.make(node_worker, capacity=2, price_per_unit=10**12)
    async with Gateway(gateway_url=node_network.gateway, orch_url=node_network.url) as gw:
        with pytest.raises(InsufficientBalance, match="does not last for a minute") as caught:
            await gw.run_async(dear.capability)
    assert "wallet has no deposit or reserve left" in (caught.value.hint or "")
