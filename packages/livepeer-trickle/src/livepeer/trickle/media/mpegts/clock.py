"""Times that are counted on where MPEG-TS' 33 bits begin anew."""

from __future__ import annotations

from ..packets import WRAP

__all__ = ["Clock"]


class Clock:
    """Unwraps the times of one programme, whose streams share a clock.

    A time that jumps, by a new source or by damage, is taken as it is: only a step from the last quarter of
    the range to the first one counts as a turn, and one back takes it back. One wrong time harms no other.
    """

    def __init__(self) -> None:
        self._quarter = -1  # of the last time; none yet
        self._turns = 0

    def unwrap(self, time: int | None) -> int | None:
        """The time, of 33 bits, with the turns before it."""
        if time is None:
            return None
        quarter = time // (WRAP // 4)
        if (self._quarter, quarter) == (3, 0):
            self._turns += 1
        elif (self._quarter, quarter) == (0, 3):
            self._turns -= 1
        self._quarter = quarter
        return time + self._turns * WRAP
