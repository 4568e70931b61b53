"""From the bytes of an MPEG-TS stream to encoded pictures and sound, each with its time."""

from __future__ import annotations

from ..packets import WRAP, Packet
from .pes import Pes, PesAssembler
from .tables import SectionReader, Stream, parse_pat, parse_pmt
from .ts import TSPacket, TSSplitter

__all__ = ["Demuxer"]

_PAT_PID = 0


class Demuxer:
    """Feed it bytes, cut anywhere; it returns the packets that they complete."""

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        """What the newest tables name, by PID."""
        self._splitter = TSSplitter()
        self._tables: dict[int, SectionReader] = {_PAT_PID: SectionReader()}
        self._assemblers: dict[int, PesAssembler] = {}
        self._last_time: int | None = None
        self._discontinuity = False

    @property
    def skipped(self) -> int:
        """Bytes that belonged to no packet of a transport stream."""
        return self._splitter.skipped

    @property
    def lost(self) -> int:
        """PES packets that were dropped because a part of them is missing."""
        return sum(assembler.lost for assembler in self._assemblers.values())

    def feed(self, data: bytes) -> list[Packet]:
        """Take the next bytes; return the packets whose last byte is among them."""
        packets: list[Packet] = []
        for ts in self._splitter.feed(data):
            assembler = self._assemblers.get(ts.pid)
            if assembler is not None:
                for pes in assembler.feed(ts):
                    packets.append(self._packet(ts.pid, pes))
            elif ts.pid in self._tables:
                self._table(ts)
        return packets

    def flush(self) -> list[Packet]:
        """The stream is over: return what only its end could complete."""
        return [
            self._packet(pid, pes) for pid, assembler in self._assemblers.items() for pes in assembler.flush()
        ]

    def begin_segment(self) -> None:
        """A new segment begins, whose muxer may have been started anew: its counters say nothing."""
        for assembler in self._assemblers.values():
            assembler.expect_restart()

    def discontinuity(self) -> None:
        """Segments are missing here."""
        for assembler in self._assemblers.values():
            assembler.drop()
            assembler.expect_restart()

    def _table(self, ts: TSPacket) -> None:
        for section in self._tables[ts.pid].feed(ts.payload, start=ts.start):
            if ts.pid == _PAT_PID:
                wanted = parse_pat(section)
                for pid in [pid for pid in self._tables if pid != _PAT_PID and pid not in wanted]:
                    del self._tables[pid]
                for pid in wanted:
                    self._tables.setdefault(pid, SectionReader())
            else:
                self.streams = parse_pmt(section)
                self._assemblers = {pid: self._assemblers.get(pid) or PesAssembler() for pid in self.streams}

    def _packet(self, pid: int, pes: Pes) -> Packet:
        stream = self.streams[pid]
        is_keyframe = stream.kind == "audio" or pes.random_access or _is_keyframe(stream.codec, pes.data)
        dts = self._unwrap(pes.dts)
        pts = dts if pes.pts == pes.dts else self._unwrap(pes.pts)
        return Packet(stream.kind, stream.codec, pes.data, pts, dts, is_keyframe, pes.discontinuity, pid)

    def _unwrap(self, time: int | None) -> int | None:
        """The time counted on over the wrap of its 33 bits: the value nearest to the one before."""
        if time is None:
            return None
        if self._last_time is not None:
            half = WRAP // 2
            time = self._last_time + (time - self._last_time + half) % WRAP - half
        self._last_time = time
        return time


def _is_keyframe(codec: str, data: bytes) -> bool:
    """Whether an access unit's first slice is one at which decoding can begin."""
    if codec not in ("h264", "hevc"):
        return False
    position = data.find(b"\x00\x00\x01")
    while 0 <= position < len(data) - 3:
        header = data[position + 3]
        if codec == "h264":
            kind = header & 0x1F
            if 1 <= kind <= 5:
                return kind == 5
        else:
            kind = header >> 1 & 0x3F
            if kind < 32:
                return 16 <= kind <= 23
        position = data.find(b"\x00\x00\x01", position + 3)
    return False
