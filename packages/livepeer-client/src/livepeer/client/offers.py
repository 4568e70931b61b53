"""Asks orchestrators whether they have a BYOC capability, and at what price (go-livepeer v0.9.1, job tokens).

An orchestrator tells of a capability by ``GET /process/token``. It answers 200 for one that it doesn't have,
too: without ``available_capacity``, just as for one whose places are all taken. Places leak there (a worker
that times out keeps its own until it registers again), and calls aren't refused for it. So an offer without a
place is the last to try, not none.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ._bodies import SMALL, one_line, whole
from ._fork import abandon, on_fork
from ._http import Pool, running_loop, within
from ._observing import asking
from ._payer import Identity, Payer, known
from ._secrets import Secret
from ._urls import redact
from .catalogue import Price
from .errors import LivepeerError, Rejection
from .records import Records, place_of

__all__ = ["ASKS_FOR_PAYMENT", "BYOC_WAYS", "WANTS_A_WALLET", "Offer", "Offers", "parse_offer", "shown"]

ASKS_FOR_PAYMENT = "it asks for payment"
WANTS_A_WALLET = "it runs on a chain, and tells what it has of BYOC to a signed wallet alone"
BYOC_WAYS = (
    "There are two ways to pay for BYOC: a gateway node, Gateway(gateway_url=…, orch_url=…), which pays from "
    "its own wallet; and a signer that offers /sign-byoc-job, which no released one does."
)

_FRESH = 5.0  # seconds that an offer with a free place is believed
_PATIENCE = 10.0  # seconds for an orchestrator to answer
_GRACE = 0.5  # seconds that the slower ones get when one has an offer
_MANY = 1000  # answers kept
_AT_ONCE = 32  # orchestrators asked at the same time, by one call
_NOBODY = base64.b64encode(b'{"addr":"0x0000000000000000000000000000000000000000","sig":""}').decode()
_logger = logging.getLogger("livepeer.client")


@dataclass(frozen=True, slots=True)
class Offer:
    """What one orchestrator says of one capability.

    Attributes:
        orchestrator: Its URL.
        available: Free places; 0 when there are none, and when it doesn't know the capability.
        price: Per second of work; None when it is free.
        rejection: Why it can't be used; None when it can be.
        absent: Whether it can't have the capability, because it doesn't speak BYOC.
        ours: How many of the gateway's own calls were under way there when it said how many are free.
    """

    orchestrator: str
    available: int = 0
    price: Price | None = None
    rejection: Rejection | None = None
    absent: bool = False
    ours: int = 0

    @property
    def usable(self) -> bool:
        """Whether a call can go there."""
        return self.rejection is None and not self.absent


def parse_offer(status: int, body: bytes, orchestrator: str) -> Offer:
    """Read the answer of ``/process/token``.

    An orchestrator on a chain tells a signed wallet its price and its free places, and everybody else
    nothing: not whether it has the capability either.
    """
    where = redact(orchestrator)
    text = one_line(body, 200)
    if status in (404, 405):
        return Offer(orchestrator, absent=True)
    if status == 400 and "eth address" in text:
        return Offer(orchestrator, rejection=Rejection(where, WANTS_A_WALLET, BYOC_WAYS))
    if status != 200:
        reason = f"it answered {status} ({text}) for BYOC"
        return Offer(orchestrator, rejection=Rejection(where, reason, retryable=status >= 500))
    try:
        token = json.loads(body)
        available = int(token.get("available_capacity") or 0)
        price = _price(token.get("price"))
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return Offer(orchestrator, rejection=Rejection(where, "its job token can't be read"))
    if price is None and token.get("ticket_params") and not available:
        return Offer(orchestrator, absent=True)  # on a chain an unknown capability is free, and has no place
    if price is not None or token.get("ticket_params"):
        costs = f"it costs {price} and" if price else "it is free, but"
        reason = f"{costs} takes BYOC jobs that a wallet has signed"
        return Offer(orchestrator, available, price, Rejection(where, reason, BYOC_WAYS))
    return Offer(orchestrator, available)


class Offers:
    """The offers of a gateway's orchestrators; calls on one loop share the requests in flight."""

    def __init__(self, pool: Pool, payer: Payer | None = None, records: Records | None = None) -> None:
        self._pool = pool
        self._records = records or Records()
        self._payer = payer
        self._kept: dict[tuple[str, str], tuple[float, Offer]] = {}
        self._seen: dict[str, float] = {}  # when each capability was last offered
        self._asking: dict[tuple[asyncio.AbstractEventLoop, str, str], asyncio.Task[Offer]] = {}
        on_fork(self)

    async def of(
        self, capability: str, orchestrators: Sequence[str], *, fresh: bool = False, all_of_them: bool = False
    ) -> list[Offer]:
        """What these orchestrators offer, those with a free place first, else in their order.

        Args:
            capability: Its name.
            orchestrators: Their URLs.
            fresh: Ask again, even when the last answer is only moments old.
            all_of_them: Wait for the slow ones, too.
        """
        known: dict[str, Offer] = {}
        waiting: list[str] = []
        for orchestrator in dict.fromkeys(orchestrators):
            kept = self._kept.get((orchestrator, capability))
            if kept is not None and not fresh and time.monotonic() - kept[0] < _FRESH:
                known[orchestrator] = kept[1]
            else:
                waiting.append(orchestrator)
        waiting.reverse()
        tasks: dict[asyncio.Task[Offer], str] = {}
        pending: set[asyncio.Task[Offer]] = set()
        found = any(offer.available and offer.usable for offer in known.values())
        while pending or waiting:
            while waiting and len(pending) < _AT_ONCE:
                task = self._ask(waiting[-1], capability)
                tasks[task] = waiting.pop()
                pending.add(task)
            patience = _GRACE if found and not all_of_them else None
            done, pending = await asyncio.wait(pending, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            for task in done:
                known[tasks[task]] = task.result()
            found = any(offer.available and offer.usable for offer in known.values())
        offers = [known[orchestrator] for orchestrator in orchestrators if orchestrator in known]
        return sorted(offers, key=lambda offer: offer.available <= 0)

    def missing_for(self, capability: str) -> float | None:
        """How many seconds ago somebody last had a free place of it; None when nobody ever had."""
        seen = self._seen.get(capability)
        return time.monotonic() - seen if seen is not None else None

    def forget(self, orchestrator: str, capability: str) -> None:
        """Don't believe the last answer any more."""
        self._kept.pop((orchestrator, capability), None)

    def _ask(self, orchestrator: str, capability: str) -> asyncio.Task[Offer]:
        key = (running_loop(), orchestrator, capability)
        task = self._asking.get(key)
        if task is None or task.done():
            # In one step: another thread's loop may ask meanwhile.
            for other in [other for other in list(self._asking) if other[0].is_closed()]:
                self._asking.pop(other, None)
            task = self._asking[key] = key[0].create_task(self._ask_one(orchestrator, capability))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return task

    async def _ask_one(self, orchestrator: str, capability: str) -> Offer:
        url = f"{orchestrator}/process/token"
        who = await known(self._payer) if self._payer is not None else None
        headers = {"Livepeer-Eth-Address": shown(who), "Livepeer-Capability": capability}
        try:
            transport = await self._pool.transport()
            with asking(self._pool, "offers", "GET", url, orchestrator=redact(orchestrator)) as answered:
                async with (
                    within(_PATIENCE, url, orchestrator=redact(orchestrator)),
                    await transport.send("GET", url, headers=headers) as answer,
                ):
                    answered(answer.status)
                    body = await whole(answer, SMALL, f"The job token of {redact(orchestrator)}")
                    offer = parse_offer(answer.status, body, orchestrator)
                    if ours := self._records.under_way(place_of(orchestrator, capability)):
                        offer = dataclasses.replace(offer, ours=ours)
        except LivepeerError as error:
            return Offer(
                orchestrator,
                rejection=Rejection(redact(orchestrator), error.message, error.hint, error.retryable),
            )
        _logger.debug("%s of %s: %s", capability, redact(orchestrator), offer)
        if offer.available and offer.usable:
            if len(self._kept) >= _MANY:
                self._kept.clear()
                self._seen.clear()
            self._seen[capability] = time.monotonic()
            self._kept[orchestrator, capability] = (self._seen[capability], offer)
        return offer

    def _after_fork(self) -> None:
        abandon(self._asking)
        self._asking = {}


def shown(who: Identity | None) -> str:
    """A wallet as a job token's header has it."""
    if who is None:
        return _NOBODY
    told = {"addr": who.address, "sig": str(who.signature)}
    return Secret(base64.b64encode(json.dumps(told).encode()).decode())


def _price(info: Any) -> Price | None:
    """Go's JSON of a price leaves out what is 0; it is wei per second, as a fraction."""
    if not isinstance(info, dict):
        return None
    from fractions import Fraction  # which loads decimal, and few calls need

    amount = Fraction(int(info.get("pricePerUnit", 0)), int(info.get("pixelsPerUnit", 1)))
    return Price(-(-amount.numerator // amount.denominator), "seconds") if amount > 0 else None
