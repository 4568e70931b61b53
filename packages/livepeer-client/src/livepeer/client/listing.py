"""What a discovery answer says: which runners there are, and why others can't be used. Without I/O."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ._urls import forbidden, redact
from .catalogue import Runner, parse_runner
from .errors import Rejection

__all__ = ["NOT_AN_ORCHESTRATOR", "Listing", "brought_up_to_date", "merged", "parse_listing"]

NOT_AN_ORCHESTRATOR = "Check that the URL is an orchestrator's or a discovery service's."
_logger = logging.getLogger("livepeer.client")


@dataclass(frozen=True, slots=True)
class Listing:
    """What the configured places answered.

    Attributes:
        runners: Every entry that can be used.
        rejections: Every place and entry that can't, with the reason.
        reached: How many places answered.
        orchestrators: Every orchestrator that may be asked, for what it doesn't list, too.
        complete: Whether no further answer is waited for.
    """

    runners: tuple[Runner, ...]
    rejections: tuple[Rejection, ...]
    reached: int
    orchestrators: tuple[str, ...] = ()
    complete: bool = True


def parse_listing(body: bytes, place: str) -> Listing:
    """Read a discovery answer; entries that can't be used are left out, and their reasons kept."""
    try:
        entries = json.loads(body)
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list):
        return Listing(
            (), (Rejection(redact(place), "its answer is not a list in JSON", NOT_AN_ORCHESTRATOR),), 0
        )
    runners: list[Runner] = []
    rejections: list[Rejection] = []
    orchestrators: list[str] = []
    for entry in entries:
        address = entry.get("address") if isinstance(entry, dict) else None
        reason = forbidden(address, place)
        if reason is not None:
            where = _shown(address) if address else redact(place)
            rejections.append(Rejection(where, f"its address can't be used: {reason}"))
            continue
        address = str(address).rstrip("/")
        orchestrators.append(address)
        for item in _list_of(entry.get("runners")):
            try:
                runner = parse_runner(item, address)
            except ValueError as error:
                rejections.append(Rejection(address, _named(item) + str(error)))
                continue
            reason = _foreign(runner.url, address)
            if reason is None:
                runners.append(runner)
            else:
                rejections.append(Rejection(_shown(runner.url), f"its URL can't be used: {reason}"))
    for rejection in rejections:
        _logger.debug("discovery: %s: %s", rejection.where, rejection.reason)
    return Listing(tuple(runners), tuple(rejections), 1, tuple(dict.fromkeys(orchestrators)))


def merged(listings: Iterable[Listing], *, complete: bool = True) -> Listing:
    """One listing of several; their order stays."""
    listings = tuple(listings)
    return Listing(
        runners=tuple(runner for one in listings for runner in one.runners),
        rejections=tuple(rejection for one in listings for rejection in one.rejections),
        reached=sum(one.reached for one in listings),
        orchestrators=tuple(dict.fromkeys(url for one in listings for url in one.orchestrators)),
        complete=complete,
    )


def brought_up_to_date(listed: Sequence[Runner], own: Sequence[Runner]) -> tuple[Runner, ...]:
    """The runners that a service lists of an orchestrator, as the orchestrator itself describes them now.

    Those which it doesn't list any more are gone. A service may leave runners out on purpose, so what only
    the orchestrator lists doesn't count. Both may name the orchestrator in different ways: what identifies a
    runner is its path.
    """
    now = {urlsplit(runner.url).path: runner for runner in own}
    return tuple(
        dataclasses.replace(now[path], orchestrator=runner.orchestrator, url=runner.url)
        for runner in listed
        if (path := urlsplit(runner.url).path) in now
    )


def _list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _named(item: Any) -> str:
    app = item.get("app") if isinstance(item, dict) else None
    return f"its runner {app[:100]!r}: " if isinstance(app, str) and app else ""


def _shown(url: object) -> str:
    """A URL that may be none, for a message."""
    try:
        return redact(str(url))[:300]
    except ValueError:
        return "(a URL that can't be read)"


def _foreign(url: str, address: str) -> str | None:
    reason = forbidden(url, address)
    if reason is None and urlsplit(url).netloc != urlsplit(address).netloc:
        return "it is on another host than its orchestrator"
    return reason
