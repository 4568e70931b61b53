"""What a gateway remembers of orchestrators: how quickly they answer, and when they failed. Without I/O."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random

__all__ = ["Records", "place_of"]

_FIRST_REST = 1.0  # seconds that one is left alone after its first failure
_LONGEST_REST = 60.0
_WEIGHT = 0.3  # of the newest latency in the mean
_MANY = 10_000  # names kept


class _Failures(NamedTuple):
    number: int
    until: float
    reason: str


class Records:
    """Latencies and failures, by the URL of an orchestrator or of a runner behind it.

    It counts the calls that are under way, too: what an orchestrator said of its free places a moment ago
    does not know of those which began since.

    Who fails is left alone for a second, then for two, four, up to a minute, each a little more or less, so
    that many callers don't come back at the same moment. A success makes it forgotten.

    Args:
        clock: Seconds that never run backwards.
        rng: The little more or less.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, rng: random.Random | None = None
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._failures: dict[str, _Failures] = {}
        self._latencies: dict[str, float] = {}
        self._under_way: dict[str, int] = {}

    def began(self, name: str) -> None:
        """A call of it begins.

        Threads that count at the same moment may lose one. That does no harm for long: a count is only ever
        compared with the one at the time of the orchestrator's last word.
        """
        if len(self._under_way) >= _MANY:
            self._under_way.clear()
        self._under_way[name] = self._under_way.get(name, 0) + 1

    def ended(self, name: str) -> None:
        """A call of it is over."""
        left = self._under_way.get(name, 0) - 1
        if left > 0:
            self._under_way[name] = left
        else:
            self._under_way.pop(name, None)

    def under_way(self, name: str) -> int:
        """How many calls of it are under way."""
        return self._under_way.get(name, 0)

    def failed(self, name: str, reason: str = "it failed") -> None:
        """It failed now.

        What fails while it is left alone is of the same incident, such as other calls that were in flight.
        """
        now = self._clock()
        before = self._failures.get(name)
        if before is not None and now < before.until:
            return
        count = before.number + 1 if before is not None else 1
        # Without `random` where nobody has loaded it: who has failed may have too many files open.
        more_or_less = self._rng.uniform(0.75, 1.25) if self._rng else 0.75 + os.urandom(1)[0] / 510
        rest = min(_FIRST_REST * 2.0 ** min(count - 1, 10), _LONGEST_REST) * more_or_less
        if len(self._failures) >= _MANY:
            self._failures.clear()
        self._failures[name] = _Failures(count, now + rest, reason)

    def succeeded(self, name: str) -> None:
        """It did what it was asked for."""
        if self._failures:
            self._failures.pop(name, None)

    def rest(self, name: str) -> float:
        """For how many more seconds it is left alone; 0 when it isn't."""
        if not self._failures:
            return 0.0
        failures = self._failures.get(name)
        return max(0.0, failures.until - self._clock()) if failures is not None else 0.0

    def reason(self, name: str) -> str | None:
        """How it failed last; None when it has been in order since."""
        failures = self._failures.get(name)
        return failures.reason if failures is not None else None

    def took(self, name: str, seconds: float) -> None:
        """It answered a small question in this time."""
        before = self._latencies.get(name, seconds)
        if len(self._latencies) >= _MANY:
            self._latencies.clear()
        self._latencies[name] = before + _WEIGHT * (seconds - before)

    def latency(self, name: str) -> float | None:
        """How many seconds it takes to answer, as a mean of late; None when that was never measured."""
        return self._latencies.get(name)


def place_of(orchestrator: str, capability: str) -> str:
    """The name that a capability at an orchestrator has here; a live runner's is its URL."""
    return f"{orchestrator} {capability}"
