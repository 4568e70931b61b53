"""The packets of an elementary stream (PES), put together from those of the transport stream."""

from __future__ import annotations

from typing import NamedTuple

from .ts import PACKET_SIZE, TSPacket

__all__ = ["Pes", "PesAssembler"]

_PREFIX = b"\x00\x00\x01"
_ROOM = PACKET_SIZE - 4
_LIMIT = 64 * 1024 * 1024  # bytes; no picture is as large, so its end was lost
_NO_MEDIA = (0xBC, 0xBE, 0xBF, 0xF0, 0xF1, 0xF2, 0xF8, 0xFF)  # stream ids of padding, maps and the like


class Pes(NamedTuple):
    """One complete PES packet: its times as they were sent (33 bits), and its data.

    `discontinuity`: something before it was lost, or the sender says that it begins anew.
    """

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
        """PES packets that were dropped because a part of them is missing: one for each gap, at least."""
        self._parts: list[bytes] = []
        self._missing = 0  # bytes until it is complete; those of the limit when its length is not known
        self._length = 0  # with the header; 0: not known
        self._random_access = False
        self._next: int | None = None  # the counter that the next packet has to have
        self._may_restart = False
        self._last = b""  # the payload of the last packet
        self._broken = False  # something was lost since the last PES that was handed out
        self._stuffing_ends = True
        self._ended_by_stuffing = False

    def extend(self, counter: int, payload: bytes) -> bool:
        """Take a packet without an adaptation field, if it does no more than go on with a PES.

        This is what nearly every packet does; for the others `feed` has to be called.
        """
        if counter != self._next or self._missing <= _ROOM:
            return False
        self._parts.append(payload)
        self._missing -= _ROOM
        self._next = (counter + 1) & 0x0F
        return True

    def feed(self, packet: TSPacket) -> list[Pes]:
        """Take the stream's next packet; return what it completes (two at most)."""
        if self._next is not None and packet.counter != self._next and not packet.discontinuity:
            if packet.counter == (self._next - 1) & 0x0F and packet.payload == self._before():
                return []  # sent twice, which is allowed
            if not (self._may_restart and packet.counter == 0):
                self._gap()
        self._may_restart = False
        self._next = (packet.counter + 1) & 0x0F
        done: list[Pes] = []
        if packet.start:
            done += self.flush()
            self._broken |= packet.discontinuity
            self._begin(packet)
        elif self._parts:
            self._parts.append(packet.payload)
            self._missing -= len(packet.payload)
        elif self._ended_by_stuffing:
            # This sender stuffs in mid-PES: the one handed out was cut, and no other shall be.
            self._stuffing_ends = self._ended_by_stuffing = False
            self._lose()
        if self._parts:
            if self._missing <= 0:
                if self._length:
                    done += self._finish()
                else:
                    self.drop()
            elif packet.stuffed and not self._length and self._stuffing_ends:
                done += self._finish()
                self._ended_by_stuffing = True
        self._last = packet.payload
        return done

    def flush(self) -> list[Pes]:
        """Hand out what is there as a PES of unknown length; drop one that isn't complete."""
        if self._parts and self._length:
            self.drop()
        return self._finish() if self._parts else []

    def drop(self) -> None:
        """Something was lost: forget the PES that it was a part of."""
        if self._parts:
            self.lost += 1
        self._forget()

    def skip(self) -> None:
        """Something of unknown size is missing here: no counter can be expected."""
        self.drop()
        self._next = None

    def expect_restart(self) -> None:
        """The counter may begin anew, at 0 (a segment of another muxer run), without anything being lost."""
        self._may_restart = True

    def _before(self) -> bytes:
        """The payload of the packet before."""
        return self._parts[-1] if self._parts else self._last

    def _gap(self) -> None:
        """The counter says that packets are missing."""
        self.lost += 1
        self._forget()

    def _lose(self) -> None:
        self.lost += 1
        self._broken = True

    def _forget(self) -> None:
        self._parts.clear()
        self._missing = 0
        self._broken = True
        self._ended_by_stuffing = False

    def _begin(self, packet: TSPacket) -> None:
        payload = packet.payload
        self._ended_by_stuffing = False
        if len(payload) < 9 or not payload.startswith(_PREFIX):
            self._lose()
            return
        if payload[3] in _NO_MEDIA:
            return
        length = payload[4] << 8 | payload[5]
        self._parts, self._length = [payload], 6 + length if length else 0
        self._missing = (self._length or _LIMIT) - len(payload)
        self._random_access = packet.random_access

    def _finish(self) -> list[Pes]:
        parts, self._parts, self._missing = self._parts, [], 0
        head = parts[0]
        header = 9 + head[8]
        flags = head[7] >> 6
        if len(head) < header and len(parts) > 1:  # the header reaches into the second packet
            parts = [b"".join(parts)]
            head = parts[0]
        if len(head) < header or header < 9 + (0, 0, 5, 10)[flags]:
            self._lose()
            return []
        pts = _time(head, 9) if flags & 2 else None
        dts = _time(head, 14) if flags == 3 else pts
        excess = sum(map(len, parts)) - self._length if self._length else 0
        if excess > 0:
            parts[-1] = parts[-1][:-excess]
        parts[0] = parts[0][header:]
        broken, self._broken = self._broken, False
        return [Pes(pts, dts, b"".join(parts), self._random_access, broken)]


def _time(data: bytes, position: int) -> int:
    """The 33 bits of a timestamp, which three marker bits stand between."""
    return (
        (data[position] >> 1 & 0x07) << 30
        | data[position + 1] << 22
        | (data[position + 2] >> 1) << 15
        | data[position + 3] << 7
        | data[position + 4] >> 1
    )
