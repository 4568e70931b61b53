"""What a 402 asks for: whom to pay, for which session, at what price. Pure decisions.

An orchestrator answers a call without a payment with 402 and a JSON object (go-livepeer v0.9.1,
``runnerChallenge`` in ``server/ai_http.go``): ``payment_params`` is base64 of a ``net.OrchestratorInfo``,
``manifest_id`` names the session that the payment is for, ``payment_url`` takes the further ones. A 402
without ``payment_params`` is no challenge: the orchestrator didn't like what it got.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from .._urls import forbidden, redact
from ..catalogue import Price
from ..errors import PaymentError, PriceExceeded
from ..prices import over
from .kinds import FIRST_UNITS, Kind, unit_of
from .tickets import ticket_value

__all__ = ["Challenge", "message"]


@dataclass(frozen=True, slots=True)
class Challenge:
    """What an orchestrator wants to be paid for.

    Attributes:
        params: The ``net.OrchestratorInfo``, as bytes; a signer takes it as it is.
        orchestrator: The URL that the orchestrator gives itself.
        manifest_id: The session; a payment under another name is refused.
        payment_url: Takes further payments for the session.
        price: Wei per unit, of whatever unit the runner has.
        value: What one ticket is worth, in wei.
        expires: When the orchestrator's token in it expires, in seconds since 1970; 0 when it doesn't say.
    """

    params: bytes = field(repr=False)
    orchestrator: str
    manifest_id: str
    payment_url: str
    price: Fraction
    value: Fraction
    expires: int = 0

    @property
    def text(self) -> str:
        """The parameters as base64."""
        return base64.b64encode(self.params).decode()

    @classmethod
    def parse(cls, body: bytes, orchestrator: str, **details: Any) -> Challenge:
        """Read the body of a 402.

        Args:
            body: The body.
            orchestrator: The URL of the orchestrator that was called.
            details: `request_id` for the errors.

        Raises:
            PaymentError: It is no challenge, or can't be used.
        """
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        params = answer.get("payment_params") if isinstance(answer, dict) else None
        if not isinstance(params, str) or not params:
            raise PaymentError(
                f"{redact(orchestrator)} refused the payment, or its payer: "
                f"{message(answer, body, 300) or 'without a text'}.",
                orchestrator=orchestrator,
                **details,
            )
        url = answer.get("payment_url")
        if url and (reason := forbidden(url, orchestrator)) is not None:
            raise PaymentError(
                f"The URL for payments that {redact(orchestrator)} named is refused: {reason}.",
                orchestrator=orchestrator,
                **details,
            )
        manifest_id = answer.get("manifest_id")
        try:
            content = base64.b64decode(params, validate=True)
        except (binascii.Error, ValueError):
            content = b""
        return cls.of_info(
            content,
            orchestrator,
            manifest_id=manifest_id if isinstance(manifest_id, str) else "",
            payment_url=str(url or ""),
            **details,
        )

    @classmethod
    def of_info(
        cls, params: bytes, orchestrator: str, *, manifest_id: str, payment_url: str, **details: Any
    ) -> Challenge:
        """The same out of a ``net.OrchestratorInfo`` that came another way, such as by gRPC.

        Raises:
            PaymentError: It can't be read, or has no price or no ticket parameters.
        """
        from google.protobuf.message import DecodeError

        from .._grpc.lp_rpc_pb2 import OrchestratorInfo

        try:
            info = OrchestratorInfo.FromString(params)
        except DecodeError:
            info = OrchestratorInfo()
        price, tickets = info.price_info, info.ticket_params
        if price.pricePerUnit <= 0 or price.pixelsPerUnit <= 0 or not info.HasField("ticket_params"):
            raise PaymentError(
                f"What {redact(orchestrator)} asks to be paid can't be read: "
                "it has no price, or no parameters of tickets.",
                hint="An orchestrator on a chain sends both.",
                orchestrator=orchestrator,
                **details,
            )
        return cls(
            params,
            info.transcoder or orchestrator,
            manifest_id,
            payment_url,
            Fraction(price.pricePerUnit, price.pixelsPerUnit),
            ticket_value(tickets),
            info.auth_token.expiration,
        )

    def check(self, limit: Price | None, kind: Kind, **details: Any) -> None:
        """Refuse a price over the caller's, before anything is signed.

        Raises:
            PriceExceeded: It is over, or can't be compared.
        """
        if (reason := self.over(limit, kind)) is not None:
            raise PriceExceeded(
                f"{redact(self.orchestrator)} was not paid: {reason}.",
                hint="A higher max_price= allows it; it may also have raised its price just now.",
                orchestrator=self.orchestrator,
                **details,
            )

    def over(self, limit: Price | None, kind: Kind) -> str | None:
        """Why the price is too high; None when it isn't."""
        return over(Price(math.ceil(self.price), unit_of(kind)), limit)

    def bound(self, units: int) -> int:
        """The most that a payment for so many units may be worth, in wei: tickets are paid whole."""
        return math.ceil(units * self.price + self.value)

    def first_bound(self, kind: Kind) -> int:
        """The same for a session's first payment."""
        return self.bound(FIRST_UNITS[kind])


def message(answer: object, body: bytes, most: int) -> str:
    """What the body of an error says, in one line: its JSON's message, or else so many bytes of its text."""
    found = answer.get("error") if isinstance(answer, dict) else None
    text = found.get("message") if isinstance(found, dict) else found
    if not isinstance(text, str) or not text:
        text = body[:most].decode("utf-8", "replace")
    return " ".join(text.split())[:300]
