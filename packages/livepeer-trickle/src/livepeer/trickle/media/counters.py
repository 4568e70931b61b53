"""What a publisher has done so far."""

from __future__ import annotations

from .production import Production
from .ts_segments import StreamCutter

__all__ = ["Counters"]


class Counters:
    """The counters of a publisher, which change as its frames are given to the connection."""

    def __init__(self, production: Production, stream_cutter: StreamCutter) -> None:
        self._production = production
        self._stream_cutter = stream_cutter
        self._refused = 0

    @property
    def frames(self) -> int:
        """Pictures given to the connection so far."""
        return self._production.sender.frames

    @property
    def audio_frames(self) -> int:
        """Encoded frames of sound given to the connection so far (of 1024 samples for AAC)."""
        return self._production.sender.audio_frames

    @property
    def bytes(self) -> int:
        """Bytes of the stream given to the connection so far."""
        return self._production.sender.bytes

    @property
    def dropped(self) -> int:
        """Frames that found the queue full and were dropped."""
        return self._production.queue.dropped + self._refused

    @property
    def lost(self) -> int:
        """Frames, of sound too, of segments that were lost because the connection broke.

        Packets of pictures that were written before the first key frame count too: nobody can decode them.
        """
        undecodable = self._production.cutter.undecodable + self._stream_cutter.undecodable
        return self._production.sender.lost + undecodable

    @property
    def queued(self) -> int:
        """Frames that wait for the encoder."""
        return len(self._production.queue)

    @property
    def last_timestamp(self) -> float | None:
        """The time of the picture written last (by `frames`), in seconds, as its reader will see it.

        That of the last sound where there are no pictures.
        """
        return self._production.sender.last_timestamp

    @property
    def last_written_at(self) -> float | None:
        """The `time.monotonic` at which bytes were last given to the connection."""
        return self._production.sender.last_written_at

    def written_at(self, ticks: int) -> float | None:
        """The `time.monotonic` of the call that wrote the frame of this time; None when it isn't known.

        Args:
            ticks: The frame's time in the stream, in ticks of 1/90000 s (`Packet.pts`).
        """
        return self._production.written_at(ticks)
