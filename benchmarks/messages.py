"""JSON messages, as control and events are: how long one takes, and what it costs."""

from __future__ import annotations

import statistics

from options import Options
from rows import Row, percentile
from side import measure
from stage import Stage

__all__ = ["main"]

_COUNT = 500


def main(options: Options) -> list[Row]:
    """Write and read messages one after the other, on a channel of their own for each side."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in options.sides}
    bare: list[dict[str, float]] = []
    with Stage(options.go) as stage:
        for _ in range(max(options.rounds, 3)):
            for side in options.sides:
                opened = stage.channels()
                asked = {"task": "json", "count": _COUNT, "url": opened["control_url"]}
                if side == "ours":
                    asked["bare_url"] = opened["bulk_url"]
                one = measure(side, asked)
                found[side].append(
                    {
                        "p50": percentile(one["latencies"], 50),
                        "p95": percentile(one["latencies"], 95),
                        "cpu": one["cpu"],
                    }
                )
                bare += [one["bare"]] if one["bare"] else []

    def row(name: str, figure: str, unit: str, limit: float | None = None) -> Row:
        peer = statistics.median(one[figure] for one in found["peer"]) if "peer" in found else None
        return Row(name, statistics.median(one[figure] for one in found["ours"]), unit, peer, limit)

    return [
        row("message, write to read p50", "p50", "ms", 0.85),
        row("message, write to read p95", "p95", "ms"),
        row("CPU per message, both ends", "cpu", "µs", 0.7),
        Row("bare aiohttp POST p50", statistics.median(one["p50"] for one in bare), "ms"),
        Row("bare aiohttp POST, CPU", statistics.median(one["cpu"] for one in bare), "µs"),
    ]
