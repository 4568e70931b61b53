"""libavformat as a demuxer that is fed: for every container and codec that our own demuxer doesn't know.

libavformat asks for bytes and waits for them, so it has a thread. `FallbackDemuxer.feed` gives it the bytes,
and waits in turn until it has taken all of them and asks for more: then every packet that it made of them is
there. The two never run at the same time, and whoever feeds needs no locks.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import av

from ...errors import MediaError
from ..bitstream import Normalizer
from ..packets import WRAP, Packet
from .clock import Clock
from .tables import Stream

__all__ = ["FallbackDemuxer"]

_logger = logging.getLogger("livepeer.trickle")
_BUFFER = 256 * 1024  # bytes that libavformat takes at once
_OPTIONS = {
    "analyzeduration": "500000",  # microseconds
    "fpsprobesize": "0",
    "probesize": "1000000",
}


class FallbackDemuxer:
    """Reads whatever libavformat reads, with its delay: it may look at half a second before the first packet.

    Streams that appear later than that are left out, as PyAV doesn't bring them.

    It is fed by one thread at a time. Its own thread ends with `flush` or `close`, or when it is collected.

    Args:
        format: What libavformat calls the container; it looks for itself when absent.
        wanted: Which streams of MPEG-TS to bring, by PID; all when absent.
        clock: What times of MPEG-TS are unwrapped with, to be those of another demuxer.
    """

    def __init__(
        self,
        format: str | None = None,
        *,
        wanted: Callable[[int], bool] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._pipe = _Pipe()
        self._reading = _Reading(self._pipe, format, wanted, clock)
        self._thread = threading.Thread(target=self._reading.run, name="livepeer-libavformat", daemon=True)
        self._thread.start()

    @property
    def error(self) -> MediaError | None:
        """Why libavformat gave up; None while it hasn't."""
        return self._reading.error

    @property
    def streams(self) -> dict[int, Stream]:
        """The pictures and sound that it brings, by `Packet.pid`."""
        return self._reading.streams

    @property
    def lost(self) -> int:
        """Packets that came broken, or of which no others can be made."""
        return self._reading.lost

    @property
    def done(self) -> bool:
        """Whether it takes nothing more: it gave up, or was flushed or closed."""
        return self._pipe.done

    def feed(self, data: bytes) -> list[Packet]:
        """Take the next bytes; return the packets that libavformat has made by now."""
        self._pipe.write(data)
        return self._reading.take()

    def flush(self) -> list[Packet]:
        """The stream is over: return what was held back."""
        self.close()
        return self._reading.take()

    def discontinuity(self) -> None:
        """Something is missing here: the next packet of each stream says so."""
        self._reading.gaps += 1

    def close(self) -> None:
        """End the thread. Nothing more comes."""
        self._pipe.end()
        self._thread.join()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # of a constructor that failed
            self._pipe.end(wait=False)


class _Pipe:
    """A file of bytes to come, for a reader that blocks; the writer waits for it."""

    def __init__(self) -> None:
        self.done = False  # the reader reads no more
        self._changed = threading.Condition()
        self._data = memoryview(b"")
        self._ended = False
        self._hungry = False  # the reader waits for data

    def read(self, size: int) -> bytes:
        """Called by libavformat: some bytes, or none at the end."""
        with self._changed:
            while not self._data and not self._ended:
                self._hungry = True
                self._changed.notify_all()
                self._changed.wait()
            self._hungry = False
            data, self._data = self._data[:size], self._data[size:]
        return bytes(data)

    def write(self, data: bytes) -> None:
        """Give bytes, and wait until they are taken and more is asked for."""
        with self._changed:
            if data and not self.done and not self._ended:
                self._data = memoryview(data)
                self._hungry = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self.done or self._hungry)

    def end(self, *, wait: bool = True) -> None:
        """Nothing more comes."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            if wait:
                self._changed.wait_for(lambda: self.done)

    def abandon(self) -> None:
        """The reader reads no more."""
        with self._changed:
            self.done = True
            self._changed.notify_all()


class _Reading:
    """What runs in the thread. It knows nothing of the demuxer, which can so be collected."""

    def __init__(
        self, pipe: _Pipe, format: str | None, wanted: Callable[[int], bool] | None, clock: Clock | None
    ) -> None:
        self.error: MediaError | None = None
        self.streams: dict[int, Stream] = {}
        self.lost = 0
        self.gaps = 0
        self._pipe = pipe
        self._format = format
        self._wanted = wanted
        self._clock = clock
        self._packets: list[Packet] = []
        self._normalizers: dict[int, Normalizer] = {}
        self._told: dict[int, int] = {}  # of how many gaps each stream's packets have told

    def take(self) -> list[Packet]:
        packets, self._packets = self._packets, []
        return packets

    def run(self) -> None:
        try:
            container: Any
            with av.open(
                self._pipe, format=self._format, options=dict(_OPTIONS), buffer_size=_BUFFER
            ) as container:
                is_ts = container.format.name == "mpegts"
                for packet in container.demux():
                    if packet.stream.type in ("video", "audio"):
                        self._convert(packet, is_ts)
        except (av.error.FFmpegError, ValueError, IndexError) as error:
            _logger.debug("libavformat gave up: %s", error)
            self.error = MediaError(f"What comes is no media that can be read: {error}.")
        finally:
            self._pipe.abandon()

    def _convert(self, raw: Any, is_ts: bool) -> None:
        stream = raw.stream
        if not raw.size or (is_ts and self._wanted is not None and not self._wanted(stream.id)):
            return
        if raw.is_corrupt:
            self.lost += 1
            self._told[stream.index] = -1
            return
        try:
            normalizer = self._normalizers.get(stream.index)
            if normalizer is None:
                normalizer = Normalizer(stream, pid=stream.id if is_ts else None)
                self._normalizers[stream.index] = normalizer
                self.streams = self.streams | {normalizer.pid: Stream(stream.type, normalizer.codec)}
            packets = normalizer.convert(raw)
        except MediaError as error:
            _logger.debug("a packet was left out: %s", error)
            self.lost += 1
            return
        for packet in packets:
            broken = self._told.get(stream.index, self.gaps) != self.gaps
            self._told[stream.index] = self.gaps
            pts, dts = packet.pts, packet.dts
            if is_ts and self._clock is not None:
                dts = self._clock.unwrap(None if dts is None else dts % WRAP)
                pts = self._clock.unwrap(None if pts is None else pts % WRAP)
            self._packets.append(replace(packet, pts=pts, dts=dts, discontinuity=broken))
