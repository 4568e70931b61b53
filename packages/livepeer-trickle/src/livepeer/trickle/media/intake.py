"""A subscription as it comes in: bytes to those who read bytes, packets to those who read packets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from time import monotonic
from typing import Any

from ..errors import LivepeerError, MediaError
from ..subscriber import SegmentReader, TrickleSubscriber
from .decode_task import DecodeTask
from .losses import Losses
from .mpegts import AutoDemuxer
from .packets import Packet
from .queues import BoundedQueue
from .readers import Fan

__all__ = ["Intake"]

_logger = logging.getLogger("livepeer.trickle")
_CACHE = 32 * 1024 * 1024  # bytes of the present segment that are kept for a reader who comes later
_REORDERED = 1.0  # seconds; what is older than the newest picture by more is of another clock
_HOPELESS = 1024 * 1024  # bytes without a packet in them are no media


class Intake:
    """Reads a channel to its end, in a task, and passes on what it brings.

    The demuxer runs on the event loop: a chunk costs it less than handing it to a thread would.

    It keeps the present segment, for readers who come later. Of one that is too long for that they get what
    follows the next key frame (packets), or the next segment (bytes).
    """

    def __init__(self, subscriber: TrickleSubscriber) -> None:
        self.bytes: Fan[bytes] = Fan(self._join_bytes)
        self.packets: Fan[Packet] = Fan(self._join_packets)
        self.decoding: DecodeTask = DecodeTask(self._cached, self._present)
        self.on_packet: Callable[[Packet], None] | None = None
        self.explain: Callable[[LivepeerError], Awaitable[LivepeerError]] | None = None
        self.error: LivepeerError | None = None
        self.frames_in: int = 0
        self.audio_in: int = 0
        self.bytes_in: int = 0
        self.last_timestamp: float | None = None
        self.last_arrival_at: float | None = None
        self.ended: bool = False
        self.held_up: bool = False
        self._subscriber = subscriber
        self._demuxer = AutoDemuxer()
        self._tracks: dict[str, int] = {}  # the PID that is decoded, by kind
        self._missed = 0
        self._chunks: list[bytes] = []
        self._packets: list[Packet] = []
        self._size = 0  # of the present segment
        self._late_bytes: list[BoundedQueue[bytes]] = []  # readers who wait for the next segment
        self._late_packets: list[BoundedQueue[Packet]] = []  # and for the next key frame
        self._task: asyncio.Task[None] | None = None
        self._closing = False  # the task closes its connections, and is done then

    @property
    def started(self) -> bool:
        """Whether it reads, or did."""
        return self._task is not None

    def start(self) -> None:
        """Begin to read."""
        if self._task is None and not self.ended:
            self._task = asyncio.create_task(self._run(), name="livepeer-media-output")

    def losses(self) -> Losses:
        """What was lost so far."""
        return Losses(
            segments=self._subscriber.missed,
            packets=self._demuxer.lost,
            bytes=self._demuxer.skipped,
            undecoded=self.decoding.undecoded,
            frames=self.decoding.dropped + self.decoding.skipped,
        )

    def fail(self, error: LivepeerError | None) -> None:
        """Stop, and end every reader after what it has already."""
        if not self.ended:
            self.ended, self.error = True, error
        if self._task is not None and not self._closing:
            self._task.cancel()
        self.bytes.end(error)
        self.packets.end(error)
        self.decoding.fail(error)

    async def aclose(self) -> None:
        """Stop, and leave nothing behind."""
        self.fail(None)
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        await self.decoding.aclose()
        await self._subscriber.aclose()

    # What a reader begins with

    def _join_bytes(self, queue: BoundedQueue[bytes]) -> None:
        self.start()
        if self._size > _CACHE:
            self._late_bytes.append(queue)
        else:
            _begin(self.bytes, queue, self._chunks)

    def _join_packets(self, queue: BoundedQueue[Packet]) -> None:
        self.start()
        if self._size > _CACHE and not self._packets:
            self._late_packets.append(queue)
        else:
            _begin(self.packets, queue, self._packets)

    def _cached(self) -> list[Packet]:
        self.start()
        return self._packets

    def _present(self) -> Collection[str]:
        return {stream.kind for stream in self._demuxer.streams.values()}

    # The subscription

    async def _run(self) -> None:
        error: LivepeerError | None = None
        try:
            try:
                async for segment in self._subscriber:
                    self._begin_segment(segment)
                    await segment.deliver(self._take)
                    if segment.truncated:
                        self._demuxer.discontinuity()
            except LivepeerError as failed:
                _logger.debug("reading %s ended: %s", self._subscriber.url, failed)
                error = failed if self.explain is None else await self.explain(failed)
            await self._pass_on(self._demuxer.flush())
            if error is None:
                self._check_hope(0)
        except Exception as failed:
            error = MediaError(f"Reading {self._subscriber.url} failed: {failed!r}.")
            error.__cause__ = failed
        finally:
            self.ended = self._closing = True
            self.error = self.error or error
            self.bytes.end(error)
            self.packets.end(error)
            self.decoding.end(error)
            self._demuxer.close()
            await self._subscriber.aclose()

    def _begin_segment(self, segment: SegmentReader) -> None:
        _logger.debug("segment %d of %s", segment.seq, self._subscriber.url)
        if self._subscriber.missed > self._missed:
            self._missed = self._subscriber.missed
            self._demuxer.discontinuity()
        self._demuxer.begin_segment()
        self._chunks, self._packets, self._size = [], [], 0
        _begin_all(self.bytes, self._late_bytes)

    async def _take(self, chunk: bytes) -> None:
        self.held_up = True  # until it is taken: whoever sees this sees it wait for a reader
        self.last_arrival_at = monotonic()
        self.bytes_in += len(chunk)
        self._size += len(chunk)
        if self._size <= _CACHE:
            self._chunks.append(chunk)
        elif self._chunks:
            self._chunks, self._packets = [], []
        if self.bytes:
            await self.bytes.put(chunk)
        await self._pass_on(self._demuxer.feed(chunk))
        self._check_hope(_HOPELESS)
        self.held_up = False

    async def _pass_on(self, packets: list[Packet]) -> None:
        for packet in packets:
            self._count(packet)
            if self.on_packet is not None:
                self.on_packet(packet)
            if self._size <= _CACHE:
                self._packets.append(packet)
            elif packet.is_keyframe and packet.kind == "video":
                _begin_all(self.packets, self._late_packets)
            if self._decodes(packet):
                await self.decoding.put(packet)
            if self.packets:
                await self.packets.put(packet)

    def _count(self, packet: Packet) -> None:
        if packet.kind == "video":
            self.frames_in += 1
        else:
            self.audio_in += 1
        time, last = packet.timestamp, self.last_timestamp
        if time is None or (packet.kind == "audio" and self.frames_in):
            return
        if last is None or time > last or time < last - _REORDERED:
            self.last_timestamp = time

    def _decodes(self, packet: Packet) -> bool:
        """Whether a packet is of the track that is decoded: of several, the first one, while it is there."""
        chosen = self._tracks.get(packet.kind)
        if chosen != packet.pid and (chosen is None or chosen not in self._demuxer.streams):
            self._tracks[packet.kind] = chosen = packet.pid
        return chosen == packet.pid

    def _check_hope(self, patience: int) -> None:
        """End the readers of packets and frames when so much came without a packet in it."""
        if self.bytes_in > patience and not self.frames_in and not self.audio_in:
            error = MediaError(
                f"What comes over {self._subscriber.url} is no MPEG-TS with video or sound, "
                "nor other media that libavformat could read."
            )
            error.__cause__ = self._demuxer.error
            self.packets.end(error)
            self.decoding.end(error)


def _begin(fan: Fan[Any], queue: BoundedQueue[Any], items: list[Any]) -> None:
    for item in items:
        queue.push(item)
    fan.attach(queue)


def _begin_all(fan: Fan[Any], queues: list[BoundedQueue[Any]]) -> None:
    for queue in queues:
        fan.attach(queue)
    queues.clear()
