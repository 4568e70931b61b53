"""The task that goes on paying for a session, or for a call that outlasts its first payment.

`topup` decides; this does what it says, and ends what is paid for when payment is over.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from fractions import Fraction
from typing import Any

from .._bodies import SMALL, one_line, whole
from .._http import Pool, unsent, within
from .._observing import asking
from .._urls import join_path, redact
from ..errors import (
    LivepeerError,
    LivepeerTimeout,
    OrchestratorError,
    PaymentError,
    SignerError,
)
from .challenge import Challenge
from .signer import Signer
from .signing import NoTicketNeeded, RefreshNeeded, is_out_of_funds, no_funds
from .topup import Over, Refresh, Send, Sign, TopUp, Wait
from .wallet import Paid, PaidSession

__all__ = ["Keeper"]

_LOOK = 1.0  # seconds between two looks at the clocks, so that a machine that slept is noticed
_SPOILT = re.compile(r"invalid sig|invalid state|mismatch|initial price in state|exceeds maximum of 100")
_SEEN = re.compile("already seen|already used")
_TICKETS = re.compile("[tT]icket|recipientRand|payment price|auth token")
_logger = logging.getLogger("livepeer.client")


class Keeper:
    """Pays for one session until it is stopped.

    Args:
        pool: The gateway's connections.
        orchestrator: The orchestrator's URL.
        request_id: The id for its questions and errors.

    Attributes:
        error: Why no more is paid, when that is so.
        on_over: Is told then, once; whoever keeps a remote session ends it.
    """

    def __init__(self, pool: Pool, orchestrator: str, request_id: str) -> None:
        self.error: LivepeerError | None = None
        self.on_over: list[Callable[[LivepeerError], None]] = []
        self._pool = pool
        self._orchestrator = orchestrator
        self._request_id = request_id
        self._guards: set[asyncio.Timeout] = set()
        self._task: asyncio.Task[None] | None = None
        self._machine: TopUp | None = None
        self._clock = _Clock()

    @property
    def trouble(self) -> LivepeerError | None:
        """Why the session isn't paid at the moment; None when all is well."""
        return self.error or (self._machine.trouble if self._machine is not None else None)

    def begin(self, session: PaidSession) -> None:
        """The first payment leaves; a session with a fixed price has no further ones."""
        if session.kind == "fixed" or self._task is not None:
            return
        self._clock = _Clock()
        now = self._clock()
        challenge = session.challenge
        self._machine = TopUp(
            session.kind, challenge.price, challenge.value,
            now=now, tickets=session.tickets.count, balance=_balance(session.state),
            expires=_ends(challenge, now),
        )  # fmt: skip
        self._task = asyncio.create_task(self._run(session, self._machine), name="livepeer-payments")

    def halt(self) -> None:
        """Pay no more, without waiting for the task's end."""
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """Pay no more."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.wait({self._task})

    @contextlib.asynccontextmanager
    async def guard(self) -> AsyncGenerator[None, None]:
        """Inside, the end of payment ends what is waited for.

        Raises:
            LivepeerError: The reason of that end; also in place of what fails in consequence of it.
        """
        if self.error is not None:
            raise self.error
        try:
            async with asyncio.timeout(None) as limit:
                self._guards.add(limit)
                try:
                    yield
                finally:
                    self._guards.discard(limit)
        except TimeoutError as error:
            if self.trouble is None or not (limit.expired() or isinstance(error, LivepeerError)):
                raise
            raise self.trouble from None
        except LivepeerError as error:
            if self.trouble is None or error is self.trouble:
                raise
            raise self.trouble from error

    async def _run(self, session: PaidSession, machine: TopUp) -> None:
        work = _Payments(self, session, machine)
        try:
            while True:
                now = self._clock()
                match machine.step(now):
                    case Wait(until):
                        await asyncio.sleep(min(max(until - now, 0.01), _LOOK))
                    case Refresh(limit, forget):
                        await work.refresh(limit, forget=forget)
                    case Sign(limit):
                        await work.sign(limit)
                    case Send(limit):
                        await work.send(limit)
                    case Over(error):
                        self._end(error)
                        return
        except Exception as error:
            _logger.debug("the payments of a session failed: %r", error)
            failure = error if isinstance(error, LivepeerError) else PaymentError("The payments failed.")
            if failure is not error:
                failure.__cause__ = error
            self._end(failure)
        finally:
            work.leave()

    def _end(self, error: LivepeerError) -> None:
        error.orchestrator = error.orchestrator or self._orchestrator
        error.request_id = error.request_id or self._request_id
        self.error = error
        _logger.debug("no more is paid at %s: %s", redact(self._orchestrator), type(error).__name__)
        loop = asyncio.get_running_loop()
        for limit in list(self._guards):
            limit.reschedule(loop.time())
        for tell in self.on_over:
            tell(error)


class _Payments:
    """What the machine's steps do."""

    def __init__(self, keeper: Keeper, session: PaidSession, machine: TopUp) -> None:
        self._keeper = keeper
        self._pool = keeper._pool
        self._session = session
        self._machine = machine
        self._details: dict[str, Any] = {
            "orchestrator": keeper._orchestrator,
            "request_id": keeper._request_id,
        }
        self._paid: Paid | None = None
        self._left = False  # whether the payment at hand may have left

    def leave(self) -> None:
        """Settle the payment that is still on its way."""
        paid, self._paid = self._paid, None
        if paid is not None:
            if self._left:
                paid.reservation.unknown()
            else:
                paid.reservation.release()

    async def sign(self, limit: float) -> None:
        """Have the next payment signed."""
        machine, session = self._machine, self._session
        asked = self._keeper._clock()
        try:
            async with within(limit, session.signer.url):
                paid = await session.sign(request_id=self._details["request_id"])
        except NoTicketNeeded:
            machine.not_needed(self._keeper._clock())
        except RefreshNeeded as error:
            machine.refresh_needed(self._keeper._clock(), error)
        except (SignerError, LivepeerTimeout) as error:
            if isinstance(error, SignerError) and not error.retryable:
                if session.state is not None and _SPOILT.search(error.message):
                    machine.spoilt(error)
                elif not await self._another_signer():
                    machine.over(error)
                return
            failure: LivepeerError = error
            if isinstance(error, LivepeerTimeout):
                failure = SignerError(
                    f"The signer {redact(session.signer.url)} did not sign within {limit:.1f} s.",
                    hint="A session whose payment stays away is dropped by its orchestrator.",
                    retryable=True,
                )
                failure.__cause__ = error
            await self._another_signer()
            machine.failed(self._keeper._clock(), failure)
        except LivepeerError as error:
            machine.over(error)
        else:
            self._paid, self._left = paid, False
            machine.signed(asked, paid.signed.tickets.count, _balance(paid.signed.state))

    async def send(self, limit: float) -> None:
        """Bring the payment to the orchestrator."""
        assert self._paid is not None
        paid, machine, url = self._paid, self._machine, self._session.payment_url
        try:
            status, body = await self._post(url, paid.headers, b"", limit)
        except LivepeerError as error:
            self._left = self._left or not unsent(error)
            machine.failed(self._keeper._clock(), error)
            return
        except BaseException:
            self._left = True  # cancelled on its way
            raise
        again, self._left = self._left, True
        text = one_line(body, 500) if status != 200 else ""
        if status == 200 or (again and _SEEN.search(text)):
            self.leave()
            machine.sent(self._keeper._clock())
            return
        refused = OrchestratorError(
            f"{redact(url)} did not take the payment: {status} ({text}).",
            hint="Begin another session. What was sent counts as spent, unless the session was over.",
            status=status,
            body=text,
            retryable=status >= 500,
            **self._details,
        )
        if status == 404:
            paid.reservation.held()
            self._paid = None
            machine.over(PaymentError(f"The session is over at its orchestrator ({text}).", **self._details))
        elif is_out_of_funds(text):
            self.leave()
            poor = no_funds(f"{redact(url)} takes no payment", text, self._session.signer.address)
            machine.over(poor)
        elif status >= 500:
            machine.failed(self._keeper._clock(), refused)
        else:
            self.leave()
            refusal = PaymentError(refused.message, hint=refused.hint, **self._details)
            if status == 400 and _TICKETS.search(text):
                machine.spoilt(refusal)
            else:
                machine.over(refusal)

    async def refresh(self, limit: float, *, forget: bool) -> None:
        """Get fresh parameters."""
        machine, session, keeper = self._machine, self._session, self._keeper
        url = join_path(keeper._orchestrator, "/refresh-payment")
        asked = {"sender": session.signer.address, "manifest_id": session.manifest_id}
        try:
            if not asked["sender"]:
                asked["sender"], _ = await session.signer.payer(request_id=self._details["request_id"])
            json_headers = {"Content-Type": "application/json"}
            status, body = await self._post(url, json_headers, json.dumps(asked).encode(), limit)
            if status != 200:
                text = one_line(body, 300)
                raise OrchestratorError(
                    f"{redact(url)} gave no fresh parameters: {status} ({text}).",
                    status=status, body=text, retryable=True, **self._details,
                )  # fmt: skip
            challenge = Challenge.parse(body, keeper._orchestrator, request_id=self._details["request_id"])
            session.refreshed(challenge)
        except PaymentError as error:
            if isinstance(error, SignerError):
                machine.failed(keeper._clock(), error)
            else:
                machine.over(error)
        except LivepeerError as error:
            machine.failed(keeper._clock(), error)
        else:
            if forget:
                session.without_state()
            machine.refreshed(_ends(challenge, keeper._clock()))

    async def _another_signer(self) -> bool:
        """Take the next signer of the same wallet: the orchestrator debits no other one's account."""
        session = self._session
        others: list[Signer] = [one for one in session.wallet.signers if one is not session.signer]
        for other in others:
            with contextlib.suppress(LivepeerError):
                async with within(_LOOK, other.url):
                    address, _ = await other.payer(request_id=self._details["request_id"])
                if address.lower() == session.signer.address.lower():
                    session.signer = other
                    return True
        return False

    async def _post(
        self, url: str, headers: Mapping[str, str], body: bytes, limit: float
    ) -> tuple[int, bytes]:
        transport = await self._pool.transport()
        with asking(self._pool, "payment", "POST", url, **self._details) as answered:
            async with (
                within(limit, url, **self._details),
                await transport.send("POST", url, headers=headers, body=body) as answer,
            ):
                answered(answer.status)
                content = await whole(answer, SMALL, "The answer to a payment", **self._details)
                return answer.status, content


class _Clock:
    """Seconds that don't stand still while the machine sleeps, as `time.monotonic` does on Linux."""

    def __init__(self) -> None:
        self._now = 0.0
        self._last = (time.monotonic(), time.time())

    def __call__(self) -> float:
        last, self._last = self._last, (time.monotonic(), time.time())
        self._now += max(self._last[0] - last[0], self._last[1] - last[1])
        return self._now


def _ends(challenge: Challenge, now: float) -> float | None:
    """When the orchestrator's token ends, by the keeper's clock."""
    return now + challenge.expires - time.time() if challenge.expires else None


def _balance(state: Mapping[str, str] | None) -> Fraction:
    """What the signer's state says was paid above what was billed, in wei; 0 where it doesn't tell."""
    try:
        told = json.loads(base64.b64decode((state or {})["State"]))
        return max(Fraction(told["Balance"]), Fraction(0))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return Fraction(0)
