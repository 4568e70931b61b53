"""BYOC paid for by a signer that offers ``/sign-byoc-job``, on a chain.

No released signer does: the embedded one can, and before the real one stands a server that has the call, and
lets the signer's own wallet sign.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from byoc_harness import ByocWorker
from harness import Worker
from node_harness import NodeNetwork, answer, events

from livepeer.client import (
    BudgetExceeded,
    CapabilityError,
    Gateway,
    InsufficientBalance,
    PaymentUnsupported,
    Price,
    PriceExceeded,
)

PRICE = 10**9  # wei per second: a ticket, worth 8e9 wei, pays for eight
TICKET = 8 * 10**9


def is_work(wei: int, calls: int = 1) -> bool:
    """Whether calls may have been charged this: whole seconds, a few more where the machine is busy."""
    return wei >= calls * PRICE and wei % PRICE == 0


@pytest.fixture
async def gw(node_network: NodeNetwork) -> AsyncIterator[Gateway]:
    """A gateway whose signer signs jobs."""
    async with (
        node_network.job_signer() as signer,
        Gateway(orch_url=node_network.url, signer_url=signer) as made,
    ):
        yield made


@pytest.fixture
async def byoc(node_worker: Worker) -> ByocWorker:
    """A worker with a price."""
    made = await ByocWorker.make(node_worker, capacity=8, price_per_unit=PRICE)
    made.answer = answer(body=b'{"a": 1}', kind="application/json")
    return made


async def test_a_minute_is_paid_for_and_then_used_up(gw: Gateway, byoc: ByocWorker) -> None:
    first = await gw.call_async(byoc.capability, input={"text": "a secret"})
    assert (first.data, first.cost) == ({"a": 1}, 8 * TICKET)  # 60 s are 7.5 tickets
    assert first.price == f"{PRICE} wei/second"
    left = int(first.headers["Livepeer-Balance"])
    assert is_work(8 * TICKET - left)
    paid = 0
    while not paid:  # each call takes a second at least, of which four are left over
        response = await gw.call_async(byoc.capability)
        missing = max(0, 60 * PRICE - left)
        paid = -(-missing // TICKET) * TICKET
        assert response.cost == paid
        assert is_work(left + paid - int(response.headers["Livepeer-Balance"]))
        left = int(response.headers["Livepeer-Balance"])
    assert gw.spent == 8 * TICKET + paid
    assert not any(name.lower().startswith("livepeer") for name in byoc.asked[0].headers)


async def test_events_and_what_is_left(gw: Gateway, byoc: ByocWorker) -> None:
    byoc.answer = events(b"data: a\n\n", b"data: b\n\n", b"data: [DONE]\n\n")
    async with gw.stream_async(byoc.capability) as stream:
        assert [event.data async for event in stream] == ["a", "b"]
    assert stream.complete
    # A stream is paid for as long as it may take, up to ten minutes: 75 tickets.
    assert stream.metadata["balance"] == 75 * TICKET


async def test_what_is_free_is_signed_only(gw: Gateway, node_worker: Worker) -> None:
    free = await ByocWorker.make(node_worker)
    free.answer = answer(body=b"yes")
    response = await gw.call_async(free.capability)
    assert (response.data, response.cost, response.price) == ("yes", 0, None)


async def test_a_workers_error_is_paid_for_and_tried_once(gw: Gateway, byoc: ByocWorker) -> None:
    byoc.answer = answer(404, b"no such path")
    with pytest.raises(CapabilityError, match="answered 404") as caught:
        await gw.run_async(byoc.capability)
    assert len(byoc.asked) == 1  # /run isn't tried, which would be paid for once more
    assert [(one.route, one.begun, one.paid) for one in caught.value.attempts] == [("byoc", True, True)]


async def test_max_price_holds(gw: Gateway, byoc: ByocWorker) -> None:
    with pytest.raises(PriceExceeded, match="max_price"):
        await gw.run_async(byoc.capability, max_price=f"{PRICE - 1} wei/second")
    assert byoc.asked == []
    assert await gw.run_async(byoc.capability, max_price=f"{PRICE} wei/second") == {"a": 1}


async def test_a_budget_holds(node_network: NodeNetwork, byoc: ByocWorker) -> None:
    async with (
        node_network.job_signer() as signer,
        # The first payment is worth 8 tickets, and might have been worth another one.
        Gateway(orch_url=node_network.url, signer_url=signer, budget=9 * TICKET) as gw,
    ):

        async def calls() -> None:
            for _ in range(7):
                await gw.run_async(byoc.capability)

        # Each call takes a second at least, so the second payment is due in the sixth, or before.
        with pytest.raises(BudgetExceeded):
            await calls()
        assert 1 <= len(byoc.asked) <= 5
        assert gw.spent == 8 * TICKET


async def test_a_price_beyond_all_tickets(gw: Gateway, node_worker: Worker) -> None:
    dear = await ByocWorker.make(node_worker, capacity=2, price_per_unit=10**11)
    with pytest.raises(InsufficientBalance, match="more than 100 tickets"):
        await gw.run_async(dear.capability)
    assert dear.asked == []


async def test_many_at_once(gw: Gateway, byoc: ByocWorker) -> None:
    """Each pays what it finds due; nobody is refused, and nobody's payment counts for less."""
    byoc.answer = answer(body=b"yes")
    responses = await asyncio.gather(*(gw.call_async(byoc.capability) for _ in range(4)))
    assert [response.data for response in responses] == ["yes"] * 4
    paid = sum(response.cost for response in responses)
    last = await gw.call_async(byoc.capability)
    assert is_work(paid + last.cost - int(last.headers["Livepeer-Balance"]), calls=5)
    assert gw.spent == paid + last.cost


async def test_what_explain_and_schema_make_of_it(gw: Gateway, byoc: ByocWorker) -> None:
    explained = await gw.explain_async(byoc.capability)
    [candidate] = explained.usable
    assert (candidate.route, candidate.price) == ("byoc", Price(PRICE, "seconds"))
    assert "signs jobs" in candidate.reason
    assert (await gw.explain_async(byoc.capability, max_price="1 wei/second")).usable == ()
    assert (await gw.explain_async(byoc.capability, live=True)).usable == ()
    with pytest.raises(PaymentUnsupported, match="costs something"):
        await gw.schema_async(byoc.capability)
    assert (byoc.asked, gw.spent) == ([], 0)
    assert await gw.schema_async(byoc.capability, pay=True) == {"a": 1}
    assert (len(byoc.asked), gw.spent) == (1, 8 * TICKET)


async def test_streams_that_go_on_are_refused(gw: Gateway, byoc: ByocWorker) -> None:
    with pytest.raises(PaymentUnsupported):
        await gw.live(byoc.capability)
    assert byoc.asked == []


async def test_a_released_signer_signs_none(node_network: NodeNetwork, byoc: ByocWorker) -> None:
    async with Gateway(orch_url=node_network.url, signer_url=node_network.signer) as gw:
        with pytest.raises(PaymentUnsupported, match="that a wallet has signed") as caught:
            await gw.run_async(byoc.capability)
    assert "/sign-byoc-job" in (caught.value.hint or "")
    assert byoc.asked == []


async def test_a_signer_that_signs_in_another_way(node_network: NodeNetwork, byoc: ByocWorker) -> None:
    """As some branches of go-livepeer do: what they sign isn't the request and the parameters alone."""
    seen: list[str] = []

    async def forward(request: web.Request) -> web.Response:
        seen.append(request.path)
        async with node_network.job_signer() as signer:
            body = await request.read()
            if request.path == "/sign-byoc-job":
                body = body.replace(b'"parameters": "{}"', b'"parameters": "{} "')
            async with byoc.worker.http.post(f"{signer}{request.path}", data=body) as answered:
                return web.Response(status=answered.status, body=await answered.read())

    app = web.Application()
    app.router.add_post("/{path:.*}", forward)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with Gateway(orch_url=node_network.url, signer_url=url) as gw:
            with pytest.raises(Exception, match="sign jobs in the same way"):
                await gw.run_async(byoc.capability)
    finally:
        await runner.cleanup()
    assert byoc.asked == []
    assert seen.count("/generate-live-payment") == 1
