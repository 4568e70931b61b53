"""Bytes as fast as they go: 1 MiB segments in writes of 1316 bytes, until the server has answered for all."""

from __future__ import annotations

import statistics

from options import Options
from rows import Row
from side import Running, measure
from stage import Stage

__all__ = ["main"]

_COUNT = 40


def main(options: Options) -> list[Row]:
    """Measure without a reader, then with one (bare aiohttp, in a process of its own, the same for both)."""
    rows = []
    with Stage(options.go) as stage:
        for readers in (0, 1):
            found: dict[str, list[dict[str, float]]] = {side: [] for side in options.sides}
            for _ in range(max(options.rounds, 3)):
                for side in options.sides:
                    found[side].append(_once(stage, side, readers))
            name = "1 MiB segments, " + ("one reader in another process" if readers else "no reader")
            rate, cpu = _medians(found["ours"])
            their_rate, their_cpu = _medians(found["peer"]) if "peer" in found else (None, None)
            limit = None if readers else 10.0
            rows += [
                Row(name, rate, "MB/s", their_rate, limit, at_least=True),
                Row("  CPU of the writer", cpu, "ms/MB", their_cpu),
            ]
    return rows


def _once(stage: Stage, side: str, readers: int) -> dict[str, float]:
    url = stage.channels()["bulk_url"]
    reading = [Running("ours", {"task": "read", "url": url, "count": _COUNT}) for _ in range(readers)]
    try:
        found: dict[str, float] = measure(side, {"task": "throughput", "url": url, "count": _COUNT})
    finally:
        for one in reading:
            one.kill()
    return found


def _medians(found: list[dict[str, float]]) -> tuple[float, float]:
    return statistics.median(one["rate"] for one in found), statistics.median(one["cpu"] for one in found)
