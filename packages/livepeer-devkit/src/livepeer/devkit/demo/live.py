"""``live`` for real: a video through a filter that is changed midway, each frame matched to its source."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import effects, numbers
from .clip import Clip, duration_of, planes
from .report import Report, Row, percentile

if TYPE_CHECKING:
    from livepeer.client import Gateway, LiveSession

__all__ = ["filter_video"]

_BEFORE, _AFTER = "invert", "gray"
_GRACE = 30.0  # seconds beyond the clip's own length
_VISIBLE = 8.0  # of 255, the mean difference that an eye can't miss
_TOLERANCE = 6.0  # of 255, what two encodings may change

Progress = Callable[[float], None]


class _Run:
    """One session under way: what was sent and when, what came back and when."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.sent: dict[int, float] = {}  # number: when, just before it was written
        self.samples: dict[int, effects.Samples] = {}
        self.times: list[float] = []  # the timestamp of each number
        self.received: dict[int, float] = {}  # number: when
        self.seen: dict[int, effects.Samples] = {}
        self.unmatched = 0
        self.events: list[Any] = []
        self.changed_at: int | None = None
        self.began = time.perf_counter()

    async def write(self, session: LiveSession, progress: Progress) -> None:
        """Send the clip in its own time, and change the effect in the middle of it."""
        media_in = session.publish(fps=self.clip.fps)
        pictures = self.clip.pictures
        start: float | None = None
        while (picture := await asyncio.to_thread(next, pictures, None)) is not None:
            frame, sample = picture.frame(), effects.samples(picture.planes)
            start = time.perf_counter() if start is None else start
            await asyncio.sleep(max(0.0, start + picture.timestamp - time.perf_counter()))
            if self.changed_at is None and picture.timestamp >= self.clip.seconds / 2:
                await session.control.write({"effect": _AFTER})
                self.changed_at = picture.number
            self.samples[picture.number] = sample
            self.times.append(picture.timestamp)
            self.sent[picture.number] = time.perf_counter()
            await media_in.write_frame(frame, timestamp=picture.timestamp)
            progress(min(1.0, (picture.timestamp + 1 / self.clip.fps) / self.clip.seconds))
        await media_in.close()

    async def read(self, session: LiveSession) -> None:
        """Match every frame of the output to the one it came from."""
        async for frame in session.subscribe().frames(drop=None):
            now = time.perf_counter()
            content = planes(frame.raw, self.clip.width, self.clip.height)
            number = self._number(content, frame.timestamp)
            if number is None:
                self.unmatched += 1
                continue
            self.received.setdefault(number, now)
            self.seen.setdefault(number, effects.samples(content))

    async def listen(self, session: LiveSession) -> None:
        """Gather the worker's events."""
        async for event in session.events():
            self.events.append(event)

    def _number(self, content: Any, timestamp: float | None) -> int | None:
        if self.clip.numbered:
            number = numbers.read(content[: self.clip.height])
            return number if number in self.sent else None
        if timestamp is None:
            return None
        nearest = min(range(len(self.times)), key=lambda one: abs(self.times[one] - timestamp), default=None)
        if nearest is None or abs(self.times[nearest] - timestamp) > 0.5 / self.clip.fps:
            return None
        return nearest

    def visibility(self, number: int) -> float:
        """How far a frame is from what was sent: the mean difference, 0 to 255."""
        return effects.differences(self.samples[number], self.seen[number])["none"]

    def shows(self, number: int, effect: str) -> bool:
        """Whether a frame came back with this effect, as far as a tint of its own lets one tell."""
        found = effects.differences(self.samples[number], self.seen[number])
        return found[effect] <= min(found.values()) + _TOLERANCE / 2


async def filter_video(
    gateway: Gateway, report: Report, row: Row, *, clip: Clip, folder: Path, progress: Progress
) -> None:
    """``live`` with a clip; leaves ``output.mp4``."""
    run, target = _Run(clip), folder / "output.mp4"
    target.unlink(missing_ok=True)
    async with asyncio.timeout(clip.seconds * 2 + _GRACE):
        async with gateway.live(row.capability, params={"effect": _BEFORE}) as session:
            row.orchestrator = getattr(session, "orchestrator", "") or row.orchestrator
            listening = asyncio.create_task(run.listen(session))
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(session.subscribe().save(target))
                    group.create_task(run.read(session))
                    group.create_task(run.write(session, progress))
            finally:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(listening), 2)
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
        row.total = time.perf_counter() - run.began
    report.files["video"] = target
    _judge(run, report, row)
    length, frames = await asyncio.to_thread(duration_of, target)
    sent_length = max(run.times, default=0.0) + 1 / clip.fps
    report.check(
        "output.mp4 plays as long as what was sent",
        abs(length - sent_length) <= max(0.1, 2 / clip.fps) and frames == len(run.sent),
        f"{length:.2f} s and {frames} frames, sent were {sent_length:.2f} s and {len(run.sent)} frames",
    )


def _judge(run: _Run, report: Report, row: Row) -> None:
    row.frames_sent, row.frames_received = len(run.sent), len(run.received)
    if run.received:
        row.first_result = min(run.received.values()) - run.began
    latencies = [when - run.sent[number] for number, when in run.received.items()]
    row.latency_p50, row.latency_p95 = percentile(latencies, 50), percentile(latencies, 95)
    report.check(
        "no frame was lost",
        row.frames_lost == 0 and run.unmatched == 0 and bool(run.sent),
        f"{row.frames_lost} of {row.frames_sent} lost, {run.unmatched} not recognized",
    )
    order = list(run.received)
    report.check("the frames came back in order", order == sorted(order) and bool(order))
    _judge_effects(run, report)
    kinds = [event.get("type") for event in run.events if isinstance(event, dict)]
    told = any(isinstance(event, dict) and event.get("effect") == _AFTER for event in run.events)
    report.check("the worker's events came back", bool(kinds), f"{len(run.events)} events")
    report.check("an event told of the change", told)


def _judge_effects(run: _Run, report: Report) -> None:
    seen = sorted(run.seen)
    before, after = ([run.shows(number, effect) for number in seen] for effect in (_BEFORE, _AFTER))
    # control and media are two channels, so the change may overtake frames that are still on their way
    changed = before.index(False) if False in before else len(seen)
    report.check(
        f"the video came back with {_BEFORE!r} at first", changed > 0, f"{changed} of {len(seen)} frames"
    )
    report.check(
        f"control.write changed it to {_AFTER!r} midway",
        changed < len(seen) and all(after[changed:]),
        f"asked at frame {run.changed_at}, changed at frame {seen[changed] if changed < len(seen) else '–'}",  # noqa: RUF001
    )
    visible = sum(run.visibility(number) > _VISIBLE for number in seen)
    report.check("the change is visible", visible > len(seen) / 2, f"in {visible} of {len(seen)} frames")
