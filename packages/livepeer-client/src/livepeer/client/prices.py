"""The most that a caller pays: `max_price`, as a `Price` or as text such as ``"900 gwei/second"``."""

from __future__ import annotations

import re
from fractions import Fraction

from .catalogue import Price
from .errors import ConfigurationError

__all__ = ["as_price", "over"]

_TEXT = re.compile(
    r"\s*([0-9][0-9_,]*(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,3})?)\s*([a-z]+)\s*(?:/|per)\s*([0-9a-z-]+)\s*", re.I
)
_CURRENCIES = {"wei": 1, "gwei": 10**9, "eth": 10**18}
_UNITS = {
    "second": ("seconds", 1),
    "minute": ("seconds", 60),
    "hour": ("seconds", 3600),
    "call": ("fixed", 1),
    "pixel": ("pixels", 1),
    "720p-pixel-second": ("720p-pixel-seconds", 1),
}
_SHOWN = '"900 gwei/second", "2e12 wei/call" or "20 wei/pixel"'


def as_price(value: Price | str | None, name: str = "max_price") -> Price | None:
    """What a caller's value stands for; prices are whole wei, so a fraction of one is left off.

    Raises:
        ConfigurationError: It can't be read, or is in USD.
    """
    if value is None or isinstance(value, Price):
        return value
    found = _TEXT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ConfigurationError(
            f"{name}={value!r} is not a price.", hint=f"It is a Price, or a text such as {_SHOWN}."
        )
    amount, currency, unit = found[1].replace("_", "").replace(",", ""), found[2].lower(), found[3].lower()
    if currency in ("usd", "dollar", "dollars"):
        raise ConfigurationError(
            f"{name}={value!r} is in USD, and this version of livepeer-client knows no exchange rate.",
            hint=f"Say it in wei, gwei or eth: {_SHOWN}.",
        )
    known = _UNITS.get(unit) or _UNITS.get(unit.removesuffix("s"))
    if currency not in _CURRENCIES or known is None:
        raise ConfigurationError(
            f"{name}={value!r} has a unit that is not known.",
            hint=f"It is wei, gwei or eth per {', '.join(_UNITS)}; such as {_SHOWN}.",
        )
    return Price(int(Fraction(amount) * _CURRENCIES[currency] / known[1]), known[0])


def over(price: Price, limit: Price | None) -> str | None:
    """Why a price is too high; None when it isn't. Prices in different units can't be compared, and are."""
    if limit is None:
        return None
    if price.unit != limit.unit:
        return f"its price of {price} can't be compared with max_price, which is {limit}"
    return (
        f"its price of {price} is over max_price, which is {limit}" if price.amount > limit.amount else None
    )
