"""Reading live video: a trickle channel of MPEG-TS in; frames, packets, bytes or a file out."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from ..errors import ConfigurationError, LivepeerError, MediaError
from ..subscriber import SegmentReader, TrickleSubscriber
from ..transport import Transport
from .decoding import VideoDecoder
from .frames import VideoFrame
from .mpegts import Demuxer
from .packets import Packet
from .queues import BoundedQueue
from .readers import Fan, MediaReader
from .saving import Recording

__all__ = ["MediaOutput"]

_Bytes = bytes

_logger = logging.getLogger("livepeer.trickle")
_BACKLOG = 16 * 1024 * 1024  # bytes that may wait for one reader
_CACHE = 32 * 1024 * 1024  # bytes of the present segment that are kept for a reader who comes later
_HOPELESS = 1024 * 1024  # bytes without a packet in them are no MPEG-TS


class MediaOutput:
    """One subscription to a channel of live video, for any number of readers at once.

    It starts when the first reader asks for its first item, or by `start`. A reader that comes later begins
    with the present segment. Packets, bytes and files lose nothing: a slow reader of them makes the
    subscription wait, and what falls out of the server's ring meanwhile is counted in `missed`.

    Args:
        url: The channel's URL.
        transport: The HTTP session to use; one of its own when absent.
        start: The number of the first segment, or -1 for the one written next, or -2 for the newest.

    Readers raise `ChannelNotFound`, `TrickleConnectionError` and `TrickleError` as `TrickleSubscriber`
    does; those of frames and packets raise `MediaError` when what comes is no video.
    """

    def __init__(self, url: str, *, transport: Transport | None = None, start: int = 0) -> None:
        self._subscriber = TrickleSubscriber(url, transport=transport, start=start)
        self.url: str = self._subscriber.url
        self.frames_in: int = 0
        """Encoded pictures that came in."""
        self.bytes_in: int = 0
        """Bytes that came in."""
        self.last_timestamp: float | None = None
        """The time of the newest picture that came in, in seconds."""
        self.ended: bool = False
        """Whether the channel is over (or lost, or this was closed)."""
        self.error: LivepeerError | None = None
        """What ended it, when that was not the channel's end."""
        self.explain: Callable[[LivepeerError], Awaitable[LivepeerError]] | None = None
        """Asked when reading fails, for an error that says more: a live session may know why."""
        self._bytes = Fan(self._join_bytes)
        self._packets = Fan(self._join_packets)
        self._frames = Fan(self._join_frames)
        self._demuxer = Demuxer()
        self._packets_in = 0
        self._missed_before = 0
        self._cached_chunks: list[_Bytes] = []
        self._cached_packets: list[Packet] = []
        self._cached_size = 0
        self._task: asyncio.Task[None] | None = None
        self._decode_queue: BoundedQueue[Packet] | None = None
        self._decode_task: asyncio.Task[None] | None = None

    @property
    def missed(self) -> int:
        """Segments that fell out of the server's ring before they were read."""
        return self._subscriber.missed

    @property
    def dropped(self) -> int:
        """Decoded frames that slow readers of `frames` skipped, over all of them."""
        return self._frames.dropped

    @property
    def finished(self) -> bool:
        """Whether the channel is over and everything of it is decoded."""
        return self.ended and (self._decode_task is None or self._decode_task.done())

    def start(self) -> None:
        """Begin to read the channel now, and not with the first reader."""
        if self._task is None and not self.ended:
            self._task = asyncio.create_task(self._run(), name="livepeer-media-output")

    def frames(
        self, *, drop: Literal["oldest"] | None = "oldest", queue_size: int = 8
    ) -> MediaReader[VideoFrame]:
        """Decoded frames, in order; ends normally with the channel.

        Args:
            drop: What happens when more than `queue_size` frames wait for this reader: ``"oldest"`` skips
                those that wait longest; None makes everything wait for it.
            queue_size: How many frames may wait.
        """
        if queue_size < 1:
            raise ConfigurationError(f"queue_size={queue_size} can't be; it is at least 1.")
        if drop not in (None, "oldest"):
            raise ConfigurationError(f"drop={drop!r} can't be; it is None or 'oldest'.")
        return self._frames.reader(BoundedQueue(queue_size, drop_oldest=drop == "oldest"))

    def packets(self) -> MediaReader[Packet]:
        """Encoded pictures and sound, in order; ends normally with the channel."""
        return self._packets.reader(BoundedQueue(_BACKLOG, weigh=_size))

    def bytes(self) -> MediaReader[_Bytes]:
        """The stream's bytes (MPEG-TS), as they come; ends normally with the channel."""
        return self._bytes.reader(BoundedQueue(_BACKLOG, weigh=len))

    async def save(self, path: str | os.PathLike[str]) -> Path:
        """Save the stream to its end as a file: mp4, mov, mkv or ts by its suffix, without transcoding.

        When reading fails, or this is cancelled, what came until then is saved before the error goes on.

        Returns:
            The path.

        Raises:
            MediaError: The suffix is unknown, the file can't be made, or nothing came that can be saved.
        """
        recording = Recording(Path(path))
        loop = asyncio.get_running_loop()
        complete = False
        try:
            async with self.bytes() as chunks:
                async for chunk in chunks:
                    await loop.run_in_executor(None, recording.write, chunk)
            complete = True
        finally:
            await asyncio.shield(loop.run_in_executor(None, recording.finish, complete))
        return recording.path

    async def aclose(self) -> None:
        """Stop reading. Readers get what is decoded already, and end normally."""
        self.ended = True
        for task in (self._task, self._decode_task):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        for fan in (self._bytes, self._packets, self._frames):
            fan.end()
        await self._subscriber.aclose()

    async def __aenter__(self) -> MediaOutput:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    # What a reader begins with

    def _join_bytes(self) -> Iterable[_Bytes]:
        self.start()
        return self._cached_chunks

    def _join_packets(self) -> Iterable[Packet]:
        self.start()
        return self._cached_packets

    def _join_frames(self) -> Iterable[VideoFrame]:
        self.start()
        if self._decode_task is None:
            queue: BoundedQueue[Packet] = BoundedQueue(_BACKLOG, weigh=_size)
            for packet in self._cached_packets:
                if packet.kind == "video":
                    queue.push(packet)
            self._decode_queue = queue
            self._decode_task = asyncio.create_task(self._decode(queue), name="livepeer-decode")
        return ()

    # The subscription

    async def _run(self) -> None:
        error: LivepeerError | None = None
        try:
            async for segment in self._subscriber:
                self._begin(segment)
                async for chunk in segment:
                    await self._take(chunk)
            for packet in self._demuxer.flush():
                await self._pass_on(packet)
            if self.bytes_in and not self._packets_in:
                self._end_media(self._no_media())
        except LivepeerError as failed:
            _logger.debug("reading %s ended: %s", self.url, failed)
            error = self.error = failed if self.explain is None else await self.explain(failed)
        finally:
            self.ended = True
            self._bytes.end(error)
            self._end_media(error)
            await self._subscriber.aclose()

    def _begin(self, segment: SegmentReader) -> None:
        _logger.debug("segment %d of %s", segment.seq, self.url)
        if self.missed > self._missed_before:
            self._missed_before = self.missed
            self._demuxer.discontinuity()
        self._demuxer.begin_segment()
        self._cached_chunks, self._cached_packets, self._cached_size = [], [], 0

    async def _take(self, chunk: _Bytes) -> None:
        self.bytes_in += len(chunk)
        self._cached_size += len(chunk)
        if self._cached_size > _CACHE:
            self._cached_chunks, self._cached_packets = [], []
        else:
            self._cached_chunks.append(chunk)
        await self._bytes.put(chunk)
        for packet in self._demuxer.feed(chunk):
            await self._pass_on(packet)
        if not self._packets_in and self.bytes_in > _HOPELESS:
            self._end_media(self._no_media())

    async def _pass_on(self, packet: Packet) -> None:
        self._packets_in += 1
        if self._cached_size <= _CACHE:
            self._cached_packets.append(packet)
        if packet.kind == "video":
            self.frames_in += 1
            if packet.timestamp is not None:
                self.last_timestamp = packet.timestamp
            if self._decode_queue is not None:
                await self._decode_queue.put(packet)
        await self._packets.put(packet)

    def _end_media(self, error: LivepeerError | None) -> None:
        """Nothing more comes for the readers of packets and frames."""
        self._packets.end(error)
        if self._decode_queue is not None:
            self._decode_queue.end(error)
        else:
            self._frames.end(error)

    def _no_media(self) -> MediaError:
        return MediaError(f"What comes over {self.url} is no MPEG-TS with video or sound.")

    # Decoding

    async def _decode(self, queue: BoundedQueue[Packet]) -> None:
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(1, thread_name_prefix="livepeer-decode")
        decoder = VideoDecoder()
        error: LivepeerError | None = None
        try:
            while (packet := await queue.take()) is not None:
                for frame in await loop.run_in_executor(executor, decoder.decode, (packet,)):
                    await self._frames.put(frame)
            for frame in await loop.run_in_executor(executor, decoder.flush):
                await self._frames.put(frame)
        except LivepeerError as failed:
            error = failed
        except Exception as failed:
            error = MediaError(f"Decoding failed: {failed!r}.")
            error.__cause__ = failed
        finally:
            executor.shutdown(wait=False)
            queue.discard()
            self._frames.end(error)


def _size(packet: Packet) -> int:
    return len(packet.data)
