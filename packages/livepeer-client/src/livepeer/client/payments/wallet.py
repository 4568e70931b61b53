"""What a gateway pays with: its signers, its book, and the tickets that an orchestrator hasn't taken.

A session's payments belong to one signer: its answers carry a state, which is good with that one only.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Iterator, Mapping
from fractions import Fraction

from .._fork import on_fork
from .._headers import HeaderSource
from .._http import Pool
from ..catalogue import Price
from ..config import Config
from ..errors import LivepeerError, SignerError
from .challenge import Challenge
from .exchange import Exchange, Held
from .kinds import PIXELS_A_SECOND, Kind
from .ledger import Bill, Ledger, Reservation
from .signer import Payer, Signer
from .signing import Signed, SignRequest
from .tickets import Tickets

__all__ = ["Paid", "PaidSession", "Wallet"]

_PROTOBUF = "livepeer.client._grpc.lp_rpc_pb2"
_MANY = 100  # runners whose tickets are held
_MARGIN = 2  # seconds that a signer's clock may be ahead when the bound of a payment is reckoned


class Wallet:
    """Pays for a gateway's calls.

    Args:
        config: Names the signers, and their headers.
        pool: The gateway's connections.
        ledger: The gateway's book.

    Attributes:
        signers: In the order in which to ask them.
        ledger: The book.
    """

    def __init__(self, config: Config, pool: Pool, ledger: Ledger) -> None:
        headers = HeaderSource(config.signer_headers, "signer_headers")
        self.signers: tuple[Signer, ...] = tuple(Signer(url, headers, pool) for url in config.signers)
        self.ledger: Ledger = ledger
        self._held: dict[str, list[Held]] = {}
        self._first = 0  # of the signers: the one that signed last
        on_fork(self)

    def in_turn(self) -> Iterator[Signer]:
        """The signers, in the order in which to ask them now: that which worked last comes first."""
        first = self._first
        yield self.signers[first]
        for number, signer in enumerate(self.signers):
            if number != first:
                yield signer

    async def payer(self, *, request_id: str | None = None) -> Payer:
        """The address of the wallet that pays, and its signature, in hex.

        Raises:
            SignerError: No signer could be asked.
        """
        failure: LivepeerError | None = None
        for signer in self.in_turn():
            try:
                payer = await signer.payer(request_id=request_id)
            except SignerError as error:
                failure = error if failure is None else failure
            else:
                self.worked(signer)
                return payer
        assert failure is not None
        raise failure

    def worked(self, signer: Signer) -> None:
        """This signer answered, and is the one to ask."""
        self._first = self.signers.index(signer)

    def exchange(
        self,
        orchestrator: str,
        place: str,
        kind: Kind,
        *,
        app: str,
        limit: Price | None,
        bill: Bill,
    ) -> Exchange:
        """What decides about a paid request; tickets that are held for that place are used."""
        from .._http import unsent

        def keep(tickets: Held) -> None:
            if len(self._held) < _MANY:
                self._held.setdefault(place, []).append(tickets)

        return Exchange(
            self.ledger, bill, orchestrator, kind,
            app=app, limit=limit, held=self._tickets_for(place, kind, limit),
            on_held=keep, unsent=unsent,
        )  # fmt: skip

    def _tickets_for(self, place: str, kind: Kind, limit: Price | None) -> Held | None:
        """Tickets that are held for a place, at a price within the limit; none that may have expired."""
        fitting = None
        for tickets in self._held.pop(place, ()):
            if tickets.stale:
                continue
            if fitting is None and tickets.challenge.over(limit, kind) is None:
                fitting = tickets
            else:
                self._held.setdefault(place, []).append(tickets)
        return fitting

    async def ready(self) -> None:
        """Load what reads payments, before the first one."""
        if _PROTOBUF not in sys.modules:
            await asyncio.to_thread(importlib.import_module, _PROTOBUF)

    def _after_fork(self) -> None:
        self._held = {}  # the parent's, who will use them


class Paid:
    """A payment that is signed and put down as spent; it leaves now.

    Attributes:
        headers: What goes with the request.
        signed: The payment.
        reservation: Its place in the book, to be told what came of it.
    """

    def __init__(self, signed: Signed, reservation: Reservation) -> None:
        self.headers: dict[str, str] = signed.headers
        self.signed: Signed = signed
        self.reservation: Reservation = reservation


class PaidSession:
    """The payments of one session after its first one.

    Args:
        wallet: The gateway's.
        signer: Who signed the first one.
        challenge: What the first one was for.
        kind: How it is paid.
        signed: The first one.
        app: The capability's name at the orchestrator.
        limit: The most that a unit may cost.
        bill: The call's.

    Attributes:
        manifest_id: The session's name, which every payment bears.
        payment_url: Where payments go: that of the first challenge, as later ones name one that takes money
            even for a session that is over.
        state: What the signer answered last; never to be altered, nor given to another session. None after a
            change of the signer.
        used: How many tickets were signed for each of the orchestrator's parameters.
        lock: Held while one payment is signed, as a state is good for one.
        paid_at: When the last payment was signed, as `time.monotonic` counts.
        tickets: The last payment's.
    """

    def __init__(
        self,
        wallet: Wallet,
        signer: Signer,
        challenge: Challenge,
        kind: Kind,
        signed: Signed,
        *,
        app: str = "",
        limit: Price | None = None,
        bill: Bill,
        manifest_id: str = "",
        payment_url: str = "",
        capabilities: str = "",
    ) -> None:
        self.wallet: Wallet = wallet
        self.signer: Signer = signer
        self.challenge: Challenge = challenge
        self.kind: Kind = kind
        self.app: str = app
        self.limit: Price | None = limit
        self.bill: Bill = bill
        self.manifest_id: str = manifest_id or challenge.manifest_id
        self.payment_url: str = payment_url or challenge.payment_url
        self.capabilities: str = capabilities
        self.state: Mapping[str, str] | None = signed.state
        self.used: dict[bytes, int] = {}
        self.lock: asyncio.Lock = asyncio.Lock()
        self.paid_at: float = time.monotonic()
        self.tickets: Tickets = signed.tickets
        self._note(signed)

    @property
    def cost(self) -> int:
        """What the session has cost up to now, in wei."""
        return self.bill.cost

    @property
    def nonces(self) -> int:
        """How many tickets were signed for the parameters in use; an orchestrator takes 600."""
        return self.used.get(self.tickets.params_hash, 0)

    def bound(self) -> int:
        """The most that the next payment may be worth, in wei."""
        if self.kind == "fixed":
            return self.challenge.bound(1)
        if self.state is None:
            return self.challenge.first_bound(self.kind)
        seconds = time.monotonic() - self.paid_at + _MARGIN
        a_second = PIXELS_A_SECOND if self.kind == "lv2v" else 1
        return self.challenge.bound(int(Fraction(seconds) * a_second) + 1)

    def refreshed(self, challenge: Challenge) -> None:
        """The orchestrator has sent fresh parameters; the session and where it is paid stay."""
        challenge.check(self.limit, self.kind)
        self.challenge = challenge

    def without_state(self) -> None:
        """The next payment is as a first one: the state was lost, or the signer is another."""
        self.state = None

    async def sign(self, *, request_id: str | None = None) -> Paid:
        """Have the next payment signed, within the budget. One at a time.

        Raises:
            NoTicketNeeded: It isn't needed yet.
            RefreshNeeded: `refreshed` has to come first.
            BudgetExceeded: It would pass the budget.
            PriceExceeded, InsufficientBalance, SignerError: The signer can't or won't.
        """
        async with self.lock:
            request = SignRequest(
                self.challenge, self.kind, self.app, self.limit,
                self.manifest_id, self.state, self.capabilities,
            )  # fmt: skip
            reservation = self.wallet.ledger.reserve(self.bound(), self.bill)
            try:
                signed = await self.signer.sign(request, request_id=request_id)
                signed.check(request, reservation.amount)
            except BaseException:
                reservation.release()
                raise
            self._note(signed)
            reservation.settle(signed.tickets.wei)
            return Paid(signed, reservation)

    def _note(self, signed: Signed) -> None:
        tickets = signed.tickets
        if tickets.params_hash not in self.used:
            self.used.clear()  # nonces of other parameters are used no more
        self.used[tickets.params_hash] = self.used.get(tickets.params_hash, 0) + tickets.count
        self.state, self.tickets, self.paid_at = signed.state, tickets, time.monotonic()
