"""From the bytes of an MPEG-TS stream to encoded pictures and sound, each with its time."""

from __future__ import annotations

from ..packets import Packet
from .audio import AUDIO_CODECS, AudioFramer
from .clock import Clock
from .pes import Pes, PesAssembler
from .tables import SectionReader, Stream, pack_section, parse_pat, parse_pmt
from .ts import PLAIN, PLAIN_MASK, TSPacket, TSSplitter, parse
from .units import Framer, Unit
from .video import VIDEO_CODECS, VideoFramer

__all__ = ["Demuxer"]

_PAT_PID = 0
_NATIVE = VIDEO_CODECS | AUDIO_CODECS


class Demuxer:
    """Feed it bytes, cut anywhere; it returns the packets that they complete.

    It knows H.264, HEVC, AAC, Opus, MPEG audio and AC-3. It never raises, whatever the bytes are.
    """

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        """The streams of those codecs that the newest tables name, by PID."""
        self.unknown: dict[int, Stream] = {}
        """The other pictures and sound that they name, which are left out."""
        self._splitter = TSSplitter()
        self._tables: dict[int, SectionReader] = {_PAT_PID: SectionReader()}
        self._programmes: dict[int, dict[int, Stream]] = {}  # what each PMT says, by its PID
        self._tracks: dict[int, _Track] = {}
        self.clock: Clock = Clock()
        """What its times are unwrapped with."""
        self._lost = 0  # by tracks that are gone

    @property
    def skipped(self) -> int:
        """Bytes that belonged to no packet of a transport stream."""
        return self._splitter.skipped

    @property
    def lost(self) -> int:
        """Pictures and pieces of sound that were dropped because a part of them is missing.

        Where packets are missing it is not known what was in them: each such place counts as one.
        """
        return self._lost + sum(track.lost for track in self._tracks.values())

    def feed(self, data: bytes) -> list[Packet]:
        """Take the next bytes; return the packets whose last byte is among them."""
        packets: list[Packet] = []
        tracks = self._tracks
        for header, body in self._splitter.feed(data):
            track = tracks.get(header >> 8 & 0x1FFF)
            if track is not None:
                if header & PLAIN_MASK == PLAIN and track.assembler.extend(header & 0x0F, body):
                    continue
                ts = parse(header, body)
                if ts is not None:
                    packets += track.packets(track.assembler.feed(ts))
            elif header >> 8 & 0x1FFF in self._tables:
                ts = parse(header, body)
                if ts is not None:
                    packets += self._table(ts)
                    tracks = self._tracks
        return packets

    def flush(self) -> list[Packet]:
        """The stream is over: return what only its end could complete."""
        return [packet for track in self._tracks.values() for packet in track.flush()]

    def begin_segment(self) -> None:
        """A new segment begins, whose muxer may have been started anew, with counters from 0."""
        for track in self._tracks.values():
            track.assembler.expect_restart()

    def discontinuity(self) -> None:
        """Segments are missing here."""
        for track in self._tracks.values():
            track.assembler.skip()

    def tables(self) -> bytes:
        """The newest tables, as packets."""
        return b"".join(pack_section(pid, reader.last) for pid, reader in self._tables.items() if reader.last)

    def _table(self, ts: TSPacket) -> list[Packet]:
        """Take a packet of a table; return what streams that are no more had left."""
        packets: list[Packet] = []
        for section in self._tables[ts.pid].feed(ts.payload, start=ts.start):
            if ts.pid == _PAT_PID:
                wanted = parse_pat(section)
                for pid in [pid for pid in self._tables if pid != _PAT_PID and pid not in wanted]:
                    del self._tables[pid]
                    self._programmes.pop(pid, None)
                for pid in wanted:
                    self._tables.setdefault(pid, SectionReader())
            else:
                self._programmes[ts.pid] = parse_pmt(section)
            packets += self._change()
        return packets

    def _change(self) -> list[Packet]:
        """Follow the tables."""
        named = {pid: stream for streams in self._programmes.values() for pid, stream in streams.items()}
        self.streams = {pid: stream for pid, stream in named.items() if stream.codec in _NATIVE}
        self.unknown = {pid: stream for pid, stream in named.items() if stream.codec not in _NATIVE}
        packets: list[Packet] = []
        tracks: dict[int, _Track] = {}
        for pid, track in self._tracks.items():
            if self.streams.get(pid) == track.stream:
                tracks[pid] = track
            else:
                packets += track.flush()
                self._lost += track.lost
        for pid, stream in self.streams.items():
            tracks.setdefault(pid, _Track(pid, stream, self.clock))
        self._tracks = tracks
        return packets


class _Track:
    """What belongs to one stream."""

    def __init__(self, pid: int, stream: Stream, clock: Clock) -> None:
        self.stream = stream
        self.assembler = PesAssembler()
        self._pid = pid
        self._framer: Framer = (
            VideoFramer(stream.codec) if stream.kind == "video" else AudioFramer(stream.codec)
        )
        self._clock = clock

    @property
    def lost(self) -> int:
        return self.assembler.lost + self._framer.lost

    def packets(self, pieces: list[Pes]) -> list[Packet]:
        """What is in these pieces of the stream."""
        packets: list[Packet] = []
        for pes in pieces:
            dts = self._clock.unwrap(pes.dts)
            pts = dts if pes.pts == pes.dts else self._clock.unwrap(pes.pts)
            units = self._framer.feed(
                pes.data, pts, dts, random_access=pes.random_access, discontinuity=pes.discontinuity
            )
            packets += [self._packet(unit) for unit in units]
        return packets

    def flush(self) -> list[Packet]:
        """What is left."""
        return self.packets(self.assembler.flush()) + [self._packet(unit) for unit in self._framer.flush()]

    def _packet(self, unit: Unit) -> Packet:
        codec, data, pts, dts, is_keyframe, discontinuity = unit
        return Packet(self.stream.kind, codec, data, pts, dts, is_keyframe, discontinuity, self._pid)
