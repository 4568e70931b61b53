"""One paid request: what to do after each event. A machine without I/O; `routes._paid` does what it says.

An orchestrator asks to be paid by 402; a signer signs for that challenge; the request goes again with the
payment. Whatever happens, at most one payment leaves for one piece of work whose fate isn't known:

    Step        | Event                                   | Then
    ------------+-----------------------------------------+--------------------------------------------------
    Ask         | an answer                               | Done: it is free after all
                | 402 with a challenge                    | Sign, if its price and the budget allow it
                | any other failure                       | raised; nothing was paid
    Sign        | a payment                               | Pay, if it is worth no more than was set aside
                | 480, the first time                     | Ask: another challenge, as this one is too old
                | 480 again, 482                          | SignerError; nothing was paid
                | the signer fails, and there is another  | Ask, or Sign if that one has the same wallet
                | any other failure                       | raised; nothing was paid
    Pay         | an answer                               | Done; paid
                | no connection was made                  | raised; nothing was paid
                | the orchestrator's 503, or its 404      | raised; the next call there uses the tickets
                | 402                                     | PaymentError; it counts as paid
                | any other failure                       | raised; it counts as paid
    any         | the caller is cancelled                 | paid if a payment may have left, else not
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from .._urls import redact
from ..catalogue import Price
from ..errors import CapacityError, LivepeerError, OrchestratorError, PaymentError, SignerError
from ..failover import unknown
from .challenge import Challenge
from .kinds import Kind
from .ledger import Bill, Ledger, Reservation
from .signing import NoTicketNeeded, RefreshNeeded, Signed, SignRequest

__all__ = ["Ask", "Asked", "Done", "Exchange", "Held", "Pay", "Sign", "Step"]

_HELD_FOR = 60.0  # seconds that tickets are used again; their parameters last 41 blocks


@dataclass(frozen=True, slots=True)
class Ask:
    """Send the request, without a payment."""


@dataclass(frozen=True, slots=True)
class Sign:
    """Have this signed."""

    request: SignRequest


@dataclass(frozen=True, slots=True)
class Pay:
    """Send the request with this payment, over a connection of its own; `owner` is who signed it."""

    signed: Signed
    challenge: Challenge
    owner: object


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is the caller's."""


Step = Ask | Sign | Pay | Done


class Asked(PaymentError):
    """An orchestrator answered 402.

    Args:
        body: The answer's body.
    """

    def __init__(self, message: str, *, body: bytes, orchestrator: str, request_id: str) -> None:
        super().__init__(message, orchestrator=orchestrator, request_id=request_id)
        self.body: bytes = body


@dataclass(slots=True)
class Held:
    """Tickets that an orchestrator has seen and not taken: they are as good there as before."""

    signed: Signed = field(repr=False)
    challenge: Challenge
    owner: object
    reservation: Reservation
    since: float

    @property
    def stale(self) -> bool:
        """Whether they may have expired; then they stay set aside for ever, as nobody gives them back."""
        return time.monotonic() - self.since > _HELD_FOR


class Exchange:
    """Decides about one paid request.

    Args:
        ledger: The gateway's book.
        bill: The call's.
        orchestrator: The URL of the orchestrator that is called.
        kind: How the runner is paid.
        app: The capability's name there.
        limit: The most that a unit may cost.
        held: Tickets to use before others are asked for.
        on_held: Takes the tickets that the orchestrator didn't.
        unsent: Tells whether a failed request never left.

    Attributes:
        step: What to do now.
        asked: Whether the request is known to need a payment, or who pays couldn't be said.
        reservation: The payment's place in the book, when there is one.
    """

    def __init__(
        self,
        ledger: Ledger,
        bill: Bill,
        orchestrator: str,
        kind: Kind,
        *,
        app: str = "",
        limit: Price | None = None,
        held: Held | None = None,
        on_held: Callable[[Held], None],
        unsent: Callable[[LivepeerError], bool],
    ) -> None:
        self._ledger = ledger
        self._bill = bill
        self._orchestrator = orchestrator
        self._kind: Kind = kind
        self._app = app
        self._limit = limit
        self._on_held = on_held
        self._unsent = unsent
        self._refreshed = False
        self._signed_at = time.monotonic() if held is None else held.since
        self.reservation: Reservation | None = None
        self.asked: bool = False
        self.step: Step = Ask()
        if held is not None:
            self.reservation = held.reservation
            self.reservation.used(bill)
            self._leave(Pay(held.signed, held.challenge, held.owner))

    def answered(self) -> None:
        """The request was answered, and not refused."""
        if isinstance(self.step, Pay) and self.reservation is not None:
            self.reservation.unknown()  # which is: spent, whatever comes now
        self.step = Done()

    def failed(self, error: LivepeerError) -> None:
        """The request failed.

        Raises:
            LivepeerError: Nothing can be done about it.
        """
        if isinstance(self.step, Pay):
            self._not_taken(self.step, error)
        elif isinstance(error, Asked):
            self._asked(error)
        else:
            raise error

    def signed(self, signed: Signed, owner: object) -> None:
        """The signer, which is `owner`, has signed.

        Raises:
            SignerError: More than it was asked for.
        """
        assert isinstance(self.step, Sign)
        assert self.reservation is not None
        try:
            signed.check(self.step.request, self.reservation.amount)
        except SignerError:
            self.abandoned()
            raise
        self._signed_at = time.monotonic()
        self.reservation.settle(signed.tickets.wei)
        self._leave(Pay(signed, self.step.request.challenge, owner))

    def refused(self, error: LivepeerError, *, another: bool = False, same_wallet: bool = False) -> None:
        """The signer has not signed, or told who pays; so nothing was paid.

        Args:
            error: What it said.
            another: Whether there is another signer now.
            same_wallet: Whether that one pays from the same wallet, which the challenge is for.

        Raises:
            LivepeerError: Nothing can be done about it.
        """
        self.asked = True
        if another and same_wallet:
            return
        self.abandoned()
        if isinstance(error, RefreshNeeded) and not self._refreshed:
            self._refreshed = True
        elif isinstance(error, RefreshNeeded | NoTicketNeeded):
            raise SignerError(
                f"{error.message} That was not to be expected here.",
                hint="Check the signer's clock, and that it is on the orchestrator's chain.",
                orchestrator=self._orchestrator,
            ) from error
        elif not another:
            raise error
        self.step = Ask()

    def abandoned(self) -> None:
        """Nobody waits for it any more: what may have left is spent, what was set aside is free again."""
        if self.reservation is None:
            return
        if isinstance(self.step, Pay):
            self.reservation.unknown()
        else:
            self.reservation.release()
            self.reservation = None

    def _asked(self, asked: Asked) -> None:
        self.asked = True
        challenge = Challenge.parse(asked.body, self._orchestrator, request_id=asked.request_id)
        challenge.check(self._limit, self._kind, request_id=asked.request_id)
        self.reservation = self._ledger.reserve(challenge.first_bound(self._kind), self._bill)
        self.step = Sign(SignRequest(challenge, self._kind, self._app, self._limit))

    def _leave(self, step: Pay) -> None:
        self.step = step
        self._bill.sent = True

    def _not_taken(self, step: Pay, error: LivepeerError) -> NoReturn:
        reservation, self.reservation = self.reservation, None
        assert reservation is not None
        if self._unsent(error):
            reservation.release()
        elif isinstance(error, CapacityError) or (isinstance(error, OrchestratorError) and unknown(error)):
            reservation.held()
            self._on_held(Held(step.signed, step.challenge, step.owner, reservation, self._signed_at))
        else:
            reservation.unknown()
        if not isinstance(error, Asked):
            raise error
        raise PaymentError(
            f"{redact(self._orchestrator)} asks for another payment after it was paid; it gets none.",
            hint="What was sent counts as spent. The orchestrator is at fault, or something between here and "
            "there drops the payment's headers.",
            orchestrator=self._orchestrator,
            request_id=error.request_id,
        ) from None
