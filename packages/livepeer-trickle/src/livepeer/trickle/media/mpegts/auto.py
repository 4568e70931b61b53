"""One demuxer for whatever comes: our own for MPEG-TS, libavformat for the rest."""

from __future__ import annotations

from ...errors import MediaError
from ..packets import Packet
from .containers import SHORTEST, Container, container_of
from .demuxer import Demuxer
from .fallback import FallbackDemuxer
from .tables import Stream

__all__ = ["AutoDemuxer"]

_ENOUGH = 64 * 1024  # bytes of nothing known, after which libavformat shall look
_NO_TABLES = 512 * 1024  # bytes of MPEG-TS without a table, after which it shall


class AutoDemuxer:
    """Feed it bytes of any container, cut anywhere; it returns the packets that they complete.

    The interface is that of `Demuxer`, and so is what it does with MPEG-TS of H.264, HEVC, AAC, Opus, MPEG
    audio and AC-3: packets are out with their last byte. Streams of other codecs beside them, and other
    containers, are read by libavformat, with its delay; their packets may bring `extradata` for the decoder.
    Each segment may be of another container. It never raises: `error` says that what comes is no media.

    `feed` and `flush` are called by one thread at a time, which may be the event loop's: they wait for nobody
    but libavformat at work. Call `close` at the end; else libavformat's thread lives until this is collected.
    """

    def __init__(self) -> None:
        self._demuxer = Demuxer()
        self._container: Container | None = None
        self._other: FallbackDemuxer | None = None  # for another container
        self._beside: FallbackDemuxer | None = None  # for the streams of MPEG-TS that our own leaves out
        self._unknown: dict[int, Stream] = {}  # those
        self._looking = True  # at the first bytes, of the stream or of a segment
        self._look_at = SHORTEST  # bytes; so that a long search costs little
        self._head = b""
        self._before_tables: bytearray | None = bytearray()  # MPEG-TS until its tables are there
        self._error: MediaError | None = None
        self._lost = 0  # by those that are gone

    @property
    def error(self) -> MediaError | None:
        """Why nothing can come of these bytes; None while something may."""
        return self._other.error if self._other is not None else self._error

    @property
    def streams(self) -> dict[int, Stream]:
        """The pictures and sound that come, by `Packet.pid`."""
        if self._other is not None:
            return self._other.streams
        return self._demuxer.streams | (self._beside.streams if self._beside is not None else {})

    @property
    def skipped(self) -> int:
        """Bytes of MPEG-TS that belonged to no packet."""
        return self._demuxer.skipped

    @property
    def lost(self) -> int:
        """Pictures and pieces of sound that were dropped because a part of them is missing, at least."""
        there = [demuxer.lost for demuxer in (self._other, self._beside) if demuxer is not None]
        return self._lost + self._demuxer.lost + sum(there)

    def feed(self, data: bytes) -> list[Packet]:
        """Take the next bytes; return the packets that are complete by now."""
        if not self._looking:
            return self._read(data)
        self._head += data
        if len(self._head) < self._look_at:
            return []
        found = container_of(self._head)
        if found is None:
            found = self._container  # what was there before goes on, or comes again after rubbish
        if found is None:
            if len(self._head) < _ENOUGH:
                self._look_at = max(2 * len(self._head), 1024)
                return []
            found = Container("", native=False, is_begin=True)
        return self._begin(found)

    def flush(self) -> list[Packet]:
        """The stream is over: return what only its end could complete. Another one may follow."""
        packets: list[Packet] = []
        if self._head:
            packets += self._begin(self._container or Container("", native=False, is_begin=True))
        self._looking, self._look_at = True, SHORTEST
        return packets + self._demuxer.flush() + self._end_beside() + self._end_other()

    def begin_segment(self) -> None:
        """A new segment begins: with counters of its own, perhaps as another container."""
        self._demuxer.begin_segment()
        self._looking, self._look_at = True, SHORTEST

    def discontinuity(self) -> None:
        """Segments are missing here."""
        for demuxer in (self._demuxer, self._beside, self._other):
            if demuxer is not None:
                demuxer.discontinuity()

    def close(self) -> None:
        """End what runs; what was not flushed is dropped."""
        for demuxer in (self._beside, self._other):
            if demuxer is not None:
                demuxer.close()

    def _begin(self, found: Container) -> list[Packet]:
        """Go on with this container, and with the bytes that were looked at."""
        packets: list[Packet] = []
        before = self._container
        changes = before is None or (found.format, found.native) != (before.format, before.native)
        if changes or found.is_begin or (self._other is not None and self._other.done):
            packets += self._demuxer.flush() + self._end_beside() + self._end_other()
            self._error = None
            if not found.native:
                self._other = FallbackDemuxer(found.format or None)
        data, self._head = self._head, b""
        self._container, self._looking = found, False
        return packets + self._read(data)

    def _read(self, data: bytes) -> list[Packet]:
        if self._other is not None:
            return self._other.feed(data)
        packets = self._demuxer.feed(data)
        if self._demuxer.unknown or self._beside is not None:
            packets += self._read_beside(data)
        if self._before_tables is not None:
            packets += self._wait_for_tables(data)
        return packets

    def _read_beside(self, data: bytes) -> list[Packet]:
        """The streams of other codecs, as long as there are any."""
        packets: list[Packet] = []
        if self._demuxer.unknown != self._unknown:
            # PyAV brings no streams that weren't there at the begin: with other ones it has to begin anew.
            packets += self._end_beside()
            self._unknown = self._demuxer.unknown
        if not self._unknown:
            return packets
        if self._beside is None:
            wanted, clock = self._unknown.__contains__, self._demuxer.clock
            self._beside = FallbackDemuxer("mpegts", wanted=wanted, clock=clock)
            data = self._demuxer.tables() + data
        return packets + self._beside.feed(data)

    def _wait_for_tables(self, data: bytes) -> list[Packet]:
        """Without tables nothing can come; libavformat can guess."""
        assert self._before_tables is not None
        self._before_tables += data
        if self._demuxer.streams or self._demuxer.unknown:
            self._before_tables = None
        elif len(self._before_tables) > _NO_TABLES:
            self._head, self._before_tables = bytes(self._before_tables), None
            return self._begin(Container("mpegts", native=False, is_begin=True))
        return []

    def _end_other(self) -> list[Packet]:
        demuxer, self._other = self._other, None
        packets = self._ended(demuxer)
        if demuxer is not None:
            self._error = demuxer.error
        return packets

    def _end_beside(self) -> list[Packet]:
        demuxer, self._beside = self._beside, None
        return self._ended(demuxer)

    def _ended(self, demuxer: FallbackDemuxer | None) -> list[Packet]:
        if demuxer is None:
            return []
        packets = demuxer.flush()
        self._lost += demuxer.lost
        return packets
