"""When each frame is to be shown: its own time, or one made from those before."""

from __future__ import annotations

from dataclasses import replace

from ..errors import MediaError
from .audio_encoding import JITTER
from .packets import CLOCK, WRAP, Packet

__all__ = ["Clock"]

_SOUND = CLOCK // 50  # what an encoded frame of sound lasts, more or less
_TOGETHER = 2 * CLOCK  # how far one stream may be when the other one begins without a time, and with it


class Clock:
    """Gives times in ticks of 1/90000 s, from 0 to 26.5 hours at the start and on from there.

    A stream's first frame without a time begins with the other stream, or (when that is over 2 s old) where
    that one is now.

    Args:
        fps: Pictures per second, for those without a time.
    """

    def __init__(self, fps: float) -> None:
        self.end: int | None = None
        """Where everything ends that was given a time."""
        self._step = max(round(CLOCK / fps), 1)
        self._wrapped: int | None = None  # whole rounds of 33 bits before the first time
        self._video: int | None = None  # the last picture
        self._video_began = 0
        self._audio: float | None = None  # where the last sound ends: a sample isn't a number of ticks
        self._audio_began = 0

    def video(self, timestamp: float | None) -> int:
        """The time of the next picture. Raises `MediaError` when it doesn't grow."""
        if timestamp is not None:
            ticks = self._ticks(timestamp)
        elif self._video is not None:
            ticks = self._video + self._step
        else:
            ticks = _beside(self._audio_began, self._audio)
        if self._video is None:
            self._video_began = ticks
        elif ticks <= self._video:
            raise MediaError(
                f"The timestamp {ticks / CLOCK:.6f} s comes after {self._video / CLOCK:.6f} s; "
                "each frame's must be greater than the one before (by 1/90000 s at least)."
            )
        self._video = ticks
        return self._passed(ticks, self._step)

    def audio(self, timestamp: float | None, duration: float) -> int:
        """The time of the next sound, of `duration` seconds. Raises `MediaError` when it goes back."""
        begin: float
        if timestamp is not None:
            begin = self._ticks(timestamp)
        elif self._audio is not None:
            begin = self._audio
        else:
            begin = _beside(self._video_began, self._video)
        if self._audio is None:
            self._audio_began = round(begin)
        elif begin < self._audio - JITTER:
            raise MediaError(
                f"Sound with the timestamp {begin / CLOCK:.6f} s comes after sound that lasts until "
                f"{self._audio / CLOCK:.6f} s; times must grow (30 ms of overlap are let pass)."
            )
        self._audio = begin + duration * CLOCK
        return self._passed(round(begin), round(duration * CLOCK))

    def packet(self, packet: Packet) -> Packet:
        """The packet with the time that it has in the stream. Raises `MediaError` for sound without one."""
        pts = packet.dts if packet.pts is None else packet.pts
        if pts is None:
            if packet.kind == "audio":
                raise MediaError("A packet of sound without a time can't be written; give it a pts.")
            pts = 0 if self._video is None else self._video + self._step
        ticks = self._passed(pts, self._step if packet.kind == "video" else _SOUND)
        if packet.kind == "video":
            self._video_began = pts if self._video is None else self._video_began
            self._video = pts
        else:
            self._audio_began = pts if self._audio is None else self._audio_began
            self._audio = pts
        if ticks == packet.pts:
            return packet
        return replace(packet, pts=ticks, dts=ticks if packet.dts is None else packet.dts - (pts - ticks))

    def _ticks(self, timestamp: float) -> int:
        if not 0 <= timestamp < float("inf"):
            raise MediaError(f"The timestamp {timestamp} s can't be; it is a number from 0 on.")
        return round(timestamp * CLOCK)

    def _passed(self, ticks: int, duration: int) -> int:
        """The time on the wire of what begins at `ticks`."""
        if self._wrapped is None:
            self._wrapped = ticks // WRAP * WRAP if ticks >= 0 else 0
        self.end = max(self.end or 0, ticks + duration)
        return ticks - self._wrapped


def _beside(began: int, now: float | None) -> int:
    """Where a stream begins beside another one."""
    if now is None:
        return 0
    return began if now - began <= _TOGETHER else round(now)
