"""Writing MPEG-TS without I/O: encoded pictures and sound in, bytes out at once.

libavformat's muxer holds packets back until every stream has some; this one never does. A PES says its length
wherever the field can hold it, and one of a larger picture ends with stuffing, so that a reader needn't wait
for the next picture to know that this one is complete.

Source: ISO/IEC 13818-1; for Opus, Xiph's draft OpusTS, as libavformat writes and reads it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from ...errors import MediaError
from ..packets import WRAP
from .tables import build_pat, build_pmt, pack_section
from .ts import PACKET_SIZE

__all__ = ["Muxer"]

_ROOM = PACKET_SIZE - 4  # bytes of a packet after its header
_PMT_PID, _FIRST_PID = 0x1000, 0x100
_MAX_STREAMS = 64  # so that the table stays below the 1 KiB that it may have
_MAX_LENGTH = 0xFFFF  # what a PES can say about its own length
_RANDOM_ACCESS, _DISCONTINUITY, _HAS_PCR = 0x40, 0x80, 0x10


class _Codec(NamedTuple):
    kind: Literal["video", "audio"]
    stream_type: int
    stream_id: int
    delimiter: bytes = b""  # the access unit delimiter, which MPEG-TS demands
    descriptors: bytes = b""


_CODECS = {
    "h264": _Codec("video", 0x1B, 0xE0, b"\x00\x00\x00\x01\x09\xf0"),
    "hevc": _Codec("video", 0x24, 0xE0, b"\x00\x00\x00\x01\x46\x01\x50", b"\x05\x04HEVC"),
    "aac": _Codec("audio", 0x0F, 0xC0),
    "mp3": _Codec("audio", 0x03, 0xC0),
    "ac3": _Codec("audio", 0x81, 0xBD, descriptors=b"\x05\x04AC-3"),
    "opus": _Codec("audio", 0x06, 0xBD, descriptors=b"\x05\x04Opus"),
}


class Muxer:
    """Puts access units into packets of 188 bytes. Write `tables` before the first one."""

    def __init__(self) -> None:
        self._streams: dict[int, _Stream] = {}
        self._tables = (_Stream(0, None), _Stream(_PMT_PID, None))
        self._version = 0
        self._version_is_out = False
        self._next_pid = _FIRST_PID

    def add_stream(self, kind: Literal["video", "audio"], codec: str, *, channels: int = 2) -> int:
        """Add a stream; `tables` has to be written again before its first access unit.

        Args:
            kind: What it is.
            codec: ``"h264"``, ``"hevc"``, ``"aac"``, ``"opus"``, ``"mp3"`` or ``"ac3"``.
            channels: The number of channels, which the tables say for Opus only.

        Returns:
            Its PID, which no stream of this muxer had before.

        Raises:
            MediaError: There is no such codec of this kind, or Opus with more than 8 channels, or there are
                too many streams.
        """
        known = _CODECS.get(codec)
        if known is None or known.kind != kind:
            names = ", ".join(name for name, entry in _CODECS.items() if entry.kind == kind)
            raise MediaError(f"MPEG-TS is not made here with {codec!r} as {kind}; it can be: {names}.")
        descriptors = known.descriptors
        if codec == "opus":
            if not 1 <= channels <= 8:
                raise MediaError(f"Opus with {channels} channels can't be; MPEG-TS has 1 to 8.")
            descriptors += bytes((0x7F, 2, 0x80, channels))
        pid = self._next_pid
        if pid == _PMT_PID or len(self._streams) == _MAX_STREAMS:
            raise MediaError(
                f"No further stream fits in: {len(self._streams)} are there (at most {_MAX_STREAMS}), and "
                f"{pid - _FIRST_PID} were (at most {_PMT_PID - _FIRST_PID}); use another muxer."
            )
        self._next_pid += 1
        self._streams[pid] = _Stream(pid, known._replace(descriptors=descriptors))
        self._change()
        return pid

    def remove_stream(self, pid: int) -> None:
        """Remove a stream from the tables. Raises `MediaError` when there is no such one."""
        self._stream(pid)
        del self._streams[pid]
        self._change()

    def tables(self) -> bytes:
        """What says which streams there are: for the begin of each segment, and after each change."""
        self._version_is_out = True
        streams = [
            (pid, stream.codec.stream_type, stream.codec.descriptors)
            for pid, stream in self._streams.items()
            if stream.codec is not None
        ]
        clock = next(iter(self._streams), 0x1FFF)  # the PID with the PCR; this one says that there is none
        pat, pmt = build_pat(_PMT_PID), build_pmt(streams, clock=clock, version=self._version)
        return self._tables[0].section(pat) + self._tables[1].section(pmt)

    def write(
        self,
        pid: int,
        data: bytes,
        *,
        pts: int,
        dts: int | None = None,
        is_keyframe: bool = False,
        discontinuity: bool = False,
    ) -> bytes:
        """Write one access unit.

        Args:
            pid: Its stream.
            data: The bytes: Annex B for H.264 and HEVC, ADTS for AAC, one packet of Opus.
            pts: When to show it, in ticks of 1/90000 s, of any size: it is written modulo 2**33.
            dts: When to decode it, likewise; as `pts` when absent.
            is_keyframe: Whether decoding can begin here.
            discontinuity: Whether something before it is missing, or its times don't go on from there.

        Returns:
            The bytes of the stream, always whole packets.

        Raises:
            MediaError: There is no such stream, no data, or more sound than one PES can hold.
        """
        stream = self._stream(pid)
        if not data:
            raise MediaError("An access unit without a byte can't be written.")
        assert stream.codec is not None
        delimiter = stream.codec.delimiter
        if delimiter and not _has_delimiter(data, delimiter):
            data = delimiter + data
        elif stream.codec.stream_type == 0x06:
            data = _opus_header(len(data)) + data
        decode = pts if dts is None else dts
        flags, clock = (_RANDOM_ACCESS if is_keyframe else 0) | (_DISCONTINUITY if discontinuity else 0), b""
        if pid == next(iter(self._streams)):
            flags |= _HAS_PCR
            clock = (decode % WRAP << 15 | 0x7E00).to_bytes(6, "big")
        fields = bytes((flags,)) + clock if flags else b""
        return stream.pes(data, pts % WRAP, decode % WRAP, fields)

    def _stream(self, pid: int) -> _Stream:
        try:
            return self._streams[pid]
        except KeyError:
            raise MediaError(f"There is no stream {pid}; add_stream says the numbers.") from None

    def _change(self) -> None:
        if self._version_is_out:
            self._version, self._version_is_out = (self._version + 1) % 32, False


class _Stream:
    """One PID: its packets' headers, made once, and its counter."""

    def __init__(self, pid: int, codec: _Codec | None) -> None:
        self.codec = codec
        address = (pid >> 8, pid & 0xFF)
        # Packets without an adaptation field, by counter, twice over so that any 16 in a row are a slice.
        self._headers = [bytes((0x47, *address, 0x10 | counter)) for counter in range(16)] * 2
        self._address = address
        self._pid = pid
        self._counter = 0

    def section(self, section: bytes) -> bytes:
        """A table, in packets that are filled up behind it."""
        packets = pack_section(self._pid, section, self._counter)
        self._counter = (self._counter + len(packets) // PACKET_SIZE) % 16
        return packets

    def pes(self, data: bytes, pts: int, dts: int, fields: bytes) -> bytes:
        """A PES packet. `fields` is what the first packet's adaptation field has to say."""
        assert self.codec is not None
        times = _time(0x20, pts) if pts == dts else _time(0x30, pts) + _time(0x10, dts)
        length = 3 + len(times) + len(data)
        room = _ROOM - (1 + len(fields) if fields else 0)
        if length > _MAX_LENGTH:
            if self.codec.kind == "audio":
                raise MediaError(
                    f"{len(data)} bytes of sound don't fit into a PES of 65535; write each frame."
                )
            length = 0
            if (9 + len(times) + len(data) - room) % _ROOM == 0:
                times += b"\xff"  # moves the end, so that the last packet has stuffing, which tells it
        flags = 0x80 if pts == dts else 0xC0
        header = bytes(
            (0, 0, 1, self.codec.stream_id, length >> 8, length & 0xFF, 0x84, flags, len(times)),
        )
        header += times
        taken = room - len(header)  # of the data, by the first packet
        if taken >= len(data):
            return self._first(header + data, fields, taken - len(data))
        full = taken + (len(data) - taken) // _ROOM * _ROOM
        packets = self._first(header + data[:taken], fields, 0) + self._rest(data, taken, full)
        return packets + self._last(data[full:]) if full < len(data) else packets

    def _next(self) -> int:
        counter = self._counter
        self._counter = (counter + 1) % 16
        return counter

    def _first(self, payload: bytes, fields: bytes, stuffing: int) -> bytes:
        adaptation = _adaptation(fields, stuffing)
        control = 0x30 if adaptation else 0x10
        high, low = self._address
        return bytes((0x47, 0x40 | high, low, control | self._next())) + adaptation + payload

    def _rest(self, data: bytes, begin: int, end: int) -> bytes:
        """Packets that are filled by data, whose pieces are cut and joined without a loop of our own."""
        count = (end - begin) // _ROOM
        headers = self._headers[self._counter : self._counter + 16]
        parts = [b""] * (2 * count)
        parts[::2] = (headers * (count // 16 + 1))[:count]
        parts[1::2] = [data[position : position + _ROOM] for position in range(begin, end, _ROOM)]
        self._counter = (self._counter + count) % 16
        return b"".join(parts)

    def _last(self, payload: bytes) -> bytes:
        adaptation = _adaptation(b"", _ROOM - len(payload))
        return bytes((0x47, *self._address, 0x30 | self._next())) + adaptation + payload


def _adaptation(fields: bytes, stuffing: int) -> bytes:
    """An adaptation field with these contents, and this many bytes beyond what they need."""
    if not fields:
        if stuffing < 2:
            return b"\x00" * stuffing
        fields, stuffing = b"\x00", stuffing - 2
    return bytes((len(fields) + stuffing,)) + fields + b"\xff" * stuffing


def _time(marker: int, time: int) -> bytes:
    """33 bits of a timestamp, with three marker bits between them."""
    return bytes(
        (
            marker | time >> 29 & 0x0E | 1,
            time >> 22 & 0xFF,
            time >> 14 & 0xFE | 1,
            time >> 7 & 0xFF,
            time << 1 & 0xFE | 1,
        )
    )


def _has_delimiter(data: bytes, delimiter: bytes) -> bool:
    """Whether the first piece of Annex B data is an access unit delimiter as this one."""
    first = data.find(b"\x00\x00\x01", 0, 16) + 3
    mask = 0x1F if len(delimiter) == 6 else 0x7E  # H.264's header is one byte, HEVC's is two
    return 3 <= first < len(data) and data[first] & mask == delimiter[4] & mask


def _opus_header(size: int) -> bytes:
    """The control header before a packet of Opus: the size as a sum of bytes, the last of them below 255."""
    return b"\x7f\xe0" + b"\xff" * (size // 255) + bytes((size % 255,))
