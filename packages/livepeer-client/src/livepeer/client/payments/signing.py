"""What a remote signer is asked, and what its answers mean (go-livepeer v0.9.1, ``server/remote_signer.go``).

Pure decisions. Its statuses mean this only when the signer itself says them, not an orchestrator.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._secrets import Secret, hidden
from .._urls import redact
from ..catalogue import Price
from ..errors import InsufficientBalance, PaymentError, PriceExceeded, SignerError
from .challenge import Challenge, message
from .kinds import Kind, unit_of
from .tickets import Tickets, read_payment

__all__ = [
    "NoTicketNeeded",
    "RefreshNeeded",
    "SignRequest",
    "Signed",
    "is_out_of_funds",
    "no_funds",
    "read_payer",
    "refusal",
]

_NO_FUNDS = ("max faceValue", "no sender deposit", "no sender reserve", "insufficient sender reserve")


class RefreshNeeded(PaymentError):
    """480: the orchestrator's parameters, or its token, are about to expire. Nothing was signed."""


class NoTicketNeeded(PaymentError):
    """482: what was paid covers the time up to now. Nothing was signed."""


@dataclass(frozen=True, slots=True)
class SignRequest:
    """What a signer is asked to pay.

    Attributes:
        challenge: What the orchestrator wants.
        kind: How it is paid.
        app: The capability, which the signer's owner may want to know.
        limit: The most that a unit may cost; the signer checks it, too.
        manifest_id: The session; the challenge's where this is empty.
        state: What the signer answered last for this session; None for its first payment.
        capabilities: ``net.Capabilities`` as base64, for built-in pipelines.
    """

    challenge: Challenge
    kind: Kind
    app: str = ""
    limit: Price | None = None
    manifest_id: str = ""
    state: Mapping[str, str] | None = field(default=None, repr=False)
    capabilities: str = ""

    def body(self) -> bytes:
        """The JSON of ``/generate-live-payment``."""
        fields: dict[str, Any] = {"orchestrator": self.challenge.text, "type": self.kind}
        if manifest_id := self.manifest_id or self.challenge.manifest_id:
            fields["ManifestID"] = manifest_id
        if self.app:
            fields["app"] = self.app
        if self.limit is not None:
            price = {"price": self.limit.amount, "currency": "wei", "unit": unit_of(self.kind)}
            fields["maxPrice"] = price
        if self.capabilities:
            fields["capabilities"] = self.capabilities
        if self.state is not None:
            fields["state"] = dict(self.state)
        return json.dumps(fields).encode()


@dataclass(frozen=True, slots=True)
class Signed:
    """A payment that a signer made.

    Attributes:
        payment: The header ``Livepeer-Payment``.
        segment: The header ``Livepeer-Segment``.
        state: What to give the signer for the session's next payment.
        tickets: What it is worth.
    """

    payment: Secret = field(repr=False)
    segment: Secret = field(repr=False)
    state: Mapping[str, str] = field(repr=False)
    tickets: Tickets

    @property
    def headers(self) -> dict[str, str]:
        """What goes with the request that is paid."""
        return {"Livepeer-Payment": self.payment, "Livepeer-Segment": self.segment}

    @classmethod
    def parse(cls, body: bytes, signer: str) -> Signed:
        """Read a signer's answer of 200.

        Raises:
            SignerError: It is none.
        """
        answer = _object(body)
        state = answer.get("state")
        payment, segment = answer.get("payment"), answer.get("segCreds")
        if not isinstance(payment, str) or not isinstance(segment, str) or not isinstance(state, dict):
            raise SignerError(
                f"The signer {redact(signer)} answered without a payment.", hint="Is it a signer's URL?"
            )
        return cls(Secret(payment), Secret(segment), hidden(state), read_payment(Secret(payment)))

    def check(self, request: SignRequest, bound: int) -> None:
        """Refuse tickets that are worth more, or promise a higher price, than was asked for.

        Raises:
            SignerError: They do, or are for somebody else. They don't leave this process.
        """
        tickets, challenge = self.tickets, request.challenge
        wrong = None
        if tickets.wei > bound:
            wrong = f"is worth {tickets.wei} wei, and {bound} are the most that was asked for"
        elif tickets.price > challenge.price:
            wrong = "promises a higher price than the orchestrator asked for"
        if wrong is not None:
            raise SignerError(
                f"What the signer signed {wrong}; it was not sent.", orchestrator=challenge.orchestrator
            )


def read_payer(body: bytes, signer: str) -> tuple[str, str]:
    """The address and the signature in an answer of ``/sign-orchestrator-info``, both in hex.

    Raises:
        SignerError: It is none.
    """
    answer = _object(body)
    address, signature = answer.get("address"), answer.get("signature")
    if not isinstance(address, str) or not isinstance(signature, str) or not _is_address(address):
        raise SignerError(
            f"{redact(signer)} does not answer as a signer does: it names no address.",
            hint="signer_url= is the URL of a remote signer; its path, if it has one, belongs to it.",
        )
    return address, Secret(signature)


def refusal(status: int, body: bytes, signer: str, address: str = "") -> PaymentError:
    """The error for a signer's answer other than 200.

    Args:
        status: Its status.
        body: Its body: JSON with a message, or a plain text.
        signer: Its URL.
        address: The address of its wallet, if it is known.
    """
    text = message(_object(body), body, 1000)
    said = f"{status} ({text})" if text else str(status)
    who = f"The signer {redact(signer)}"
    if 300 <= status < 400:
        return SignerError(
            f"{who} answered with a redirect ({status}), which is not followed.",
            hint="Give the URL that it redirects to, if you trust it with your key.",
        )
    if status == 480:
        return RefreshNeeded(f"{who} wants fresh parameters of the orchestrator first.")
    if status == 481:
        return PriceExceeded(
            f"{who} does not pay this price: {text or 'it is over its ceiling'}.",
            hint="The ceiling is max_price=, or the signer's own.",
        )
    if status == 482:
        return NoTicketNeeded(f"{who} says that no ticket is needed yet.")
    if status == 483 or is_out_of_funds(text):
        return no_funds(f"{who} can't pay", text or str(status), address)
    if status in (401, 403):
        return SignerError(
            f"{who} refused the credentials: {said}.",
            hint="Check signer_headers=, or the token: it may have expired. A function given as "
            "signer_headers= can bring others in time.",
        )
    if status == 429:
        return SignerError(
            f"{who} has had too many requests: {said}.", hint="Try again later.", retryable=True
        )
    if "exceeds maximum of 100" in text:
        return SignerError(
            f"{who} would have to sign more tickets than a payment may have: {text}.",
            hint="The price is too high for the orchestrator's size of tickets; or the session was not paid "
            "for too long a time.",
        )
    if status in (404, 405):
        return SignerError(
            f"{who} does not answer as a signer does: {said}.",
            hint="signer_url= is the URL of a remote signer; its path, if it has one, belongs to it.",
        )
    return SignerError(f"{who} could not sign: {said}.", retryable=status >= 500)


def is_out_of_funds(text: str) -> bool:
    """Whether a signer's, or an orchestrator's, text means that the wallet has not enough in it."""
    return any(words in text for words in _NO_FUNDS)


def no_funds(what: str, text: str, address: str) -> InsufficientBalance:
    """The error for a wallet that has not enough in it.

    Args:
        what: Who can't pay, or won't be paid.
        text: Why, in its own words.
        address: The wallet's.
    """
    wallet = f"the wallet {address}" if address else "its wallet"
    part = "reserve" if "reserve" in text else "deposit"
    return InsufficientBalance(
        f"{what}: {wallet} has not enough funds ({text}).",
        hint=f"Fund the {part} of {address or 'the wallet'} in Livepeer's TicketBroker, or ask whoever runs "
        "the signer to do so.",
        address=address or None,
    )


def _is_address(text: str) -> bool:
    digits = text.removeprefix("0x")
    return len(digits) == 40 and all(digit in "0123456789abcdefABCDEF" for digit in digits)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
