"""Paid calls on live runners, against signers and orchestrators on real sockets that count the tickets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from livepeer.client import (
    BudgetExceeded,
    CapacityError,
    ConfigurationError,
    Gateway,
    InsufficientBalance,
    LivepeerError,
    PaymentError,
    PaymentUnsupported,
    PriceExceeded,
    RequestRecord,
    SignerError,
    Timeout,
    errors,
    failover,
)

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode has no other way to share a module

from client_steps import awaited, cancelled_at
from client_tills import EV, Failing, Refusing, Signer, Till, Tills, listed, refused, said, tickets_for, tills

PRICE = 25 * 10**9
WEI = round(tickets_for(1, PRICE) * EV)  # what a call at that price is paid
KEY = "s3cr3t-k3y"
MANY = 2 * 10**9  # wei a second, which is one ticket and more for ten


@pytest.fixture
def network() -> Iterator[Tills]:
    with tills() as loop:
        yield loop


@pytest.fixture
def signer(network: Tills) -> Signer:
    signer = Signer()
    network.start(signer)
    return signer


@pytest.fixture
def till(network: Tills) -> Till:
    till = Till()
    network.start(till)
    return till


@pytest.fixture
def gateway(till: Till, signer: Signer) -> Iterator[Gateway]:
    with Gateway(orch_url=till.url, signer_url=signer.url) as gateway:
        yield gateway


# What is paid


@pytest.mark.parametrize(
    ("unit", "price", "units"),
    [("fixed", PRICE, 1), ("seconds", MANY, 10), ("720p-pixel-seconds", 100, 60 * 1280 * 720 * 30)],
)
@pytest.mark.parametrize("mode", ["single-shot", "persistent"])
def test_a_call_is_paid_once(
    network: Tills, signer: Signer, unit: str, price: int, units: int, mode: str
) -> None:
    till = Till(price, unit, mode)
    network.start(till)
    with Gateway(orch_url=till.url, signer_url=signer.url) as gateway:
        response = gateway.call("it", input={"a": 1})
        wei = round(tickets_for(units, price) * EV)
        assert (response.data, response.cost, gateway.spent) == ({"got": 7}, wei, wei)
        assert round(till.total) == wei
        assert (till.seen, till.worked, len(signer.asked)) == (["ask", "pay"], 1, 1)
        assert till.payers == [signer.address]
        assert gateway.run("it", input={"a": 1}) == {"got": 7}
        assert (gateway.spent, round(till.total)) == (2 * wei, 2 * wei)
        assert signer.payers == 1, "who pays is asked once"
        assert len(till.credited) == 2, "each call has a challenge of its own"
        with gateway.stream("it", input={}, path="/events") as stream:
            assert [event.data for event in stream] == ["0", "1", "2"]
            assert stream.cost == wei
    assert till.stopped == (3 if mode == "persistent" else 0)
    asked = signer.asked[0]
    assert (asked["type"], asked["app"]) == (
        {"fixed": "fixed", "seconds": "live"}.get(unit, "lv2v"),
        "it",
    )
    assert asked["ManifestID"] in till.credited
    assert "state" not in asked, "no challenge gets another one's state"


async def test_asynchronous_verbs_pay_too(till: Till, signer: Signer) -> None:
    async with Gateway(orch_url=till.url, signer_url=signer.url) as gateway:
        response = await gateway.call_async("it", input={})
        assert (response.cost, gateway.spent) == (WEI, WEI)
        async with gateway.stream_async("it", input={}, path="/events") as stream:
            assert [event.data async for event in stream] == ["0", "1", "2"]
            assert stream.cost == WEI
    assert gateway.spent == round(till.total) == 2 * WEI


def test_a_token_is_enough(till: Till, signer: Signer) -> None:
    import json

    fields = {"signer": signer.url, "signer_headers": {"Authorization": KEY}, "orchestrators": [till.url]}
    token = base64.b64encode(json.dumps(fields).encode()).decode()
    with Gateway(token=token) as gateway:
        assert gateway.call("it", input={}).cost == WEI
    assert {headers["Authorization"] for headers in signer.headers} == {KEY}


def test_headers_of_a_signer_are_made_anew_when_it_refuses_them(till: Till, signer: Signer) -> None:
    made: list[str] = []

    def headers() -> tuple[dict[str, str], float]:
        made.append(f"key-{len(made)}")
        return {"Authorization": made[-1]}, 2e9

    async def expired(_: dict[str, Any]) -> web.StreamResponse | None:
        return said(401, "expired") if signer.headers[-1]["Authorization"] == "key-0" else None

    signer.refusing = expired
    with Gateway(orch_url=till.url, signer_url=signer.url, signer_headers=headers) as gateway:
        assert gateway.call("it", input={}).cost == WEI
        assert gateway.call("it", input={}).cost == WEI
    assert made == ["key-0", "key-1"]


def test_without_a_signer_nothing_is_asked(till: Till) -> None:
    with Gateway(orch_url=till.url) as gateway, pytest.raises(PaymentUnsupported, match="signer_url"):
        gateway.run("it", input={})
    assert till.seen == []
    assert gateway.spent == 0


# Limits


def test_max_price_is_held_against_what_is_listed_and_what_is_asked(
    network: Tills, signer: Signer, till: Till, gateway: Gateway
) -> None:
    with pytest.raises(PriceExceeded, match="over max_price"):
        gateway.run("it", input={}, max_price=f"{PRICE - 1} wei/call")
    with pytest.raises(PriceExceeded, match="can't be compared"):
        gateway.run("it", input={}, max_price="1 eth/second")
    assert till.seen == []
    assert gateway.call("it", input={}, max_price=f"{PRICE} wei/call").cost == WEI
    assert signer.asked[-1]["maxPrice"] == {"price": PRICE, "currency": "wei", "unit": "fixed"}
    till.asks = PRICE + 1
    with pytest.raises(PriceExceeded, match="raised its price") as caught:
        gateway.run("it", input={}, max_price=f"{PRICE} wei/call")
    assert [(one.begun, one.paid) for one in caught.value.attempts] == [(False, False)]
    assert len(signer.asked) == 1, "the signer wasn't asked for it"
    with Gateway(
        orch_url=till.url, signer_url=signer.url, max_price="0.00005 usd/call", eth_usd=lambda: 2000
    ) as limited:
        with pytest.raises(PriceExceeded):
            limited.run("it", input={})
        assert limited.call("it", input={}, max_price="1 usd/call").status == 200
    cheaper = Till(PRICE)
    network.start(cheaper)
    with Gateway(orch_url=[till.url, cheaper.url], signer_url=signer.url) as both:
        answer = both.call("it", input={}, max_price=f"{PRICE} wei/call")
        assert answer.orchestrator == cheaper.url, "the next one is asked"
        assert both.spent == WEI == round(cheaper.total)


def test_a_budget_and_a_gateway_node_exclude_each_other(signer: Signer) -> None:
    with pytest.raises(ConfigurationError, match="own wallet"):
        Gateway(orch_url="https://x", gateway_url="https://g", signer_url=signer.url, budget=5)


def test_a_gateway_that_was_pickled_keeps_its_limits(till: Till, signer: Signer) -> None:
    with Gateway(
        orch_url=till.url, signer_url=signer.url, budget=3 * WEI, max_price="1 usd/call", eth_usd=2000
    ) as gateway:
        gateway.run("it", input={})
        with pickle.loads(pickle.dumps(gateway)) as other:
            assert (other.spent, gateway.spent) == (0, WEI)
            other.run("it", input={})
            with pytest.raises(PriceExceeded):
                other.run("it", input={}, max_price="0.0000001 usd/call")


def test_a_hundred_calls_at_once_with_a_budget_for_forty(network: Tills, signer: Signer) -> None:
    """Over threads, and over loops: never more than the budget, and as much of it as there is."""
    till = Till()
    network.start(till)
    room = 40 * WEI + PRICE  # as the bound of the last one is more than it costs
    with Gateway(orch_url=till.url, signer_url=signer.url, budget=room) as gateway:
        outcomes: list[str] = []

        def alone() -> None:
            try:
                gateway.run("it", input={})
                outcomes.append("paid")
            except BudgetExceeded:
                outcomes.append("over")

        async def one() -> None:
            try:
                await gateway.run_async("it", input={})
                outcomes.append("paid")
            except BudgetExceeded:
                outcomes.append("over")

        async def many() -> None:
            await asyncio.gather(*(one() for _ in range(25)))

        threads = [threading.Thread(target=alone) for _ in range(50)]
        threads += [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 100
        # What is set aside for calls in flight may have kept others out; one after the other they fit.
        with contextlib.suppress(BudgetExceeded):
            while True:
                gateway.run("it", input={})
                outcomes.append("paid")
        assert outcomes.count("paid") == 40
        assert gateway.spent == round(till.total) == 40 * WEI <= room


# Signers


def test_signers_in_order(network: Tills, till: Till) -> None:
    """Who can't be reached, has no funds or refuses is followed by the next one, with its own challenge."""
    poor, denied, rich = Signer("0x" + "b2" * 20), Signer("0x" + "c3" * 20), Signer("0x" + "d4" * 20)
    network.start(poor, denied, rich)
    poor.refusing = _always(lambda: said(400, "ticket faceValue 350 > max faceValue 100"))
    denied.refusing = _always(lambda: said(403, "not you"))
    dead = "http://127.0.0.1:9"
    with Gateway(orch_url=till.url, signer_url=[dead, poor.url, denied.url, rich.url]) as gateway:
        assert gateway.call("it", input={}).cost == WEI
        assert till.payers == [poor.address, denied.address, rich.address]
        assert gateway.call("it", input={}).cost == WEI
        assert till.payers[3:] == [rich.address], "who worked is asked first"
        assert gateway.spent == round(till.total)
    assert len({one["ManifestID"] for one in poor.asked + denied.asked + rich.asked}) == 4


def test_signers_with_one_wallet_share_the_challenge(network: Tills, till: Till) -> None:
    first, second = Signer(), Signer()
    network.start(first, second)
    first.refusing = _always(lambda: said(500, "no luck"))
    with Gateway(orch_url=till.url, signer_url=[first.url, second.url]) as gateway:
        assert gateway.call("it", input={}).cost == WEI
    assert till.seen == ["ask", "pay"]


def test_a_signer_that_restarts_is_asked_again(network: Tills, till: Till, signer: Signer) -> None:
    signer.refusing = _always(lambda: said(503, "starting") if len(signer.asked) < 3 else None)
    with Gateway(orch_url=till.url, signer_url=signer.url) as gateway:
        assert gateway.call("it", input={}).cost == WEI
    assert till.seen == ["ask", "pay"]


def test_a_signer_is_killed_between_its_signature_and_its_answer(
    network: Tills, till: Till, signer: Signer
) -> None:
    """Nobody got the tickets, so they cost nothing; and asking again is no second payment."""

    async def vanish(_: dict[str, Any]) -> web.StreamResponse | None:
        if len(signer.asked) == 1:
            raise ConnectionResetError
        return None

    signer.refusing = vanish
    with Gateway(orch_url=till.url, signer_url=signer.url) as gateway:
        with contextlib.suppress(SignerError):
            gateway.run("it", input={})
        assert gateway.spent == round(till.total)


def test_redirects_of_a_signer_are_not_followed(network: Tills, till: Till, signer: Signer) -> None:
    elsewhere = Signer()
    network.start(elsewhere)
    signer.refusing = _always(
        lambda: web.Response(status=307, headers={"Location": f"{elsewhere.url}/generate-live-payment"})
    )
    with (
        Gateway(orch_url=till.url, signer_url=signer.url, signer_headers={"Authorization": KEY}) as gateway,
        pytest.raises(SignerError, match="redirect"),
    ):
        gateway.run("it", input={})
    assert elsewhere.headers == []


# The table


def _always(make: Callable[[], web.StreamResponse | None]) -> Refusing:
    async def refuse(_: dict[str, Any]) -> web.StreamResponse | None:
        return make()

    return refuse


def _at(step: str, make: Callable[[Till, web.Request], web.StreamResponse | None]) -> Failing:
    async def fail(till: Till, request: web.Request, paying: bool) -> web.StreamResponse | None:
        if ("pay" if paying else "ask") != step:
            return None
        await request.read()
        return make(till, request)

    return fail


def _closed(_: Till, request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


def _taken_and(answer: Callable[[Till, web.Request], web.StreamResponse | None]) -> Failing:
    """The orchestrator takes the tickets before it says something else."""

    def take(till: Till, request: web.Request) -> web.StreamResponse | None:
        wrong = till.credit(request.headers["Livepeer-Payment"], request.headers["Livepeer-Segment"])
        assert wrong is None
        return answer(till, request)

    return _at("pay", take)


DIAL = "dial tcp 127.0.0.1:9: connect: connection refused"
ASKED: dict[str, Failing] = {
    "402 without a challenge": _at("ask", lambda *_: said(402, "invalid live runner payment signer address")),
    "402 a price over max_price": _at("ask", lambda till, _: _dearer(till)),
    "500 insufficient sender reserve": _at("ask", lambda *_: refused(500, "insufficient sender reserve")),
    "503 live runner price unavailable": _at(
        "ask", lambda *_: refused(503, "live runner price unavailable: no rate")
    ),
    "closed": _at("ask", _closed),
}
SIGNED: dict[str, Callable[[], web.StreamResponse | None]] = {
    "400 no sender deposit": lambda: said(400, "no sender deposit"),
    "400 ticket faceValue over max faceValue": lambda: said(400, "ticket faceValue 2 > max faceValue 1"),
    "400 more than 100 tickets": lambda: said(400, "numTickets 261 exceeds maximum of 100"),
    "401, 403, 429": lambda: said(403, "no"),
    "480 refresh, twice": lambda: said(480, "refresh session for remote signer"),
    "481 price over a ceiling": lambda: said(481, "orchestrator price exceeds configured maximum price"),
    "482 no tickets": lambda: said(482, "no tickets"),
    "483 of its webhook": lambda: said(483, "balance exhausted"),
    "500 of any kind": lambda: said(500, "remote signer auth ID changed"),
    "what is no payment": lambda: web.json_response({"payment": "AAAA", "segCreds": "", "state": {}}),
}
PAID: dict[str, Failing] = {
    "404 runner not found": _at("pay", lambda *_: refused(404, "runner not found")),
    "503 no capacity available for runner": _at(
        "pay", lambda *_: refused(503, "no capacity available for runner")
    ),
    "502 the worker refuses the connection": _taken_and(lambda *_: refused(502, DIAL)),
    "502 the worker broke off": _taken_and(lambda *_: refused(502, "EOF")),
    "402 another challenge": _at("pay", lambda till, _: till.challenge()),
    "400 invalid ticket": _at("pay", lambda *_: refused(400, "invalid ticket signature")),
    "403 another session's": _at("pay", lambda *_: refused(403, "mismatched manifest and auth token")),
    "409 session already exists": _at("pay", lambda *_: refused(409, "session already exists")),
    "closed": _taken_and(_closed),
    "the worker's own 402": _taken_and(lambda *_: web.json_response({"detail": "pay me"}, status=402)),
    "the worker's own 404": _taken_and(lambda *_: web.json_response({"detail": "no"}, status=404)),
    "the worker's own 500": _taken_and(lambda *_: web.json_response({"detail": "no"}, status=500)),
}


def _dearer(till: Till) -> web.StreamResponse:
    till.asks = 2 * PRICE
    return till.challenge()


def table() -> list[tuple[str, str, str, str]]:
    """What happened, to which request, what comes then, and whether it is spent."""
    return [(what, at, then, spent) for what, at, then, spent in listed(failover.__doc__ or "")]


def test_the_table_has_what_is_tested() -> None:
    assert {(what, at) for what, at, _, _ in table()} == {
        *((what, "ask") for what in ASKED),
        *((what, "sign") for what in SIGNED),
        ("more tickets than were due", "sign"),
        ("it can't be reached", "sign"),
        ("over the budget", "sign"),
        *((what, "pay") for what in PAID),
        ("the connection is refused", "pay"),
        ("no answer in first_byte seconds", "pay"),
    }


@pytest.mark.parametrize(("what", "at", "then", "spent"), table(), ids=lambda cell: cell.replace(" ", "-"))
@pytest.mark.parametrize("mode", ["single-shot", "persistent"])
def test_the_table(
    network: Tills, signer: Signer, mode: str, what: str, at: str, then: str, spent: str
) -> None:
    first, second = Till(mode=mode), Till(mode=mode)
    network.start(first, second)
    options: dict[str, Any] = {"max_price": f"{PRICE} wei/call"}
    budget = None
    pausing = threading.Event()
    if at == "ask":
        first.failing = ASKED[what]
    elif at == "sign" and what in SIGNED:
        signer.refusing = (
            _only_first(first, _always(SIGNED[what])) if then == "next" else _always(SIGNED[what])
        )
    elif what == "more tickets than were due":
        signer.more = 1
    elif what == "it can't be reached":
        signer.refusing = _vanishing(network, signer)
    elif what == "over the budget":
        budget = PRICE
    elif what == "the connection is refused":
        signer.refusing = _stopping(first)
    elif what == "no answer in first_byte seconds":
        first.failing = _pausing(pausing)
        options["timeout"] = Timeout(first_byte=0.3)
    else:
        first.failing = PAID[what]
    with Gateway(orch_url=[first.url, second.url], signer_url=signer.url, budget=budget) as gateway:
        if then == "next":
            response = gateway.call("it", input={}, **options)
            assert response.orchestrator == second.url
            assert response.cost == gateway.spent
        else:
            with pytest.raises(getattr(errors, then)) as caught:
                gateway.call("it", input={}, **options)
            error = caught.value
            assert type(error) is getattr(errors, then)
            (attempt,) = error.attempts
            assert attempt.orchestrator == error.orchestrator == first.url
            assert attempt.paid is (at == "pay")
            assert attempt.begun is (at == "pay" or what in ("closed", "503 live runner price unavailable"))
            assert second.seen == []
        pausing.set()
        took = {"no": 0, "kept": 0, "yes": WEI}[spent] + round(second.total)
        assert gateway.spent == took
        assert gateway._ledger.reserved == (WEI if spent == "kept" else 0)
        assert gateway.spent >= round(first.total + second.total), "never told as less than it is"
        if spent == "yes" and what not in _UNTAKEN:
            assert gateway.spent == round(first.total + second.total)
        assert len(first.payments) + len(second.payments) <= 2
        assert first.seen.count("pay") <= 1, "one payment, whatever comes of it"


_UNTAKEN = (
    "402 another challenge", "400 invalid ticket", "403 another session's", "409 session already exists",
    "no answer in first_byte seconds",
)  # fmt: skip


def _only_first(first: Till, refusing: Refusing) -> Refusing:
    """Refuse what the first orchestrator asks for."""

    async def refuse(body: dict[str, Any]) -> web.StreamResponse | None:
        from livepeer.client._grpc.lp_rpc_pb2 import OrchestratorInfo

        info = OrchestratorInfo.FromString(base64.b64decode(body["orchestrator"]))
        return await refusing(body) if info.transcoder == first.url else None

    return refuse


def _vanishing(network: Tills, signer: Signer) -> Refusing:
    async def vanish(_: dict[str, Any]) -> web.StreamResponse | None:
        raise ConnectionResetError

    return vanish


def _stopping(first: Till) -> Refusing:
    """The first orchestrator goes down while the signer signs for it.

    By then it has taken the connection that is made meanwhile: asyncio's servers forget one that comes in at
    the very moment at which they are closed, and its peer would wait for an answer.
    """

    async def stop(_: dict[str, Any]) -> None:
        async with asyncio.timeout(20):
            while first.running and first.connections < 2:
                await asyncio.sleep(0.005)
        await first.stop()

    return stop


def _pausing(event: threading.Event) -> Failing:
    async def pause(_: Till, request: web.Request, paying: bool) -> web.StreamResponse | None:
        while paying and not event.is_set():
            await asyncio.sleep(0.02)
        return None

    return pause


def test_tickets_that_were_not_taken_are_used_by_the_next_call(
    till: Till, gateway: Gateway, signer: Signer
) -> None:
    full = PAID["503 no capacity available for runner"]
    till.failing = full
    with pytest.raises(LivepeerError):
        gateway.run("it", input={})
    assert gateway.spent == 0
    till.failing = None
    assert gateway.call("it", input={}).cost == WEI
    assert till.seen[-2:] == ["pay", "pay"], "the second call asked for nothing"
    assert len(signer.asked) == till.seen.count("ask")
    assert gateway.spent == round(till.total) == WEI


async def test_each_of_the_tickets_that_were_not_taken_is_used(till: Till, signer: Signer) -> None:
    till.failing = PAID["503 no capacity available for runner"]
    async with Gateway(orch_url=till.url, signer_url=signer.url, budget=6 * WEI) as gateway:
        results = await asyncio.gather(
            *(gateway.run_async("it", input={}) for _ in range(4)), return_exceptions=True
        )
        assert {type(result) for result in results} == {CapacityError}
        signed = len(signer.asked)
        assert (gateway.spent, gateway._ledger.reserved) == (0, signed * WEI)
        till.failing = None
        for _ in range(signed):
            assert (await gateway.call_async("it", input={})).cost == WEI
        assert len(signer.asked) == signed
        assert gateway.spent == round(till.total) == signed * WEI
        assert gateway._ledger.reserved == 0


def test_tickets_over_the_limit_of_the_next_call_wait_for_another(
    till: Till, gateway: Gateway, signer: Signer
) -> None:
    till.asks, till.failing = PRICE + 1, PAID["503 no capacity available for runner"]
    with pytest.raises(CapacityError):
        gateway.run("it", input={})
    till.asks = till.failing = None
    held = gateway._ledger.reserved
    assert held > 0
    assert gateway.call("it", input={}, max_price=f"{PRICE} wei/call").cost == WEI
    assert gateway._ledger.reserved == held
    gateway.run("it", input={})
    assert gateway._ledger.reserved == 0
    assert gateway.spent == round(till.total)


def test_480_brings_another_challenge_once(till: Till, gateway: Gateway, signer: Signer) -> None:
    signer.refusing = _always(
        lambda: said(480, "refresh session for remote signer") if len(signer.asked) == 1 else None
    )
    assert gateway.call("it", input={}).cost == WEI
    assert till.seen == ["ask", "ask", "pay"]
    assert len({one["ManifestID"] for one in signer.asked}) == 2
    assert gateway.spent == WEI


def test_no_funds_are_told_with_the_address(till: Till, gateway: Gateway, signer: Signer) -> None:
    for make in (SIGNED["400 no sender deposit"], SIGNED["483 of its webhook"]):
        signer.refusing = _always(make)
        with pytest.raises(InsufficientBalance, match=signer.address) as caught:
            gateway.run("it", input={})
        assert caught.value.address == signer.address
    till.failing = ASKED["500 insufficient sender reserve"]
    with pytest.raises(InsufficientBalance, match="Fund the reserve") as caught:
        gateway.run("it", input={})
    assert caught.value.address == signer.address


# Cancellation


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("mode", ["single-shot", "persistent"])
async def test_cancelled_at_each_await_the_book_is_right(
    network: Tills, signer: Signer, mode: str, late: bool
) -> None:
    """Whatever was taken is spent; what never left isn't; what may have left is."""
    till = Till(mode=mode)
    network.start(till)
    number = spent = 0
    while True:
        gateway = Gateway(orch_url=till.url, signer_url=signer.url)
        cancelled = await awaited(cancelled_at(number, late, gateway.run_async("it", input={})))
        here = asyncio.current_task()
        async with asyncio.timeout(20):
            while others := asyncio.all_tasks() - {here}:
                await asyncio.wait(others)
        await gateway.aclose()
        assert gateway.spent in (0, WEI)
        assert gateway._ledger.reserved == 0
        spent += gateway.spent
        assert spent >= round(till.total), "what was sent before may arrive only now"
        if not cancelled:
            break
        number += 1
    assert number >= 4
    assert gateway.spent == WEI
    # Cancelled while it was being sent, nobody can know whether it left: there is one such await, or two.
    assert spent - round(till.total) <= 3 * WEI
    assert till.stopped >= (1 if mode == "persistent" else 0)


# Secrets


@pytest.mark.parametrize("fails", [None, "sign", "pay", "closed"])
def test_payments_are_shown_nowhere(
    till: Till, signer: Signer, caplog: pytest.LogCaptureFixture, fails: str | None
) -> None:
    """Not in the debug log, in records, in errors and their pickles, nor in our variables in a traceback."""
    caplog.set_level(logging.DEBUG)
    for name in ("livepeer.client", "livepeer.trickle"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    shown: list[str] = []
    if fails == "sign":
        signer.refusing = _always(lambda: said(403, "no"))
    elif fails is not None:
        till.failing = PAID["closed" if fails == "closed" else "402 another challenge"]
    records: list[RequestRecord] = []
    with Gateway(
        orch_url=till.url, signer_url=signer.url, signer_headers={"Authorization": KEY},
        on_request=records.append,
    ) as gateway:  # fmt: skip
        try:
            shown.append(repr(gateway.call("it", input={})))
        except PaymentError as error:
            shown += [str(error), repr(error), str(pickle.loads(pickle.dumps(error)).__dict__)]
            shown.append("".join(traceback.format_exception(error)))
            shown.append(_variables(error))
        except LivepeerError as error:
            shown += [str(error), _variables(error)]
        shown += [repr(gateway), repr(records), caplog.text]
    secrets = [KEY, "st4te", base64.b64encode(b"st4te-1").decode(), *till.payments]
    if till.payments:
        secrets.append(till.payments[0][:40])
    assert len(records) >= 3
    for text in shown:
        for secret in secrets:
            assert secret not in text, text[max(0, text.index(secret) - 400) : text.index(secret)]


def _variables(error: BaseException) -> str:
    """What a traceback with variables shows of ours."""
    import livepeer.client

    folder = str(Path(livepeer.client.__file__).parent)
    text, one = "", error
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        found = pending.pop()
        if found is None or id(found) in seen:
            continue
        one = found
        seen.add(id(one))
        pending += [one.__cause__, one.__context__]
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if frame.f_code.co_filename.startswith(folder):
                text += f"{frame.f_code.co_name}: {dict(frame.f_locals)!r}\n"
    return text
