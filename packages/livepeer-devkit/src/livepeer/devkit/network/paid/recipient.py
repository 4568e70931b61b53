"""Who is paid: hands out ticket parameters, and checks the tickets (``pm/recipient.go``, v0.9.1)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from fractions import Fraction

from .chain import Chain
from .tickets import MAX_WIN_PROB, TicketParams, big
from .wallets import NOBODY, hash256, shown

__all__ = ["InsufficientReserve", "Recipient", "TicketRefused"]

_MAX_NONCES = 600  # tickets for one set of parameters
_BLOCKS = 40  # for which parameters are good
_EV_MULTIPLIER = 100
_REDEEM_GAS = 350_000
_COST_MULTIPLIER = 100  # by which the face value exceeds the cost of redeeming a ticket
_AVERAGE_GAS_PRICE = 3 * 10**9  # wei


class InsufficientReserve(Exception):
    """The payer's reserve can't back a ticket."""

    def __init__(self) -> None:
        super().__init__("insufficient sender reserve")


class TicketRefused(Exception):
    """A ticket that doesn't count; the text is go-livepeer's.

    Args:
        text: Why.
        fatal: Whether the rest of the payment isn't looked at.
    """

    def __init__(self, text: str, *, fatal: bool = False) -> None:
        super().__init__(text)
        self.fatal = fatal


@dataclass
class Recipient:
    """The orchestrator as the one who is paid.

    Args:
        chain: Where it looks up payers.
        address: Its own address.
        ticket_ev: What each ticket shall be worth on average, in wei.
        gas_price: In wei; the cost of redeeming a ticket sets its face value.
    """

    chain: Chain
    address: bytes
    ticket_ev: int
    gas_price: int
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    _nonces: dict[bytes, tuple[set[int], int]] = field(default_factory=dict, repr=False)

    def params(self, sender: bytes, price: Fraction) -> TicketParams:
        """New parameters for a payer.

        Args:
            sender: Its address.
            price: In wei per unit; nothing is asked for what is free.

        Raises:
            InsufficientReserve: The payer has too little.
        """
        face_value = self._face_value(sender) if price > 0 else 0
        seed, expiration = secrets.randbits(256), self.chain.block + _BLOCKS
        draft = TicketParams(
            self.address,
            face_value,
            self._win_prob(face_value),
            b"",
            seed,
            expiration,
            self.chain.round,
            self.chain.round_hash,
        )
        return TicketParams(
            **vars(draft) | {"recipient_rand_hash": hash256(self._number(draft, sender, price))}
        )

    def receive(
        self, params: TicketParams, sender: bytes, nonce: int, signature: bytes, price: Fraction
    ) -> None:
        """Take a ticket. Raises `TicketRefused`."""
        number = self._number(params, sender, price)
        if params.recipient != self.address:
            raise TicketRefused("invalid ticket recipient", fatal=True)
        if sender == NOBODY:
            raise TicketRefused("invalid ticket sender", fatal=True)
        if hash256(number) != params.recipient_rand_hash:
            raise TicketRefused("invalid recipientRand for ticket recipientRandHash", fatal=True)
        if not self.chain.signed(sender, params.ticket(sender, nonce), signature):
            raise TicketRefused("invalid ticket signature")
        self._use(number, params, sender, nonce)
        if params.expiration_block <= self.chain.block:
            raise TicketRefused("TicketParams expired")

    def _use(self, number: bytes, params: TicketParams, sender: bytes, nonce: int) -> None:
        self._forget_expired()
        used, _ = self._nonces.setdefault(number, (set(), params.expiration_block))
        which = f"sender={shown(sender)} nonce={nonce}"
        if nonce in used:
            raise TicketRefused(f"invalid ticket senderNonce: already seen {which}")
        if len(used) >= _MAX_NONCES:
            raise TicketRefused(f"invalid ticket senderNonce: too many values {which}")
        used.add(nonce)

    def _forget_expired(self) -> None:
        block = self.chain.block
        for number in [number for number, (_, end) in self._nonces.items() if end <= block]:
            del self._nonces[number]

    def _face_value(self, sender: bytes) -> int:
        cost = _REDEEM_GAS * self.gas_price
        value = cost * _COST_MULTIPLIER
        if value < self.ticket_ev:
            value = self.ticket_ev * _EV_MULTIPLIER
        value = min(value, self.chain.max_float(sender))
        if value < self.ticket_ev or (value < cost and value < _REDEEM_GAS * _AVERAGE_GAS_PRICE):
            raise InsufficientReserve
        return value

    def _win_prob(self, face_value: int) -> int:
        if face_value == 0:
            return 0
        if face_value == self.ticket_ev:
            return MAX_WIN_PROB
        share, rest = divmod(MAX_WIN_PROB, face_value)
        return self.ticket_ev * (share + 1 if rest else share)

    def _number(self, params: TicketParams, sender: bytes, price: Fraction) -> bytes:
        """The secret number behind the parameters, which nobody else could make."""
        told = (
            big(params.seed)
            + sender
            + big(params.face_value)
            + big(params.win_prob)
            + big(params.expiration_block)
            + big(price.numerator)
            + big(price.denominator)
            + params.aux_data
        )
        return hmac.digest(self._secret, told, hashlib.sha256)
