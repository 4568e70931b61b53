"""The ways in which runners are paid: by time, by the pixels of a video's time, or by call.

A signer calls them by a job's ``type`` (go-livepeer v0.9.1, ``server/remote_signer.go``), discovery by the
price's unit. The first payment of a session covers a fixed span.
"""

from __future__ import annotations

from typing import Literal

from ..catalogue import Price
from ..errors import PaymentError

__all__ = ["FIRST_UNITS", "PIXELS_A_SECOND", "Kind", "kind_of", "unit_of"]

Kind = Literal["live", "lv2v", "fixed"]

PIXELS_A_SECOND = 1280 * 720 * 30
"""What a second of live video is charged as, whatever its size."""

FIRST_UNITS: dict[Kind, int] = {"live": 10, "lv2v": 60 * PIXELS_A_SECOND, "fixed": 1}
"""How many units the first payment covers: 10 seconds, 60 seconds of pixels, or the call."""

_KINDS: dict[str, Kind] = {"seconds": "live", "720p-pixel-seconds": "lv2v", "fixed": "fixed"}
_UNITS: dict[Kind, str] = {kind: unit for unit, kind in _KINDS.items()}


def kind_of(price: Price) -> Kind:
    """The signer's word for how this price is paid; a wrong one overpays, or is refused.

    Raises:
        PaymentError: The unit is none that a signer pays.
    """
    kind = _KINDS.get(price.unit)
    if kind is None:
        raise PaymentError(
            f"The price of {price} is per {price.unit!r}, which can't be paid.",
            hint=f"What can: {', '.join(_KINDS)}.",
        )
    return kind


def unit_of(kind: Kind) -> str:
    """The unit of a price that is paid in this way."""
    return _UNITS[kind]
