"""What of a live stream did not arrive, and where it was lost."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Losses"]


@dataclass(frozen=True, slots=True)
class Losses:
    """What was lost of a stream so far; false when nothing was.

    Attributes:
        segments: Segments that fell out of the server's ring before they were read (to their end).
        packets: Pictures and pieces of sound that were dropped because a part of them didn't come.
        bytes: Bytes that belonged to no picture, no sound and no table.
        undecoded: Packets that no frame could be made of: damaged, or without the key frame they build on.
        frames: Frames that readers of frames skipped because they, or the decoder, were too slow.
    """

    segments: int = 0
    packets: int = 0
    bytes: int = 0
    undecoded: int = 0
    frames: int = 0

    def __bool__(self) -> bool:
        return bool(self.segments or self.packets or self.bytes or self.undecoded or self.frames)
