"""Reading and writing MPEG-TS without I/O: bytes in, access units out as soon as their last byte is there.

libavformat's reader probes for half a second before the first frame, and then holds each frame until the
next one comes, because a video PES needs no length. This one takes a PES' length where there is one, and
else the stuffing in its last packet, as its end. What it doesn't know, `AutoDemuxer` gives to libavformat.

Source: ISO/IEC 13818-1; and for what muxers really do, libavformat's ``mpegtsenc.c``.
"""

from __future__ import annotations

from .auto import AutoDemuxer
from .demuxer import Demuxer
from .muxer import Muxer

__all__ = ["AutoDemuxer", "Demuxer", "Muxer"]
