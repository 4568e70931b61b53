"""Why a call goes where it goes: every candidate, with what stands for and against it."""

from __future__ import annotations

from dataclasses import dataclass

from .catalogue import Price

__all__ = ["Candidate", "Explanation"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One place where a call may go, or may not.

    Attributes:
        where: The URL of the orchestrator, or of the runner behind it.
        route: ``"live_runner"``, ``"byoc"``, ``"lv2v"`` or ``"gateway_node"``; "" where it is only
            known that a place to ask for them can't be used.
        usable: Whether a call would be tried there.
        reason: What speaks for it, or why it can't be used.
        hint: What could be done about that.
        price: What it costs; None when it is free, or not known.
        available: Free places; None when that is not known.
        latency: How many seconds its orchestrator takes to answer; None when that was not measured.
        rests: For how many seconds it is left alone because it failed: the others are tried first. 0 when it
            isn't.
    """

    where: str
    route: str
    usable: bool
    reason: str
    hint: str | None = None
    price: Price | None = None
    available: int | None = None
    latency: float | None = None
    rests: float = 0.0


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `Gateway.explain` found; as text, one line for each candidate.

    Attributes:
        capability: The capability's name.
        model: Its model.
        candidates: Those which a call would try, in that order (among equals chance decides anew each time),
            then those which can't be used.
    """

    capability: str
    model: str | None
    candidates: tuple[Candidate, ...]

    @property
    def usable(self) -> tuple[Candidate, ...]:
        """Those which a call would try, in that order; at most three may fail."""
        return tuple(one for one in self.candidates if one.usable)

    def __str__(self) -> str:
        asked = f"{self.capability!r}" + (f" (model {self.model!r})" if self.model else "")
        lines = [f"{asked}: {len(self.usable)} of {len(self.candidates)} candidates can be used"]
        for number, one in enumerate(self.candidates, 1):
            mark = f"{number}." if one.usable else " -"
            route = f" [{one.route}]" if one.route else ""
            lines.append(f"  {mark} {one.where}{route}: {one.reason}" + (f". {one.hint}" if one.hint else ""))
        return "\n".join(lines)
