"""Encoded media of any container in the form in which streams carry it.

Files keep H.264 and HEVC with lengths between the pieces and the parameter sets apart, and AAC without
headers. A stream that can be joined at any key frame has start codes and parameter sets in the data (Annex
B), and a header before each AAC frame (ADTS).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from ..errors import MediaError
from .packets import CLOCK, Packet

__all__ = ["Normalizer", "adts"]

_FILTERS = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
_SELF_CONTAINED = ("h264", "hevc", "aac", "opus", "mp3", "ac3")  # the data says all, once it is converted
_START = b"\x00\x00\x00\x01"


class Normalizer:
    """Turns the packets that libavformat reads from one stream into ours.

    Args:
        stream: PyAV's stream of an opened container.
        pid: The number for `Packet.pid`; the stream's index when absent.

    Raises:
        MediaError: It is neither video nor audio, or of an unknown codec, or AAC that ADTS can't say.
    """

    def __init__(self, stream: Any, *, pid: int | None = None) -> None:
        if stream.type not in ("video", "audio"):
            raise MediaError(f"A stream of {stream.type} can't be sent; only video and audio can.")
        context = stream.codec_context
        if context is None or context.codec is None:
            raise MediaError(f"A stream of {stream.type} is in a codec that this PyAV doesn't know.")
        self._kind = stream.type
        self.codec: str = context.codec.canonical_name
        self.pid: int = stream.index if pid is None else pid
        self._extradata = b"" if self.codec in _SELF_CONTAINED else bytes(context.extradata or b"")
        self._filter: Any = None
        self._header: Callable[[bytes], bytes] | None = None
        self._parameter_sets = b""
        extradata = bytes(context.extradata or b"")
        if self.codec in _FILTERS and extradata[:1] == b"\x01":
            self._filter = BitStreamFilterContext(_FILTERS[self.codec], stream)
            if self.codec == "h264":
                self._parameter_sets = _avc_parameter_sets(extradata)
        elif self.codec == "aac" and extradata:
            self._header = adts(extradata)

    def convert(self, packet: Any) -> list[Packet]:
        """Convert one packet of this stream; None is the end, and gives what is held back (nothing, mostly).

        Raises:
            MediaError: The packet is broken.
        """
        if packet is not None and not packet.size:
            return []
        if self._filter is None:
            return [] if packet is None else [self._packet(packet)]
        time_base = None if packet is None else packet.time_base
        try:
            return [self._packet(done, time_base) for done in self._filter.filter(packet)]
        except av.error.FFmpegError as error:
            raise MediaError(f"A packet of {self.codec} can't be converted: {error}.") from error

    def _packet(self, packet: Any, time_base: Any = None) -> Packet:
        data, is_keyframe = bytes(packet), self._kind == "audio" or packet.is_keyframe
        if self._header is not None and data[:1] != b"\xff":
            data = self._header(data) + data
        elif self._parameter_sets and is_keyframe and not _has_sps(data):
            # The filter puts them before pictures of the type IDR only; decoding can begin at others too.
            data = self._parameter_sets + data
        base = packet.time_base or time_base
        return Packet(
            self._kind,
            self.codec,
            data,
            _ticks(packet.pts, base),
            _ticks(packet.dts, base),
            is_keyframe,
            pid=self.pid,
            extradata=self._extradata,
        )


def _ticks(time: int | None, base: Any) -> int | None:
    """A time in ticks of 1/90000 s, rounded to the nearest."""
    if time is None:
        return None
    denominator = 2 * base.denominator
    return int((2 * time * base.numerator * CLOCK + base.denominator) // denominator)


def _avc_parameter_sets(extradata: bytes) -> bytes:
    """The parameter sets of an avcC box, with start codes. Source: ISO/IEC 14496-15, 5.3.3."""
    sets, position = b"", 5
    for mask in (0x1F, 0xFF):  # SPS, then PPS
        if position >= len(extradata):
            break
        count = extradata[position] & mask
        position += 1
        for _ in range(count):
            size = int.from_bytes(extradata[position : position + 2], "big")
            sets += _START + extradata[position + 2 : position + 2 + size]
            position += 2 + size
    return sets


def _has_sps(data: bytes) -> bool:
    """Whether Annex B data of H.264 has a sequence parameter set."""
    position = data.find(b"\x00\x00\x01")
    while 0 <= position < len(data) - 3:
        if data[position + 3] & 0x1F == 7:
            return True
        position = data.find(b"\x00\x00\x01", position + 3)
    return False


def adts(config: bytes) -> Callable[[bytes], bytes]:
    """What makes the header of an AAC frame by its AudioSpecificConfig. Source: ISO/IEC 14496-3, 1.6.2.1.

    Raises `MediaError` for AAC of a kind that ADTS can't say.
    """
    bits = int.from_bytes(config[:8].ljust(8, b"\x00"), "big")
    kind, rate, channels = bits >> 59, bits >> 55 & 0x0F, bits >> 51 & 0x0F
    if kind in (5, 29):
        # SBR or PS said beforehand: the base layer's own type comes behind the extension's rate, of 4 bits or
        # (when it is none of the usual ones) 28. Readers find SBR by themselves.
        kind = bits >> (18 if bits >> 47 & 0x0F == 0x0F else 42) & 0x1F
    if not 1 <= kind <= 4 or rate > 12 or not 1 <= channels <= 7:
        raise MediaError(
            f"This AAC (object type {kind}, rate index {rate}, channel configuration {channels}) can't be "
            "sent: ADTS knows the types 1 to 4, the 13 usual rates and 1 to 7 channel configurations."
        )
    fixed = 0xFFF1 << 40 | (kind - 1) << 38 | rate << 34 | channels << 30 | 0x7FF << 2

    def header(frame: bytes) -> bytes:
        size = len(frame) + 7
        if size > 0x1FFF:
            raise MediaError(f"An AAC frame of {len(frame)} bytes is longer than ADTS can say.")
        return (fixed | size << 13).to_bytes(7, "big")

    return header
