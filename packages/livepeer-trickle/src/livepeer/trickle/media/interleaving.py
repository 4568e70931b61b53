"""Pictures and sound in one order, that of their times, without a silent track that holds the other up."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import NamedTuple

from .frames import AudioFrame, VideoFrame

__all__ = ["Interleaver"]

_PATIENCE = 0.5  # seconds; libavformat's muxer brings sound up to 0.35 s after the pictures of its time
_LEAST = 0.1  # seconds beyond how late a track has lately been; a busy machine is that late now and then
_MEMORY = 5.0  # seconds in which half of how late it has been is forgotten
_JUMP = 1.0  # seconds back in a track's times, which are a new beginning and no disorder
_SAME = 2 / 90_000  # seconds; times are rounded to ticks
_HELD = 64 * 1024 * 1024  # bytes of frames that may be held


class Interleaver:
    """Takes frames of both kinds as they are decoded; gives them in the order of their times.

    A frame may go when the other track is known to have passed its time: sound by the end of its last piece,
    video by the time of its last picture. It waits for a track about as long as that has lately been behind
    the other one, and for half a second at most; after that the track counts as silent until it has caught
    up. What comes too late goes out at once.

    No I/O and no clock: `now` is given, in seconds.
    """

    def __init__(self) -> None:
        self._video = _Track()
        self._audio = _Track()
        self._weight = 0
        self._given: float | None = None  # the time of what went out last

    def push(self, frame: VideoFrame | AudioFrame, now: float) -> list[VideoFrame | AudioFrame]:
        """Take a frame. Returns what must go before it: what was held when a track's times jumped back."""
        is_video = isinstance(frame, VideoFrame)
        track = self._video if is_video else self._audio
        time = track.reached if frame.timestamp is None else frame.timestamp
        before: list[VideoFrame | AudioFrame] = []
        if time is None:
            time = 0.0
        other = self._audio if is_video else self._video
        if track.reached is not None and time < track.reached - _JUMP:
            before = self.drain()
            other.reached = other.delay = self._given = None
        weight = _size(frame)
        track.held.append(_Held(time, now, weight, frame))
        track.reached = time if isinstance(frame, VideoFrame) else time + frame.duration
        track.delay = now - track.reached
        track.learn(0.0 if other.delay is None else now - time - other.delay, now)
        # One that only brings what is too late stays silent: nobody waits for it.
        if self._given is None or track.reached >= self._given:
            track.silent = False
        self._weight += weight
        return before

    def ready(self, now: float, present: Collection[str]) -> list[VideoFrame | AudioFrame]:
        """What may go now, in order.

        Args:
            now: The time, of the clock that `push` was given.
            present: The tracks that the stream says it has: ``"video"``, ``"audio"``.
        """
        frames: list[VideoFrame | AudioFrame] = []
        while (found := self._next()) is not None:
            track, other, is_video = found
            head = track.held[0]
            waits = not other.held and not other.passed(head.time)
            if waits and ("audio" if is_video else "video") in present:
                if now < head.arrived + other.patience and self._weight < _HELD:
                    break
                other.silent = True
            frames.append(self._pop(track))
        return frames

    def deadline(self) -> float | None:
        """When to ask `ready` again although nothing came; None when nothing is held."""
        found = self._next()
        return None if found is None else found[0].held[0].arrived + found[1].patience

    def drain(self) -> list[VideoFrame | AudioFrame]:
        """Everything that is held, in order."""
        frames: list[VideoFrame | AudioFrame] = []
        while (found := self._next()) is not None:
            frames.append(self._pop(found[0]))
        return frames

    def _next(self) -> tuple[_Track, _Track, bool] | None:
        """The track whose frame is next, the other one, and whether the first is video."""
        video, audio = self._video, self._audio
        if video.held and (not audio.held or video.held[0].time <= audio.held[0].time):
            return video, audio, True
        return (audio, video, False) if audio.held else None

    def _pop(self, track: _Track) -> VideoFrame | AudioFrame:
        head = track.held.popleft()
        self._weight -= head.weight
        self._given = head.time if self._given is None else max(self._given, head.time)
        return head.frame


class _Held(NamedTuple):
    time: float
    arrived: float
    weight: int
    frame: VideoFrame | AudioFrame


class _Track:
    def __init__(self) -> None:
        self.held: deque[_Held] = deque()
        self.reached: float | None = None  # nothing of before this time will come
        self.silent = False
        self.delay: float | None = None  # from a time in the stream to our clock
        self.patience = _PATIENCE  # how long to wait for it
        self._learned = 0.0  # when that was found

    def learn(self, late: float, now: float) -> None:
        """Take note of how far it was behind the other track, in seconds."""
        if self._learned:
            self.patience *= 0.5 ** (max(now - self._learned, 0.0) / _MEMORY)
        self.patience = min(max(self.patience, late + _LEAST, _LEAST), _PATIENCE)
        self._learned = now

    def passed(self, time: float) -> bool:
        """Whether a frame of this time need not wait for this track."""
        return self.silent or (self.reached is not None and self.reached >= time - _SAME)


def _size(frame: VideoFrame | AudioFrame) -> int:
    if isinstance(frame, VideoFrame):
        return frame.width * frame.height * 3 // 2
    return frame.samples * frame.channels * 4
