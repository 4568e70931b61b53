"""Asks orchestrators and discovery services what they have, and keeps the answer for a moment."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ._fork import abandon, on_fork
from ._http import Pool, running_loop
from ._observing import asking
from ._urls import forbidden, redact
from .catalogue import Runner, parse_runner
from .config import Config
from .errors import LivepeerError, LivepeerTimeout, Rejection

__all__ = ["Discovery", "Listing", "parse_listing"]

_FRESH = 5.0  # seconds that an answer is believed
_PATIENCE = 10.0  # seconds for a place to answer
_logger = logging.getLogger("livepeer.client")


@dataclass(frozen=True, slots=True)
class Listing:
    """What the configured places answered.

    Attributes:
        runners: Every entry that can be used.
        rejections: Every place and entry that can't, with the reason.
        reached: How many places answered.
        orchestrators: Every orchestrator that may be asked, for what it doesn't list, too.
    """

    runners: tuple[Runner, ...]
    rejections: tuple[Rejection, ...]
    reached: int
    orchestrators: tuple[str, ...] = ()


class Discovery:
    """The listing of a gateway; concurrent calls on one loop share one request."""

    def __init__(self, config: Config, pool: Pool) -> None:
        self._config = config
        self._pool = pool
        self._listing: Listing | None = None
        self._read_at = float("-inf")
        self._seen: dict[str, float] = {}  # when each app was last listed
        self._asking: tuple[asyncio.AbstractEventLoop, asyncio.Task[Listing]] | None = None
        on_fork(self)

    async def listing(self, *, fresh: bool = False) -> tuple[Listing, bool]:
        """The listing, and whether it was asked for just now.

        Args:
            fresh: Ask again, even when the last answer is only moments old.
        """
        if not fresh and self._listing is not None and time.monotonic() - self._read_at < _FRESH:
            return self._listing, False
        loop = running_loop()
        asking = self._asking
        if asking is None or asking[0] is not loop or asking[1].done():
            asking = self._asking = (loop, loop.create_task(self._ask()))
        # Shielded, because the request belongs to every caller that waits for it. Not read from `self` again:
        # the loop of another thread may have put its own there meanwhile.
        return await asyncio.shield(asking[1]), True

    def _after_fork(self) -> None:
        if self._asking is not None:
            abandon(self._asking)
        self._asking = None

    async def _ask(self) -> Listing:
        listings = await asyncio.gather(*(self._ask_one(place) for place in self._config.places))
        listing = Listing(
            runners=tuple(runner for one in listings for runner in one.runners),
            rejections=tuple(rejection for one in listings for rejection in one.rejections),
            reached=sum(one.reached for one in listings),
            orchestrators=tuple(dict.fromkeys(url for one in listings for url in one.orchestrators)),
        )
        if listing.reached:
            self._listing, self._read_at = listing, time.monotonic()
            self._seen |= {runner.app: self._read_at for runner in listing.runners}
        return listing

    def missing_for(self, *apps: str) -> float | None:
        """How many seconds ago one of these was listed last; None when none ever was."""
        times = [self._seen[app] for app in apps if app in self._seen]
        return time.monotonic() - max(times) if times else None

    async def _ask_one(self, place: str) -> Listing:
        is_orchestrator = place in self._config.orchestrators
        url = f"{place}/discovery" if is_orchestrator else place
        headers = {} if is_orchestrator else dict(self._config.discovery_headers)
        try:
            transport = await self._pool.transport()
            with asking(self._pool, "discovery", "GET", url, orchestrator=redact(place)) as answered:
                async with (
                    asyncio.timeout(_PATIENCE),
                    transport.request("GET", url, headers=headers) as answer,
                ):
                    answered(answer.status)
                    body = await answer.read()
                    status = answer.status
        except LivepeerError as error:
            return Listing((), (_rejected(place, error),), 0)
        if status != 200:
            text = body[:200].decode("utf-8", "replace").strip()
            rejection = Rejection(redact(place), *_refusal(status, text), retryable=_passing(status))
            # An orchestrator without live runners, or of a time before them, may have all the rest.
            others = (place,) if is_orchestrator and status == 404 else ()
            return Listing((), (rejection,), int(bool(others) and _switched_off(text)), others)
        listing = parse_listing(body, place)
        if is_orchestrator and listing.reached:
            # It was reached by this URL; by the address that it gives itself, it may not be.
            return dataclasses.replace(listing, orchestrators=(place,))
        return listing


def parse_listing(body: bytes, place: str) -> Listing:
    """Read a discovery answer; entries that can't be used are left out, and their reasons kept."""
    try:
        entries = json.loads(body)
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list):
        return Listing(
            (), (Rejection(redact(place), "its answer is not a list in JSON", _NOT_AN_ORCHESTRATOR),), 0
        )
    runners: list[Runner] = []
    rejections: list[Rejection] = []
    orchestrators: list[str] = []
    for entry in entries:
        address = entry.get("address") if isinstance(entry, dict) else None
        reason = forbidden(address, place)
        if reason is not None:
            rejections.append(
                Rejection(str(address or redact(place)), f"its address can't be used: {reason}")
            )
            continue
        orchestrators.append(str(address).rstrip("/"))
        for item in _list_of(entry.get("runners")):
            try:
                runner = parse_runner(item, str(address))
            except ValueError as error:
                rejections.append(Rejection(str(address), str(error)))
                continue
            reason = _foreign(runner.url, str(address))
            if reason is None:
                runners.append(runner)
            else:
                rejections.append(Rejection(runner.url, f"its URL can't be used: {reason}"))
    for rejection in rejections:
        _logger.debug("discovery: %s: %s", rejection.where, rejection.reason)
    return Listing(tuple(runners), tuple(rejections), 1, tuple(dict.fromkeys(orchestrators)))


def _rejected(place: str, error: LivepeerError) -> Rejection:
    # Who doesn't answer in time may do so the next time.
    retryable = error.retryable or isinstance(error, LivepeerTimeout)
    return Rejection(redact(place), error.message, error.hint, retryable)


def _passing(status: int) -> bool:
    return status >= 500 or status in (408, 425, 429)


_NOT_AN_ORCHESTRATOR = "Check that the URL is an orchestrator's or a discovery service's."


def _refusal(status: int, text: str) -> tuple[str, str]:
    if status == 404 and _switched_off(text):
        return f"it answered 404 ({text})", "This orchestrator has live runners switched off."
    return f"it answered {status} ({text})" if text else f"it answered {status}", _NOT_AN_ORCHESTRATOR


def _switched_off(text: str) -> bool:
    """Whether this is what an orchestrator without live runners answers."""
    return "live runners are not supported" in text


def _list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _foreign(url: str, address: str) -> str | None:
    reason = forbidden(url, address)
    if reason is None and urlsplit(url).netloc != urlsplit(address).netloc:
        return "it is on another host than its orchestrator"
    return reason
