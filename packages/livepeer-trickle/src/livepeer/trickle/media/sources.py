"""Publishing files: what libavformat reads, as it is where that goes, at its own pace."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import av
from av.stream import Disposition

from ..errors import MediaError
from .bitstream import Normalizer
from .inputs import CARRIED
from .packets import CLOCK, Packet

if TYPE_CHECKING:
    from .publish import MediaPublish

__all__ = ["FileReader", "why"]

_logger = logging.getLogger("livepeer.trickle")
_BATCH, _BATCH_TIME = 32, 0.01  # packets, and seconds of reading, for one way to the thread and back


class _Read(NamedTuple):
    item: Packet | av.VideoFrame | av.AudioFrame
    due: float | None
    """When to write it, in seconds of the file's time."""


class FileReader:
    """Writes a file's video and sound to a publisher.

    Args:
        publisher: Where to.
        path: A file, or a URL that libavformat reads.
        realtime: Whether each packet waits for its time.
    """

    def __init__(self, publisher: MediaPublish, path: str | os.PathLike[str], *, realtime: bool) -> None:
        self._publisher = publisher
        self._path = os.fspath(path)
        self._realtime = realtime
        self._container: Any = None
        self._normalizers: dict[int, Normalizer | None] = {}  # by the stream's index; None: transcoded
        self._packets: Iterator[Any] = iter(())
        self._shift = 0  # ticks from the file's times to the stream's
        self._last_picture = -1

    async def run(self) -> None:
        """Write it all. Raises `MediaError`, and what writing raises."""
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(1, thread_name_prefix="livepeer-file")
        began: float | None = None
        try:
            await loop.run_in_executor(executor, self._open)
            while batch := await loop.run_in_executor(executor, self._read):
                for item, due in batch:
                    if self._realtime and due is not None:
                        now = time.monotonic()
                        began = now - due if began is None else began
                        if began + due > now:
                            await asyncio.sleep(began + due - now)
                    await self._write(item)
            await self._publisher._flush()
        finally:
            executor.submit(self._close)
            executor.shutdown(wait=False)

    async def _write(self, item: Packet | av.VideoFrame | av.AudioFrame) -> None:
        if isinstance(item, Packet):
            if self._shift and item.pts is not None and item.dts is not None:
                item = replace(item, pts=item.pts + self._shift, dts=item.dts + self._shift)
            await self._publisher.write_packet(item)
            return
        ticks = None if item.time is None else round(item.time * CLOCK) + self._shift
        if isinstance(item, av.VideoFrame) and ticks is not None:
            ticks = self._last_picture = max(ticks, self._last_picture + 1)
        elif ticks is not None and ticks < 0:
            return  # the lead-in of an encoder
        await self._publisher.write_frame(item, timestamp=None if ticks is None else ticks / CLOCK)

    def _open(self) -> None:
        try:
            self._container = container = av.open(self._path)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise MediaError(f"{self._path} can't be read: {why(error)}.") from error
        pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        chosen: list[Any] = [*pictures[:1], *container.streams.audio[:1]]
        if not chosen:
            raise MediaError(f"{self._path} has neither video nor sound.")
        for stream in chosen:
            self._normalizers[stream.index] = _as_it_is(stream)
            if stream.type == "video":
                stream.thread_type = "AUTO"
        self._publisher._declare([(s, self._normalizers[s.index] is not None) for s in chosen])
        start = chosen[0].start_time
        begin = 0 if start is None else round(start * chosen[0].time_base * CLOCK)
        end = self._publisher._clock.end
        self._shift = max(0, -begin) if end is None else end - begin
        self._packets = container.demux(chosen)

    def _read(self) -> list[_Read]:
        """The next packets or frames; none at the end."""
        batch: list[_Read] = []
        until = time.monotonic() + _BATCH_TIME
        try:
            for packet in self._packets:
                batch += self._convert(packet)
                if batch and (len(batch) >= _BATCH or time.monotonic() > until):
                    break
        except (av.error.FFmpegError, OSError) as error:
            raise MediaError(f"{self._path} can't be read any further: {why(error)}.") from error
        return batch

    def _convert(self, packet: Any) -> list[_Read]:
        """What a packet gives; PyAV's last one of each stream is empty, and asks for what is held back."""
        base = packet.time_base
        due = None if packet.dts is None else float(packet.dts * base)
        normalizer = self._normalizers[packet.stream.index]
        if normalizer is not None:
            ended = packet.size == 0 and packet.dts is None
            return [_Read(item, due) for item in normalizer.convert(None if ended else packet)]
        try:
            return [_Read(frame, due) for frame in packet.decode()]
        except av.error.InvalidDataError as error:
            _logger.debug("a packet of %s at %s s can't be decoded: %s", self._path, due, error)
            self._publisher._sender.lost += 1
            return []

    def _close(self) -> None:
        self._packets = iter(())
        if self._container is not None:
            self._container.close()


def _as_it_is(stream: Any) -> Normalizer | None:
    """What converts a stream's packets, if they can go without transcoding."""
    context = stream.codec_context
    name = context.codec.canonical_name
    if name not in CARRIED or (name == "opus" and context.channels > 2):
        return None
    try:
        return Normalizer(stream, pid=0)
    except MediaError as error:
        _logger.debug("%s is transcoded: %s", name, error)
        return None


def why(error: Exception) -> str:
    """What libav says of an error, without PyAV's call."""
    return getattr(error, "strerror", None) or str(error)
