"""Pieces of a stream into the segments of a channel; a connection that breaks costs one segment."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from ..errors import TrickleError
from ..protocol import backoff
from ..publisher import TricklePublisher
from ..segment_writer import SegmentWriter
from ..transport import Transport
from .packets import CLOCK
from .segments import Piece

__all__ = ["Sender"]

_logger = logging.getLogger("livepeer.trickle")
_MAX_BROKEN = 4  # segments in a row


class Sender:
    """Writes pieces in order, each at once, and counts them.

    Args:
        url: The channel's URL.
        transport: The HTTP session to use; one of its own when None.
        start: The number of the first segment; the server is asked when None.
        on_break: Called when a segment was lost, before the next piece.
    """

    def __init__(
        self, url: str, *, transport: Transport | None, start: int | None, on_break: Callable[[], None]
    ) -> None:
        self._publisher = TricklePublisher(url, transport=transport, mime_type="video/MP2T", start=start)
        self.url: str = self._publisher.url
        self.frames: int = 0
        self.audio_frames: int = 0
        self.bytes: int = 0
        self.lost: int = 0
        self.last_ticks: int | None = None
        self.last_written_at: float | None = None
        self._on_break = on_break
        self._segment: SegmentWriter | None = None
        self._segment_frames = 0
        self._before: tuple[SegmentWriter, int] | None = None  # finished, not answered; and its frames
        self._broken = 0

    @property
    def last_timestamp(self) -> float | None:
        """The time of the last picture written (of the last sound where there is no picture), in seconds."""
        return None if self.last_ticks is None else self.last_ticks / CLOCK

    async def write(self, piece: Piece) -> None:
        """Write a piece. Raises `TrickleError` when going on with the next segment is of no use."""
        if piece.begins:
            await self._next_segment()
        frames = piece.frames + piece.audio_frames
        if self._segment is None:  # the rest of a segment that broke
            self.lost += frames
            return
        try:
            await self._segment.write(piece.data)
        except TrickleError as error:
            segment, self._segment = self._segment, None
            await segment.abort()
            await self._survive(error, frames + self._segment_frames)
            return
        self._count(piece)

    def write_now(self, piece: Piece) -> bool:
        """Write a piece if that needs no waiting; else return False."""
        if piece.begins or self._segment is None or not self._segment.write_now(piece.data):
            return False
        self._count(piece)
        return True

    async def end_segment(self) -> None:
        """Finish the present segment, and wait for the server's answer. Raises as `write` does."""
        self._finish()
        await self._confirm()

    async def abort_segment(self) -> None:
        """Break the present segment off, and don't wait for the answer to the one before."""
        segment, self._segment = self._segment, None
        if segment is not None:
            await segment.abort()
        if self._before is not None:
            (segment, _), self._before = self._before, None
            await segment.abort()

    async def close(self, *, delete: bool, linger: float) -> None:
        """End the channel after `linger` seconds, or (without `delete`) the writing of it."""
        await self._publisher.close(delete=delete, linger=linger)

    async def abort(self) -> None:
        """Let go of the channel at once."""
        await self._publisher.abort()

    def _count(self, piece: Piece) -> None:
        self.last_written_at = time.monotonic()
        self._segment_frames += piece.frames + piece.audio_frames
        self.audio_frames += piece.audio_frames
        self.bytes += len(piece.data)
        if piece.ticks is not None and (piece.frames or not self.frames):
            behind = 0 if self.last_ticks is None else self.last_ticks - piece.ticks
            # Pictures may come in another order than they are shown in; further back is a new beginning.
            if not 0 < behind < CLOCK or (piece.frames and not self.frames):
                self.last_ticks = piece.ticks
        self.frames += piece.frames

    async def _next_segment(self) -> None:
        """Go on with the next segment at once: the answer to this one is awaited at that one's end."""
        await self._confirm()
        self._finish()
        self._segment, self._segment_frames = self._publisher.segment(), 0

    def _finish(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.finish()
            self._before = segment, self._segment_frames

    async def _confirm(self) -> None:
        """Wait for the answer to the segment before."""
        if self._before is None:
            return
        (segment, frames), self._before = self._before, None
        try:
            await segment.close()
        except TrickleError as error:
            await self._survive(error, frames)
        else:
            self._broken = 0

    async def _survive(self, error: TrickleError, frames: int) -> None:
        """A segment was lost: go on with the next one, which begins where decoding can begin."""
        self._broken += 1
        if not error.retryable or self._broken > _MAX_BROKEN:
            raise error
        self.lost += frames
        if self._segment is None:
            self._on_break()
        _logger.debug("a segment of %s was lost: %s", self.url, error)
        await asyncio.sleep(backoff(self._broken))
