"""What came out of a demo: a row for each call, and the checks that say whether it was right."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Check", "Report", "Row", "percentile"]


@dataclass
class Row:
    """One call.

    Attributes:
        capability: What was called.
        verb: ``"run"``, ``"stream"`` or ``"live"``.
        orchestrator: Who did it.
        route: How it got there.
        first_result: Seconds from the call to the first result (a value, a token, a frame).
        total: Seconds from the call to its end.
        frames_sent: Video frames written.
        frames_received: Different ones of them that came back.
        latency_p50: Seconds from before a frame was written to when it was read, the median.
        latency_p95: The same, for 95 of 100 frames.
        sound_p50: Seconds from before some sound was written, at its last sample, to when it was read.
        sound_p95: The same, for 95 of 100 pieces.
    """

    capability: str
    verb: str
    orchestrator: str = ""
    route: str = ""
    first_result: float | None = None
    total: float | None = None
    frames_sent: int | None = None
    frames_received: int | None = None
    latency_p50: float | None = None
    latency_p95: float | None = None
    sound_p50: float | None = None
    sound_p95: float | None = None

    @property
    def frames_lost(self) -> int | None:
        """How many frames did not come back."""
        if self.frames_sent is None or self.frames_received is None:
            return None
        return self.frames_sent - self.frames_received


@dataclass
class Check:
    """Something that had to be true."""

    name: str
    ok: bool
    detail: str = ""


@dataclass
class Report:
    """Everything a demo found."""

    rows: list[Row] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether all of it was right."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    def check(self, name: str, ok: bool, detail: str = "") -> None:
        """Note whether something was right."""
        self.checks.append(Check(name, bool(ok), detail))

    def as_json(self) -> dict[str, Any]:
        """The report for programs; times in seconds."""
        return {
            "ok": self.ok,
            "seconds": round(self.seconds, 3),
            "calls": [
                _rounded(dataclasses.asdict(row)) | {"frames_lost": row.frames_lost} for row in self.rows
            ],
            "checks": [dataclasses.asdict(check) for check in self.checks],
            "files": {name: str(path) for name, path in self.files.items()},
        }


def percentile(values: Sequence[float], share: int) -> float | None:
    """The value that `share` of 100 values don't exceed; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share / 100 * (len(ordered) - 1)))]


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in row.items()}
