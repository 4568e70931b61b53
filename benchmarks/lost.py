"""Frames that never come back: at the start, in between, at the end, on a healthy link."""

from __future__ import annotations

from typing import Any

from options import Options
from rows import Row
from side import measure
from stage import APP, Stage

__all__ = ["main"]

_SECONDS = 3.0
_CASES = (  # name, delay of the worker in seconds, in real time
    ("worker delay 0", 0.0, True),
    ("worker delay 0.3 s", 0.3, True),
    ("written at once", 0.0, False),
)


def main(options: Options) -> list[Row]:
    """Send many short streams on both sides, and count what is missing in all of them."""
    rows = []
    with Stage(options.go) as stage:
        for name, delay, paced in _CASES:
            found = {side: _lost(stage, side, options, delay, paced) for side in options.sides}
            for place in ("start", "between", "end", "unordered", "unreadable"):
                rows.append(
                    Row(
                        f"{name}: {place if place.startswith('un') else 'lost, ' + place}",
                        sum(one[place] for one in found["ours"]),
                        "frames",
                        sum(one[place] for one in found["peer"]) if "peer" in found else None,
                        most=0,
                        note=f"in {options.runs} runs of {_SECONDS:g} s" + _worst(found, place),
                    )
                )
    return rows


def _lost(stage: Stage, side: str, options: Options, delay: float, paced: bool) -> list[dict[str, int]]:
    asked: dict[str, Any] = {
        "task": "lost",
        "orch": stage.orch,
        "app": APP,
        "width": 640,
        "height": 360,
        "fps": 30,
        "seconds": _SECONDS,
        "delay": delay,
        "paced": paced,
        "runs": options.runs,
    }
    found: list[dict[str, int]] = measure(side, asked, timeout=60 + 20 * options.runs)["runs"]
    return found


def _worst(found: dict[str, list[dict[str, int]]], place: str) -> str:
    worst = {side: max(one[place] for one in runs) for side, runs in found.items()}
    told = ", ".join(f"{side} {count}" for side, count in worst.items() if count)
    return f"; worst run: {told}" if told else ""
