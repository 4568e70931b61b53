"""Who may have a BYOC job done, and on whose account (``byoc/job_orchestrator.go``, go-livepeer v0.9.1).

That is what differs between an offchain orchestrator, whose accounts are here, and one on a chain, whose are
in `paid.jobs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from .byoc_jobs import HEADER, Job, parse_job
from .byoc_registry import UNKNOWN, Capabilities, Capability
from .validation import Refused

__all__ = ["Account", "Accounts", "BadPayment", "Free", "FreeAccount", "admitted"]


class BadPayment(Exception):
    """A payment that can't be taken: go-livepeer panics, and the caller's connection ends without a word."""


class Account(Protocol):
    """A caller's account for one capability, while a job of it runs."""

    def balance(self, digits: int) -> str:
        """What is left, in wei, with so many decimals."""
        ...

    def charge(self, seconds: float) -> None:
        """Take what so many seconds cost, begun ones as whole; the account may end below nothing."""
        ...

    @property
    def costs(self) -> bool:
        """Whether anything is charged."""
        ...

    @property
    def empty(self) -> bool:
        """Whether more was taken than came in."""
        ...


class Accounts(Protocol):
    """The accounts of one orchestrator."""

    def check_sender(self, told: Mapping[str, str]) -> None:
        """Raise `Refused` when one who asks for a token isn't who that one says."""
        ...

    def offer(self, told: Mapping[str, str], capability: Capability | None) -> dict[str, Any]:
        """What a token says of money. Raises `Refused`."""
        ...

    def check_job(self, job: Job) -> None:
        """Raise `Refused` when a job isn't of the one it names."""
        ...

    def admit(self, job: Job, capability: Capability, payment: str) -> Account | None:
        """Credit a payment and open the account; None when there isn't enough for a minute.

        Raises:
            BadPayment: There is no credit in it, and no answer.
        """
        ...


class FreeAccount:
    """The account where nothing costs anything."""

    costs = False
    empty = False

    def balance(self, digits: int) -> str:
        """Nothing."""
        return f"{0:.{digits}f}"

    def charge(self, seconds: float) -> None:
        """Take nothing."""


class Free:
    """The accounts of an offchain orchestrator: everybody is welcome."""

    def check_sender(self, told: Mapping[str, str]) -> None:
        """Believe it."""

    def offer(self, told: Mapping[str, str], capability: Capability | None) -> dict[str, Any]:
        """A price of nothing."""
        return {"price": {"pixelsPerUnit": 1}}

    def check_job(self, job: Job) -> None:
        """Believe it."""

    def admit(self, job: Job, capability: Capability, payment: str) -> Account | None:
        """Open one."""
        return FreeAccount()


def admitted(
    headers: Mapping[str, str], capabilities: Capabilities, accounts: Accounts, *, unknown: int, poor: int
) -> tuple[Job, Capability, Account]:
    """The job of a request, for which a unit of the capability is reserved, and the account it runs on.

    Args:
        headers: The request's.
        capabilities: What the orchestrator knows.
        accounts: Its accounts.
        unknown: The status where it doesn't know the capability.
        poor: The status where the account has too little.

    Raises:
        Refused, BadPayment: It isn't admitted, and nothing is reserved.
    """
    job = parse_job(headers.get(HEADER, ""))
    accounts.check_job(job)
    if not capabilities.reserve(job.capability):
        raise Refused(UNKNOWN, unknown)
    capability = capabilities.get(job.capability)
    assert capability is not None
    try:
        account = accounts.admit(job, capability, headers.get("Livepeer-Payment", ""))
    except BadPayment:
        capabilities.release(job.capability)
        raise
    if account is None:
        capabilities.release(job.capability)
        raise Refused("Insufficient balance for request", poor)
    return job, capability, account
