"""The whole demo against one orchestrator: every verb in turn, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from livepeer.client import Gateway
from livepeer.trickle.errors import LivepeerError

from . import calls
from .clip import Clip
from .live import filter_video
from .report import Report, Row

__all__ = ["play"]

Progress = Callable[[str, float], None]


async def play(orch_url: str, folder: Path, clip: Clip, picture: Path | None, progress: Progress) -> Report:
    """Perform the three verbs through an orchestrator on which the samples are registered.

    Args:
        orch_url: The orchestrator.
        folder: Where the picture and the video are left.
        clip: The video to send.
        picture: The picture to send, or None to draw one.
        progress: Told the capability that is under way, and how much of it is done (0 to 1).

    Returns:
        What came out, also of what failed.
    """
    report, began = Report(), time.perf_counter()
    async with Gateway(orch_url=orch_url) as gateway:
        routes = await _routes(gateway)

        async def step(row: Row, *work: Callable[[Row], Awaitable[None]]) -> None:
            report.rows.append(row)
            row.orchestrator, row.route = orch_url, routes.get(row.capability, "")
            progress(row.capability, 0.0)
            for one in work:
                await _attempt(report, row, one)
            progress(row.capability, 1.0)

        await step(Row("text-reverse", "run"), lambda row: calls.reverse_text(gateway, report, row))
        await step(Row("word-count", "run"), lambda row: calls.count_words(gateway, report, row))
        await step(
            Row("image-invert", "run"),
            lambda row: calls.invert_picture(gateway, report, row, picture, folder),
        )
        await step(
            Row("llm-chat", "stream"),
            lambda row: calls.stream_tokens(gateway, report, row),
            lambda row: calls.leave_early(gateway, report, row),
        )
        await step(
            Row("video-filter", "live"),
            lambda row: filter_video(
                gateway,
                report,
                row,
                clip=clip,
                folder=folder,
                progress=lambda share: progress(row.capability, share),
            ),
        )
    report.seconds = time.perf_counter() - began
    return report


async def _attempt(report: Report, row: Row, work: Callable[[Row], Awaitable[None]]) -> None:
    name = f"{row.capability} answered"
    try:
        await work(row)
    except LivepeerError as error:
        report.check(name, False, str(error))
    except TimeoutError:
        report.check(name, False, "It took far too long.")
    except ExceptionGroup as group:
        mine, others = group.split(LivepeerError)
        if others is not None:
            raise
        report.check(name, False, "; ".join(str(error) for error in mine.exceptions) if mine else "")


async def _routes(gateway: Gateway) -> dict[str, str]:
    try:
        listed = await asyncio.wait_for(gateway.capabilities_async(), 15)
    except LivepeerError:  # the calls will say what is wrong
        return {}
    return {one.name: f"{one.transport}, {one.mode}" for one in listed}
