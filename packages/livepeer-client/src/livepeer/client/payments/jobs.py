"""A BYOC job that is signed and paid for by a remote signer (go-livepeer v0.9.1, ``byoc/``).

Orchestrators on a chain take jobs whose request and parameters their payer has signed, and whose account
there lasts for a minute. What is left on it, the price and the parameters of tickets are in a job token. Any
signer's ``/generate-live-payment`` makes tickets. Jobs are signed by ``/sign-byoc-job``, which takes a job's
fields and gives ``{"sender", "signature"}``. No release has that call; it is on branches of go-livepeer, some
of which sign in a way that released orchestrators don't take.

Pure decisions.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .._secrets import Secret
from ..catalogue import Price
from ..errors import InsufficientBalance, PriceExceeded, ResponseError, SignerError
from ..prices import over
from .tickets import read_payment

__all__ = [
    "JobToken",
    "checked_payment",
    "payment_request",
    "read_signature",
    "read_token",
    "signature_request",
]

MINUTE = 60
"""Seconds that an account has to last for when a job begins."""

_MOST_TICKETS = 100  # that a signer makes at once
_CERTAIN = 2**256 - 1
_LIFE = 3600  # seconds; no orchestrator looks at the token of a payment for BYOC
_PARAMS = ("recipient", "face_value", "win_prob", "recipient_rand_hash", "seed", "expiration_block")


@dataclass(frozen=True, slots=True)
class JobToken:
    """What an orchestrator says to a wallet that has a job.

    Attributes:
        price: Wei per second; 0 is free.
        balance: What is left on the wallet's account for this capability, in wei; may be below 0.
        ticket_value: What one ticket is worth on average, in wei.
        available: Free places.
        params: The ticket parameters, by their names in ``net/lp_rpc.proto``.
        expiration: The round that tickets are made in, and its block's hash.
    """

    price: Fraction
    balance: int
    ticket_value: Fraction
    available: int
    params: dict[str, bytes]
    expiration: tuple[int, bytes]

    def due(self, seconds: int) -> int:
        """For how many seconds has to be paid so that the account lasts for so many; 0 when it does.

        Args:
            seconds: As long as the job may take; 60 at least.

        Raises:
            InsufficientBalance: As many tickets as a signer makes at once aren't enough for a minute.
        """
        if self.price <= 0:
            return 0
        most = int(self.ticket_value * _MOST_TICKETS / self.price)
        least = math.ceil(MINUTE - self.balance / self.price)
        wanted = math.ceil(max(MINUTE, seconds) - self.balance / self.price)
        if least > most:
            raise InsufficientBalance(
                f"A minute costs more than {_MOST_TICKETS} tickets are worth, which a signer makes at most.",
                hint="The orchestrator's operator can make tickets worth more (-ticketEV).",
            )
        return max(0, min(wanted, most)) if least > 0 else 0

    def check(self, most: Price | None) -> None:
        """Refuse a price that is over what the caller pays.

        Raises:
            PriceExceeded: It is.
        """
        if most is None or self.price <= 0:
            return
        reason = over(Price(math.ceil(self.price), "seconds"), most)
        if reason is not None:
            raise PriceExceeded(f"The price has changed: {reason}.")


def read_token(body: bytes) -> JobToken:
    """Read a job token of an orchestrator on a chain.

    Raises:
        ResponseError: It can't be read.
    """
    try:
        told = json.loads(body)
        price, tickets = told.get("price") or {}, told["ticket_params"]
        params = {name: base64.b64decode(tickets.get(name, ""), validate=True) for name in _PARAMS}
        expiration = tickets.get("expiration_params") or {}
        face_value, win_prob = (int.from_bytes(params[name]) for name in ("face_value", "win_prob"))
        return JobToken(
            price=Fraction(int(price.get("pricePerUnit", 0)), int(price.get("pixelsPerUnit", 1))),
            balance=int(told.get("balance", 0)),
            ticket_value=Fraction(face_value * win_prob, _CERTAIN),
            available=int(told.get("available_capacity", 0)),
            params=params,
            expiration=(
                int(expiration.get("creation_round", 0)),
                base64.b64decode(expiration.get("creation_round_block_hash", ""), validate=True),
            ),
        )
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ResponseError("The orchestrator's job token can't be read.") from error


def payment_request(token: JobToken, orchestrator: str, capability: str, seconds: int, now: float) -> Any:
    """The JSON of ``/generate-live-payment`` for so many seconds.

    Args:
        token: What the orchestrator wants.
        orchestrator: Its URL.
        capability: What is paid for.
        seconds: How many, as `JobToken.due` says.
        now: Seconds since 1970.
    """
    from .._grpc.lp_rpc_pb2 import (
        AuthToken,
        OrchestratorInfo,
        PriceInfo,
        TicketExpirationParams,
        TicketParams,
    )

    creation_round, block_hash = token.expiration
    params = token.params
    info = OrchestratorInfo(
        transcoder=orchestrator,
        address=params["recipient"],
        price_info=PriceInfo(pricePerUnit=token.price.numerator, pixelsPerUnit=token.price.denominator),
        ticket_params=TicketParams(
            recipient=params["recipient"],
            face_value=params["face_value"],
            win_prob=params["win_prob"],
            recipient_rand_hash=params["recipient_rand_hash"],
            seed=params["seed"],
            expiration_block=params["expiration_block"],
            expiration_params=TicketExpirationParams(
                creation_round=creation_round, creation_round_block_hash=block_hash
            ),
        ),
        # Signers want one; it goes into the second header of a payment, which BYOC has no use for.
        auth_token=AuthToken(session_id=capability, expiration=int(now) + _LIFE),
    )
    return {
        "orchestrator": base64.b64encode(info.SerializeToString()).decode(),
        "ManifestID": capability,
        "inPixels": seconds,
    }


def checked_payment(body: bytes, token: JobToken, bound: Fraction) -> tuple[Secret, int]:
    """A signer's payment, and what the orchestrator will credit for it, in wei.

    Args:
        body: The signer's answer.
        token: What the orchestrator wanted.
        bound: The most that it may be worth.

    Raises:
        SignerError: There is none in it; or it is worth more, or for somebody else. It must not be sent.
    """
    try:
        payment = Secret(json.loads(body)["payment"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise SignerError("The signer answered without a payment.", hint="Check signer_url=.") from None
    tickets = read_payment(payment)
    asked_for = (token.price, token.params["recipient_rand_hash"])
    if tickets.expected_value > bound or (tickets.price, tickets.params_hash) != asked_for:
        raise SignerError("What the signer signed is not what was asked for; it was not sent.")
    return payment, tickets.wei


def signature_request(job_id: str, capability: str, timeout_seconds: int) -> dict[str, Any]:
    """The JSON of ``/sign-byoc-job``, for a job whose request and parameters are empty."""
    return {
        "id": job_id,
        "capability": capability,
        "request": "{}",
        "parameters": "{}",
        "timeout_seconds": timeout_seconds,
    }


def read_signature(body: bytes) -> tuple[str, str]:
    """The sender and the signature in an answer of ``/sign-byoc-job``.

    Raises:
        SignerError: They aren't there.
    """
    try:
        told = json.loads(body)
        sender, signature = told["sender"], told["signature"]
    except (ValueError, TypeError, KeyError, RecursionError):
        sender = signature = None
    if not isinstance(sender, str) or not isinstance(signature, str) or not (sender and signature):
        raise SignerError("The signer answered without a signature of the job.", hint="Check signer_url=.")
    return sender, signature
