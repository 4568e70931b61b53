"""The tables of MPEG-TS: which streams there are, and what is in them (PAT and PMT)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Literal, NamedTuple

__all__ = [
    "SectionReader",
    "Stream",
    "build_pat",
    "build_pmt",
    "pack_section",
    "parse_pat",
    "parse_pmt",
]

_PAT, _PMT = 0x00, 0x02
_Kind = Literal["video", "audio"]
_CODECS: dict[int, tuple[_Kind, str]] = {  # by stream type
    0x01: ("video", "mpeg1video"),
    0x02: ("video", "mpeg2video"),
    0x03: ("audio", "mp3"),
    0x04: ("audio", "mp3"),
    0x0F: ("audio", "aac"),
    0x10: ("video", "mpeg4"),
    0x11: ("audio", "aac_latm"),
    0x1B: ("video", "h264"),
    0x21: ("video", "jpeg2000"),
    0x24: ("video", "hevc"),
    0x33: ("video", "vvc"),
    0x42: ("video", "cavs"),
    0x81: ("audio", "ac3"),
    0x82: ("audio", "dts"),
    0x83: ("audio", "truehd"),
    0x87: ("audio", "eac3"),
    0xD1: ("video", "dirac"),
    0xEA: ("video", "vc1"),
}
_PRIVATE = 0x06  # a stream type that says nothing: descriptors do
_DESCRIPTORS: dict[int, tuple[_Kind, str]] = {
    0x6A: ("audio", "ac3"),
    0x7A: ("audio", "eac3"),
    0x7B: ("audio", "dts"),
}
_REGISTRATION = 0x05
_REGISTERED: dict[bytes, tuple[_Kind, str]] = {
    b"AC-3": ("audio", "ac3"),
    b"AV01": ("video", "av1"),
    b"BSSD": ("audio", "s302m"),
    b"DTS1": ("audio", "dts"),
    b"DTS2": ("audio", "dts"),
    b"DTS3": ("audio", "dts"),
    b"EAC3": ("audio", "eac3"),
    b"HEVC": ("video", "hevc"),
    b"Opus": ("audio", "opus"),
    b"VC-1": ("video", "vc1"),
    b"drac": ("video", "dirac"),
}


class Stream(NamedTuple):
    """An elementary stream that the PMT names."""

    kind: _Kind
    codec: str


class SectionReader:
    """Puts the sections of one table together; passes on new ones whose checksum is right."""

    def __init__(self) -> None:
        self._data = b""
        self.last: bytes = b""
        """The newest section."""

    def feed(self, payload: bytes, *, start: bool) -> list[bytes]:
        """Take the next payload of the table's stream; return complete sections."""
        sections: list[bytes] = []
        if start:
            if not payload:
                return sections
            pointer = payload[0]
            sections += self._take(payload[1 : 1 + pointer])
            self._data = b""
            payload = payload[1 + pointer :]
            self._data = payload[:1]
            payload = payload[1:]
        elif not self._data:
            return sections
        return sections + self._take(payload)

    def _take(self, data: bytes) -> list[bytes]:
        if not self._data:
            return []
        self._data += data
        sections: list[bytes] = []
        while len(self._data) >= 3 and self._data[0] != 0xFF:
            size = 3 + ((self._data[1] & 0x0F) << 8 | self._data[2])
            if len(self._data) < size:
                return sections
            section, self._data = self._data[:size], self._data[size:]
            is_now = len(section) > 5 and section[5] & 1  # and not what comes later
            if is_now and section != self.last and _crc(section) == 0:
                self.last = section
                sections.append(section)
        if self._data[:1] == b"\xff":
            self._data = b""
        return sections


def parse_pat(section: bytes) -> set[int]:
    """The PIDs of the PMTs that a PAT names."""
    pids = set()
    if section[0] == _PAT and len(section) > 8:
        for position in range(8, len(section) - 7, 4):
            program = section[position] << 8 | section[position + 1]
            if program:  # 0 is the network's own table
                pids.add((section[position + 2] & 0x1F) << 8 | section[position + 3])
    return pids


def parse_pmt(section: bytes) -> dict[int, Stream]:
    """The streams that a PMT names, by PID; those that are neither sound nor picture are left out."""
    streams: dict[int, Stream] = {}
    if section[0] != _PMT or len(section) < 16:
        return streams
    position = 12 + ((section[10] & 0x0F) << 8 | section[11])
    end = len(section) - 4
    while position + 5 <= end:
        kind = section[position]
        pid = (section[position + 1] & 0x1F) << 8 | section[position + 2]
        size = (section[position + 3] & 0x0F) << 8 | section[position + 4]
        descriptors = section[position + 5 : position + 5 + size]
        known = _described(descriptors) if kind == _PRIVATE else _CODECS.get(kind)
        if known is not None:
            streams[pid] = Stream(*known)
        position += 5 + size
    return streams


def _described(descriptors: bytes) -> tuple[_Kind, str] | None:
    """What a private stream's descriptors say that it is."""
    position = 0
    while position + 2 <= len(descriptors):
        tag, size = descriptors[position], descriptors[position + 1]
        if tag in _DESCRIPTORS:
            return _DESCRIPTORS[tag]
        if tag == _REGISTRATION:
            return _REGISTERED.get(descriptors[position + 2 : position + 6])
        position += 2 + size
    return None


def build_pat(pmt_pid: int) -> bytes:
    """A PAT with one programme, whose PMT has this PID."""
    return _build(_PAT, 0, struct.pack(">HH", 1, 0xE000 | pmt_pid))


def build_pmt(streams: Iterable[tuple[int, int, bytes]], *, clock: int, version: int) -> bytes:
    """A PMT of that programme: streams by PID, stream type and descriptors; `clock` is the PID of the PCR."""
    body = struct.pack(">HH", 0xE000 | clock, 0xF000)
    for pid, stream_type, descriptors in streams:
        body += struct.pack(">BHH", stream_type, 0xE000 | pid, 0xF000 | len(descriptors)) + descriptors
    return _build(_PMT, version, body)


def pack_section(pid: int, section: bytes, counter: int = 0) -> bytes:
    """A section as packets of this PID, filled up behind it, whose first has this counter."""
    data = b"\x00" + section
    data += b"\xff" * (-len(data) % 184)
    packets = []
    for begin in range(0, len(data), 184):
        high = pid >> 8 | (0 if begin else 0x40)
        packets.append(bytes((0x47, high, pid & 0xFF, 0x10 | counter % 16)) + data[begin : begin + 184])
        counter += 1
    return b"".join(packets)


def _build(table: int, version: int, body: bytes) -> bytes:
    """A section that is its whole table, with its checksum."""
    section = struct.pack(">BHHBBB", table, 0xB000 | len(body) + 9, 1, 0xC1 | version << 1, 0, 0) + body
    return section + _crc(section).to_bytes(4, "big")


def _crc(data: bytes) -> int:
    """CRC-32/MPEG-2, which is 0 over a section together with its checksum."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc << 8 & 0xFFFFFFFF) ^ _CRC_TABLE[crc >> 24 ^ byte]
    return crc


def _crc_table() -> list[int]:
    table = []
    for index in range(256):
        crc = index << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
        table.append(crc)
    return table


_CRC_TABLE = _crc_table()
