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
    # Each side's own settings, but both by our process: what PyAV costs is the same for both.
    alone = {
        side: measure(
            "ours", {**asked, "task": "codec", "settings": side, "seconds": min(options.seconds, 5)}
        )
        for side in options.sides
    }

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
        row("CPU per second of stream", lambda one: one["cpu"], "s", 0.65),
        *_codec_rows(size, alone),
        row(
            "frames lost", lambda one: one["written"] - one["received"], "", note=_threads(found["ours"][-1])
        ),
    ]


def _median(figure: Figure, found: Sequence[dict[str, Any]]) -> float | None:
    values = [value for one in found if (value := figure(one)) is not None]
    return statistics.median(values) if values else None


def _codec_rows(size: Size, alone: dict[str, dict[str, float]]) -> list[Row]:
    """What the codec alone costs and gives with each side's settings."""

    def row(name: str, figure: Callable[[dict[str, float]], float], unit: str) -> Row:
        peer = figure(alone["peer"]) if "peer" in alone else None
        return Row(f"{size}   {name}", figure(alone["ours"]), unit, peer)

    return [
        row("of which the codec alone", lambda one: one["encode"] + one["decode"], "s"),
        row("  its bytes per frame", lambda one: one["bytes"], "B"),
        row("  its peak signal to noise", lambda one: one["psnr"], "dB"),
    ]


def _threads(one: dict[str, Any]) -> str:
    """Where our CPU time goes, by thread."""
    busy = sorted(one["threads"].items(), key=lambda item: -item[1])
    return "our CPU by thread: " + ", ".join(f"{name} {took:.3f}" for name, took in busy if took >= 0.001)
