"""Frames of sound out of PES packets, which carry several of them, or one in two pieces.

Sources: ISO/IEC 14496-3 (ADTS), ISO/IEC 11172-3 and 13818-3 (MPEG audio), ETSI TS 102 366 (AC-3), Xiph's
draft OpusTS and RFC 6716 (Opus).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..packets import CLOCK
from .units import Unit

__all__ = ["AUDIO_CODECS", "AudioFramer"]

_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_MPEG_RATES = (44100, 48000, 32000)
_MPEG_BITRATES = {  # kbit/s, by whether it is MPEG-1, and layer
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_AC3_RATES = (48000, 44100, 32000)
_AC3_BITRATES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_OPUS_DURATIONS = (480, 960, 1920, 2880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4  # at 48 kHz


class _Frame(NamedTuple):
    """What a frame's header says.

    Attributes:
        begin: Bytes before the data that a decoder takes.
        end: Bytes until the next frame.
        samples: How long it lasts, in samples of this rate.
        rate: Samples per second.
        codec: What libavcodec calls it.
    """

    begin: int
    end: int
    samples: int
    rate: int
    codec: str


_MORE = _Frame(0, 1 << 30, 0, 1, "")  # the header itself isn't complete yet


class AudioFramer:
    """Cuts one stream of sound into frames, each with its time.

    A PES' time is that of the first frame that begins in it; the others follow from the frames' durations.
    Bytes that belong to no frame are skipped.
    """

    def __init__(self, codec: str) -> None:
        self.lost: int = 0
        """Places at which bytes were no frame, or an incomplete one."""
        self._sync, self._parse = _PARSERS[codec]
        self._rest = b""
        self._base: int | None = None  # the last time that was given
        self._samples, self._rate = 0, 1  # from there to the next frame
        self._broken = False

    def feed(
        self, data: bytes, pts: int | None, dts: int | None, *, random_access: bool, discontinuity: bool
    ) -> list[Unit]:
        """See `Framer`."""
        if discontinuity or (self._rest and self._begins_anew(data)):
            self._drop()
            self._broken = True
        fresh = len(self._rest)  # where this PES begins
        if fresh:
            data = self._rest + data
        units: list[Unit] = []
        position, end, in_step = 0, len(data), True
        while position < end:
            if pts is not None and position >= fresh:
                self._base, self._samples, pts = pts, 0, None
            frame = self._parse(data, position)
            if frame is not None and (in_step or self._another(data, position + frame.end)):
                if position + frame.end > end:
                    break
                units.append(self._unit(data[position + frame.begin : position + frame.end], frame))
                position, in_step = position + frame.end, True
                continue
            if in_step:
                self.lost += 1
                self._broken, in_step = True, False
            found = data.find(self._sync, position + 1)
            position = end if found < 0 else found
        self._rest = data[position:]
        return units

    def flush(self) -> list[Unit]:
        """See `Framer`: a frame that isn't complete is lost."""
        self._drop()
        return []

    def _drop(self) -> None:
        if self._rest:
            self._rest = b""
            self.lost += 1

    def _begins_anew(self, data: bytes) -> bool:
        """Whether a PES begins with a frame, and so doesn't go on with what only looked like one."""
        frame = self._parse(data, 0) if data else None
        return frame is not None and frame.end <= len(data) and self._another(data, frame.end)

    def _another(self, data: bytes, position: int) -> bool:
        """Whether a frame begins here, as far as can be seen."""
        return position >= len(data) or self._parse(data, position) is not None

    def _unit(self, data: bytes, frame: _Frame) -> Unit:
        time = None
        if self._base is not None:
            if frame.rate != self._rate:
                self._base += (self._samples * CLOCK + self._rate // 2) // self._rate
                self._samples, self._rate = 0, frame.rate
            time = self._base + (self._samples * CLOCK + self._rate // 2) // self._rate
            self._samples += frame.samples
        broken, self._broken = self._broken, False
        return Unit(frame.codec, data, time, time, True, broken)


def _aac(data: bytes, position: int) -> _Frame | None:
    """The header of ADTS."""
    if len(data) - position < 7:
        return _MORE if data[position] == 0xFF else None
    size = (data[position + 3] & 3) << 11 | data[position + 4] << 3 | data[position + 5] >> 5
    rate = data[position + 2] >> 2 & 0x0F
    if data[position] != 0xFF or data[position + 1] & 0xF6 != 0xF0 or rate >= len(_AAC_RATES) or size < 7:
        return None
    return _Frame(0, size, 1024 * ((data[position + 6] & 3) + 1), _AAC_RATES[rate], "aac")


def _mpeg(data: bytes, position: int) -> _Frame | None:
    """The header of MPEG audio, of any layer."""
    if len(data) - position < 4:
        return _MORE if data[position] == 0xFF else None
    _, second, third, _ = data[position : position + 4]
    version, layer, rate = second >> 3 & 3, 4 - (second >> 1 & 3), third >> 2 & 3
    if data[position] != 0xFF or second < 0xE0 or version == 1 or layer == 4 or rate == 3:
        return None
    if not 0 < third >> 4 < 15:
        return None
    first = version == 3
    bits = _MPEG_BITRATES[first, layer][third >> 4] * 1000
    hertz = _MPEG_RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    padding = third >> 1 & 1
    samples = 384 if layer == 1 else 576 if layer == 3 and not first else 1152
    size = (12 * bits // hertz + padding) * 4 if layer == 1 else samples // 8 * bits // hertz + padding
    return _Frame(0, size, samples, hertz, f"mp{layer}")


def _ac3(data: bytes, position: int) -> _Frame | None:
    """The header of AC-3."""
    if len(data) - position < 6:
        return _MORE if data[position] == 0x0B else None
    rate, code = data[position + 4] >> 6, data[position + 4] & 0x3F
    if (
        data[position : position + 2] != b"\x0b\x77"
        or rate == 3
        or code >= 38
        or data[position + 5] >> 3 > 10
    ):
        return None
    hertz, bits = _AC3_RATES[rate], _AC3_BITRATES[code >> 1] * 1000
    words = 1536 * bits // hertz // 16 + (code & 1 if rate == 1 else 0)
    return _Frame(0, 2 * words, 1536, hertz, "ac3")


def _opus(data: bytes, position: int) -> _Frame | None:
    """The control header before a packet of Opus, and the packet's duration."""
    end = len(data)
    if data[position] != 0x7F or (position + 1 < end and data[position + 1] & 0xE0 != 0xE0):
        return None
    begin, size = position + 2, 0
    while begin < end and data[begin] == 0xFF:
        size, begin = size + 255, begin + 1
    if size > _OPUS_LONGEST:
        return None
    if begin >= end:
        return _MORE
    size, begin = size + data[begin], begin + 1
    flags = data[position + 1]
    begin += (2 if flags & 0x10 else 0) + (2 if flags & 0x08 else 0)  # samples to trim
    if flags & 0x04 and begin < end:
        begin += 1 + data[begin]
    if not size:
        return None
    if begin + 1 >= end:
        return (
            _MORE
            if begin + size > end
            else _Frame(begin - position, begin - position + 1, 960, 48000, "opus")
        )
    coding = data[begin] & 3
    count = data[begin + 1] & 0x3F if coding == 3 and size > 1 else 1 if coding == 0 else 2
    samples = _OPUS_DURATIONS[data[begin] >> 3] * count
    return _Frame(begin - position, begin - position + size, samples, 48000, "opus")


_OPUS_LONGEST = 48 * 1276  # bytes: 120 ms in frames of 2.5 ms
_PARSERS: dict[str, tuple[bytes, Callable[[bytes, int], _Frame | None]]] = {
    "aac": (b"\xff", _aac),
    "ac3": (b"\x0b\x77", _ac3),
    "mp3": (b"\xff", _mpeg),
    "opus": (b"\x7f", _opus),
}
AUDIO_CODECS = frozenset(_PARSERS)
