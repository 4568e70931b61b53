"""What the orchestrator does with payments (``server/segment_rpc.go`` and ``core/orchestrator.go``, v0.9.1).

It says what it wants (`Cashier.challenge`, `Cashier.info`), reads what comes (`Cashier.read`), credits it
(`Cashier.process`) and charges for work (`Cashier.charge`).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from livepeer.client._grpc import lp_rpc_pb2 as net

from ..ai_worker import AIWorker
from ..credentials import AuthTokens, check_payment, check_segment
from ..description import RequestRefused, capabilities_of
from ..validation import Refused
from .balances import Balances
from .chain import Chain
from .prices import go_float
from .recipient import InsufficientReserve, Recipient, TicketRefused
from .tickets import TicketParams
from .wallets import hash256, shown

__all__ = ["Cashier", "Paid", "flattened"]


@dataclass(frozen=True)
class Paid:
    """The two headers of a payment, checked except for the tickets.

    Args:
        payment: The first.
        segment: The second; it is signed by the payer and has an auth token of ours.
    """

    payment: net.Payment
    segment: net.SegData

    @property
    def sender(self) -> bytes:
        """The payer's address."""
        return self.payment.sender.rjust(20, b"\0")[-20:]

    @property
    def manifest_id(self) -> str:
        """What is paid for."""
        return self.segment.manifestId.decode("utf-8", "replace")

    @property
    def token_session(self) -> str:
        """The session of the auth token."""
        return self.segment.auth_token.session_id


class Cashier:
    """The money side of one orchestrator.

    Args:
        recipient: Who is paid.
        tokens: Where auth tokens come from.
        worker: The AI worker, whose models may have prices of their own.
        url: The orchestrator's address.
        price_per_unit: The base price, in wei per pixel.
    """

    def __init__(
        self,
        recipient: Recipient,
        tokens: AuthTokens,
        worker: AIWorker,
        url: str,
        price_per_unit: int,
    ) -> None:
        self.chain: Chain = recipient.chain
        self.balances: Balances = Balances()
        self.surcharge: Fraction = Fraction(1)  # a fault: what it asks for, of what it should
        self._recipient = recipient
        self._tokens = tokens
        self._worker = worker
        self._url = url
        self._base_price = price_per_unit

    # ------------------------------------------------------------------ what it wants

    def challenge(
        self, sender: bytes, price: Fraction, manifest_id: str | None, payment_url: Callable[[str], str]
    ) -> dict[str, Any]:
        """What a payer needs to pay: the body of a 402, and of fresh parameters.

        Args:
            sender: The payer's address.
            price: In wei per unit.
            manifest_id: What is paid for; a new one by default.
            payment_url: Where later payments go, by the manifest id.

        Raises:
            InsufficientReserve: The payer has too little.
        """
        info = self._info(sender, price, manifest_id)
        manifest_id = info.auth_token.session_id
        return {
            "payment_params": base64.b64encode(info.SerializeToString()).decode(),
            "orchestrator": self._url,
            "manifest_id": manifest_id,
            "payment_url": payment_url(manifest_id),
        }

    def info(self, sender: bytes, manifest_id: str, wanted: net.Capabilities | None) -> net.OrchestratorInfo:
        """What it says of itself to a payer, with the base price, or that of a session that has one.

        Raises:
            InsufficientReserve: The payer has too little.
        """
        info = self._info(sender, self._price(sender, manifest_id, wanted), None)
        info.capabilities.CopyFrom(capabilities_of(self._worker))
        return info

    def ticket_params(self, sender: bytes, price: Fraction) -> net.TicketParams:
        """Ticket parameters for a payer. Raises `InsufficientReserve`."""
        return self._recipient.params(sender, price).write(with_expiration=True)

    def check_caller(self, address: bytes, signature: bytes) -> None:
        """Raise `RequestRefused` when the one who asks over gRPC isn't the owner of the address."""
        sender = address.rjust(20, b"\0")[-20:]
        if not self.chain.signed(sender, hash256(shown(sender).encode()), signature):
            raise RequestRefused("Invalid orchestrator request: orchestrator req sig check failed")

    def offer(self, address: bytes, wanted: net.Capabilities | None) -> net.OrchestratorInfo:
        """What it says to one who asks over gRPC. Raises `RequestRefused` when that one has too little."""
        try:
            return self.info(address.rjust(20, b"\0")[-20:], "", wanted)
        except InsufficientReserve as error:
            raise RequestRefused(str(error)) from None

    def model_prices(self) -> list[tuple[str, int]]:
        """The prices of live video-to-video's models."""
        return [(model.model_id, model.price) for model in self._worker.models if model.price]

    # ------------------------------------------------------------------ what it gets

    def read(self, headers: Mapping[str, str]) -> Paid:
        """The headers of a payment. Raises `Refused` with 402 for the first, and 403 for the second."""
        payment = check_payment(headers.get("Livepeer-Payment", ""))
        sender = payment.sender.rjust(20, b"\0")[-20:]

        def signed(segment: net.SegData) -> bool:
            return self.chain.signed(sender, hash256(flattened(segment)), segment.sig)

        given = headers.get("Livepeer-Segment", "")
        return Paid(payment, check_segment(given, self._tokens, capabilities_of(self._worker), signed))

    def process(self, paid: Paid, manifest_id: str) -> None:
        """Credit the tickets of a payment. Raises `Refused`; what came before a bad ticket is credited."""
        payment, sender = paid.payment, paid.sender
        if not payment.HasField("ticket_params"):
            self.balances.fix_price(sender, manifest_id, Fraction(0))
            return
        if not payment.sender:
            raise Refused(f"Could not find Sender for payment: {payment}", 400)
        params = TicketParams.read(payment.ticket_params, payment.expiration_params)
        if params.recipient != self._recipient.address:
            who = f"orchestrator {shown(params.recipient)} is inactive in round {self.chain.round}"
            raise Refused(f"{who}, cannot process payments", 400)
        price = expected_price(payment)
        self.balances.fix_price(sender, manifest_id, price)
        refusal: TicketRefused | None = None
        for ticket in payment.ticket_sender_params:
            try:
                self._recipient.receive(params, sender, ticket.sender_nonce, ticket.sig, price)
            except TicketRefused as refused:
                if refused.fatal:
                    raise Refused(str(refused), 400) from None
                refusal = refused
            if refusal is None:
                self.balances.credit(sender, manifest_id, params.ev)
        if refusal is not None:
            raise Refused(str(refusal), 400)

    def take(self, paid: Paid) -> bytes:
        """Credit a payment for what it says it is for: the orchestrator's answer, a ``PaymentResult``."""
        try:
            info = self.info(paid.sender, paid.token_session, paid.segment.capabilities)
        except InsufficientReserve:
            raise Refused("Internal Server Error", 500) from None
        info.auth_token.CopyFrom(paid.segment.auth_token)
        self.process(paid, paid.manifest_id)
        return net.PaymentResult(info=info).SerializeToString()

    def sufficient(self, sender: bytes, manifest_id: str) -> bool:
        """Whether there is at least a ticket's worth left."""
        self.balances.meet(sender)
        account = self.balances.find(sender, manifest_id)
        return account is not None and account.amount >= self._recipient.ticket_ev

    def charge(self, paid: Paid, manifest_id: str, units: int) -> None:
        """Debit so many units at the first payment's price. Raises `Refused` when there is too little."""
        told = paid.payment.expected_price
        if not paid.payment.HasField("expected_price") or told.pricePerUnit == 0:
            return
        fee = Fraction(told.pricePerUnit, told.pixelsPerUnit) * units
        self.balances.meet(paid.sender)
        account = self.balances.find(paid.sender, manifest_id)
        if account is None or account.amount < fee:
            left = "nil" if account is None else go_float(account.amount, 0)
            what = f"mid={manifest_id}, fee={go_float(fee, 0)}, balance={left}"
            raise Refused(f"insufficient balance, {what}", 400)
        self.balances.debit(paid.sender, manifest_id, fee)

    # ------------------------------------------------------------------ inside

    def _info(self, sender: bytes, price: Fraction, session: str | None) -> net.OrchestratorInfo:
        price *= self.surcharge
        params = self._recipient.params(sender, price)
        token, session, expiration = self._tokens.issue(session)
        return net.OrchestratorInfo(
            transcoder=self._url,
            ticket_params=params.write(with_expiration=True),
            price_info=net.PriceInfo(pricePerUnit=price.numerator, pixelsPerUnit=price.denominator),
            address=self._recipient.address,
            auth_token=net.AuthToken(token=token, session_id=session, expiration=expiration),
        )

    def _price(self, sender: bytes, manifest_id: str, wanted: net.Capabilities | None) -> Fraction:
        account = self.balances.find(sender, manifest_id)
        if account is not None and account.fixed_price is not None:
            return account.fixed_price
        total = 0
        if wanted is not None:
            prices = dict(self.model_prices())
            for number in wanted.capacities:
                constraints = wanted.constraints.PerCapability
                for name in constraints[number].models if number in constraints else ():
                    total += prices.get(name, 0)
        return Fraction(total or self._base_price)


def flattened(segment: net.SegData) -> bytes:
    """What a payer signs of a segment header (``core/streamdata.go``)."""
    digest = segment.hash.rjust(32, b"\0")[-32:]
    return segment.manifestId + abs(segment.seq).to_bytes(32, "big") + digest


def expected_price(payment: net.Payment) -> Fraction:
    """The price that the payer expects. Raises `Refused` when it says none."""
    told = payment.expected_price
    if not payment.HasField("expected_price"):
        raise Refused('invalid expected price sent with payment err="expected price is nil"', 400)
    if told.pixelsPerUnit == 0:
        raise Refused('invalid expected price sent with payment err="pixels per unit is 0"', 400)
    return Fraction(told.pricePerUnit, told.pixelsPerUnit)
