"""The most that a caller pays: `max_price`, a `Price` or a text such as ``"900 gwei/second"``; `budget`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from .catalogue import Capability, Price
from .errors import ConfigurationError

if TYPE_CHECKING:
    from fractions import Fraction

__all__ = ["EthUsd", "as_budget", "as_price", "check_rate", "in_words", "over"]

EthUsd = float | Callable[[], float] | None
"""What `eth_usd=` takes: the price of one ETH in USD, or a function that returns it."""

_NUMBER = r"\s*([0-9][0-9_,]*(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,3})?)\s*([a-z]+)\s*"
_UNIT = r"(?:/|per)\s*([0-9a-z-]+)\s*"
_CURRENCIES = {"wei": 1, "gwei": 10**9, "eth": 10**18}
_USD = ("usd", "dollar", "dollars")
_PIXELS = ("pixels", "720p-pixel-seconds")  # the second is what runners call the price of a video's pixel
_UNITS = {
    "second": ("seconds", 1),
    "minute": ("seconds", 60),
    "hour": ("seconds", 3600),
    "call": ("fixed", 1),
    "pixel": ("pixels", 1),
    "720p-pixel-second": ("720p-pixel-seconds", 1),
}
_SHOWN = '"900 gwei/second", "2e12 wei/call" or "20 wei/pixel"'


def as_price(value: Price | str | None, name: str = "max_price", *, eth_usd: EthUsd = None) -> Price | None:
    """What a caller's value stands for; prices are whole wei, so a fraction of one is left off.

    Raises:
        ConfigurationError: It can't be read; or it is in USD, and there is no exchange rate.
    """
    if value is None or isinstance(value, Price):
        return value
    found = re.fullmatch(_NUMBER + _UNIT, value, re.I) if isinstance(value, str) else None
    if found is None:
        raise ConfigurationError(
            f"{name}={value!r} is not a price.", hint=f"It is a Price, or a text such as {_SHOWN}."
        )
    from fractions import Fraction  # which takes long to load, here and below

    amount, currency, unit = found[1].replace("_", "").replace(",", ""), found[2].lower(), found[3].lower()
    known = _UNITS.get(unit) or _UNITS.get(unit.removesuffix("s"))
    wei = _wei(currency, name, value, eth_usd)
    if wei is None or known is None:
        raise ConfigurationError(
            f"{name}={value!r} has a unit that is not known.",
            hint=f"It is wei, gwei, eth or usd per {', '.join(_UNITS)}; such as {_SHOWN}.",
        )
    return Price(int(Fraction(amount) * wei / known[1]), known[0])


def as_budget(value: int | str | None, *, eth_usd: EthUsd = None) -> int | None:
    """The most that a gateway may spend, in wei; None is any amount. A fraction of a wei is left off.

    Raises:
        ConfigurationError: It can't be read; or it is in USD, and there is no exchange rate.
    """
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = re.fullmatch(_NUMBER, value, re.I) if isinstance(value, str) else None
    wei = _wei(found[2].lower(), "budget", value, eth_usd) if found is not None else None
    if found is None or wei is None:
        raise ConfigurationError(
            f"budget={value!r} is not an amount of money.",
            hint='It is a whole number of wei, or a text such as "0.01 eth", "5e15 wei" or "2.50 usd".',
        )
    from fractions import Fraction

    return int(Fraction(found[1].replace("_", "").replace(",", "")) * wei)


def check_rate(value: EthUsd) -> EthUsd:
    """The exchange rate, when it can be one.

    Raises:
        ConfigurationError: It can't.
    """
    if value is None or callable(value):
        return value
    _rate(value)
    return value


def _wei(currency: str, name: str, value: object, eth_usd: EthUsd) -> Fraction | None:
    """How many wei one of a currency is; None where it isn't known."""
    from fractions import Fraction

    if currency not in _USD:
        return Fraction(_CURRENCIES[currency]) if currency in _CURRENCIES else None
    if eth_usd is None:
        raise ConfigurationError(
            f"{name}={value!r} is in USD, and the gateway knows no exchange rate.",
            hint="Gateway(eth_usd=…) is the price of one ETH in USD, or a function that returns it; or say "
            "it in wei, gwei or eth.",
        )
    return 10**18 / _rate(eth_usd() if callable(eth_usd) else eth_usd)


def _rate(value: object) -> Fraction:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value <= 0
    ):
        raise ConfigurationError(
            f"eth_usd= is {value!r}; it is the price of one ETH in USD, a number above 0, or a function "
            "that returns one."
        )
    from fractions import Fraction

    return Fraction(value)


def over(price: Price, limit: Price | None) -> str | None:
    """Why a price is too high; None when it isn't. Prices in different units can't be compared, and are."""
    if limit is None:
        return None
    if price.unit != limit.unit and not (price.unit in _PIXELS and limit.unit in _PIXELS):
        return f"its price of {price} can't be compared with max_price, which is {limit}"
    return (
        f"its price of {price} is over max_price, which is {limit}" if price.amount > limit.amount else None
    )


def in_words(capability: Capability) -> str:
    """What a capability costs, as a person reads it: by the hour, by the call, or by the pixel."""
    from .payments.kinds import PIXELS_A_SECOND

    price = capability.price
    if price is None:
        return "free"
    if price.unit == "seconds":
        return f"{_eth(price.amount * 3600)} an hour"
    if price.unit == "720p-pixel-seconds" or (price.unit == "pixels" and capability.transport == "lv2v"):
        return f"{_eth(price.amount * PIXELS_A_SECOND * 3600)} an hour of 720p at 30 fps"
    if price.unit == "fixed":
        return f"{_eth(price.amount)} a call"
    return str(price)


def _eth(wei: int) -> str:
    for size, name in ((10**18, "ETH"), (10**9, "gwei")):
        if wei >= size // 10_000:
            return f"{round(wei / size, 6):f}".rstrip("0").rstrip(".") + f" {name}"
    return f"{wei} wei"
