"""Ending a live session without losing what is still inside the worker.

Ending the media-in channel discards what the worker hasn't fetched of it (go-livepeer v0.9.1), and stopping
the session discards what is in all others. So the order is: finish the input; wait until the output has
brought the last timestamp; end media-in, which some workers wait for before they give their last frames; read
the output and the events to their ends; and only then stop the session.

In LV2V the end of media-in ends everything at once. There the output is waited for longer, and the events are
read before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from livepeer import trickle

from .media import SessionMedia
from .reader import SessionReader

if TYPE_CHECKING:
    from livepeer.trickle import media

__all__ = ["drain_events", "drain_input", "drain_output", "end_channel"]

_QUIET = 0.5  # seconds without output after which none is expected before the input's end
_PATIENT = 3.0  # how many times the longest pause between two outputs they may be
_LAST_CHANCE = 1.0  # the same seconds where what is not back at the input's end is lost
_STAYS = 2.0  # seconds that a worker which has given everything back may take to end its output
_UNSEEN = 0.5  # seconds for the worker to fetch the last segment, where no output tells that it did
_TAIL = 0.25  # seconds without a message after which no more are expected
_MESSAGES = 1.0  # seconds that messages are waited for, however many come, where nothing tells their end
_LOOK = 0.005  # seconds between two looks at the output
_logger = logging.getLogger("livepeer.client")


async def drain_input(session_media: SessionMedia, deadline: float, *, ends_all: bool = False) -> None:
    """Finish the input, and wait until the output has brought what was written, or has fallen silent.

    Args:
        session_media: The writer, and the reader if there is one.
        deadline: When to wait no longer, by the monotonic clock.
        ends_all: Whether what is not back by then is lost.
    """
    writer, output = session_media.writer, session_media.reader
    if writer is None:
        return
    try:
        async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
            await writer.close(delete=False)
    except TimeoutError:
        _logger.debug("the input %s could not be finished in time", writer.url)
        await writer.abort()
    except trickle.LivepeerError as error:
        _logger.debug("the input %s had ended before: %s", writer.url, error)
    if output is not None and session_media.reading:
        slowest = session_media.latency() if ends_all else None
        quiet = max(_LAST_CHANCE, _PATIENT * slowest.max) if slowest else _QUIET
        # Where no frame has come back yet, nothing tells how long one takes.
        patience = deadline - time.monotonic() if ends_all and slowest is None else quiet
        await _until_back(writer, output, deadline, patience)
    elif writer.bytes:
        await asyncio.sleep(min(_UNSEEN, max(deadline - time.monotonic(), 0)))


async def drain_output(session_media: SessionMedia, deadline: float, *, may_stay: bool = False) -> None:
    """Wait for the end of the output, which the worker ends after its input.

    Args:
        session_media: The writer and the reader.
        deadline: When to wait no longer.
        may_stay: Whether some workers leave that to the orchestrator: BYOC workers do. Then nothing more is
            waited for some time after all that was written is back.
    """
    output = session_media.reader
    if output is None or not session_media.reading:
        return
    since = time.monotonic()
    while not output.finished and time.monotonic() < deadline:
        all_back = session_media.writer is not None and not session_media.owed() and not output.ended
        if may_stay and all_back and time.monotonic() > max(since, output.last_arrival_at or 0.0) + _STAYS:
            return
        await asyncio.sleep(_LOOK)


async def drain_events(
    readers: tuple[SessionReader, ...], asked_at: float, deadline: float, *, ends_all: bool = False
) -> None:
    """Wait until the worker has ended its messages, or has sent none for some time.

    Args:
        readers: The channels.
        asked_at: When the worker last got something that it may answer.
        deadline: When to wait no longer.
        ends_all: Whether the worker doesn't know yet that the session ends, and so ends no channel.
    """
    if ends_all:
        deadline = min(deadline, time.monotonic() + _MESSAGES)
    for reader in readers:
        while reader.open and time.monotonic() < min(deadline, max(asked_at, reader.heard_at or 0) + _TAIL):
            await asyncio.sleep(_LOOK)


async def end_channel(url: str, transport: trickle.Transport) -> None:
    """End a channel; that it had ended before is ordinary."""
    from .._bodies import skip
    from .._http import translated

    try:
        with translated(url):
            async with await transport.send("DELETE", url) as answer:
                await skip(answer)
    except trickle.LivepeerError as error:
        _logger.debug("the end of %s was not said: %s", url, error)


async def _until_back(
    writer: media.MediaPublish, output: media.MediaOutput, deadline: float, quiet: float
) -> None:
    seen = output.last_timestamp
    since = time.monotonic()
    longest = 0.0
    while not output.ended and time.monotonic() < min(deadline, since + max(quiet, _PATIENT * longest)):
        last = writer.last_timestamp
        if last is None or (output.last_timestamp is not None and output.last_timestamp >= last):
            return
        if output.last_timestamp != seen:
            now = time.monotonic()
            longest = max(longest, now - since)
            seen, since = output.last_timestamp, now
        await asyncio.sleep(_LOOK)
