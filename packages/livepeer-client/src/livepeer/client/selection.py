"""Which runners a call can go to, best first, and the error when nothing can take it. Pure decisions."""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from .catalogue import Runner
from .errors import (
    CapabilityNotFound,
    ConfigurationError,
    LivepeerError,
    NoOrchestratorError,
    PaymentUnsupported,
    Rejection,
)
from .listing import Listing
from .offers import ASKS_FOR_PAYMENT

__all__ = ["Verb", "check_names", "names_of", "not_found", "ranked", "runners_of", "suits"]

Verb = Literal["call", "live"]

_UNSENDABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def ranked(
    listing: Listing,
    capability: str,
    model: str | None,
    verb: Verb,
    *,
    preference: Sequence[str] = (),
    rng: random.Random | None = None,
) -> tuple[list[Runner], tuple[Rejection, ...]]:
    """The runners for a call, the best one first, and why each other match can't be used.

    Args:
        listing: What the network answered.
        capability: The name of the capability.
        model: Its model; the app ``capability/model`` is preferred over the bare name.
        verb: ``"live"`` needs a persistent runner.
        preference: Orchestrators in the caller's order of preference.
        rng: Breaks ties.
    """
    names = names_of(capability, model)
    rejections: list[Rejection] = []
    usable: list[Runner] = []
    for runner in listing.runners:
        if runner.app not in names:
            continue
        reason = _unusable(runner, verb)
        if reason is None:
            usable.append(runner)
        else:
            rejections.append(Rejection(runner.url, *reason))
    draw = (rng or random).random
    order = {orchestrator: index for index, orchestrator in enumerate(preference)}

    def rank(runner: Runner) -> tuple[int, bool, int, int, float]:
        return (
            names.index(runner.app),
            runner.available <= 0,  # a full one comes last: its capacity may be free by now
            order.get(runner.orchestrator, len(order)),
            -runner.available,
            draw(),
        )

    return sorted(usable, key=rank), tuple(rejections)


def suits(runner: Runner, capability: str, model: str | None, verb: Verb) -> bool:
    """Whether a call can go to this runner now."""
    return (
        runner.app in names_of(capability, model) and runner.available > 0 and _unusable(runner, verb) is None
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
        if all(rejection.reason == ASKS_FOR_PAYMENT for rejection in rejections):
            return PaymentUnsupported(
                f"Whoever may have {asked} asks for payment, and this version can't pay yet.",
                hint="Use a free runner, or an orchestrator that runs offchain.",
            )
        return NoOrchestratorError(f"Nobody who may have {asked} can be used.", rejections=rejections)
    if listing.reached == 0:
        return NoOrchestratorError(
            f"No orchestrator could be asked for {asked}.", rejections=listing.rejections
        )
    available = tuple(sorted({runner.app for runner in listing.runners}.union(others)))
    hint = _suggest(capability, available, listing.rejections)
    if missing_for is not None:
        hint = f"It was there {missing_for:.0f} s ago; runners come back seconds after a restart. {hint}"
    return CapabilityNotFound(
        f"No orchestrator has {asked}.",
        hint=hint,
        capability=capability,
        available=available,
        retryable=missing_for is not None or not (available or listing.rejections),
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


def _unusable(runner: Runner, verb: Verb) -> tuple[str, str | None] | None:
    if verb == "live" and runner.mode != "persistent":
        return f"it is {runner.mode} and has no sessions", "Call it with run or stream."
    if runner.price is not None:
        return ASKS_FOR_PAYMENT, f"Its price is {runner.price}."
    return None


def _suggest(capability: str, available: tuple[str, ...], rejections: tuple[Rejection, ...]) -> str:
    if not available and rejections:
        return " ".join(f"{one.where}: {one.reason}. {one.hint or ''}".strip() for one in rejections[:3])
    if not available:
        return "They list no capabilities at all now; one that has just started may need some seconds."
    close = difflib.get_close_matches(capability, available, 1)
    names = ", ".join(available[:12]) + (", …" if len(available) > 12 else "")
    return (f"Did you mean {close[0]!r}? " if close else "") + f"There are: {names}."
