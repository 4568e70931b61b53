"""What tickets are worth: face value times the probability to win, as an orchestrator credits them.

Pure decisions, after go-livepeer v0.9.1 (``pm/ticket.go``, ``core/orchestrator.go``): the value of a ticket
is an exact fraction, its probability a share of 2^256 - 1.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from ..errors import SignerError

if TYPE_CHECKING:
    from .._grpc.lp_rpc_pb2 import TicketParams

__all__ = ["Tickets", "read_payment", "ticket_value"]

_CERTAIN = 2**256 - 1


@dataclass(frozen=True, slots=True)
class Tickets:
    """What a payment holds.

    Attributes:
        count: How many tickets.
        face_value: What a winning one pays, in wei.
        win_prob: How probable that is: this share of 2^256 - 1.
        price: What the payer expects to pay, in wei per unit; 0 where the payment doesn't say.
        params_hash: Names the orchestrator's parameters that the tickets are for; nonces count in them.
        nonces: The numbers of the tickets among these.
        sender: The payer's address, 20 bytes.
    """

    count: int
    face_value: int
    win_prob: int
    price: Fraction
    params_hash: bytes
    nonces: tuple[int, ...]
    sender: bytes

    @property
    def expected_value(self) -> Fraction:
        """What they are worth on average, in wei: what the orchestrator credits."""
        return self.count * _value(self.face_value, self.win_prob)

    @property
    def wei(self) -> int:
        """The same, to the nearest wei."""
        return round(self.expected_value)


def ticket_value(params: TicketParams) -> Fraction:
    """What one ticket of these parameters is worth on average, in wei."""
    return _value(int.from_bytes(params.face_value), int.from_bytes(params.win_prob))


def read_payment(payment: str) -> Tickets:
    """Read a ``Livepeer-Payment``: base64 of a ``net.Payment``.

    Raises:
        SignerError: It is none. The message doesn't repeat it.
    """
    from google.protobuf.message import DecodeError

    from .._grpc.lp_rpc_pb2 import Payment

    try:
        message = Payment.FromString(base64.b64decode(payment, validate=True))
    except (binascii.Error, ValueError, DecodeError):
        message = None
    if message is None or not message.HasField("ticket_params"):
        raise SignerError("What the signer sent as a payment can't be read.", hint="Is it a signer's URL?")
    params, price = message.ticket_params, message.expected_price
    return Tickets(
        count=len(message.ticket_sender_params),
        face_value=int.from_bytes(params.face_value),
        win_prob=int.from_bytes(params.win_prob),
        price=Fraction(price.pricePerUnit, price.pixelsPerUnit) if price.pixelsPerUnit > 0 else Fraction(0),
        params_hash=params.recipient_rand_hash,
        nonces=tuple(one.sender_nonce for one in message.ticket_sender_params),
        sender=message.sender,
    )


def _value(face_value: int, win_prob: int) -> Fraction:
    return Fraction(face_value * win_prob, _CERTAIN)
