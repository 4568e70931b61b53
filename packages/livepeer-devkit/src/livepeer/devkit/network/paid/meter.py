"""How time becomes money: it is charged every so often (``live_payment_processor.go``, v0.9.1)."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Meter"]


class Meter:
    """Charges for the time that passes.

    Args:
        interval: The seconds from charge to charge, at least.
        units_per_second: What a second is, in the price's units.
        charge: Charges so many units.
        clock: The monotonic time in seconds.
    """

    def __init__(
        self,
        interval: float,
        units_per_second: int,
        charge: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = interval
        self._per_second = units_per_second
        self._charge = charge
        self._clock = clock
        self._charged_until = clock()

    def look(self) -> None:
        """Charge, if the interval is over.

        What is less than a unit stays for the next time. An error of the charge goes on to the caller.
        """
        now = self._clock()
        if self._charged_until + self._interval > now:
            return
        units = int((now - self._charged_until) * self._per_second)
        self._charged_until += units / self._per_second
        self._charge(units)
