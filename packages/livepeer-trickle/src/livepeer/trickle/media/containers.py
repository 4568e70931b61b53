"""Writing encoded pictures and sound into a file of any container that libavformat has."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av

from ..errors import MediaError
from .mpegts import Muxer
from .packets import CLOCK, Packet

__all__ = ["Record", "Track", "check_codec", "write_container"]

_logger = logging.getLogger("livepeer.trickle")
_SAMPLE = 16  # packets that tell libavformat all about a track, although some of them may be damaged
_STEP = CLOCK // 1000  # ticks between two packets at least
_TOGETHER = CLOCK // 2  # ticks for which two tracks of one kind must overlap to be two
_REFUSED = {("mov", "opus")}
_OPTIONS = {"mp4": {"movflags": "faststart"}, "mov": {"movflags": "faststart"}}


def check_codec(format_name: str, kind: Literal["video", "audio"], codec: str) -> None:
    """Raise `MediaError` when a file of this container can't have a track of this codec."""
    if (format_name, codec) in _REFUSED:
        raise MediaError(f"A file of {format_name} can't have {codec}; save it as mp4 or mkv.")
    try:
        Muxer().add_stream(kind, codec)
    except MediaError as error:
        raise MediaError(f"Streams with {codec} can't be saved; bytes() gives them as they come.") from error


class Record(NamedTuple):
    """One packet of a recording; times in ticks of 1/90000 s from the recording's begin on."""

    track: int
    is_keyframe: bool
    pts: int
    dts: int
    data: bytes


class Track:
    """What is known of a recording's track.

    Args:
        index: Its number.
        kind: What it is.
        codec: libavcodec's name of its codec.
    """

    def __init__(self, index: int, kind: Literal["video", "audio"], codec: str) -> None:
        self.index = index
        self.kind: Literal["video", "audio"] = kind
        self.codec = codec
        self.begin: int = 0
        self.end: int = 0
        self._sample: list[tuple[Packet, tuple[int, int]]] = []

    def add(self, packet: Packet, times: tuple[int, int]) -> None:
        """Take note of the track's next packet, with its `(pts, dts)` in the recording."""
        if not self._sample:
            self.begin = times[1]
        if len(self._sample) < _SAMPLE:
            self._sample.append((packet, times))
        self.end = times[1]

    def continues(self, other: Track) -> bool:
        """Whether this is the other track under another number."""
        return (self.kind, self.codec) == (other.kind, other.codec) and self.begin > other.end - _TOGETHER

    def sample(self) -> bytes:
        """MPEG-TS of the first packets, from which libavformat learns sizes, rates and parameter sets."""
        muxer = Muxer()
        first = self._sample[0][0].data
        pid = muxer.add_stream(self.kind, self.codec, channels=2 if first[0] & 4 else 1)
        parts = [muxer.tables()]
        parts += [
            muxer.write(pid, packet.data, pts=pts, dts=dts, is_keyframe=packet.is_keyframe)
            for packet, (pts, dts) in self._sample
        ]
        return b"".join(parts)


def write_container(path: Path, format_name: str, tracks: list[Track], records: Iterable[Record]) -> None:
    """Write a file.

    Raises:
        MediaError: The container doesn't take one of the codecs, or all that came is damaged.
    """
    codecs = ", ".join(dict.fromkeys(track.codec for track in tracks))
    try:
        with contextlib.ExitStack() as stack:
            kept: dict[int, Track] = {}  # by the number of the file's stream
            samples: list[Any] = []
            streams: dict[int, int] = {}  # that number, by the track's
            for track in tracks:
                number = next((n for n, before in kept.items() if track.continues(before)), None)
                if number is not None:
                    kept[number].end = track.end
                else:
                    sample = stack.enter_context(av.open(io.BytesIO(track.sample()), format="mpegts"))
                    if not _is_known(sample):
                        continue
                    number = len(samples)
                    samples.append(sample)
                    kept[number] = track
                streams[track.index] = number
            if not samples:
                raise MediaError("Nothing that can be saved came: all of it is damaged.")
            options = _OPTIONS.get(format_name, {})
            file: Any = stack.enter_context(av.open(str(path), "w", format=format_name, options=options))
            copies = [file.add_stream_from_template(sample.streams[0]) for sample in samples]
            file.start_encoding()
            _copy(file, {index: copies[number] for index, number in streams.items()}, records)
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError(
            f"What came ({codecs}) can't be saved as {format_name}: {error}.", hint="mkv takes the most."
        ) from error


def _is_known(sample: Any) -> bool:
    """Whether libavformat found out what a container's header has to say of a track."""
    if not sample.streams:
        return False
    context = sample.streams[0].codec_context
    return bool(context.width if sample.streams[0].type == "video" else context.sample_rate)


def _copy(file: Any, streams: dict[int, Any], records: Iterable[Record]) -> None:
    # One packet of each stream is held back: how long it lasts is only known when the next one comes, and
    # what libavformat guesses for the last one is wrong where frames have times of their own.
    held: dict[int, Any] = {}
    durations: dict[int, int] = {}
    for record in records:
        stream = streams.get(record.track)
        if stream is None:
            continue
        packet: Any = av.Packet(record.data)
        packet.time_base = Fraction(1, CLOCK)
        packet.pts, packet.dts, packet.is_keyframe = record.pts, record.dts, record.is_keyframe
        packet.stream = stream
        before = held.get(stream.index)
        if before is not None:
            # A track that goes on under another number may begin a little before its predecessor ends.
            packet.dts = max(packet.dts, before.dts + _STEP)
            packet.pts = max(packet.pts, packet.dts)
            before.duration = durations[stream.index] = packet.dts - before.dts
            _mux(file, before)
        held[stream.index] = packet
    for index, packet in held.items():
        packet.duration = durations.get(index, packet.duration)
        _mux(file, packet)


def _mux(file: Any, packet: Any) -> None:
    try:
        file.mux(packet)
    except (
        ValueError
    ) as error:  # libavformat's "invalid argument" and "invalid data", and no error of the disk
        _logger.debug("a damaged packet was left out of %s: %s", file.name, error)
