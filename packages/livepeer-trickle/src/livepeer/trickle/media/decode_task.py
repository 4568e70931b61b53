"""Decoding for the readers of frames: packets in, in order; frames out, to each reader those of its kind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeAlias

from ..errors import LivepeerError, MediaError
from .decoding import Decoder, decode_all
from .frames import AudioFrame, VideoFrame
from .interleaving import Interleaver
from .joining import Join, Kind, MediaFrame, begin, new_decoder
from .packets import CLOCK, Packet
from .queues import BoundedQueue
from .readers import Fan
from .worker import Worker

__all__ = ["DecodeTask"]

_Item: TypeAlias = Packet | Join

_BACKLOG = 16 * 1024 * 1024  # bytes of packets that may wait
_LATE = CLOCK  # ticks of video that may wait for the decoder when its readers want the newest
_BUSY = 1.0  # seconds for which something waits, after which the decoder is too slow for them
_BATCH = 8  # packets that are decoded in one go
_CHEAP = 0.001  # seconds of CPU; handing a packet to a thread costs a good part of that
_DECODED = 32 * 1024 * 1024  # bytes of pictures that may come of one go


class DecodeTask:
    """One task with one worker thread, which decode what somebody reads, and nothing when nobody does.

    Where a packet takes less than a millisecond, it is decoded at once, on the event loop.

    Args:
        cached: Returns the packets of the present segment that have come so far.
        present: Returns the kinds of the tracks that the stream has now.
    """

    def __init__(
        self, cached: Callable[[], Iterable[Packet]], present: Callable[[], Collection[str]]
    ) -> None:
        self.fans: dict[Kind, Fan[Any]] = {
            "video": Fan(lambda queue: self._join("video", queue)),
            "audio": Fan(lambda queue: self._join("audio", queue)),
            "all": Fan(lambda queue: self._join("all", queue)),
        }
        self.on_frame: Callable[[MediaFrame], None] | None = None
        self.skipped: int = 0
        """Pictures that were not decoded because the decoder was too slow for readers of the newest."""
        self._cached = cached
        self._present = present
        self._queue: BoundedQueue[_Item] = BoundedQueue(_BACKLOG, weigh=_weight)
        self._busy_since = 0.0  # since when something waits
        self._missed = {"video", "audio"}  # kinds whose packets were not queued since somebody read them
        self._decoders: dict[str, Decoder] = {}
        self._errors = 0  # of decoders that are gone
        self._newest: dict[str, float] = {}  # the time of the last frame, by kind
        self._interleaver = Interleaver()
        self._batch = _BATCH
        self._cost: float | None = None  # seconds of CPU that a packet takes
        self._idle = False  # the task waits for something to decode
        self._worker = Worker("livepeer-decode")
        self._task: asyncio.Task[None] | None = None

    @property
    def undecoded(self) -> int:
        """Packets that no frame could be made of."""
        return self._errors + sum(decoder.errors for decoder in self._decoders.values())

    @property
    def dropped(self) -> int:
        """Decoded frames that slow readers skipped."""
        return sum(fan.dropped for fan in self.fans.values())

    @property
    def done(self) -> bool:
        """Whether nothing is left to decode."""
        return self._task is None or self._task.done()

    async def put(self, packet: Packet) -> None:
        """Take the next packet of the tracks that are decoded; waits when readers who want all are slow."""
        if not self._wanted(packet.kind):
            self._missed.add(packet.kind)
            return
        if self._goes_at_once(packet):
            self._decode_at_once(packet)
            return
        if not self._queue:
            self._busy_since = time.monotonic()
        elif packet.is_keyframe and packet.kind == "video":
            self._catch_up(packet)
        if not self._queue.try_put(packet):
            await self._queue.put(packet)

    def end(self, error: LivepeerError | None = None) -> None:
        """No packets come any more: readers end after what is on its way to them."""
        self._queue.end(error)
        if self._task is None:
            self._end_readers(error)

    def fail(self, error: LivepeerError | None) -> None:
        """End every reader now, after the frames that it has already."""
        if self._task is not None:
            self._task.cancel()
        self._end_readers(error)

    async def aclose(self) -> None:
        """Stop; what is decoded already can still be read."""
        self.fail(None)
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        await self._worker.aclose()

    # What is to be decoded

    def _wanted(self, kind: str) -> bool:
        return bool(self.fans["all"] or self.fans["audio" if kind == "audio" else "video"])

    def _catch_up(self, key: Packet) -> None:
        """A decoder that is too slow goes on with this key frame, when nobody wants every frame."""
        if time.monotonic() - self._busy_since < _BUSY:
            return  # much came at once
        first = next((item for item in self._queue if _is_video(item)), None)
        if not isinstance(first, Packet) or first.dts is None or key.dts is None:
            return
        if abs(key.dts - first.dts) > _LATE and not any(fan.lossless for fan in self.fans.values()):
            self.skipped += self._queue.forget(_is_video)

    def _join(self, kind: Kind, queue: BoundedQueue[Any]) -> None:
        """A reader asks for its first frame."""
        kinds = {"video", "audio"} if kind == "all" else {kind}
        anew = frozenset(kinds & self._missed)
        self._missed -= kinds
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="livepeer-decode")
        packets = [packet for packet in self._cached() if packet.kind in kinds]
        self._queue.push(Join(kind, queue, packets, anew))

    # The task

    async def _run(self) -> None:
        error: LivepeerError | None = None
        try:
            try:
                while items := await self._next_items():
                    await self._take(items)
            except LivepeerError as failed:
                error = failed
            for kind in tuple(self._decoders):
                await self._retire(kind)
            for frame in self._interleaver.drain():
                await self._give(frame)
        except Exception as failed:
            error = MediaError(f"Decoding failed: {failed!r}.")
            error.__cause__ = failed
        finally:
            self._worker.close()
            self._queue.discard()
            self._end_readers(error)

    async def _next_items(self) -> list[_Item]:
        """What is next to decode; meanwhile frames that waited long enough for the other track go out."""
        while (deadline := self._interleaver.deadline()) is not None:
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._queue.take_batch(self._batch)
            except TimeoutError:
                await self._release()
        self._idle = True
        try:
            return await self._queue.take_batch(self._batch)
        finally:
            self._idle = False

    async def _take(self, items: list[_Item]) -> None:
        packets: list[Packet] = []
        for item in items:
            if isinstance(item, Packet):
                packets.append(item)
            else:
                await self._decode(packets)
                packets = []
                await self._admit(item)
        await self._decode(packets)

    async def _decode(self, packets: list[Packet]) -> None:
        wanted = []
        for packet in packets:
            if self._wanted(packet.kind):
                self._decoders.setdefault(packet.kind, new_decoder(packet.kind))
                wanted.append(packet)
            else:
                self._missed.add(packet.kind)
        if wanted:
            for frame in await self._worker.submit(self._work, wanted):
                await self._hand_out(frame)

    def _work(self, packets: list[Packet]) -> list[MediaFrame]:
        began = time.thread_time()
        frames = decode_all(self._decoders, packets)
        took = (time.thread_time() - began) / len(packets)
        self._cost = took if self._cost is None else self._cost + (took - self._cost) / 8
        return frames

    def _goes_at_once(self, packet: Packet) -> bool:
        """Whether a packet is decoded on the loop: it is cheap, and neither task nor reader is behind."""
        return (
            self._idle
            and self._cost is not None
            and self._cost < _CHEAP
            and not self._queue
            and packet.kind in self._decoders
            and not self.fans["all"]
            and self.fans["audio" if packet.kind == "audio" else "video"].has_room
        )

    def _decode_at_once(self, packet: Packet) -> None:
        try:
            frames = self._work([packet])
        except LivepeerError as error:
            self._queue.end(error)  # which the task tells the readers
            return
        for frame in frames:
            kind = self._note(frame)
            self._report(frame)
            self.fans[kind].push(frame)

    async def _admit(self, join: Join) -> None:
        for kind in join.anew:
            await self._retire(kind)
        merge = None
        if join.kind == "all" and not self.fans["all"].attached:
            merge = self._interleaver = Interleaver()
        wants = await begin(
            join,
            self._decoders,
            self._worker,
            batch=self._batch,
            merge=merge,
            newest=self._newest,
            report=self._report,
        )
        self.fans[join.kind].attach(join.queue, wants)

    async def _retire(self, kind: str) -> None:
        decoder = self._decoders.get(kind)
        if decoder is not None:
            frames = await self._worker.submit(decoder.flush)
            self._errors += decoder.errors
            del self._decoders[kind]
            for frame in frames:
                await self._hand_out(frame)

    # To the readers

    async def _hand_out(self, frame: MediaFrame) -> None:
        kind = self._note(frame)
        if self.fans[kind]:
            self._report(frame)
            await self.fans[kind].put(frame)
        if self.fans["all"].attached:
            for earlier in self._interleaver.push(frame, asyncio.get_running_loop().time()):
                await self._give(earlier)
            await self._release()

    def _note(self, frame: MediaFrame) -> Kind:
        kind: Kind = "audio" if isinstance(frame, AudioFrame) else "video"
        if isinstance(frame, VideoFrame):
            self._batch = max(1, min(_BATCH, _DECODED // (frame.width * frame.height * 3 // 2)))
        if frame.timestamp is not None:
            self._newest[kind] = frame.timestamp
        return kind

    async def _release(self) -> None:
        for frame in self._interleaver.ready(asyncio.get_running_loop().time(), self._present()):
            await self._give(frame)

    async def _give(self, frame: MediaFrame) -> None:
        """Hand a frame to those who read pictures and sound together."""
        if not self.fans["audio" if isinstance(frame, AudioFrame) else "video"]:
            self._report(frame)  # the others had it already
        await self.fans["all"].put(frame)

    def _report(self, frame: MediaFrame) -> None:
        if self.on_frame is not None:
            self.on_frame(frame)

    def _end_readers(self, error: Exception | None) -> None:
        for fan in self.fans.values():
            fan.end(error)


def _weight(item: _Item) -> int:
    return len(item.data) if isinstance(item, Packet) else 0


def _is_video(item: _Item) -> bool:
    return isinstance(item, Packet) and item.kind == "video"
