"""Cutting MPEG-TS that others made into segments at which readers can join: decisions only, no I/O."""

from __future__ import annotations

from ..errors import MediaError
from .mpegts.tables import SectionReader, Stream, parse_pat, parse_pmt
from .packets import CLOCK, WRAP
from .segments import Piece

__all__ = ["StreamCutter"]

_SIZE = 188
_SYNC = 0x47
_NO_STREAM = 64 * 1024  # bytes without a packet of MPEG-TS, after which it is none
_FIRST_PID = 0x20  # those below are tables and their like
# The pieces (after a start code) that come before or with a picture at which decoding can begin.
_KEYS = {
    "h264": (0x1F, {5, 7}),
    "hevc": (0x7E, {kind << 1 for kind in (*range(16, 24), 32, 33)}),
    "mpeg2video": (0xFF, {0xB3}),
}


class StreamCutter:
    """Passes a transport stream on as it is, and begins a segment at each key frame of its video.

    A segment begins with the stream's tables; they are put in where the stream hasn't them just there. Where
    there is no video, a segment begins every `gop` seconds.
    """

    def __init__(self, gop: float) -> None:
        self.skipped: int = 0
        """Bytes left out because they belong to no packet."""
        self.undecodable: int = 0
        """Pictures left out because no segment had begun."""
        self.times: list[int] = []
        """The times of the pictures (or of the sound, where there is none) that `feed` took last: 33 bits."""
        self._gop = round(gop * CLOCK)
        self._rest = b""
        self._no_stream = 0
        self._sections = {0: SectionReader()}
        self._tables: dict[int, bytes] = {}  # the newest packets of each
        self._tables_begun: dict[int, bytes] = {}
        self._tables_size: dict[int, int] = {}  # packets
        self._programs: dict[int, dict[int, Stream]] = {}
        self._streams: dict[int, Stream] = {}
        self._video: int | None = None
        self._video_at: int | None = None
        self._open = False
        self._began_at = 0

    def feed(self, data: bytes) -> list[Piece]:
        """Take the next bytes, cut anywhere; return those of whole packets.

        Raises:
            MediaError: They are no MPEG-TS, or there is neither video nor sound in it.
        """
        buffer = self._rest + data if self._rest else bytes(data)
        self.times = []
        pieces: list[Piece] = []
        position = 0
        while len(buffer) - position >= _SIZE:
            if buffer[position] != _SYNC:
                found = self._sync(buffer, position)
                self.skipped += found - position
                self._no_stream += found - position
                position = found
                if self._no_stream > _NO_STREAM:
                    raise MediaError("This is no MPEG-TS: packets of 188 bytes would begin with 0x47.")
                continue
            syncs = buffer[position : len(buffer) - _SIZE + 1 : _SIZE]
            count = len(syncs) - len(syncs.lstrip(b"\x47"))
            self._no_stream = max(self._no_stream - count * _SIZE, 0)
            pieces += self._packets(buffer[position : position + count * _SIZE])
            position += count * _SIZE
        self._rest = buffer[position:]
        return pieces

    def _sync(self, buffer: bytes, position: int) -> int:
        """Where the next packet begins, as far as can be seen."""
        while (position := buffer.find(_SYNC, position + 1)) >= 0:
            following = buffer[position : position + 3 * _SIZE : _SIZE]
            if following.count(_SYNC) == len(following):
                return position
        return len(buffer)

    def _packets(self, data: bytes) -> list[Piece]:
        """The pieces of whole packets: one, and one more for each segment that begins in them."""
        pieces: list[Piece] = []
        begin, begins, tables = 0, False, b""
        frames, sounds, ticks = 0, 0, None
        run: set[int] = set()  # the tables just before here, and where they begin
        run_at = 0

        def end(position: int) -> None:
            if self._open and (tables or begin < position):
                pieces.append(Piece(tables + data[begin:position], begins, frames, sounds, ticks))
            elif not self._open:
                self.undecodable += frames

        for position in range(0, len(data), _SIZE):
            flags = data[position + 1]
            pid = (flags & 0x1F) << 8 | data[position + 2]
            if pid < _FIRST_PID or pid in self._sections:
                run_at = run_at if run else position
                run.add(pid)
                if pid in self._sections:
                    self._read_table(pid, data[position : position + _SIZE])
                continue
            if flags & 0x40 and pid in self._streams:
                stream = self._streams[pid]
                time, key = _look(stream, data[position : position + _SIZE])
                if self._begins(pid, stream, time, key):
                    cut = run_at if run >= set(self._sections) else position
                    end(cut)
                    self._open, self._began_at = True, time or 0
                    tables = b"" if cut < position else b"".join(self._tables.values())
                    begin, begins, frames, sounds = cut, True, 0, 0
                if stream.kind == "video":
                    frames += 1
                else:
                    sounds += 1
                if time is not None and (stream.kind == "video" or self._video is None):
                    ticks = time
                    self.times.append(time)
            run.clear()
        end(len(data))
        return pieces

    def _read_table(self, pid: int, packet: bytes) -> None:
        payload = _payload(packet)
        start = bool(packet[1] & 0x40)
        if start:
            self._tables_begun[pid] = b""
        if pid in self._tables_begun:
            self._tables_begun[pid] += packet
            length = payload[payload[0] + 2 : payload[0] + 4] if start and payload else b""
            if len(length) == 2:
                size = payload[0] + 4 + ((length[0] & 0x0F) << 8 | length[1])
                self._tables_size[pid] = -(-size // 184)
            if len(self._tables_begun[pid]) >= self._tables_size.get(pid, 1) * _SIZE:
                self._tables[pid] = self._tables_begun.pop(pid)
        for section in self._sections[pid].feed(payload, start=start):
            if pid == 0:
                wanted = parse_pat(section)
                self._sections = {0: self._sections[0]} | {
                    known: self._sections.get(known) or SectionReader() for known in wanted
                }
                self._programs = {known: found for known, found in self._programs.items() if known in wanted}
                self._tables = {known: raw for known, raw in self._tables.items() if known in self._sections}
            else:
                self._programs[pid] = parse_pmt(section)
                self._streams = {p: known for found in self._programs.values() for p, known in found.items()}
                self._video = next((p for p, known in self._streams.items() if known.kind == "video"), None)
                if not self._streams:
                    raise MediaError("This MPEG-TS has neither video nor sound that can be passed on.")

    def _begins(self, pid: int, stream: Stream, time: int | None, key: bool) -> bool:
        """Whether a segment begins with this picture or sound."""
        if pid == self._video:
            self._video_at = time
            return key and (not self._open or self._age(time) >= self._gop // 4)
        if stream.kind == "video":
            return False
        if self._video is not None:
            if self._video_at is None:
                self._video_at = time  # a picture is waited for, from now on
            quiet = time is not None and self._video_at is not None and (time - self._video_at) % WRAP
            if not quiet or not max(2 * self._gop, CLOCK) < quiet < WRAP // 2:
                return False
        return not self._open or self._age(time) >= self._gop

    def _age(self, time: int | None) -> int:
        """Ticks since the segment began; very many when the time went back."""
        return 0 if time is None else (time - self._began_at) % WRAP


def _payload(packet: bytes) -> bytes:
    control = packet[3]
    if not control & 0x10:
        return b""
    return packet[5 + packet[4] :] if control & 0x20 else packet[4:]


def _look(stream: Stream, packet: bytes) -> tuple[int | None, bool]:
    """The time (PTS, 33 bits) of the PES that begins in a packet, and whether decoding can begin with it."""
    payload = _payload(packet)
    if len(payload) < 14 or not payload.startswith(b"\x00\x00\x01"):
        return None, False
    time = None
    if payload[7] & 0x80:
        time = (payload[9] >> 1 & 7) << 30 | payload[10] << 22 | payload[11] >> 1 << 15
        time |= payload[12] << 7 | payload[13] >> 1
    key = bool(packet[3] & 0x20 and packet[4] and packet[5] & 0x40)
    return time, key or _is_key(stream.codec, payload[9 + payload[8] :])


def _is_key(codec: str, data: bytes) -> bool:
    """Whether the first bytes of a picture say that decoding can begin here, for those who don't mark it."""
    mask, kinds = _KEYS.get(codec, (0, set()))
    position = data.find(b"\x00\x00\x01")
    while kinds and 0 <= position < len(data) - 3:
        if data[position + 3] & mask in kinds:
            return True
        position = data.find(b"\x00\x00\x01", position + 3)
    return False
