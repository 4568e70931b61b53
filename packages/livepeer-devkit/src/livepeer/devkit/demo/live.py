"""``live`` for real: video and sound through a filter that is changed midway; did it come back right?"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import sound
from .clip import Clip, duration_of
from .exchange import Exchange, Progress
from .report import Report, Row, percentile

if TYPE_CHECKING:
    from livepeer.client import Gateway

__all__ = ["filter_video"]

_BEFORE, _AFTER = "invert", "gray"
_GRACE = 30.0  # seconds beyond the clip's own length
_VISIBLE = 8.0  # of 255, the mean difference that an eye can't miss
_TINT = 3.0  # of 255, what two encodings may change
_TOGETHER = 0.02  # seconds that sound and picture may be apart; people notice from 0.04 on
_HOLE = 0.005  # seconds of sound that may be missing
_PADDING = 0.1  # seconds: an encoder fills its last frame up with silence, a file counts its first
_ALIKE = 0.7  # of 1, how much the loudness of the user's sound is as before


async def filter_video(
    gateway: Gateway, report: Report, row: Row, *, clip: Clip, folder: Path, progress: Progress
) -> None:
    """``live`` with a clip; leaves ``output.mp4``."""
    run, target = Exchange(clip, {"effect": _AFTER}), folder / "output.mp4"
    target.unlink(missing_ok=True)
    async with asyncio.timeout(clip.seconds * 2 + _GRACE):
        async with gateway.live(row.capability, params={"effect": _BEFORE}) as session:
            row.orchestrator = getattr(session, "orchestrator", "") or row.orchestrator
            gathering = asyncio.create_task(run.gather_events(session))
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(session.subscribe().save(target))
                    group.create_task(run.watch(session))
                    if clip.sounds is not None:
                        group.create_task(run.listen(session))
                    group.create_task(run.write(session, progress))
            finally:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(gathering), 2)
                gathering.cancel()
                await asyncio.gather(gathering, return_exceptions=True)
        row.total = time.perf_counter() - run.began
    report.files["video"] = target
    _judge_pictures(run, report, row)
    _judge_effects(run, report)
    if clip.sounds is not None:
        _judge_sound(run, report, row)
    await asyncio.to_thread(_judge_file, run, report, target)


def _judge_pictures(run: Exchange, report: Report, row: Row) -> None:
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


def _judge_effects(run: Exchange, report: Report) -> None:
    seen = sorted(run.seen)
    before, after = ([run.shows(number, effect, _TINT) for number in seen] for effect in (_BEFORE, _AFTER))
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
    visible = sum(run.difference(number) > _VISIBLE for number in seen)
    report.check("the change is visible", visible > len(seen) / 2, f"in {visible} of {len(seen)} frames")
    kinds = [event.get("type") for event in run.events if isinstance(event, dict)]
    told = any(isinstance(event, dict) and event.get("effect") == _AFTER for event in run.events)
    report.check("the worker's events came back", bool(kinds), f"{len(run.events)} events")
    report.check("an event told of the change", told)


def _judge_sound(run: Exchange, report: Report, row: Row) -> None:
    row.sound_p50, row.sound_p95 = percentile(run.sound_latencies, 50), percentile(run.sound_latencies, 95)
    sent, heard = run.spoken, run.heard
    report.check(
        "no sound was lost",
        heard.missing - sent.missing <= _HOLE
        and abs(heard.begin - sent.begin) <= _PADDING
        and -_HOLE <= heard.end - sent.end <= _PADDING,
        f"sent {sent.begin:.3f} to {sent.end:.3f} s, came back {heard.begin:.3f} to {heard.end:.3f} s, "
        f"{heard.missing * 1000:.0f} ms missing in between",
    )
    if run.clip.numbered:
        beeps = sound.onsets(heard)
        apart = [beep - flash for beep, flash in zip(beeps, run.flashes, strict=False)]
        farthest = max(apart, key=abs, default=0.0)
        report.check(
            "the sound came back in sync with the picture",
            len(beeps) == len(run.flashes) > 0 and abs(farthest) <= _TOGETHER,
            f"{len(beeps)} beeps, {len(run.flashes)} flashes, {farthest * 1000:+.0f} ms apart at most",
        )
        return
    found = sound.lag(sent, heard)
    late, alike = found or (0.0, 1.0)  # there is nothing to hear in silence
    report.check(
        "the sound came back where it was",
        abs(late) <= _TOGETHER and alike >= _ALIKE,
        f"{late * 1000:+.0f} ms off, {alike:.0%} alike",
    )


def _judge_file(run: Exchange, report: Report, target: Path) -> None:
    length, frames = duration_of(target)
    sent = max(run.times, default=0.0) + 1 / run.clip.fps
    report.check(
        "output.mp4 plays as long as what was sent",
        abs(length - sent) <= max(0.1, 2 / run.clip.fps) and frames == len(run.sent),
        f"{length:.2f} s and {frames} frames, sent were {sent:.2f} s and {len(run.sent)} frames",
    )
    if run.clip.sounds is not None:
        heard, spoken = sound.length_of(target), run.spoken.end - run.spoken.begin - run.spoken.missing
        report.check(
            "output.mp4 has all of the sound",
            abs(heard - spoken) <= _PADDING,
            f"{heard:.2f} s, sent were {spoken:.2f} s",
        )
