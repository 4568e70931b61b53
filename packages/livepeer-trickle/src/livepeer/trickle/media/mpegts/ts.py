"""The transport layer of MPEG-TS: packets of 188 bytes out of a stream of bytes."""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["PACKET_SIZE", "PLAIN", "PLAIN_MASK", "TSPacket", "TSSplitter", "parse"]

PACKET_SIZE = 188
PLAIN_MASK, PLAIN = 0x00C000F0, 0x10
"""What a header has that goes on with what was begun, whole and in clear, with 184 bytes of payload."""
_SYNC = 0x47
_SURE = 3  # sync bytes in a row that are asked for, as far as there are bytes
_PACKET = struct.Struct(">I184s")


class TSPacket(NamedTuple):
    """One packet with a payload.

    Attributes:
        pid: The stream's number.
        start: Whether a PES packet or a table begins in it.
        counter: The continuity counter, 0 to 15.
        payload: The bytes after the header and the adaptation field.
        random_access: Whether the sender says that decoding can begin here.
        discontinuity: Whether the sender says that counters and clock begin anew.
        stuffed: Whether it was filled up with stuffing, as the last packet of a PES is.
    """

    pid: int
    start: bool
    counter: int
    payload: bytes
    random_access: bool
    discontinuity: bool
    stuffed: bool


class TSSplitter:
    """Cuts bytes into packets, and finds the next packet after bytes that are none."""

    def __init__(self) -> None:
        self.skipped: int = 0
        """Bytes that belonged to no packet."""
        self._rest = b""
        self._in_sync = False

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take the next bytes; return the packets that are complete: the header as a number, and the rest."""
        buffer = self._rest + data if self._rest else data
        packets: list[tuple[int, bytes]] = []
        position, end = 0, len(buffer)
        while end - position >= PACKET_SIZE:
            begin = position
            if self._in_sync:
                syncs = buffer[position : end - PACKET_SIZE + 1 : PACKET_SIZE]
                count = len(syncs) - len(syncs.lstrip(b"\x47"))
                position += count * PACKET_SIZE
                packets += _PACKET.iter_unpack(memoryview(buffer)[begin:position])
                if end - position < PACKET_SIZE:
                    break
            position = self._resync(buffer, begin, position, packets)
        self._rest = bytes(buffer[position:])
        return packets

    def _resync(self, buffer: bytes, begin: int, position: int, packets: list[tuple[int, bytes]]) -> int:
        """Where to go on when no packet is at `position`, but some are from `begin` to there."""
        before = position - PACKET_SIZE
        if before >= begin:
            # Perhaps bytes are missing in the packet before, which then ended in the midst of the next one.
            found = _find(buffer, before + 1, position + PACKET_SIZE)
            if found < position:
                packets.pop()
                self.skipped += found - before
                return found
        found = _find(buffer, position, len(buffer))
        self.skipped += found - position
        self._in_sync = found < len(buffer)
        return found


def parse(header: int, body: bytes) -> TSPacket | None:
    """One packet; None when it has no payload, is damaged or encrypted."""
    if header & 0x8000C0 or not header & 0x10:
        return None
    begin = 0
    random_access = discontinuity = stuffed = False
    if header & 0x20:
        length = body[0]
        begin = 1 + length
        if begin > len(body):
            return None
        flags = body[1] if length else 0
        random_access, discontinuity = bool(flags & 0x40), bool(flags & 0x80)
        stuffed = not flags or length > _adaptation_size(body, flags)
    return TSPacket(
        header >> 8 & 0x1FFF,
        bool(header & 0x400000),
        header & 0x0F,
        body[begin:] if begin else body,
        random_access,
        discontinuity,
        stuffed,
    )


def _find(buffer: bytes, position: int, end: int) -> int:
    """Where the next packet can begin before `end`: at a sync byte with others at its distance, if seen."""
    while True:
        position = buffer.find(_SYNC, position, end)
        if position < 0:
            return end
        following = buffer[position : position + _SURE * PACKET_SIZE + 1 : PACKET_SIZE]
        if following.count(_SYNC) == len(following):
            return position
        position += 1


def _adaptation_size(body: bytes, flags: int) -> int:
    """How many bytes of an adaptation field have a meaning; what it has more is stuffing."""
    size = 1 + (6 if flags & 0x10 else 0) + (6 if flags & 0x08 else 0) + (1 if flags & 0x04 else 0)
    for flag in (0x02, 0x01):  # private data, extension: each with a length of its own
        if flags & flag and 1 + size < len(body):
            size += 1 + body[1 + size]
    return size
