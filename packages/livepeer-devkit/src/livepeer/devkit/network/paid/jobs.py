"""BYOC jobs on a chain: signed by who pays, and paid for by a minute at least (``byoc/``, v0.9.1)."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from livepeer.client._grpc import lp_rpc_pb2 as net

from ..byoc_accounts import Account, BadPayment
from ..byoc_jobs import Job, hex_bytes
from ..byoc_registry import Capability
from ..credentials import check_payment
from ..validation import Refused
from .cashier import Cashier, Paid
from .prices import go_float
from .recipient import InsufficientReserve
from .wallets import NOBODY, address_of, hash256

__all__ = ["JobAccounts", "params_as_json"]

_MINIMUM = 60  # seconds that a job must be paid for before it begins


class _Account:
    """The account of one payer for one capability."""

    def __init__(self, cashier: Cashier, sender: bytes, capability: str, price: Fraction) -> None:
        self._balances = cashier.balances
        self._key = sender, capability
        self._price = price

    @property
    def costs(self) -> bool:
        return self._price > 0

    @property
    def empty(self) -> bool:
        return self._left < 0

    def balance(self, digits: int) -> str:
        return go_float(self._left, digits)

    def charge(self, seconds: float) -> None:
        self._balances.debit(*self._key, self._price * math.ceil(seconds))

    @property
    def _left(self) -> Fraction:
        account = self._balances.find(*self._key)
        return account.amount if account is not None else Fraction(0)


class JobAccounts:
    """The accounts of an orchestrator's BYOC callers; a manifest id is the capability's name.

    Args:
        cashier: The orchestrator's money.
    """

    def __init__(self, cashier: Cashier) -> None:
        self._cashier = cashier

    def check_sender(self, told: Mapping[str, str]) -> None:
        """Raise `Refused` when the address isn't signed by its owner, as it is written."""
        if not self._signed(told["addr"], told["addr"], told["sig"]):
            raise Refused("Invalid eth address header ", 400)

    def offer(self, told: Mapping[str, str], capability: Capability | None) -> dict[str, Any]:
        """Ticket parameters, what is left on the account, and the price; an unknown capability has none."""
        sender, price = _sender(told["addr"]), _price(capability)
        try:
            params = self._cashier.ticket_params(sender, price)
        except InsufficientReserve as error:
            raise Refused(f"Could not get ticket params err={error}", 400) from None
        offer: dict[str, Any] = {"ticket_params": params_as_json(params)}
        account = self._cashier.balances.find(sender, capability.name) if capability else None
        if account is not None and (left := int(account.amount)):
            offer["balance"] = left
        wei = {"pricePerUnit": price.numerator} if price else {}
        return offer | {"price": wei | {"pixelsPerUnit": price.denominator}}

    def check_job(self, job: Job) -> None:
        """Raise `Refused` when the sender hasn't signed the job's request and parameters."""
        if not self._signed(job.sender, job.request + job.parameters, job.signature):
            raise Refused("Could not verify job creds", 400)

    def admit(self, job: Job, capability: Capability, payment: str) -> Account | None:
        """Credit a payment, and open the account if it lasts for a minute."""
        sender, price = _sender(job.sender), _price(capability)
        account = _Account(self._cashier, sender, capability.name, price)
        if not price:
            return account
        if payment:
            try:
                self._cashier.process(Paid(check_payment(payment), net.SegData()), capability.name)
            except Refused as refused:
                raise BadPayment(str(refused)) from None
        known = self._cashier.balances.find(sender, capability.name)
        return account if known is not None and known.amount >= price * _MINIMUM else None

    def _signed(self, address: str, text: str, signature: str) -> bool:
        try:
            sender = address_of(address)
        except ValueError:
            return False
        return self._cashier.chain.signed(sender, hash256(text.encode()), hex_bytes(signature))


def params_as_json(params: net.TicketParams) -> dict[str, Any]:
    """Ticket parameters as Go's ``encoding/json`` writes the message: what is empty is left out."""
    names = ("recipient", "face_value", "win_prob", "recipient_rand_hash", "seed", "expiration_block")
    told: dict[str, Any] = {
        name: base64.b64encode(value).decode() for name in names if (value := getattr(params, name))
    }
    expiration = params.expiration_params
    return told | {
        "expiration_params": {
            "creation_round": expiration.creation_round,
            "creation_round_block_hash": base64.b64encode(expiration.creation_round_block_hash).decode(),
        }
    }


def _sender(address: str) -> bytes:
    try:
        return address_of(address)
    except ValueError:
        return NOBODY


def _price(capability: Capability | None) -> Fraction:
    """In wei per second."""
    return capability.price if capability is not None else Fraction(0)
