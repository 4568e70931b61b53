"""What each payer has left for each session, in exact fractions of a wei (``core/accounting.go``, v0.9.1)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Account", "Balances"]


@dataclass
class Account:
    """A payer's account for one session.

    Args:
        amount: What is left, in wei.
        fixed_price: The price that the first payment was made at, in wei per unit.
        credited: All that ever came in.
        debited: All that was taken out.
    """

    amount: Fraction = Fraction(0)
    fixed_price: Fraction | None = None
    credited: Fraction = Fraction(0)
    debited: Fraction = Fraction(0)


class Balances:
    """The accounts of one orchestrator."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[bytes, str], Account] = {}
        self._known: set[bytes] = set()

    def find(self, sender: bytes, manifest_id: str) -> Account | None:
        """The account, if there is one."""
        return self._accounts.get((sender, manifest_id))

    def of(self, manifest_id: str) -> Account | None:
        """The account of a session, whoever pays for it."""
        return next((one for (_, name), one in self._accounts.items() if name == manifest_id), None)

    def credit(self, sender: bytes, manifest_id: str, amount: Fraction) -> None:
        """Put something in."""
        self.meet(sender)
        account = self._open(sender, manifest_id)
        account.amount += amount
        account.credited += amount

    def debit(self, sender: bytes, manifest_id: str, amount: Fraction) -> None:
        """Take something out."""
        account = self._open(sender, manifest_id)
        account.amount -= amount
        account.debited += amount

    def fix_price(self, sender: bytes, manifest_id: str, price: Fraction) -> None:
        """Remember the price of a session; the first one stays.

        For a payer who has never had anything here go-livepeer forgets to (``SetFixedPrice``): its first
        session has no price of its own until the second payment.
        """
        if sender not in self._known:
            return
        account = self._open(sender, manifest_id)
        if account.fixed_price is None:
            account.fixed_price = price

    def meet(self, sender: bytes) -> None:
        """Know a payer from now on."""
        self._known.add(sender)

    def _open(self, sender: bytes, manifest_id: str) -> Account:
        return self._accounts.setdefault((sender, manifest_id), Account())
