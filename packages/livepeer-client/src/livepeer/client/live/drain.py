"""Ending a live session without losing what is still inside the worker."""

from __future__ import annotations

import asyncio
import logging
import time

from livepeer import trickle
from livepeer.trickle import media

__all__ = ["drain_media"]

_QUIET = 0.5  # seconds without a picture, after which none is expected before the input's end
_LOOK = 0.005  # seconds between two looks at the output
_logger = logging.getLogger("livepeer.client")


async def drain_media(
    publish: media.MediaPublish,
    output: media.MediaOutput | None,
    transport: trickle.Transport,
    patience: float,
) -> None:
    """Finish the input, and wait until the output has brought what it can.

    Ending the media-in channel discards what the worker hasn't fetched of it (go-livepeer v0.9.1), so the
    channel is ended only when the last timestamp is back, or the output has fallen silent: some workers hold
    their last frames until the input ends.

    Args:
        publish: The writer of the session.
        output: The reader of the session, if it has one.
        transport: The session's connections.
        patience: Seconds to wait for the output.
    """
    deadline = time.monotonic() + patience
    try:
        await publish.close(delete=False)
        if output is not None:
            await _until_back(publish, output, deadline)
    except trickle.LivepeerError as error:
        _logger.debug("the input %s had ended before: %s", publish.url, error)
    await _end(publish.url, transport)
    while output is not None and not output.finished and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK)


async def _until_back(publish: media.MediaPublish, output: media.MediaOutput, deadline: float) -> None:
    seen = output.last_timestamp
    since = time.monotonic()
    while not output.ended and time.monotonic() < min(deadline, since + _QUIET):
        last = publish.last_timestamp
        if last is None or (output.last_timestamp is not None and output.last_timestamp >= last):
            return
        if output.last_timestamp != seen:
            seen, since = output.last_timestamp, time.monotonic()
        await asyncio.sleep(_LOOK)


async def _end(url: str, transport: trickle.Transport) -> None:
    """End a channel; that it had ended before is ordinary."""
    from .._http import translated

    try:
        with translated(url):
            async with transport.request("DELETE", url) as answer:
                await answer.read()
    except trickle.LivepeerError as error:
        _logger.debug("the end of %s was not said: %s", url, error)
