"""The parts of payments that decide, without sockets: over every status, and every order of events."""

from __future__ import annotations

import base64
import json
import pickle
import random
import sys
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livepeer.client import (
    BudgetExceeded,
    CapabilityError,
    CapacityError,
    ConfigurationError,
    ConnectionFailed,
    InsufficientBalance,
    LivepeerError,
    OrchestratorError,
    PaymentError,
    Price,
    PriceExceeded,
    SignerError,
)
from livepeer.client._grpc.lp_rpc_pb2 import Payment
from livepeer.client._secrets import Secret
from livepeer.client.payments.challenge import Challenge
from livepeer.client.payments.exchange import Ask, Asked, Done, Exchange, Held, Pay, Sign
from livepeer.client.payments.kinds import FIRST_UNITS, Kind, kind_of, unit_of
from livepeer.client.payments.ledger import Bill, Ledger
from livepeer.client.payments.signing import (
    NoTicketNeeded,
    RefreshNeeded,
    Signed,
    SignRequest,
    read_payer,
    refusal,
)
from livepeer.client.payments.tickets import read_payment
from livepeer.client.prices import as_budget, as_price

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode has no other way to share a module

from client_tills import ADDRESS, EV, FACE, WIN_PROB, Till, tickets_for

ORCH = "https://orch.example:8935"
PRICE = 25 * 10**9


def challenge_body(price: int = PRICE, **changes: Any) -> bytes:
    till = Till(price)
    body = json.loads(till.challenge().body)  # type: ignore[arg-type]
    return json.dumps(body | {"payment_url": f"{ORCH}/apps/one/session/m/payment"} | changes).encode()


def parsed(price: int = PRICE) -> Challenge:
    return Challenge.parse(challenge_body(price), ORCH)


def signed(challenge: Challenge, kind: Kind = "fixed", *, more: int = 0, price: int = PRICE) -> Signed:
    """What an honest signer answers; with more tickets, or another price, what another one does."""
    from livepeer.client._grpc.lp_rpc_pb2 import OrchestratorInfo

    info = OrchestratorInfo.FromString(challenge.params)
    payment = Payment(ticket_params=info.ticket_params, sender=b"\1" * 20)
    payment.expected_price.pricePerUnit, payment.expected_price.pixelsPerUnit = price, 1
    for nonce in range(tickets_for(FIRST_UNITS[kind], PRICE) + more):
        payment.ticket_sender_params.add(sender_nonce=nonce + 1)
    text = base64.b64encode(payment.SerializeToString()).decode()
    body = json.dumps({"payment": text, "segCreds": "c2Vn", "state": {"State": "c3Q=", "Sig": "c2ln"}})
    return Signed.parse(body.encode(), "https://signer.example")


# Tickets, challenges, prices


@given(st.integers(1, 10**20), st.integers(1, 2**256 - 1), st.integers(0, 100))
def test_a_payment_is_worth_what_an_orchestrator_credits(face: int, probability: int, count: int) -> None:
    payment = Payment()
    payment.ticket_params.face_value = face.to_bytes(32).lstrip(b"\0")
    payment.ticket_params.win_prob = probability.to_bytes(32).lstrip(b"\0")
    for nonce in range(count):
        payment.ticket_sender_params.add(sender_nonce=nonce)
    tickets = read_payment(base64.b64encode(payment.SerializeToString()).decode())
    one = Fraction(face) * Fraction(probability, 2**256 - 1)
    assert tickets.expected_value == sum([one] * count)
    assert abs(tickets.wei - tickets.expected_value) <= Fraction(1, 2)
    assert (tickets.count, tickets.nonces) == (count, tuple(range(count)))


@pytest.mark.parametrize("text", ["", "!", "AAAA", base64.b64encode(b"\xff" * 40).decode()])
def test_what_is_no_payment_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(SignerError) as caught:
        read_payment(text)
    assert not text or text not in str(caught.value)


def test_a_challenge_says_whom_to_pay_and_what_for() -> None:
    challenge = parsed()
    assert (challenge.price, challenge.value) == (PRICE, EV)
    assert len(challenge.manifest_id) == 32
    assert challenge.payment_url.endswith("/payment")
    assert base64.b64decode(challenge.text) == challenge.params
    assert challenge.text not in repr(challenge)
    assert challenge.first_bound("fixed") >= PRICE + EV
    assert challenge.first_bound("live") - challenge.first_bound("fixed") == 9 * PRICE


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "without a text"),
        (b"base64 decode error\n", "base64 decode error"),
        (b'{"error":{"message":"invalid live runner payment signer address"}}', "signer address"),
        (b"[" * 100_000, "refused the payment"),
        (challenge_body(payment_params=5), "refused the payment"),
        (challenge_body(payment_params="AAAA"), "can't be read"),
        (challenge_body(payment_params="?"), "can't be read"),
        (challenge_body(payment_url="http://orch.example/pay"), "gives up the encryption"),
        (challenge_body(payment_url="https://127.0.0.1/pay"), "your own network"),
    ],
)
def test_a_402_that_is_no_challenge(body: bytes, says: str) -> None:
    with pytest.raises(PaymentError, match=says) as caught:
        Challenge.parse(body, ORCH, request_id="r")
    assert (caught.value.orchestrator, caught.value.request_id) == (ORCH, "r")


def test_a_limit_is_held_against_the_challenge() -> None:
    challenge = parsed()
    challenge.check(None, "fixed")
    challenge.check(Price(PRICE, "fixed"), "fixed")
    for limit in (Price(PRICE - 1, "fixed"), Price(10**30, "seconds")):
        with pytest.raises(PriceExceeded, match="max_price"):
            challenge.check(limit, "fixed")
    challenge.check(Price(PRICE, "pixels"), "lv2v")


def test_the_kind_of_a_payment_follows_the_unit_of_the_price() -> None:
    for unit, kind in (("seconds", "live"), ("720p-pixel-seconds", "lv2v"), ("fixed", "fixed")):
        assert kind_of(Price(1, unit)) == kind
        assert unit_of(kind_of(Price(1, unit))) == unit
    with pytest.raises(PaymentError, match="fortnight"):
        kind_of(Price(1, "fortnight"))


def test_money_in_words() -> None:
    assert as_budget(None) is None
    assert as_budget(7) == 7
    assert as_budget("0.01 eth") == 10**16
    assert as_budget("5e15 wei") == 5 * 10**15
    assert as_budget("2.50 usd", eth_usd=2500) == 10**15
    assert as_budget("1 USD", eth_usd=lambda: 1000.0) == 10**15
    assert as_price("0.36 usd/hour", eth_usd=2000) == Price(50 * 10**9, "seconds")
    assert as_price("0.0005 usd/call", eth_usd=lambda: 2000) == Price(25 * 10**10, "fixed")
    for text in ("1 usd", "2 dollars"):
        with pytest.raises(ConfigurationError, match="eth_usd"):
            as_budget(text)
    for value in ("", "5", "5 pounds", -1, 1.5, True, "1 eth/call"):
        with pytest.raises(ConfigurationError, match="budget"):
            as_budget(value)  # type: ignore[arg-type]
    for rate in (0, -1, float("nan"), float("inf"), "2000", lambda: None):
        with pytest.raises(ConfigurationError, match="eth_usd"):
            as_price("1 usd/call", eth_usd=rate)  # type: ignore[arg-type]


# The book


@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from(["settle", "release", "unknown", "held"]))))
def test_the_book_adds_up_and_never_passes_the_budget(steps: list[tuple[int, str]]) -> None:
    ledger, bill = Ledger(100), Bill()
    spent = kept = 0
    for wei, what in steps:
        try:
            reservation = ledger.reserve(wei, bill)
        except BudgetExceeded:
            assert spent + kept + wei > 100
            continue
        assert spent + kept + wei <= 100
        if what == "settle":
            reservation.settle(wei // 2)
            reservation.unknown()
            reservation.release()  # is too late
            spent += wei // 2
        elif what == "unknown":
            reservation.unknown()
            spent += wei
        elif what == "held":
            reservation.settle(wei // 2)
            reservation.held()
            kept += wei // 2
        else:
            reservation.settle(wei)
            reservation.release()
            reservation.release()
        assert (ledger.spent, ledger.reserved, bill.cost) == (spent, kept, spent)


def test_tickets_that_were_held_are_paid_once() -> None:
    ledger, first, second = Ledger(100), Bill(), Bill()
    reservation = ledger.reserve(60, first)
    reservation.settle(50)
    reservation.held()
    assert (ledger.spent, ledger.reserved, first.cost) == (0, 50, 0)
    with pytest.raises(BudgetExceeded, match="50 set aside"):
        ledger.reserve(51)
    reservation.used(second)
    reservation.unknown()
    assert (ledger.spent, ledger.reserved, first.cost, second.cost) == (50, 0, 0, 50)


def test_threads_share_the_book() -> None:
    ledger = Ledger(1000)
    won = []

    def spend(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(300):
            try:
                reservation = ledger.reserve(7)
            except BudgetExceeded:
                continue
            if chance.random() < 0.5:
                reservation.release()
            else:
                reservation.settle(5)
                reservation.unknown()
                won.append(5)

    threads = [threading.Thread(target=spend, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (ledger.spent, ledger.reserved) == (sum(won), 0)
    assert 993 < ledger.spent <= 1000


# What signers say


@pytest.mark.parametrize(
    ("status", "text", "kind", "says"),
    [
        (302, "", SignerError, "redirect"),
        (400, "missing orchestrator", SignerError, "missing orchestrator"),
        (400, "numTickets 261 exceeds maximum of 100", SignerError, "more tickets"),
        (400, "ticket faceValue 350 > max faceValue 100", InsufficientBalance, ADDRESS),
        (400, "no sender deposit", InsufficientBalance, "Fund the deposit"),
        (400, "no sender reserve", InsufficientBalance, "Fund the reserve"),
        (401, "expired", SignerError, "signer_headers"),
        (403, "forbidden", SignerError, "credentials"),
        (404, "404 page not found", SignerError, "signer_url"),
        (429, "slowly", SignerError, "too many"),
        (480, "refresh session for remote signer", RefreshNeeded, "fresh parameters"),
        (481, "orchestrator price 5 exceeds request maxPrice ceiling 4", PriceExceeded, "ceiling"),
        (482, "no tickets", NoTicketNeeded, "no ticket"),
        (483, "balance exhausted", InsufficientBalance, "balance exhausted"),
        (500, "remote signer auth ID changed", SignerError, "auth ID"),
        (502, "signer auth invalid maxPrice", SignerError, "could not sign"),
        (503, "cache empty", SignerError, "could not sign"),
    ],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_what_a_signer_refuses(
    status: int, text: str, kind: type[PaymentError], says: str, as_json: bool
) -> None:
    body = json.dumps({"error": {"message": text}}) if as_json else text + "\n"
    error = refusal(status, body.encode(), "https://user:pw@signer.example/x?key=pw", ADDRESS)
    assert type(error) is kind
    assert says in f"{error} {error.hint}"
    assert "pw" not in str(error)
    assert error.retryable is (status >= 500 or status == 429)
    if isinstance(error, InsufficientBalance):
        assert error.address == ADDRESS
        assert pickle.loads(pickle.dumps(error)).address == ADDRESS


def test_what_a_signer_is_asked() -> None:
    challenge = parsed()
    request = SignRequest(challenge, "fixed", "it", Price(PRICE, "fixed"))
    assert json.loads(request.body()) == {
        "orchestrator": challenge.text,
        "type": "fixed",
        "ManifestID": challenge.manifest_id,
        "app": "it",
        "maxPrice": {"price": PRICE, "currency": "wei", "unit": "fixed"},
    }
    again = SignRequest(
        challenge, "live", manifest_id="m", state={"State": Secret("s3cret"), "Sig": Secret("s1g")}
    )
    assert json.loads(again.body()) == {
        "orchestrator": challenge.text,
        "type": "live",
        "ManifestID": "m",
        "state": {"State": "s3cret", "Sig": "s1g"},
    }
    assert "s3cret" not in repr(again)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"address": "0x12", "signature": "0x"}', b"<html>"])
def test_who_is_no_signer(body: bytes) -> None:
    with pytest.raises(SignerError, match="signer"):
        read_payer(body, "https://signer.example")
    with pytest.raises(SignerError, match="payment"):
        Signed.parse(body, "https://signer.example")


def test_a_payment_shows_itself_nowhere() -> None:
    challenge = parsed()
    made = signed(challenge)
    text = f"{made!r} {made.headers!r} {Pay(made, challenge, None)!r} {SignRequest(challenge, 'fixed')!r}"
    for secret in (str(made.payment), str(made.segment), challenge.text, "c3Q="):
        assert secret not in text


# The exchange


class Machine:
    """An exchange, and what the test knows of it."""

    def __init__(self, budget: int | None = None, limit: Price | None = None) -> None:
        self.ledger, self.bill, self.kept = Ledger(budget), Bill(), list[Held]()
        self.machine = Exchange(
            self.ledger, self.bill, ORCH, "fixed",
            limit=limit, on_held=self.kept.append, unsent=lambda error: error.message == "unsent",
        )  # fmt: skip

    def ask(self, body: bytes | None = None) -> None:
        self.machine.failed(
            Asked("asked", body=challenge_body() if body is None else body, orchestrator=ORCH, request_id="r")
        )

    def sign(self) -> int:
        assert isinstance(self.machine.step, Sign)
        made = signed(self.machine.step.request.challenge)
        self.machine.signed(made, "signer")
        return made.tickets.wei

    def books(self) -> tuple[int, int, int]:
        return self.ledger.spent, self.ledger.reserved, self.bill.cost


def test_the_ordinary_way() -> None:
    it = Machine()
    assert isinstance(it.machine.step, Ask)
    it.ask()
    assert it.books() == (0, parsed().first_bound("fixed"), 0)
    wei = it.sign()
    assert isinstance(it.machine.step, Pay)
    assert it.bill.sent
    assert it.books() == (wei, 0, wei)
    it.machine.answered()
    assert isinstance(it.machine.step, Done)
    it.machine.abandoned()  # the caller leaves later
    assert it.books() == (wei, 0, wei)


def test_what_is_free_after_all_costs_nothing() -> None:
    it = Machine()
    it.machine.answered()
    assert isinstance(it.machine.step, Done)
    assert it.books() == (0, 0, 0)


FAILURES: dict[str, tuple[LivepeerError, str]] = {
    "unsent": (ConnectionFailed("unsent"), "free"),
    "closed": (ConnectionFailed("closed"), "spent"),
    "503": (CapacityError("full"), "held"),
    "404": (OrchestratorError("gone", status=404, body="runner not found"), "held"),
    "404 of a worker": (CapabilityError("no", status=404), "spent"),
    "502": (OrchestratorError("refused", status=502, body="dial tcp 1.2.3.4:5: refused"), "spent"),
    "400": (PaymentError("invalid ticket"), "spent"),
    "402": (Asked("again", body=challenge_body(), orchestrator=ORCH, request_id="r"), "spent"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_payment_that_failed(what: str) -> None:
    error, fate = FAILURES[what]
    it = Machine()
    it.ask()
    wei = it.sign()
    with pytest.raises(LivepeerError) as caught:
        it.machine.failed(error)
    assert caught.value is error or what == "402"
    assert not isinstance(caught.value, Asked)
    it.machine.abandoned()
    expected = {"free": (0, 0, 0), "spent": (wei, 0, wei), "held": (0, wei, 0)}
    assert it.books() == expected[fate]
    assert bool(it.kept) is (fate == "held")


def test_tickets_that_were_not_taken_go_first_the_next_time() -> None:
    it = Machine()
    it.ask()
    wei = it.sign()
    with pytest.raises(CapacityError):
        it.machine.failed(FAILURES["503"][0])
    (held,) = it.kept
    assert not held.stale
    second = Bill()
    machine = Exchange(
        it.ledger, second, ORCH, "fixed", held=held, on_held=it.kept.append, unsent=lambda _: False
    )
    assert isinstance(machine.step, Pay)
    assert machine.step.owner == "signer"
    machine.answered()
    assert (*it.books(), second.cost) == (wei, 0, 0, wei)


@pytest.mark.parametrize("step", ["ask", "sign", "pay"])
def test_a_caller_that_leaves(step: str) -> None:
    it, wei = Machine(), 0
    if step != "ask":
        it.ask()
    if step == "pay":
        wei = it.sign()
    it.machine.abandoned()
    it.machine.abandoned()
    assert it.books() == (wei, 0, wei)


@pytest.mark.parametrize(
    ("limit", "budget", "kind"),
    [
        (Price(PRICE - 1, "fixed"), None, PriceExceeded),
        (Price(10**30, "seconds"), None, PriceExceeded),
        (None, PRICE, BudgetExceeded),
        (None, 0, BudgetExceeded),
    ],
)
def test_nothing_is_signed_over_a_limit(
    limit: Price | None, budget: int | None, kind: type[PaymentError]
) -> None:
    it = Machine(budget, limit)
    with pytest.raises(kind):
        it.ask()
    assert it.books() == (0, 0, 0)


def test_a_402_without_a_challenge_ends_it() -> None:
    it = Machine()
    with pytest.raises(PaymentError, match="no such payer"):
        it.ask(b"no such payer")
    assert it.books() == (0, 0, 0)


@pytest.mark.parametrize(("more", "price"), [(1, PRICE), (0, PRICE + 1)])
def test_a_signer_that_signs_more_is_not_obeyed(more: int, price: int) -> None:
    it = Machine()
    it.ask()
    assert isinstance(it.machine.step, Sign)
    with pytest.raises(SignerError, match="not sent"):
        it.machine.signed(signed(it.machine.step.request.challenge, more=more, price=price), "signer")
    assert it.books() == (0, 0, 0)
    assert not it.bill.sent


def test_signers_that_refuse() -> None:
    for error in (SignerError("dead"), InsufficientBalance("poor"), PriceExceeded("481")):
        it = Machine()
        it.ask()
        with pytest.raises(type(error)):
            it.machine.refused(error)
        assert it.books() == (0, 0, 0)
    it = Machine()
    it.ask()
    it.machine.refused(RefreshNeeded("480"))
    assert isinstance(it.machine.step, Ask)
    assert it.books() == (0, 0, 0)
    it.ask()
    with pytest.raises(SignerError, match="480"):
        it.machine.refused(RefreshNeeded("480"))
    it = Machine()
    it.ask()
    with pytest.raises(SignerError, match="482"):
        it.machine.refused(NoTicketNeeded("482"))
    it = Machine()
    it.ask()
    it.machine.refused(SignerError("dead"), another=True, same_wallet=True)
    assert isinstance(it.machine.step, Sign), "the challenge is good for it, too"
    it.machine.refused(SignerError("dead"), another=True)
    assert isinstance(it.machine.step, Ask), "another wallet needs a challenge of its own"
    assert it.books() == (0, 0, 0)


EVENTS = st.lists(
    st.sampled_from(
        ["answer", "challenge", "junk", "sign", "more", "480", "482", "dead", "another", "same", *FAILURES]
    ),
    max_size=12,
)


@settings(max_examples=300)
@given(EVENTS, st.booleans())
def test_any_order_of_events_leaves_one_payment_and_a_right_book(events: list[str], bounded: bool) -> None:
    """Events that can't come at a step are left out; whatever comes, tickets leave at most once."""
    one = signed(parsed()).tickets.wei
    it = Machine(budget=parsed().first_bound("fixed") if bounded else None)
    left, fate = 0, "none"
    for event in events:
        step = it.machine.step
        if isinstance(step, Done):
            break
        try:
            if isinstance(step, Ask | Pay) and event == "answer":
                it.machine.answered()
                fate = "spent" if isinstance(step, Pay) else fate
            elif isinstance(step, Ask) and event in ("challenge", "junk"):
                it.ask(None if event == "challenge" else b"no")
            elif isinstance(step, Sign) and event == "sign":
                it.sign()
                left, fate = left + 1, "spent"
            elif isinstance(step, Sign) and event == "more":
                it.machine.signed(signed(step.request.challenge, more=1), "signer")
            elif isinstance(step, Sign) and event in ("480", "482", "dead"):
                error = {"480": RefreshNeeded, "482": NoTicketNeeded, "dead": SignerError}[event]("no")
                it.machine.refused(error)
            elif isinstance(step, Ask | Sign) and event in ("another", "same"):
                same = event == "same" and isinstance(step, Sign)
                it.machine.refused(SignerError("no"), another=True, same_wallet=same)
            elif isinstance(step, Pay) and event in FAILURES:
                fate = FAILURES[event][1]
                it.machine.failed(FAILURES[event][0])
        except LivepeerError:
            break
    it.machine.abandoned()
    assert left <= 1
    assert it.books() == {"spent": (one, 0, one), "held": (0, one, 0)}.get(fate, (0, 0, 0))


def test_the_numbers_of_the_tests_are_those_of_the_network() -> None:
    assert FACE * WIN_PROB // (2**256 - 1) in (8 * 10**9 - 1, 8 * 10**9)
