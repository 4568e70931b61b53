"""When a session's further payments are due, and what to do when one fails. A machine without I/O.

A signer bills what has passed since its last payment, and the first payment's units on top (go-livepeer
v0.9.1, ``server/remote_signer.go``); an orchestrator debits what has passed, every five seconds, and drops a
session whose balance is less than that (``server/ai_http.go``). So the first payment's span is always ahead,
whenever the next one is made, and how far ahead that is decides only how long a signer may be away. By the
second it bills whole ones, rounded up: so payments are made shortly before one is full.

    Event                                       | Then
    --------------------------------------------+------------------------------------------------------------
    the time has come                           | Sign, then Send
    482, no ticket needed                       | the same a second later; what was paid covers more
    480; 600 tickets; the token is about to end | Refresh, with the state that there is
    the state is refused, or its tickets are    | Refresh, and Sign without a state, once; again: Over
    a pause whose bill has over 100 tickets     | the same (the machine slept): the session may still be there
    a signer is away, hangs, answers 5xx or 429 | again, until what was paid is used up; then Over
    a payment is on its way, and no answer came | the same payment again: its tickets count once
    any other refusal; the session is gone      | Over
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from ..errors import LivepeerError
from .kinds import FIRST_UNITS, PIXELS_A_SECOND, Kind

__all__ = ["Over", "Refresh", "Send", "Sign", "Step", "TopUp", "Wait"]

DEBITS = 5.0
"""Seconds from debit to debit."""

MOST_TICKETS, MOST_NONCES = 100, 600  # of a payment; of an orchestrator's parameters
_EARLY = 0.15  # seconds before a whole one: what the way to the signer may take longer than last time
_PERIOD: dict[Kind, int] = {"live": 5, "lv2v": 20}  # seconds from payment to payment
_TOKEN_LEFT = 240.0  # seconds of an orchestrator's token; signers refuse it when 180 are left
_SLEPT = 10.0  # seconds without a look at the clock: the machine was asleep
_AGAIN = (0.25, 0.5, 1.0)  # seconds before a failed step is tried again
_LEAST, _LONGEST = 1.0, 20.0  # seconds for one try


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is to be done before this time."""

    until: float


@dataclass(frozen=True, slots=True)
class Refresh:
    """Get fresh parameters from the orchestrator; `forget` the signer's state, too."""

    limit: float
    forget: bool = False


@dataclass(frozen=True, slots=True)
class Sign:
    """Have the next payment signed, within `limit` seconds."""

    limit: float


@dataclass(frozen=True, slots=True)
class Send:
    """Send the payment that was signed, within `limit` seconds."""

    limit: float


@dataclass(frozen=True, slots=True)
class Over:
    """No more is paid, because of this."""

    error: LivepeerError


Step = Wait | Refresh | Sign | Send | Over


class TopUp:
    """Decides about the payments of one session.

    Args:
        kind: How it is paid; ``"fixed"`` has no further payments.
        price: Wei per unit.
        value: What a ticket is worth, in wei.
        now: When the first payment was asked for, by a clock that doesn't stand still.
        tickets: How many it had.
        balance: What it was worth above its units, in wei, as the signer counts.
        expires: When the orchestrator's token ends, by that clock; None when it doesn't say.

    Attributes:
        due: When the next payment is to be made.
        covered: Until when the session is paid.
        trouble: Why the step at hand failed up to now.
    """

    def __init__(
        self,
        kind: Kind,
        price: Fraction,
        value: Fraction,
        *,
        now: float,
        tickets: int,
        balance: Fraction = Fraction(0),
        expires: float | None = None,
    ) -> None:
        self._period = _PERIOD[kind]
        self._whole = kind == "live"
        a_second = price * (PIXELS_A_SECOND if kind == "lv2v" else 1)
        self._first = FIRST_UNITS[kind] / (PIXELS_A_SECOND if kind == "lv2v" else 1)
        self._a_second, self._ticket = a_second, value / a_second
        self._nonces = 0
        self._expires = expires
        self._looked = now
        self._asked = now  # when the last payment was
        self._credit = Fraction(0)  # seconds that it was worth above its units
        self._signed: tuple[float, int, Fraction] | None = None  # what is to be sent
        self._lost = False  # whether the signer's state is
        self._anew = False  # whether the next payment is as a first one
        self._resets = 0
        self._must = False  # whether the signer wants fresh parameters
        self._stale = False  # whether it wanted them before it signed anything
        self._optional = False  # whether the step at hand isn't needed yet
        self._until = now  # the least time for trying, after a sleep
        self._refresh_at = self._again_at = now
        self._failures = 0
        self._over: LivepeerError | None = None
        self.trouble: LivepeerError | None = None
        self.covered: float = now
        self.due: float = now
        self._paid(now, tickets, balance, units=self._first)

    def step(self, now: float) -> Step:
        """What to do at this time."""
        slept, self._looked = now - self._looked > _SLEPT, now
        if slept:
            self._again_at, self._failures = now, 0
            self._until = now + 2 * DEBITS  # the session may still be there, and the network come back
        over_at = max(self.covered + DEBITS, self._until)
        if self._over is None and self.trouble is not None and now > over_at:
            self._over = self.trouble
        if self._over is not None:
            return Over(self._over)
        if self._signed is not None:
            return Send(self._limit(now)) if now >= self._again_at else Wait(self._again_at)
        if now - self._asked > self._longest and not self._anew:
            self._lost = True
        must = self._lost or self._must or self._nonces + self._next > MOST_NONCES
        if must or self._soon(now):
            at = self._again_at if must else self._refresh_at
            self._optional = not must
            if now >= at:
                return Refresh(self._limit(now), forget=self._lost)
            if must:
                return Wait(at)
        self._optional = False
        at = self._again_at if self._anew else max(self.due, self._again_at)
        return Sign(self._limit(now)) if now >= at else Wait(at)

    def signed(self, asked: float, tickets: int, balance: Fraction = Fraction(0)) -> None:
        """A payment was signed, which had been asked for at that time."""
        self._signed = (asked, tickets, balance)
        self._stale = False
        self._well()

    def sent(self, now: float) -> None:
        """The orchestrator has taken it."""
        assert self._signed is not None
        (asked, tickets, balance), self._signed = self._signed, None
        anew, self._anew = self._anew, False
        self._resets = 0
        if anew:
            self.covered = max(self.covered, now)
        self._paid(asked, tickets, balance, units=self._first if anew else None)
        self._well()

    def not_needed(self, now: float) -> None:
        """482: there is more credit than was known."""
        self.covered = max(self.covered, now + self._first)
        self.due = now + 1.0
        self._well()

    def refresh_needed(self, now: float, error: LivepeerError) -> None:
        """480."""
        if self._stale:
            self.failed(now, error)
        self._must = self._stale = True

    def refreshed(self, expires: float | None) -> None:
        """Fresh parameters are there."""
        self._must, self._nonces, self._expires = False, 0, expires
        if self._lost:
            self._lost, self._anew = False, True
        if not self._stale:
            self._well()

    def failed(self, now: float, error: LivepeerError) -> None:
        """The step failed, and may not the next time."""
        if self._optional:
            self._refresh_at = now + DEBITS  # it was only to be ready early
            return
        self.trouble = error
        self._again_at = now + _AGAIN[min(self._failures, len(_AGAIN) - 1)]
        self._failures += 1

    def spoilt(self, error: LivepeerError) -> None:
        """The signer doesn't take its state, or the orchestrator not the tickets."""
        self._signed = None
        self._resets += 1
        if self._resets > 1:
            self._over = error
        self._lost, self._anew = True, False

    def over(self, error: LivepeerError) -> None:
        """Nothing can be done about it."""
        self._signed, self._over = None, error

    @property
    def _longest(self) -> float:
        """Seconds after the last payment when the next one's bill has as many tickets as it may."""
        return float(self._credit + MOST_TICKETS * self._ticket) - 1.0

    @property
    def _next(self) -> int:
        """How many tickets the next payment may have."""
        return min(math.ceil((self._period + 1) / self._ticket) + 1, MOST_TICKETS)

    def _soon(self, now: float) -> bool:
        """Whether fresh parameters are wanted before they are needed."""
        ends = self._expires is not None and now > self._expires - _TOKEN_LEFT
        return ends or self._nonces + 2 * self._next > MOST_NONCES

    def _limit(self, now: float) -> float:
        return min(max((max(self.covered, self._until) - now) / 2, _LEAST), _LONGEST)

    def _paid(self, asked: float, tickets: int, balance: Fraction, *, units: float | None) -> None:
        credit = balance / self._a_second
        if units is not None:
            self.covered += units + float(credit)
        else:
            self.covered += asked - self._asked + float(credit - self._credit)
        self._asked, self._credit = asked, credit
        self._nonces += tickets
        after = self._period + float(credit)
        self.due = asked + (math.floor(after) - _EARLY if self._whole else after)

    def _well(self) -> None:
        self.trouble, self._failures = None, 0
        self._again_at = self._refresh_at = self._looked
