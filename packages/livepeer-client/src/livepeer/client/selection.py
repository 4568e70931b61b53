"""Which runners a call can go to, best first, and the error when nothing can take it. Pure decisions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal, TypeVar

from .catalogue import Price, Runner
from .errors import (
    CapabilityNotFound,
    ConfigurationError,
    LivepeerError,
    NoOrchestratorError,
    PaymentUnsupported,
    PriceExceeded,
    Rejection,
)
from .failover import TO_PAY
from .listing import Listing
from .offers import ASKS_FOR_PAYMENT, BYOC_WAYS, Offer
from .prices import over
from .records import Records, place_of

if TYPE_CHECKING:
    import random

__all__ = [
    "Verb",
    "check_names",
    "free_of",
    "names_of",
    "not_found",
    "offers_in_turn",
    "priced",
    "ranked",
    "resting",
    "runners_of",
    "suits",
]

Verb = Literal["call", "live"]
C = TypeVar("C")
_Qualities = tuple[Price | None, float | None, int]  # the price, the latency in seconds, free places

_ENOUGH = 8  # candidates that are put in order; no call gets any further
_NOTICEABLE = 0.02  # seconds between two latencies, below which they are the same
_CLEARLY = 1.5  # times one latency is the other

_UNSENDABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def ranked(
    listing: Listing,
    capability: str,
    model: str | None,
    verb: Verb,
    *,
    ordered: bool = False,
    max_price: Price | None = None,
    records: Records | None = None,
    rng: random.Random | None = None,
    pays: bool = False,
) -> tuple[list[Runner], tuple[Rejection, ...]]:
    """The runners for a call, the best one first, and why each other match can't be used.

    Those of the very model come first, then those with free places, then those that haven't failed lately.
    Among these the caller's order decides; else, again and again, the better one of two that chance picks:
    so the best ones get most calls, and never all of them.

    Args:
        listing: What the network answered.
        capability: The name of the capability.
        model: Its model; the app ``capability/model`` is preferred over the bare name.
        verb: ``"live"`` needs a persistent runner.
        ordered: Whether the listing is in the caller's order of preference.
        max_price: The most that the caller pays.
        records: How the orchestrators did up to now.
        rng: The chance.
        pays: Whether the gateway can pay.
    """
    names = names_of(capability, model)
    rejections: list[Rejection] = []
    usable: list[Runner] = []
    for runner in listing.runners:
        if runner.app not in names:
            continue
        reason = _unusable(runner, verb, max_price, pays)
        if reason is None:
            usable.append(runner)
        else:
            rejections.append(Rejection(runner.url, *reason))
    if len(usable) < 2:
        return usable, tuple(rejections)
    records = records or Records()
    orchestrators = {runner.orchestrator: index for index, runner in reversed(list(enumerate(usable)))}

    def grade(runner: Runner) -> tuple[int, bool, bool, int]:
        return (
            names.index(runner.app),
            free_of(runner, records) <= 0,  # a full one comes last: its capacity may be free by now
            resting(records, runner.orchestrator, runner.url) > 0,
            orchestrators[runner.orchestrator] if ordered else 0,
        )

    def better(one: Runner, other: Runner) -> bool:
        return _better(
            (one.price, records.latency(one.orchestrator), free_of(one, records)),
            (other.price, records.latency(other.orchestrator), free_of(other, records)),
        )

    return _by_grade(usable, grade, better, rng), tuple(rejections)


def offers_in_turn(
    offers: Iterable[Offer],
    capability: str,
    *,
    ordered: bool = False,
    records: Records | None = None,
    rng: random.Random | None = None,
) -> list[Offer]:
    """BYOC offers, the best one first, by the same rules as `ranked`."""
    offers = list(offers)
    if len(offers) < 2:
        return offers
    records = records or Records()
    order = {offer.orchestrator: index for index, offer in enumerate(offers)}

    def free(offer: Offer) -> int:
        return offer.available + offer.ours - records.under_way(place_of(offer.orchestrator, capability))

    def grade(offer: Offer) -> tuple[bool, bool, int]:
        rests = resting(records, offer.orchestrator, place_of(offer.orchestrator, capability)) > 0
        return offer.available <= 0 or free(offer) <= 0, rests, order[offer.orchestrator] if ordered else 0

    def better(one: Offer, other: Offer) -> bool:
        return _better(
            (one.price, records.latency(one.orchestrator), free(one)),
            (other.price, records.latency(other.orchestrator), free(other)),
        )

    return _by_grade(offers, grade, better, rng)


def free_of(runner: Runner, records: Records) -> int:
    """A runner's free places now: those that were listed, less the calls of this gateway that began since."""
    return runner.available + runner.ours - records.under_way(runner.url)


def resting(records: Records, orchestrator: str, place: str) -> float:
    """For how many seconds an orchestrator, or what is behind it, is left alone; 0 when it isn't."""
    return max(records.rest(orchestrator), records.rest(place))


def _by_grade(
    candidates: list[C],
    grade: Callable[[C], tuple[float, ...]],
    better: Callable[[C, C], bool],
    rng: random.Random | None,
) -> list[C]:
    """The candidates by their grade, the lowest first; inside of one by chance and comparison."""
    graded: dict[tuple[float, ...], list[C]] = {}
    for candidate in candidates:
        graded.setdefault(grade(candidate), []).append(candidate)
    chosen: list[C] = []
    for _, equals in sorted(graded.items()):
        while len(equals) > 1 and len(chosen) < _ENOUGH:
            import random  # loaded where there is a choice

            one, other = (rng or random).sample(range(len(equals)), 2)
            chosen.append(equals.pop(one if better(equals[one], equals[other]) else other))
        chosen += equals
    return chosen


def _better(one: _Qualities, other: _Qualities) -> bool:
    """Whether one is the better choice: the cheaper, else the clearly nearer, else the one with more room."""
    prices = [quality[0] for quality in (one, other)]
    amounts = [price.amount if price is not None else 0 for price in prices]
    if amounts[0] != amounts[1] and len({price.unit for price in prices if price is not None}) < 2:
        return amounts[0] < amounts[1]
    here, there = one[1], other[1]
    if here is not None and there is not None:
        nearer, farther = min(here, there), max(here, there)
        if farther - nearer > _NOTICEABLE and farther > _CLEARLY * nearer:
            return here < there
    return one[2] >= other[2]


def suits(
    runner: Runner,
    capability: str,
    model: str | None,
    verb: Verb,
    *,
    max_price: Price | None = None,
    pays: bool = False,
) -> bool:
    """Whether a call can go to this runner now."""
    return (
        runner.app in names_of(capability, model)
        and runner.available > 0
        and _unusable(runner, verb, max_price, pays) is None
    )


def runners_of(listing: Listing, capability: str, model: str | None) -> list[Runner]:
    """Every runner of a capability, whether it can be called or not; those of the very model first."""
    names = names_of(capability, model)
    return [runner for name in names for runner in listing.runners if runner.app == name]


def not_found(
    listing: Listing,
    capability: str,
    model: str | None,
    rejections: tuple[Rejection, ...],
    *,
    missing_for: float | None = None,
    others: Iterable[str] = (),
) -> LivepeerError:
    """The error for a call that nothing can take.

    Args:
        listing: What the network answered.
        capability: The name of the capability.
        model: Its model.
        rejections: What is against each candidate.
        missing_for: For how many seconds the capability has been missing, if it was there before.
        others: Names of capabilities that are not in the listing.
    """
    asked = f"{capability!r} (model {model!r})" if model else repr(capability)
    if rejections:
        if all("max_price" in rejection.reason for rejection in rejections):
            return PriceExceeded(
                f"Whoever may have {asked} costs more than max_price: "
                + "; ".join(f"{one.where}: {one.reason}" for one in rejections[:3])
                + ".",
                hint="A higher max_price= allows it.",
            )
        byoc = [one for one in rejections if one.hint == BYOC_WAYS]
        paid = [one for one in rejections if one.reason == ASKS_FOR_PAYMENT or "max_price" in one.reason]
        if byoc and len(byoc) + len(paid) == len(rejections):
            return PaymentUnsupported(
                f"{asked} can't be paid for: "
                + "; ".join(f"{one.where}: {one.reason}" for one in (byoc + paid)[:3])
                + ".",
                hint=BYOC_WAYS,
            )
        if len(paid) == len(rejections):
            return PaymentUnsupported(
                f"Whoever may have {asked} asks for payment, and this gateway can't pay it.", hint=TO_PAY
            )
        return NoOrchestratorError(
            f"Nobody who may have {asked} can be used.", rejections=rejections + listing.rejections
        )
    if listing.reached == 0:
        return NoOrchestratorError(
            f"No orchestrator could be asked for {asked}.", rejections=listing.rejections
        )
    available = tuple(sorted({runner.app for runner in listing.runners}.union(others)))
    hint = _suggest(capability, available, listing.rejections)
    if missing_for is not None:
        hint = f"It was there {missing_for:.0f} s ago; runners come back seconds after a restart. {hint}"
    if not listing.complete:
        hint = (
            f"{hint} Not all orchestrators have answered yet; when they have, a further call knows of them."
        )
    return CapabilityNotFound(
        f"No orchestrator has {asked}.",
        hint=hint,
        capability=capability,
        available=available,
        retryable=missing_for is not None or not listing.complete or not (available or listing.rejections),
    )


def check_names(capability: str, model: str | None) -> None:
    """Refuse what can't be a capability's or a model's name.

    Raises:
        ConfigurationError: It is empty, no text, or has characters that can't be sent.
    """
    if not isinstance(capability, str) or not capability.strip():
        raise ConfigurationError(f"capability={capability!r} is not a name such as 'text-reverse'.")
    if model is not None and (not isinstance(model, str) or not model.strip()):
        raise ConfigurationError(f"model={model!r} is not a name; leave it out for the runner's default.")
    for what, name in (("capability", capability), ("model", model or "")):
        if _UNSENDABLE.search(name):
            raise ConfigurationError(
                f"{what}={name!r} has control characters, or halves of surrogate pairs, which no name has."
            )


def names_of(capability: str, model: str | None) -> tuple[str, ...]:
    """The names that live runners may have for a capability, the best one first."""
    return (f"{capability}/{model}", capability) if model else (capability,)


def _unusable(
    runner: Runner, verb: Verb, max_price: Price | None, pays: bool
) -> tuple[str, str | None] | None:
    if verb == "live" and runner.mode != "persistent":
        return f"it is {runner.mode} and has no sessions", "Call it with run or stream."
    if runner.price is None:
        return None
    against = over(runner.price, max_price)
    if against is None and not pays:
        against = ASKS_FOR_PAYMENT
    return (against, f"Its price is {runner.price}.") if against is not None else None


def priced(offer: Offer, max_price: Price | None) -> Rejection | None:
    """What is against a BYOC offer; its price first, when that is more than the caller pays."""
    against = offer.rejection
    if against is None or offer.price is None or (reason := over(offer.price, max_price)) is None:
        return against
    return Rejection(against.where, reason, against.hint)


def _suggest(capability: str, available: tuple[str, ...], rejections: tuple[Rejection, ...]) -> str:
    if not available and rejections:
        return " ".join(f"{one.where}: {one.reason}. {one.hint or ''}".strip() for one in rejections[:3])
    if not available:
        return "They list no capabilities at all now; one that has just started may need some seconds."
    import difflib

    close = difflib.get_close_matches(capability, available, 1)
    names = ", ".join(available[:12]) + (", …" if len(available) > 12 else "")
    return (f"Did you mean {close[0]!r}? " if close else "") + f"There are: {names}."
