"""The packets of an elementary stream (PES), put together from those of the transport stream."""

from __future__ import annotations

from typing import NamedTuple

from .ts import TSPacket

__all__ = ["Pes", "PesAssembler"]

_PREFIX = b"\x00\x00\x01"


class Pes(NamedTuple):
    """One complete PES packet: its times as they were sent (33 bits), and its data."""

    pts: int | None
    dts: int | None
    data: bytes
    random_access: bool
    discontinuity: bool


class PesAssembler:
    """Collects one stream's PES packets, and hands each out with the packet that ends it.

    A PES ends where its length says; without one, with stuffing in a packet that only its last one has, or
    else when the next PES begins.
    """

    def __init__(self) -> None:
        self.lost: int = 0
        """PES packets that were dropped because a part of them is missing."""
        self._parts: list[bytes] = []
        self._size = 0
        self._length = 0  # with the header; 0: not known
        self._random_access = False
        self._counter: int | None = None
        self._broken = False  # something was lost since the last PES that was handed out
        self._stuffing_ends = True
        self._ended_by_stuffing = False

    def feed(self, packet: TSPacket) -> list[Pes]:
        """Take the stream's next packet; return what it completes (two at most)."""
        if self._counter is not None and not packet.discontinuity:
            if packet.counter == self._counter:
                return []  # sent twice, which is allowed
            if packet.counter != (self._counter + 1) & 0x0F:
                self.drop()
        self._counter = packet.counter
        done: list[Pes] = []
        if packet.start:
            done += self.flush()
            self._broken |= packet.discontinuity
            self._begin(packet)
        elif self._parts:
            self._parts.append(packet.payload)
            self._size += len(packet.payload)
        else:
            if self._ended_by_stuffing:
                # This sender stuffs in mid-PES: the one handed out was cut, and no other shall be.
                self._stuffing_ends = False
                self._ended_by_stuffing = False
                self.lost += 1
            return done
        complete = self._size >= self._length if self._length else packet.stuffed and self._stuffing_ends
        if complete and self._parts:
            self._ended_by_stuffing = not self._length
            done += self._finish()
        return done

    def flush(self) -> list[Pes]:
        """Hand out what is there as a PES of unknown length; drop one that isn't complete."""
        if self._parts and self._length and self._size < self._length:
            self.drop()
        return self._finish() if self._parts else []

    def drop(self) -> None:
        """Something was lost: forget the PES that it was a part of."""
        if self._parts:
            self.lost += 1
        self._parts.clear()
        self._broken = True
        self._ended_by_stuffing = False

    def expect_restart(self) -> None:
        """The counter may begin anew (a segment of another muxer run) without anything being lost."""
        self._counter = None

    def _begin(self, packet: TSPacket) -> None:
        payload = packet.payload
        self._ended_by_stuffing = False
        if len(payload) < 9 or not payload.startswith(_PREFIX):
            self.lost += 1
            self._broken = True
            return
        self._parts, self._size = [payload], len(payload)
        length = payload[4] << 8 | payload[5]
        self._length = 6 + length if length else 0
        self._random_access = packet.random_access

    def _finish(self) -> list[Pes]:
        data = b"".join(self._parts)
        self._parts.clear()
        if self._length:
            data = data[: self._length]
        header = 9 + data[8]
        flags = data[7] >> 6
        if len(data) < header or header < 9 + (0, 0, 5, 10)[flags]:
            self.lost += 1
            self._broken = True
            return []
        pts = _time(data, 9) if flags & 2 else None
        dts = _time(data, 14) if flags == 3 else pts
        broken, self._broken = self._broken, False
        return [Pes(pts, dts, data[header:], self._random_access, broken)]


def _time(data: bytes, position: int) -> int:
    """The 33 bits of a timestamp, which three marker bits stand between."""
    return (
        (data[position] >> 1 & 0x07) << 30
        | data[position + 1] << 22
        | (data[position + 2] >> 1) << 15
        | data[position + 3] << 7
        | data[position + 4] >> 1
    )
