"""Has BYOC jobs signed and paid for, where a signer offers that; what it all means is `jobs`'s to say."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from .._bodies import SMALL, one_line, whole
from .._http import Pool, unsent, within
from .._observing import asking
from .._payer import Identity, identity_of
from .._secrets import Secret
from .._urls import redact
from ..catalogue import Price
from ..errors import LivepeerError, OrchestratorError, SignerError
from ..offers import shown
from ..routes._job import job_header
from .jobs import JobToken, checked_payment, payment_request, read_signature, read_token, signature_request
from .ledger import Bill, Reservation
from .signing import NoTicketNeeded, RefreshNeeded, is_out_of_funds, no_funds

if TYPE_CHECKING:
    from .signer import Signer
    from .wallet import Wallet

__all__ = ["JobSigner", "SignedJob"]

_REMEMBERED = 300.0  # seconds that it is known who offers it
_PATIENCE = 10.0  # seconds for an orchestrator's token
_logger = logging.getLogger("livepeer.client")


@dataclass(frozen=True, slots=True)
class SignedJob:
    """A job that can be sent, once.

    Attributes:
        headers: What goes with it: the job, signed, and a payment where one is due.
        reservation: The payment's place in the book; None where nothing was due.
    """

    headers: dict[str, str] = field(repr=False)
    reservation: Reservation | None = None

    @contextmanager
    def leaving(self, bill: Bill) -> Iterator[None]:
        """The job is sent inside: its payment is given back in the book if it provably did not leave."""
        bill.sent = self.reservation is not None
        try:
            yield
        except LivepeerError as error:
            if self.reservation is not None and unsent(error):
                self.reservation.release()
            raise
        finally:
            if self.reservation is not None:
                self.reservation.unknown()


class JobSigner:
    """The signers of a gateway, as far as they sign BYOC jobs.

    Args:
        wallet: Whose they are.
        pool: The gateway's connections.
    """

    def __init__(self, wallet: Wallet, pool: Pool) -> None:
        self._wallet = wallet
        self._pool = pool
        self._known: tuple[float, Signer | None] | None = None

    async def offered(self) -> Signer | None:
        """The first signer that signs BYOC jobs; None when none does, or none could be asked.

        It is found out by a job that nobody gets.
        """
        if self._known is not None and time.monotonic() < self._known[0]:
            return self._known[1]
        found: Signer | None = None
        for signer in self._wallet.in_turn():
            try:
                await self._signature(signer, "probe", "probe", 1)
            except LivepeerError as error:
                _logger.debug("%s signs no BYOC jobs: %s", redact(signer.url), error)
            else:
                found = signer
                break
        self._known = (time.monotonic() + _REMEMBERED, found)
        return found

    async def sign(
        self,
        orchestrator: str,
        capability: str,
        *,
        job_id: str,
        timeout_seconds: int,
        seconds: int,
        most: Price | None,
        bill: Bill,
    ) -> SignedJob:
        """Sign a job, and pay for it what is due.

        Args:
            orchestrator: Its URL.
            capability: The name that the worker registered.
            job_id: Names the job, and the call for who observes.
            timeout_seconds: How long the worker may take.
            seconds: For how many the account has to last; 60 at least.
            most: The most that a second may cost.
            bill: The call's.

        Raises:
            PriceExceeded, BudgetExceeded: It costs more than it may.
            InsufficientBalance: The wallet, or what a signer makes at once, isn't enough.
            SignerError: The signer refused, or could not be asked. Nothing was paid.
            OrchestratorError: The orchestrator gave no token.
        """
        signer = await self.offered()
        if signer is None:
            raise SignerError("No signer signs BYOC jobs any more.", retryable=True)
        await self._wallet.ready()
        identity = identity_of(*await signer.payer(request_id=job_id))
        sender, signature = await self._signature(signer, job_id, capability, timeout_seconds)
        headers = job_header(
            capability, job_id=job_id, timeout_seconds=timeout_seconds, sender=sender, signature=signature
        )
        for last in (False, True):
            token = await self._token(orchestrator, capability, identity, job_id)
            token.check(most)
            due = token.due(seconds)
            if not due:
                break
            try:
                payment, reservation = await self._payment(
                    signer, token, orchestrator, capability, due=due, bill=bill, job_id=job_id
                )
            except RefreshNeeded:
                if last:
                    raise
            except NoTicketNeeded:
                break
            else:
                return SignedJob(headers | {"Livepeer-Payment": payment}, reservation)
        return SignedJob(headers)

    async def _payment(
        self,
        signer: Signer,
        token: JobToken,
        orchestrator: str,
        capability: str,
        *,
        due: int,
        bill: Bill,
        job_id: str,
    ) -> tuple[Secret, Reservation]:
        """Tickets for so many seconds, which are put down as spent."""
        bound: Fraction = due * token.price + token.ticket_value
        reservation = self._wallet.ledger.reserve(math.ceil(bound), bill)
        try:
            request = payment_request(token, orchestrator, capability, due, time.time())
            body = await signer.ask("/generate-live-payment", json.dumps(request).encode(), job_id)
            payment, wei = checked_payment(body, token, bound)
        except BaseException:
            reservation.release()
            raise
        reservation.settle(wei)
        return payment, reservation

    async def _signature(
        self, signer: Signer, job_id: str, capability: str, timeout_seconds: int
    ) -> tuple[str, str]:
        job = signature_request(job_id, capability, timeout_seconds)
        return read_signature(await signer.ask("/sign-byoc-job", json.dumps(job).encode(), job_id))

    async def _token(self, orchestrator: str, capability: str, identity: Identity, job_id: str) -> JobToken:
        url, where = f"{orchestrator}/process/token", redact(orchestrator)
        headers = {"Livepeer-Eth-Address": shown(identity), "Livepeer-Capability": capability}
        transport = await self._pool.transport()
        with asking(self._pool, "offers", "GET", url, orchestrator=where, request_id=job_id) as answered:
            async with (
                within(_PATIENCE, url, orchestrator=where),
                await transport.send("GET", url, headers=headers) as answer,
            ):
                answered(answer.status)
                body, status = await whole(answer, SMALL, "A job token", orchestrator=where), answer.status
        if status == 200:
            return read_token(body)
        text = one_line(body, 200)
        if is_out_of_funds(text):
            raise no_funds(f"{where} takes no tickets", text, identity.address)
        raise OrchestratorError(
            f"The orchestrator {where} gave no token for {capability!r}: {text or status}.",
            status=status,
            body=text,
            orchestrator=orchestrator,
        )
