"""How long a frame takes from `write_frame` to its reader, over the last seconds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["Latency", "LatencyWindow"]

_SPAN = 10.0  # seconds
_MOST = 2000  # samples


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from glass to glass, over the frames of the last ten seconds.

    Attributes:
        p50: Half of the frames took no longer.
        p95: 95 of 100 took no longer.
        max: The longest.
        frames: How many frames these figures are of.
    """

    p50: float
    p95: float
    max: float
    frames: int


class LatencyWindow:
    """The latencies of the frames that came back lately."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=_MOST)

    def add(self, now: float, latency: float) -> None:
        """A frame came back `latency` seconds after it was written."""
        self._samples.append((now, latency))

    def figures(self) -> Latency | None:
        """The figures over the ten seconds before the newest frame; None before the first one."""
        if not self._samples:
            return None
        since = self._samples[-1][0] - _SPAN
        values = sorted(latency for at, latency in self._samples if at >= since)
        last = len(values) - 1
        return Latency(values[round(0.5 * last)], values[round(0.95 * last)], values[-1], len(values))
