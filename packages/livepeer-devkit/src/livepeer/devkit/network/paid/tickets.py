"""Tickets: their parameters, their value and what is signed of each (``pm/ticket.go``, v0.9.1)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from livepeer.client._grpc import lp_rpc_pb2 as net

from .wallets import hash256

__all__ = ["MAX_WIN_PROB", "TicketParams", "big"]

MAX_WIN_PROB = 2**256 - 1


def big(number: int) -> bytes:
    """An integer as Go's ``big.Int`` writes it: big-endian, without leading zeros; 0 is nothing."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


@dataclass(frozen=True)
class TicketParams:
    """What a recipient demands of the tickets that it takes.

    Args:
        recipient: Its address, 20 bytes.
        face_value: What a winning ticket pays, in wei.
        win_prob: The chance to win, as a numerator over 2^256 - 1.
        recipient_rand_hash: The hash of the recipient's secret number.
        seed: From which the recipient finds that number again.
        expiration_block: The first block at which the parameters are no longer good.
        round: The round in which the tickets are made.
        round_hash: That round's block hash.
    """

    recipient: bytes
    face_value: int
    win_prob: int
    recipient_rand_hash: bytes
    seed: int
    expiration_block: int
    round: int
    round_hash: bytes

    @classmethod
    def read(cls, told: net.TicketParams, expiration: net.TicketExpirationParams) -> TicketParams:
        """The parameters in a challenge, or in a payment, which has the expiration elsewhere."""
        return cls(
            told.recipient.rjust(20, b"\0")[-20:],
            int.from_bytes(told.face_value[-32:], "big"),
            int.from_bytes(told.win_prob[-32:], "big"),
            told.recipient_rand_hash.rjust(32, b"\0")[-32:],
            int.from_bytes(told.seed[-32:], "big"),
            int.from_bytes(told.expiration_block, "big"),
            expiration.creation_round,
            expiration.creation_round_block_hash.rjust(32, b"\0")[-32:],
        )

    def write(self, *, with_expiration: bool) -> net.TicketParams:
        """The parameters as a message."""
        told = net.TicketParams(
            recipient=self.recipient,
            face_value=big(self.face_value),
            win_prob=big(self.win_prob),
            recipient_rand_hash=self.recipient_rand_hash,
            seed=big(self.seed),
            expiration_block=big(self.expiration_block),
        )
        if with_expiration:
            told.expiration_params.CopyFrom(self.expiration)
        return told

    @property
    def expiration(self) -> net.TicketExpirationParams:
        """When the tickets were made."""
        return net.TicketExpirationParams(
            creation_round=self.round, creation_round_block_hash=self.round_hash
        )

    @property
    def ev(self) -> Fraction:
        """What one ticket is worth on average, in wei: exactly what it is credited as."""
        return Fraction(self.face_value * self.win_prob, MAX_WIN_PROB)

    @property
    def aux_data(self) -> bytes:
        """The expiration as it is hashed."""
        if self.round == 0 and not any(self.round_hash):
            return b""
        return self.round.to_bytes(32, "big") + self.round_hash

    def ticket(self, sender: bytes, nonce: int) -> bytes:
        """The hash of one ticket, which its sender signs."""
        numbers = (self.face_value, self.win_prob, nonce)
        return hash256(
            self.recipient
            + sender
            + b"".join(number.to_bytes(32, "big") for number in numbers)
            + self.recipient_rand_hash
            + self.aux_data
        )
