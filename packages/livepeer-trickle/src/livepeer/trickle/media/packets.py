"""Encoded media as it travels: one access unit with its time."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import av

__all__ = ["CLOCK", "TICK", "WRAP", "Packet"]

CLOCK = 90_000
"""Ticks per second of MPEG-TS timestamps."""
TICK = Fraction(1, CLOCK)
"""One of them, in seconds."""
WRAP = 1 << 33
"""The number of ticks after which they begin anew: 26.5 hours."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded picture, or one frame of sound.

    Attributes:
        kind: What it is.
        codec: libavcodec's name of the codec, as ``"h264"``.
        data: The bytes: Annex B for H.264 and HEVC, one ADTS frame for AAC, one packet for Opus.
        pts: When to show it, in ticks of 1/90000 s, counted on where the 33 bits wrap; None if not given.
        dts: When to decode it, likewise.
        is_keyframe: Whether decoding can begin here.
        discontinuity: Whether something before it was lost.
        pid: The number of its stream.
        extradata: What a decoder has to be told besides, as libavcodec calls it; empty where the data says
            all, as with the codecs that our own demuxer knows.
    """

    kind: Literal["video", "audio"]
    codec: str
    data: bytes
    pts: int | None
    dts: int | None
    is_keyframe: bool
    discontinuity: bool = False
    pid: int = 0
    extradata: bytes = field(default=b"", repr=False)

    @property
    def timestamp(self) -> float | None:
        """When to show it, in seconds."""
        return None if self.pts is None else self.pts / CLOCK

    def to_av(self) -> Any:
        """The packet as PyAV's, in ticks of 1/90000 s."""
        packet: Any = av.Packet(self.data)
        packet.time_base = TICK
        packet.pts = self.pts
        packet.dts = self.dts
        return packet
