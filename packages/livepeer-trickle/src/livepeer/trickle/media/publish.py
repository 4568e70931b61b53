"""Writing live video: frames in, a trickle channel of H.264 in MPEG-TS out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import av

from ..errors import ConfigurationError, LivepeerError, MediaError, TrickleError
from ..protocol import backoff
from ..publisher import SegmentWriter, TricklePublisher
from ..transport import Transport
from .encoding import Chunk, VideoEncoder, check_codec
from .frames import Frame, to_av
from .packets import CLOCK, WRAP
from .queues import BoundedQueue

__all__ = ["MediaPublish"]

_logger = logging.getLogger("livepeer.trickle")
_MAX_BROKEN = 4  # segments in a row


class MediaPublish:
    """Encodes frames and writes them to a channel, one group of pictures to a segment.

    Frames have one size; an odd one is made even by scaling, as H.264 demands. Times are kept to 1/90000 s
    (modulo 26.5 hours, where MPEG-TS begins anew) and must grow.

    Args:
        url: The channel's URL.
        transport: The HTTP session to use; one of its own when absent.
        fps: Frames per second, for frames that bring no time of their own, and for rate control.
        queue_size: How many frames may wait for the encoder.
        drop: What a full queue does: None makes `write_frame` wait, so that nothing is lost; ``"oldest"``
            drops the frame that waits longest, which suits a camera.
        codec: The encoder, as libavcodec calls it.
        bitrate: Bits per second; constant quality when absent.
        gop: Seconds between two key frames, which is also the length of a segment.
        options: More options of the encoder.
        start: The number of the first segment; the server is asked when absent.

    Raises:
        MediaError: There is no such encoder.
    """

    def __init__(
        self,
        url: str,
        *,
        transport: Transport | None = None,
        fps: float = 30.0,
        queue_size: int = 8,
        drop: Literal["oldest"] | None = None,
        codec: str = "libx264",
        bitrate: int | None = None,
        gop: float = 1.0,
        options: Mapping[str, str] | None = None,
        start: int | None = None,
    ) -> None:
        _check_arguments(fps=fps, queue_size=queue_size, gop=gop, drop=drop)
        check_codec(codec)
        self._publisher = TricklePublisher(url, transport=transport, mime_type="video/MP2T", start=start)
        self.url: str = self._publisher.url
        self.fps = fps
        self.frames: int = 0
        """Frames given to the connection so far."""
        self.bytes: int = 0
        """Bytes of the stream given to the connection so far."""
        self.lost: int = 0
        """Frames of segments that were lost because the connection broke."""
        self.last_timestamp: float | None = None
        """The time of the frame written last (by `frames`), in seconds, as its reader will see it."""
        self.explain: Callable[[LivepeerError], Awaitable[LivepeerError]] | None = None
        """Asked when writing fails, for an error that says more: a live session may know why."""
        self._encoder = VideoEncoder(codec, fps=fps, gop=gop, bitrate=bitrate, options=options)
        self._executor: ThreadPoolExecutor | None = None
        self._queue: BoundedQueue[_Job] = BoundedQueue(queue_size, drop_oldest=drop == "oldest")
        self._refused = 0
        self._order = asyncio.Lock()
        self._size: tuple[int, int] | None = None
        self._ticks: int | None = None
        self._wrapped = 0
        self._task: asyncio.Task[None] | None = None
        self._segment: SegmentWriter | None = None
        self._segment_frames = 0
        self._broken = 0
        self._error: LivepeerError | None = None
        self._error_told = False
        self._closed = False

    @property
    def dropped(self) -> int:
        """Frames that found the queue full and were dropped."""
        return self._queue.dropped + self._refused

    @property
    def queued(self) -> int:
        """Frames that wait for the encoder."""
        return len(self._queue)

    async def write_frame(self, frame: Frame, *, timestamp: float | None = None) -> None:
        """Write a frame; waits while the queue is full.

        Args:
            frame: A `VideoFrame`, PyAV's frame, an array ``(height, width, 3)`` uint8 RGB, or a PIL image.
                Arrays and images may be changed again when this returns.
            timestamp: When to show it, in seconds; else the frame's own, else 1/fps after the one before.

        Raises:
            MediaError: It is no such frame, or of another size than the first, or its time doesn't grow.
            ChannelClosed: The channel ended.
            ChannelNotFound: There is no such channel.
            TrickleConnectionError: The server can't be reached.
        """
        async with self._order:
            job = self._prepare(frame, timestamp)
            await self._queue.put(job)
            self._raise_error()

    def try_write_frame(self, frame: Frame, *, timestamp: float | None = None) -> bool:
        """Write a frame if it need not wait; else count it in `dropped` and return False. Raises likewise."""
        job = self._prepare(frame, timestamp)
        if self._order.locked():
            self._refused += 1
            return False
        return self._queue.offer(job)

    async def close(self, *, delete: bool = True) -> None:
        """Encode what waits, wait for the last segment's answer, and end the channel.

        Args:
            delete: Whether to end the channel for everybody; otherwise it only isn't written any more.

        Raises the error that kept frames from being written, when no call told it before.
        """
        if self._closed:
            return
        self._closed = True
        self._queue.end()
        try:
            if self._task is not None:
                await self._task
        finally:
            await self._publisher.close(delete=delete)
        self._raise_error(again=False)

    async def abort(self) -> None:
        """Let go at once: frames that wait are forgotten, the channel goes on without this writer."""
        self._closed = True
        self._queue.discard()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._publisher.abort()

    def fail(self, error: LivepeerError) -> None:
        """End the writing with this error, which calls that wait and later ones raise."""
        if self._error is None and not self._closed:
            self._fail(error)

    async def __aenter__(self) -> MediaPublish:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        try:
            await self.close()
        except LivepeerError:
            if kind is None:
                raise

    def _prepare(self, frame: Frame, timestamp: float | None) -> _Job:
        """Check a frame, and give it its time."""
        if self._closed:
            raise MediaError(f"The publisher of {self.url} is closed; it takes no frame any more.")
        self._raise_error()
        raw, own = to_av(frame)
        size = (raw.width, raw.height)
        if self._size is not None and size != self._size:
            raise MediaError(
                f"A frame of {size[0]}x{size[1]} after frames of {self._size[0]}x{self._size[1]}: "
                "a stream has one size; scale the frame, or publish to another channel."
            )
        timestamp = own if timestamp is None else timestamp
        if timestamp is not None:
            if not 0 <= timestamp < float("inf"):
                raise MediaError(f"The timestamp {timestamp} s can't be; it is a number from 0 on.")
            ticks = round(timestamp * CLOCK)
        else:
            ticks = 0 if self._ticks is None else self._ticks + max(round(CLOCK / self.fps), 1)
        if self._ticks is None:
            self._wrapped = ticks // WRAP * WRAP
        elif ticks <= self._ticks:
            raise MediaError(
                f"The timestamp {ticks / CLOCK:.6f} s comes after {self._ticks / CLOCK:.6f} s; "
                "each frame's must be greater than the one before (by 1/90000 s at least)."
            )
        self._size, self._ticks = size, ticks
        if self._task is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="livepeer-encode")
            self._task = asyncio.create_task(self._run(self._executor), name="livepeer-media-publish")
        return _Job(raw, ticks - self._wrapped)

    def _raise_error(self, *, again: bool = True) -> None:
        if self._error is not None and (again or not self._error_told):
            self._error_told = True
            raise self._error

    async def _run(self, executor: ThreadPoolExecutor) -> None:
        """Encode and write until the queue ends. An error is kept for the next call, not raised."""
        loop = asyncio.get_running_loop()
        encoder = self._encoder
        try:
            while (job := await self._queue.take()) is not None:
                for chunk in await loop.run_in_executor(executor, encoder.encode, job.frame, job.ticks):
                    await self._write(chunk)
            for chunk in await loop.run_in_executor(executor, encoder.finish):
                await self._write(chunk)
            await self._end_segment()
        except LivepeerError as error:
            told = error if self.explain is None or self._error else await self.explain(error)
            self._fail(self._error or told)
        except Exception as error:
            wrapped = MediaError(f"Encoding failed: {error!r}.")
            wrapped.__cause__ = error
            self._fail(wrapped)
        finally:
            executor.submit(encoder.close)
            executor.shutdown(wait=False)
            if self._segment is not None:
                await self._segment.abort()
                self._segment = None

    def _fail(self, error: LivepeerError) -> None:
        _logger.debug("publishing to %s ended: %s", self.url, error)
        self._error = error
        self._queue.discard()

    async def _write(self, chunk: Chunk) -> None:
        if chunk.is_keyframe:
            await self._end_segment()
            if self._segment is None:
                self._segment, self._segment_frames = self._publisher.segment(), 0
        if self._segment is None:  # the rest of a segment that broke
            self.lost += 1
            return
        try:
            await self._segment.write(chunk.data)
        except TrickleError as error:
            self.lost += 1
            await self._survive(error)
            return
        self._segment_frames += 1
        self.frames += 1
        self.bytes += len(chunk.data)
        self.last_timestamp = chunk.ticks / CLOCK

    async def _end_segment(self) -> None:
        if self._segment is None:
            return
        try:
            await self._segment.close()
        except TrickleError as error:
            await self._survive(error)
        else:
            self._segment, self._broken = None, 0

    async def _survive(self, error: TrickleError) -> None:
        """A segment was lost: go on with the next one, which begins with the next frame."""
        segment, self._segment = self._segment, None
        if segment is not None:
            await segment.abort()
        self._broken += 1
        if not error.retryable or self._broken > _MAX_BROKEN:
            raise error
        self.lost += self._segment_frames
        self._encoder.force_key = True
        _logger.debug("a segment of %s was lost: %s", self.url, error)
        await asyncio.sleep(backoff(self._broken))


class _Job(NamedTuple):
    frame: av.VideoFrame
    ticks: int


def _check_arguments(*, fps: float, queue_size: int, gop: float, drop: str | None) -> None:
    if not 0 < fps <= 1000:
        raise ConfigurationError(f"fps={fps} can't be; it is frames per second, over 0 and up to 1000.")
    if queue_size < 1:
        raise ConfigurationError(f"queue_size={queue_size} can't be; it is at least 1.")
    if not 0 < gop <= 60:
        raise ConfigurationError(f"gop={gop} can't be; it is seconds between key frames, up to 60.")
    if drop not in (None, "oldest"):
        raise ConfigurationError(f"drop={drop!r} can't be; it is None or 'oldest'.")
