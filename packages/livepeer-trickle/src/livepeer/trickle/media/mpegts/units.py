"""Access units: one to a picture or a frame of sound, which is what decoders take."""

from __future__ import annotations

from typing import NamedTuple, Protocol

__all__ = ["Framer", "Unit"]


class Unit(NamedTuple):
    """One access unit, with its times in ticks of 1/90000 s (not given: None)."""

    codec: str
    data: bytes
    pts: int | None
    dts: int | None
    is_keyframe: bool
    discontinuity: bool


class Framer(Protocol):
    """Finds the access units in one stream's PES packets. `lost` counts those that it had to drop."""

    lost: int

    def feed(
        self, data: bytes, pts: int | None, dts: int | None, *, random_access: bool, discontinuity: bool
    ) -> list[Unit]:
        """Take the data of the next PES, with its times unwrapped; return the units that are complete."""
        ...

    def flush(self) -> list[Unit]:
        """The stream is over: return what only its end could complete."""
        ...
