"""Who pays: makes tickets, within what its wallet allows (``pm/sender.go``, v0.9.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from livepeer.client._grpc import lp_rpc_pb2 as net

from .chain import Chain
from .prices import go_float
from .signer_state import State
from .tickets import TicketParams

__all__ = ["SenderRefused", "Session", "TicketSender"]

_BUFFER = 1  # blocks that parameters must be good for
_MAX_EV = 3 * 10**12  # wei for one ticket
_MAX_TOTAL_EV = 2 * 10**13  # wei for all tickets of a payment


class SenderRefused(Exception):
    """No ticket can be made; the text is go-livepeer's."""


@dataclass
class Session:
    """The tickets that are made by one set of parameters.

    Args:
        id: The parameters' hash, as it is written.
        params: The parameters.
        nonce: The number of the newest ticket.
    """

    id: str
    params: TicketParams
    nonce: int


class TicketSender:
    """The payer of one wallet.

    Args:
        address: Whose.
        chain: The wallets and the blocks.
    """

    def __init__(self, address: bytes, chain: Chain) -> None:
        self._address = address
        self._chain = chain
        self._sessions: dict[str, Session] = {}

    @contextmanager
    def session(self, info: net.OrchestratorInfo, state: State) -> Iterator[Session]:
        """Begin where the state ended, or with the first ticket of new parameters."""
        params = TicketParams.read(info.ticket_params, info.ticket_params.expiration_params)
        name = f"0x{params.recipient_rand_hash.hex()}"
        session = Session(name, params, state.nonce if state.pm_session_id == name else 0)
        self._sessions[name] = session
        try:
            yield session
        finally:
            self._sessions.pop(name, None)

    def nonce(self, session: Session) -> int:
        """The number of the newest ticket. Raises `SenderRefused` when another request ended the session."""
        known = self._sessions.get(session.id)
        if known is None:
            raise SenderRefused(f"error loading session: {session.id.encode().hex()}")
        return known.nonce

    def expired(self, params: TicketParams) -> bool:
        """Whether it is too late for these parameters, or about to be."""
        if not params.expiration_block:
            raise SenderRefused("ticketParams expiration block is 0")
        return params.expiration_block - self._chain.block <= _BUFFER

    def check(self, params: TicketParams, count: int) -> None:
        """Raise `SenderRefused` when the wallet can't make so many of these tickets."""
        ev = params.ev
        if ev <= 0:
            return
        if ev >= params.face_value:
            raise SenderRefused(f"ticket faceValue too low faceValue={params.face_value}")
        if ev > _MAX_EV:
            raise SenderRefused(f"ticket EV {go_float(ev, 5)} > max ticket EV {_MAX_EV}.00000")
        wallet = self._chain.wallets[self._address]
        if not wallet.reserve:
            raise SenderRefused("no sender reserve")
        if not wallet.deposit:
            raise SenderRefused("no sender deposit")
        total = ev * count
        if total > _MAX_TOTAL_EV:
            which = f"total ticket EV {go_float(total, 5)} for {count} tickets"
            raise SenderRefused(f"{which} > max total ticket EV {_MAX_TOTAL_EV}.00000")
        if params.face_value > wallet.deposit:
            raise SenderRefused(f"ticket faceValue {params.face_value} > max faceValue {wallet.deposit}")

    async def add_tickets(self, payment: net.Payment, session: Session, count: int) -> None:
        """Put tickets into a payment. Raises `SenderRefused`."""
        self.nonce(session)
        if self.expired(session.params):
            raise SenderRefused("TicketParams expired")
        self.check(session.params, count)
        wallet = self._chain.wallets[self._address]
        for _ in range(count):
            session.nonce += 1
            signature = wallet.sign(session.params.ticket(self._address, session.nonce))
            payment.ticket_sender_params.add(sender_nonce=session.nonce, sig=signature)
            await asyncio.sleep(0)  # as long as it takes, others run
        payment.ticket_params.CopyFrom(session.params.write(with_expiration=False))
        payment.expiration_params.CopyFrom(session.params.expiration)
