"""What a gateway has spent, and may still spend. Pure bookkeeping; any thread may keep it.

A payment passes through here three times: its upper bound is reserved before a ticket is asked for, its real
value is put down as spent before the tickets leave this process, and what came of them settles it. A payment
that can't be proved to have stayed here is spent, whatever was said of it afterwards.
"""

from __future__ import annotations

import threading
from typing import Literal

from .._fork import on_fork
from ..errors import BudgetExceeded

__all__ = ["Bill", "Ledger", "Reservation"]


class Ledger:
    """The book of one gateway.

    Args:
        budget: The most that it may spend, in wei; None is any amount. A process that was forked, and a
            gateway that was pickled, has a book of its own, of what it spends itself.
    """

    def __init__(self, budget: int | None = None) -> None:
        self.budget: int | None = budget
        self._lock = threading.Lock()
        self._spent = 0
        self._reserved = 0
        on_fork(self)

    @property
    def spent(self) -> int:
        """What was paid, in wei: the expected value of tickets that were taken, or may have been."""
        return self._spent

    @property
    def reserved(self) -> int:
        """What is set aside, in wei.

        It is for payments in flight, and for tickets that an orchestrator has seen and says it hasn't taken.
        """
        return self._reserved

    def reserve(self, wei: int, bill: Bill | None = None) -> Reservation:
        """Set the upper bound of a payment aside.

        Args:
            wei: The bound.
            bill: The call's, which is told what was paid.

        Raises:
            BudgetExceeded: It would pass the budget; nothing is set aside.
        """
        with self._lock:
            left = None if self.budget is None else self.budget - self._spent - self._reserved
            if left is None or wei <= left:
                self._reserved += wei
                return Reservation(self, wei, bill or Bill())
            spent, reserved = self._spent, self._reserved
        raise BudgetExceeded(
            f"A payment of up to {wei} wei would pass the budget of {self.budget} wei: {spent} are spent"
            + (f", and {reserved} set aside for payments in flight" if reserved else "")
            + ".",
            hint="A higher budget= of the Gateway allows it. Nothing was paid for this.",
        )

    def _move(self, bill: Bill, *, reserved: int = 0, spent: int = 0) -> None:
        with self._lock:
            self._reserved += reserved
            self._spent += spent
            bill.cost += spent

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # the parent's may be held by a thread that isn't here
        self._spent = self._reserved = 0


class Bill:
    """What one call or session has paid.

    Attributes:
        cost: In wei.
        sent: Whether a payment has left for the orchestrator that is being tried.
        unpaid: Whether the attempt there ended because it was asked to be paid, and was not.
        closed: Whether nothing more is to be paid, because nobody waits for it.
    """

    __slots__ = ("closed", "cost", "sent", "unpaid")

    def __init__(self) -> None:
        self.cost: int = 0
        self.sent: bool = False
        self.unpaid: bool = False
        self.closed: bool = False


class Reservation:
    """One payment's place in the book. What is over stays as it is."""

    __slots__ = ("_amount", "_bill", "_ledger", "_state")

    def __init__(self, ledger: Ledger, wei: int, bill: Bill) -> None:
        self._ledger = ledger
        self._bill = bill
        self._amount = wei
        self._state: Literal["reserved", "settled", "over"] = "reserved"

    @property
    def amount(self) -> int:
        """What is set aside or spent for it, in wei."""
        return self._amount

    def settle(self, wei: int) -> None:
        """The tickets are worth this, and leave now; from here on they count as spent."""
        if self._state == "reserved":
            self._state = "settled"
            amount, self._amount = self._amount, wei
            self._ledger._move(self._bill, reserved=-amount, spent=wei)

    def release(self) -> None:
        """No ticket has left this process."""
        before, self._state = self._state, "over"
        if before == "reserved":
            self._ledger._move(self._bill, reserved=-self._amount)
        elif before == "settled":
            self._ledger._move(self._bill, spent=-self._amount)

    def unknown(self) -> None:
        """It was taken, or may have been: it stays spent."""
        before, self._state = self._state, "over"
        if before == "reserved":
            self._ledger._move(self._bill, reserved=-self._amount, spent=self._amount)

    def held(self) -> None:
        """An orchestrator has seen the tickets, and says that it hasn't taken them.

        They aren't spent, as long as that is true; so the budget keeps them set aside.
        """
        if self._state == "settled":
            self._state = "reserved"
            self._ledger._move(self._bill, reserved=self._amount, spent=-self._amount)

    def used(self, bill: Bill) -> None:
        """Tickets that were held leave again, in another call."""
        if self._state == "reserved":
            self._bill = bill
            self.settle(self._amount)
