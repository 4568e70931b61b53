"""Live video: the way of every frame from `write_frame` to `frames()`, and what the client spends on it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from options import Options, Size
from rows import Row, percentile
from side import measure
from stage import APP, Stage

__all__ = ["main"]

JUDGED = Size(640, 360, 30)  # the limits are for this size; of others the figures are told
_PATIENCE = 60.0  # seconds beyond a stream's own length

Figure = Callable[[dict[str, Any]], float | None]


def main(options: Options) -> list[Row]:
    """Measure each size on both sides, in turn."""
    rows = []
    with Stage(options.go) as stage:
        for size in options.sizes:
            rows += _measured(stage, size, options)
    return rows


def _measured(stage: Stage, size: Size, options: Options) -> list[Row]:
    asked = {"width": size.width, "height": size.height, "fps": size.fps, "seconds": options.seconds}
    live = {"task": "live", "orch": stage.orch, "app": APP, **asked}
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in options.sides}
    for _ in range(options.rounds):
        for side in options.sides:
            found[side].append(measure(side, live, options.seconds + _PATIENCE))
    floor = measure("ours", {**asked, "task": "codec", "seconds": min(options.seconds, 5)})
    codec = floor["encode"] + floor["decode"]

    def row(name: str, figure: Figure, unit: str, limit: float | None = None, note: str = "") -> Row:
        peer = _median(figure, found["peer"]) if "peer" in found else None
        limit = limit if size == JUDGED else None
        return Row(f"{size} {name}", _median(figure, found["ours"]), unit, peer, limit, note=note)

    return [
        row("open to first output frame", lambda one: one["first_frame"], "ms", 0.2),
        row("  of which opening the session", lambda one: one["open"], "ms"),
        row("first frame, glass to glass", lambda one: one["first_latency"], "ms"),
        row("glass to glass p50", lambda one: percentile(one["latencies"], 50), "ms", 0.1),
        row("glass to glass p95", lambda one: percentile(one["latencies"], 95), "ms", 0.2),
        row("glass to glass max, whole run", lambda one: one["max"], "ms", 0.2),
        row(
            "CPU per second of stream", lambda one: one["cpu"], "s", 0.65, f"the codec alone: {_split(floor)}"
        ),
        row("  more than the codec alone", lambda one: one["cpu"] - codec, "s"),
        row(
            "frames lost", lambda one: one["written"] - one["received"], "", note=_threads(found["ours"][-1])
        ),
    ]


def _median(figure: Figure, found: Sequence[dict[str, Any]]) -> float | None:
    values = [value for one in found if (value := figure(one)) is not None]
    return statistics.median(values) if values else None


def _split(floor: dict[str, float]) -> str:
    encode, decode = floor["encode"], floor["decode"]
    return f"{encode + decode:.3f} s ({encode:.3f} encoding, {decode:.3f} decoding)"


def _threads(one: dict[str, Any]) -> str:
    """Where our CPU time goes, by thread."""
    busy = sorted(one["threads"].items(), key=lambda item: -item[1])
    return "our CPU by thread: " + ", ".join(f"{name} {took:.3f}" for name, took in busy if took >= 0.001)
