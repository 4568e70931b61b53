"""What runners cost: US dollars in heartbeats, wei for everybody else (``live_runner.go``, v0.9.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..validation import Refused
from .chain import Chain

__all__ = ["PIXELS_PER_SECOND", "Price", "Prices", "go_float"]

PIXELS_PER_SECOND = 1280 * 720 * 30
_MAX_INT64 = 2**63 - 1
_SHARES = {"hour": 3600, "720p": 3600 * PIXELS_PER_SECOND, "fixed": 1}
_UNITS = {"hour": "seconds", "720p": "720p-pixel-seconds", "fixed": "fixed"}


@dataclass(frozen=True)
class Price:
    """A price as callers see it.

    Args:
        wei: For one unit.
        unit: ``"seconds"``, ``"720p-pixel-seconds"`` or ``"fixed"``.
    """

    wei: int
    unit: str

    @property
    def units_per_second(self) -> int:
        """How many of its units pass in a second."""
        return PIXELS_PER_SECOND if self.unit == "720p-pixel-seconds" else 1


class Prices:
    """Checks and converts the prices of runners.

    Args:
        chain: Which knows what ETH costs.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def normalize(self, info: Mapping[str, Any] | None) -> dict[str, str]:
        """The price of a heartbeat as it is kept."""
        info = info or {"price": "", "currency": "", "unit": ""}
        price = str(info["price"]).strip()
        if not price:
            raise Refused("price_info.price is required", 400)
        if _fraction(price) <= 0:
            raise Refused("price_info.price must be a positive decimal", 400)
        if info["currency"].strip().lower() not in ("", "usd"):
            raise Refused("price_info.currency must be usd", 400)
        unit = info["unit"].strip().lower() or "hour"
        if unit not in _SHARES:
            raise Refused("price_info.unit must be hour, 720p, or fixed", 400)
        return {"price": price, "currency": "usd", "unit": unit}

    def convert(self, info: Mapping[str, str]) -> Price:
        """The price in wei at the moment. Raises `Refused` when it can't be said in whole wei."""
        wei = int(self._chain.wei(_fraction(info["price"])) / _SHARES[info["unit"]])
        if wei > _MAX_INT64:
            raise Refused("live runner price unavailable: price cannot be converted to int64", 503)
        if wei < 1:
            text = "live runner price unavailable: converted live runner price must be at least one wei"
            raise Refused(text, 503)
        return Price(wei, _UNITS[info["unit"]])


def go_float(number: Fraction, digits: int) -> str:
    """A number with so many decimals, as ``big.Rat.FloatString`` rounds it: a half goes away from zero."""
    scaled = abs(number) * 10**digits
    whole = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    sign = "-" if number < 0 and whole else ""
    if digits == 0:
        return f"{sign}{whole}"
    return f"{sign}{whole // 10**digits}.{whole % 10**digits:0{digits}d}"


def _fraction(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return Fraction(0)
