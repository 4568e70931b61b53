"""The transport layer of MPEG-TS: packets of 188 bytes out of a stream of bytes."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PACKET_SIZE", "TSPacket", "TSSplitter"]

PACKET_SIZE = 188
_SYNC = 0x47


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

    def feed(self, data: bytes) -> list[TSPacket]:
        """Take the next bytes; return the packets that are complete."""
        buffer = self._rest + data if self._rest else data
        packets: list[TSPacket] = []
        position, end = 0, len(buffer)
        while end - position >= PACKET_SIZE:
            if buffer[position] != _SYNC or not self._in_sync:
                found = _resync(buffer, position)
                self.skipped += found - position
                position = found
                self._in_sync = position < end
                continue
            packet = _parse(buffer, position)
            if packet is not None:
                packets.append(packet)
            position += PACKET_SIZE
        self._rest = buffer[position:]
        return packets


def _resync(buffer: bytes, position: int) -> int:
    """Where the next packet can begin: a sync byte with another one 188 bytes on, as far as can be seen."""
    end = len(buffer)
    while True:
        position = buffer.find(_SYNC, position)
        if position < 0:
            return end
        following = position + PACKET_SIZE
        if following >= end or buffer[following] == _SYNC:
            return position
        position += 1


def _parse(buffer: bytes, position: int) -> TSPacket | None:
    """One packet; None when it has no payload, is damaged or encrypted."""
    second, control = buffer[position + 1], buffer[position + 3]
    damaged, encrypted, has_payload = second & 0x80, control & 0xC0, control & 0x10
    if damaged or encrypted or not has_payload:
        return None
    pid = (second & 0x1F) << 8 | buffer[position + 2]
    begin, end = position + 4, position + PACKET_SIZE
    random_access = discontinuity = stuffed = False
    if control & 0x20:
        length, flags = buffer[begin], 0
        if length:
            flags = buffer[begin + 1]
            random_access, discontinuity = bool(flags & 0x40), bool(flags & 0x80)
        stuffed = length == 0 or not flags or length > _adaptation_size(buffer, begin + 1, flags)
        begin += 1 + length
        if begin > end:
            return None
    return TSPacket(
        pid, bool(second & 0x40), control & 0x0F, buffer[begin:end], random_access, discontinuity, stuffed
    )


def _adaptation_size(buffer: bytes, position: int, flags: int) -> int:
    """How many bytes of an adaptation field have a meaning; what it has more is stuffing."""
    size = 1 + (6 if flags & 0x10 else 0) + (6 if flags & 0x08 else 0) + (1 if flags & 0x04 else 0)
    for flag in (0x02, 0x01):  # private data, extension: each with a length of its own
        if flags & flag and position + size < len(buffer):
            size += 1 + buffer[position + size]
    return size
