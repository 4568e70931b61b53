"""What is due for a BYOC job, and what of a signer's answer may be sent. Pure decisions."""

from __future__ import annotations

import base64
import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livepeer.client import (
    ConnectionFailed,
    InsufficientBalance,
    Price,
    PriceExceeded,
    ResponseError,
    SignerError,
)
from livepeer.client._grpc.lp_rpc_pb2 import OrchestratorInfo, Payment
from livepeer.client.payments.job_signer import SignedJob
from livepeer.client.payments.jobs import (
    JobToken,
    checked_payment,
    payment_request,
    read_signature,
    read_token,
)
from livepeer.client.payments.ledger import Bill, Ledger

CERTAIN = 2**256 - 1
HASH = b"\x07" * 32


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def token(price: Fraction, balance: int = 0, value: int = 8_000) -> JobToken:
    """A token with tickets that always win."""
    params = {
        "recipient": encoded(b"\x01" * 20), "face_value": encoded(value.to_bytes(32)),
        "win_prob": encoded(CERTAIN.to_bytes(32)), "recipient_rand_hash": encoded(HASH),
        "seed": encoded(b"\x02"), "expiration_block": encoded(b"\x03"),
        "expiration_params": {"creation_round": 5, "creation_round_block_hash": encoded(b"\x04" * 32)},
    }  # fmt: skip
    told = {
        "price": {"pricePerUnit": price.numerator, "pixelsPerUnit": price.denominator},
        "ticket_params": params,
        "balance": balance,
        "available_capacity": 2,
    }
    return read_token(json.dumps(told).encode())


def answer(count: int, *, price: Fraction = Fraction(100), value: int = 8_000, hash_: bytes = HASH) -> bytes:
    payment = Payment()
    payment.expected_price.pricePerUnit, payment.expected_price.pixelsPerUnit = price.as_integer_ratio()
    payment.ticket_params.face_value, payment.ticket_params.win_prob = (
        value.to_bytes(32),
        CERTAIN.to_bytes(32),
    )
    payment.ticket_params.recipient_rand_hash = hash_
    for nonce in range(count):
        payment.ticket_sender_params.add(sender_nonce=nonce, sig=b"x")
    return json.dumps({"payment": encoded(payment.SerializeToString())}).encode()


@given(
    st.fractions(min_value=Fraction(1, 100), max_value=10_000, max_denominator=100),
    st.integers(-1_000_000, 1_000_000),
    st.integers(0, 3600),
)
def test_what_is_due_lasts_for_a_minute_and_not_much_longer(
    price: Fraction, balance: int, seconds: int
) -> None:
    made = token(price, balance)
    try:
        due = made.due(seconds)
    except InsufficientBalance:
        assert balance + 100 * 8_000 < 60 * price + price  # a hundred tickets aren't enough
        return
    if due == 0:
        assert balance >= 60 * price
        return
    after = balance + due * price
    assert 60 * price <= after < max(60, seconds) * price + price
    assert due * price <= 100 * 8_000


def test_what_is_free_is_never_due() -> None:
    assert token(Fraction(0), -5).due(600) == 0


def test_a_price_that_has_risen() -> None:
    token(Fraction(100)).check(Price(100, "seconds"))
    token(Fraction(0)).check(Price(100, "fixed"))
    for most in (Price(99, "seconds"), Price(10**9, "fixed")):
        with pytest.raises(PriceExceeded, match="max_price"):
            token(Fraction(100)).check(most)


def test_the_request_has_all_that_the_token_says() -> None:
    request = payment_request(token(Fraction(3, 7)), "https://o", "job", 61, 1000.5)
    assert (request["ManifestID"], request["inPixels"], "type" in request) == ("job", 61, False)
    info = OrchestratorInfo.FromString(base64.b64decode(request["orchestrator"]))
    assert (info.price_info.pricePerUnit, info.price_info.pixelsPerUnit) == (3, 7)
    assert (info.transcoder, info.address) == ("https://o", b"\x01" * 20)
    assert info.ticket_params.expiration_params.creation_round == 5
    assert info.ticket_params.recipient_rand_hash == HASH
    assert info.auth_token.expiration > 1000


def test_a_payment_is_held_against_what_was_asked_for() -> None:
    wanted = token(Fraction(100))
    payment, wei = checked_payment(answer(2), wanted, Fraction(16_000))
    assert wei == 16_000
    assert repr(payment) == "'***'"
    for body in (
        answer(3),  # worth more than the bound
        answer(2, price=Fraction(101)),
        answer(2, hash_=b"\x08" * 32),
        b'{"payment": "no base64!"}',
        b"{}",
        b"nonsense",
    ):
        with pytest.raises(SignerError):
            checked_payment(body, wanted, Fraction(16_000))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"ticket_params": 7}', b'{"ticket_params": {"seed": "!"}}']
)
def test_tokens_that_are_none(body: bytes) -> None:
    with pytest.raises(ResponseError, match="job token"):
        read_token(body)


@pytest.mark.parametrize("told", [{}, {"sender": "0x1"}, {"sender": "", "signature": "0x2"}, [], 7])
def test_signatures_that_are_none(told: Any) -> None:
    with pytest.raises(SignerError, match="without a signature"):
        read_signature(json.dumps(told).encode())


def test_what_became_of_a_payment() -> None:
    def spent(failure: Exception | None) -> tuple[int, int, bool]:
        ledger, bill = Ledger(100), Bill()
        reservation = ledger.reserve(10, bill)
        reservation.settle(8)
        try:
            with SignedJob({}, reservation).leaving(bill):
                if failure is not None:
                    raise failure
        except ConnectionFailed:
            pass
        return ledger.spent, bill.cost, bill.sent

    assert spent(None) == (8, 8, True)
    assert spent(ConnectionFailed("it broke")) == (8, 8, True)  # what became of it is unknown
