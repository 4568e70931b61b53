"""A clip sent into a live session in its own time, and what comes back, each frame matched to its source."""

from __future__ import annotations

import asyncio
import bisect
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from livepeer.trickle.media import AudioFrame, MediaPublish, VideoFrame

from . import effects, flashes, numbers, sound
from .clip import Clip, planes

if TYPE_CHECKING:
    from livepeer.client import LiveSession

__all__ = ["Exchange", "Progress"]

Progress = Callable[[float], None]
_T = TypeVar("_T")


class Exchange:
    """One session under way: what was sent and when, what came back and when.

    Args:
        clip: What to send; its pictures and its sound can be read once.
        change: What to tell the worker in the middle of it.
    """

    def __init__(self, clip: Clip, change: dict[str, Any]) -> None:
        self.clip = clip
        self.began: float = time.perf_counter()
        self.changed_at: int | None = None
        """The number of the picture before which the worker was told."""
        self.events: list[Any] = []
        # the pictures, by number
        self.sent: dict[int, float] = {}  # when, just before it was written
        self.samples: dict[int, effects.Samples] = {}
        self.times: list[float] = []
        self.received: dict[int, float] = {}  # when
        self.seen: dict[int, effects.Samples] = {}
        self.unmatched: int = 0
        self.flashes: list[float] = []  # the times of the pictures in which one begins
        # the sound
        self.spoken: sound.Track = sound.Track()
        self.heard: sound.Track = sound.Track()
        self.sound_latencies: list[float] = []
        self._change = change
        self._spoken_to: list[float] = []  # the time after each piece
        self._spoken_at: list[float] = []  # when it was written
        self._flashing = False
        self._start: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def write(self, session: LiveSession, progress: Progress) -> None:
        """Send the clip in its own time, and tell the worker of the change in the middle of it."""
        media_in = session.publish(fps=self.clip.fps)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._show(session, media_in, progress))
            if self.clip.sounds is not None:
                group.create_task(self._speak(media_in, self.clip.sounds))
        await media_in.close()

    async def _show(self, session: LiveSession, media_in: MediaPublish, progress: Progress) -> None:
        while (picture := await _next(self.clip.pictures)) is not None:
            frame, sample = picture.frame(), effects.samples(picture.planes)
            if not self._start.done():
                self._start.set_result(time.perf_counter())
            await self._until(picture.timestamp)
            if self.changed_at is None and picture.timestamp >= self.clip.seconds / 2:
                await session.control.write(self._change)
                self.changed_at = picture.number
            self.samples[picture.number] = sample
            self.times.append(picture.timestamp)
            self.sent[picture.number] = time.perf_counter()
            await media_in.write_frame(frame, timestamp=picture.timestamp)
            progress(min(1.0, (picture.timestamp + 1 / self.clip.fps) / self.clip.seconds))

    async def _speak(self, media_in: MediaPublish, sounds: Iterator[sound.Piece]) -> None:
        while (piece := await _next(sounds)) is not None:
            await self._until(piece.end)  # a microphone has a piece when its last sample is there
            self.spoken.add(piece.timestamp, piece.samples)
            self._spoken_to.append(piece.end)
            self._spoken_at.append(time.perf_counter())
            await media_in.write_frame(AudioFrame.from_array(piece.samples, sound.RATE, piece.timestamp))

    async def _until(self, timestamp: float) -> None:
        start = await asyncio.shield(self._start)
        await asyncio.sleep(max(0.0, start + timestamp - time.perf_counter()))

    async def watch(self, session: LiveSession) -> None:
        """Match every picture of the output to the one it came from."""
        async for frame in session.subscribe().frames(drop=None):
            now = time.perf_counter()
            await asyncio.to_thread(self._look, frame, now)

    def _look(self, frame: VideoFrame, now: float) -> None:
        content = planes(frame.raw, self.clip.width, self.clip.height)
        luma = content[: self.clip.height]
        number = self._number(luma, frame.timestamp)
        if self.clip.numbered:
            before, self._flashing = self._flashing, flashes.read(luma)
            if self._flashing and not before and frame.timestamp is not None:
                self.flashes.append(frame.timestamp)
        if number is None:
            self.unmatched += 1
            return
        self.received.setdefault(number, now)
        self.seen.setdefault(number, effects.samples(content))

    async def listen(self, session: LiveSession) -> None:
        """Put the sound of the output together, and see how late it is."""
        async for frame in session.subscribe().frames("audio", drop=None):
            now = time.perf_counter()
            if frame.timestamp is None:
                continue
            self.heard.add(frame.timestamp, frame.array)
            last = frame.timestamp + frame.duration - 1 / sound.RATE
            piece = bisect.bisect_right(self._spoken_to, last)  # the one with this frame's last sample
            if piece < len(self._spoken_at):
                self.sound_latencies.append(now - self._spoken_at[piece])

    async def gather_events(self, session: LiveSession) -> None:
        """Gather the worker's events."""
        async for event in session.events():
            self.events.append(event)

    def _number(self, luma: Any, timestamp: float | None) -> int | None:
        if self.clip.numbered:
            number = numbers.read(luma)
            return number if number in self.sent else None
        if timestamp is None:
            return None
        nearest = min(range(len(self.times)), key=lambda one: abs(self.times[one] - timestamp), default=None)
        if nearest is None or abs(self.times[nearest] - timestamp) > 0.5 / self.clip.fps:
            return None
        return nearest

    def difference(self, number: int) -> float:
        """How far a picture is from what was sent: the mean difference, 0 to 255."""
        return effects.differences(self.samples[number], self.seen[number])["none"]

    def shows(self, number: int, effect: str, tolerance: float) -> bool:
        """Whether a picture came back with this effect, as far as a tint of its own lets one tell."""
        found = effects.differences(self.samples[number], self.seen[number])
        return found[effect] <= min(found.values()) + tolerance


async def _next(iterator: Iterator[_T]) -> _T | None:
    """The next one, made in a thread; None at the end."""
    return await asyncio.to_thread(next, iterator, None)
