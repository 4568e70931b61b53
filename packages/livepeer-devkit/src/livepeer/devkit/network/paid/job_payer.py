"""A gateway node's wallet: signs jobs, and pays for as long as they may take (``byoc/``, v0.9.1)."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from livepeer.client._grpc import lp_rpc_pb2 as net

from .. import gojson
from ..byoc_jobs import HEADER
from .chain import Chain
from .sender import SenderRefused, TicketSender
from .tickets import TicketParams
from .wallets import shown

__all__ = ["CantPay", "JobPayer"]

_ENOUGH = 120  # seconds that an account has to last for, or it is paid into
_MOST = 600  # tickets for one set of parameters


class CantPay(Exception):
    """The node can't pay; it says so in its log alone."""


class JobPayer:
    """The payer of one node.

    Args:
        address: Of its wallet.
        chain: The wallets and the blocks.
    """

    def __init__(self, address: bytes, chain: Chain) -> None:
        self._address = address
        self._chain = chain
        self._sender = TicketSender(address, chain)

    @property
    def identity(self) -> str:
        """The header by which it asks for tokens: its address, signed."""
        address = shown(self._address)
        told = {"addr": address, "sig": self._signature(address)}
        return base64.b64encode(json.dumps(told).encode()).decode()

    def headers(self, job: Mapping[str, Any], token: Mapping[str, Any]) -> dict[str, str]:
        """The headers of a job for the orchestrator of a token, with a payment if one is due.

        Raises:
            CantPay: The wallet can't make the tickets.
        """
        signed = dict(job) | {
            "sender": shown(self._address),
            "sig": self._signature(job["request"] + job["parameters"]),
        }
        headers = {HEADER: base64.b64encode(gojson.encode(signed)).decode()}
        told = token.get("price") or {}
        price = Fraction(told.get("pricePerUnit", 0), told.get("pixelsPerUnit", 1))
        if price > 0 and token.get("balance", 0) < price * _ENOUGH:
            payment = self._payment(token, price, price * job["timeout_seconds"])
            headers["Livepeer-Payment"] = base64.b64encode(payment.SerializeToString()).decode()
        return headers

    def _payment(self, token: Mapping[str, Any], price: Fraction, cost: Fraction) -> net.Payment:
        params = _params(token.get("ticket_params"))
        count = min(_MOST, math.ceil(cost / params.ev)) if params.ev else 0
        try:
            self._sender.check(params, count)
            if self._sender.expired(params):
                raise CantPay("the parameters have expired")
        except SenderRefused as refused:
            raise CantPay(str(refused)) from None
        payment = net.Payment(
            sender=self._address,
            expected_price=net.PriceInfo(pricePerUnit=price.numerator, pixelsPerUnit=price.denominator),
            ticket_params=params.write(with_expiration=False),
            expiration_params=params.expiration,
        )
        wallet = self._chain.wallets[self._address]
        for nonce in range(1, count + 1):
            signature = wallet.sign(params.ticket(self._address, nonce))
            payment.ticket_sender_params.add(sender_nonce=nonce, sig=signature)
        return payment

    def _signature(self, text: str) -> str:
        return self._chain.wallets[self._address].sign_text(text)


def _params(told: Any) -> TicketParams:
    if not isinstance(told, dict):
        raise CantPay("no ticket params available, cannot create payment")
    expiration = told.get("expiration_params") or {}

    def field(name: str) -> bytes:
        return base64.b64decode(told.get(name, ""))

    return TicketParams.read(
        net.TicketParams(
            recipient=field("recipient"),
            face_value=field("face_value"),
            win_prob=field("win_prob"),
            recipient_rand_hash=field("recipient_rand_hash"),
            seed=field("seed"),
            expiration_block=field("expiration_block"),
        ),
        net.TicketExpirationParams(
            creation_round=expiration.get("creation_round", 0),
            creation_round_block_hash=base64.b64decode(expiration.get("creation_round_block_hash", "")),
        ),
    )
