"""Sessions that are paid for (``server/ai_http.go``, ``reservePaidLiveRunnerSession``, v0.9.1).

Who comes without a payment is told what to pay. The payment's manifest id becomes the session's id. A price
by time is charged every few seconds, and the session is dropped when nothing is left; a fixed one at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from fractions import Fraction

from aiohttp import web

from .. import answers
from ..records import Runner, Session
from ..registry import Registry
from ..validation import Refused
from .cashier import Cashier, Paid
from .meter import Meter
from .prices import Price
from .recipient import InsufficientReserve
from .wallets import address_of

__all__ = ["Reservations"]


class Reservations:
    """The paid way to a runner.

    Args:
        registry: The runners.
        cashier: Who takes the money.
        interval: Seconds from charge to charge.
    """

    def __init__(self, registry: Registry, cashier: Cashier, interval: float) -> None:
        self._registry = registry
        self._cashier = cashier
        self._interval = interval
        self._charging: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Stop charging."""
        for task in self._charging:
            task.cancel()

    def reserve(
        self, request: web.Request, runner_id: str, on_drop: Callable[[], object] = lambda: None
    ) -> tuple[Runner, Session, str]:
        """Take one unit of a runner's capacity, and the money for it.

        Args:
            request: With the payment.
            runner_id: The runner.
            on_drop: Called when the session was dropped because nothing was left.

        Returns:
            As `Registry.reserve`.

        Raises:
            PaymentRequired: There is no payment.
            Refused: The payment isn't good, or the runner isn't free.
        """
        price = self._registry.price(self._registry.ready(runner_id))
        assert price is not None
        if not request.headers.get("Livepeer-Payment") and not request.headers.get("Livepeer-Segment"):
            raise answers.PaymentRequired(self._challenge(request, runner_id, price))
        paid = self._cashier.read(request.headers)
        if paid.manifest_id != paid.token_session:
            raise Refused("mismatched manifest and auth token", 403)
        if price.unit == "fixed":
            told = paid.payment.expected_price
            if (told.pricePerUnit, told.pixelsPerUnit) != (price.wei, 1):
                raise Refused("payment price does not match live runner price", 400)
        runner, session, url = self._registry.reserve(runner_id, paid.manifest_id)
        try:
            self._cashier.process(paid, paid.manifest_id)
            if price.unit == "fixed":
                self._cashier.charge(paid, paid.manifest_id, 1)
        except Refused:
            self._registry.drop(runner, session)
            raise
        if price.unit != "fixed":
            self._charge(runner, session, paid, price, on_drop)
        return runner, session, url

    def top_up(self, request: web.Request, runner_id: str, session_id: str) -> bytes:
        """Take more money for a session: the orchestrator's answer, a ``PaymentResult``."""
        _, session = self._registry.session(runner_id, session_id)
        if session.price_info and session.price_info["unit"] == "fixed":
            raise Refused("fixed-price live runner sessions do not accept follow-up payments", 409)
        paid = self._cashier.read(request.headers)
        if paid.manifest_id != session_id:
            raise Refused("mismatched session and payment manifest", 403)
        return self._cashier.take(paid)

    def _challenge(self, request: web.Request, runner_id: str, price: Price) -> web.Response:
        try:
            sender = address_of(request.headers.get("Livepeer-Payer-Address", ""))
        except ValueError:
            return answers.json_error("invalid live runner payment signer address", 402)
        where = f"{self._registry.public_url}/apps/{runner_id}/session"
        try:
            told = self._cashier.challenge(
                sender, Fraction(price.wei), None, lambda session: f"{where}/{session}/payment"
            )
        except InsufficientReserve as error:
            return answers.error(str(error), 500)
        answer = answers.json_answer(told)
        answer.set_status(402)
        return answer

    def _charge(
        self, runner: Runner, session: Session, paid: Paid, price: Price, on_drop: Callable[[], object]
    ) -> None:
        def debit(units: int) -> None:
            self._cashier.charge(paid, session.id, units)

        meter = Meter(self._interval, price.units_per_second, debit)

        async def keep_charging() -> None:
            loop = asyncio.get_running_loop()
            tick = loop.time()
            while True:
                tick += self._interval
                await asyncio.sleep(tick - loop.time())
                if runner.sessions.get(session.id) is not session:
                    return
                try:
                    meter.look()
                except Refused:
                    self._registry.drop(runner, session)
                    on_drop()
                    return

        task = asyncio.get_running_loop().create_task(keep_charging())
        self._charging.add(task)
        task.add_done_callback(self._charging.discard)
