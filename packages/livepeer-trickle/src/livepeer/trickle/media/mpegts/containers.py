"""Which container the first bytes of a stream are of."""

from __future__ import annotations

import re
from typing import NamedTuple

from .ts import PACKET_SIZE

__all__ = ["SHORTEST", "Container", "container_of"]

SHORTEST = 12
"""With fewer bytes nothing can be said."""
_BEGIN_BOXES = frozenset((b"ftyp", b"moov"))
_MORE_BOXES = frozenset((b"styp", b"moof", b"sidx", b"emsg", b"prft", b"free", b"skip", b"mdat"))
_SIGNATURES = {
    b"\x1a\x45\xdf\xa3": "matroska",
    b"FLV\x01": "flv",
    b"OggS\x00\x02": "ogg",
    b"RIFF": "",
    b"ID3": "",
}
_ROWS = ((192, 4), (204, 0))  # packets with four bytes before them, or 16 behind
_TS = re.compile(rb"\x47(?:.{187}\x47){3}", re.DOTALL)


class Container(NamedTuple):
    """What was found.

    Attributes:
        format: What libavformat calls it; empty when it shall look for itself.
        native: Whether our own demuxer reads it.
        is_begin: Whether a file of its own begins here, and not just goes on.
    """

    format: str
    native: bool
    is_begin: bool


_MPEGTS = Container("mpegts", native=True, is_begin=False)


def container_of(head: bytes) -> Container | None:
    """The container whose first bytes these are, after rubbish perhaps; None when it can't be said yet."""
    if len(head) < SHORTEST:
        return None
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature):
            return Container(name, native=False, is_begin=True)
    if head[4:8] in _MORE_BOXES:
        return Container("mp4", native=False, is_begin=False)
    if head[4:8] in _BEGIN_BOXES:
        return Container("mp4", native=False, is_begin=True) if _has_moov(head) else None
    if _is_row(head, PACKET_SIZE, 0, 1):
        return _MPEGTS
    for size, offset in _ROWS:
        if _is_row(head, size, offset, 4):
            return Container("mpegts", native=False, is_begin=False)
    return _MPEGTS if _TS.search(head) else None


def _has_moov(head: bytes) -> bool:
    """Whether the box that says what is in an MP4 is complete, or isn't at the begin.

    libavformat goes back a few bytes in it, which it can't when they came in pieces.
    """
    position = 0
    while position + 8 <= len(head):
        kind = head[position + 4 : position + 8]
        position += max(int.from_bytes(head[position : position + 4], "big"), 8)
        if kind in (b"moov", b"moof", b"mdat"):
            return position <= len(head) or kind != b"moov"
    return False


def _is_row(head: bytes, size: int, offset: int, count: int) -> bool:
    """Whether there is a sync byte at each multiple of `size`, and so many of them at least."""
    syncs = head[offset::size]
    return len(syncs) >= count and syncs.count(0x47) == len(syncs)
