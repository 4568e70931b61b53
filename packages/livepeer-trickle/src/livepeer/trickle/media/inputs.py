"""What can be written as a frame or a packet, and what is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import av
import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError
from .bitstream import Normalizer
from .frames import AudioFrame, VideoFrame
from .packets import Packet

__all__ = ["CARRIED", "EncodedPacket", "Frame", "ImageLike", "PacketTaker", "to_av"]

CARRIED = {"h264", "hevc", "aac", "opus", "mp3", "ac3"}
"""The codecs whose packets go as they are."""
_REMEMBERED = 64  # streams of files


class ImageLike(Protocol):
    """What a PIL image has that is asked for here."""

    @property
    def mode(self) -> str:
        """How a pixel is kept, as ``"RGB"``."""

    def convert(self, mode: str, /) -> Any:
        """The image in another mode."""


Frame: TypeAlias = VideoFrame | AudioFrame | av.VideoFrame | av.AudioFrame | NDArray[Any] | ImageLike
"""What can be written as a frame."""

if TYPE_CHECKING:
    EncodedPacket: TypeAlias = Packet | av.Packet[Any]
else:
    EncodedPacket = Packet | av.Packet  # which is generic to type checkers only


def to_av(frame: Frame, sample_rate: int) -> tuple[av.VideoFrame | av.AudioFrame, float | None]:
    """PyAV's frame, and its time in seconds if it has one, of whatever may be written.

    What could change under us is copied: an array may be drawn into again when this returns.

    Args:
        frame: A picture or a piece of sound.
        sample_rate: That of arrays of sound, in Hz.

    Raises:
        MediaError: It is no frame: the text says what would be one.
    """
    if isinstance(frame, VideoFrame):
        if frame._raw is None:
            return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.array), "rgb24"), frame.timestamp
        return frame.raw, frame.timestamp
    if isinstance(frame, AudioFrame):
        if frame._raw is None:
            assert frame._array is not None
            return AudioFrame.from_array(frame._array, frame.sample_rate).raw, frame.timestamp
        return frame.raw, frame.timestamp
    if isinstance(frame, (av.VideoFrame, av.AudioFrame)):
        return frame, frame.time
    if isinstance(frame, np.ndarray):
        if frame.ndim <= 2 and frame.dtype != np.uint8:
            return AudioFrame.from_array(frame, sample_rate).raw, None
        return VideoFrame.from_array(frame).raw, None
    if type(frame).__module__.partition(".")[0] == "PIL":
        return VideoFrame.from_image(frame).raw, None
    raise MediaError(
        f"{type(frame).__name__} is no frame; write a VideoFrame, an AudioFrame, PyAV's frame, a PIL image, "
        "an array of shape (height, width, 3), uint8, RGB, or one of sound, (samples, channels), float32."
    )


class PacketTaker:
    """Makes our packets of what may be written as one; remembers what it must know of each container."""

    def __init__(self) -> None:
        self._streams: dict[int, tuple[Any, Normalizer]] = {}

    def take(self, packet: EncodedPacket) -> list[Packet]:
        """The packets that one of ours or of PyAV's gives: one, or none.

        Raises:
            MediaError: It is no packet, MPEG-TS doesn't carry it, or it can't be converted.
        """
        if isinstance(packet, Packet):
            if packet.codec not in CARRIED:
                raise MediaError(f"A packet of {packet.codec!r} can't be written; {_carried()} can.")
            if not packet.data:
                raise MediaError("A packet without a byte can't be written.")
            return [packet]
        if not isinstance(packet, av.Packet):
            raise MediaError(
                f"{type(packet).__name__} is no packet; write a Packet, or one that PyAV read from a file."
            )
        stream: Any = packet.stream
        if stream is None:
            raise MediaError(
                "This packet belongs to no file, so nothing says how it is encoded; write a Packet instead."
            )
        if id(stream) not in self._streams:
            _check_open(stream)
            name = stream.codec_context.codec.canonical_name if stream.codec_context else stream.type
            if name not in CARRIED:
                raise MediaError(f"A packet of {name!r} can't be written; {_carried()} can, or its frames.")
            # The first track of sound of the next file goes on where that of this one was.
            tracks = stream.container.streams.audio
            pid = 1 + (tracks.index(stream) if stream in tracks else 0)
            while len(self._streams) >= _REMEMBERED:
                del self._streams[next(iter(self._streams))]
            # With the stream itself, lest another one gets its id.
            self._streams[id(stream)] = stream, Normalizer(stream, pid=pid)
        return self._streams[id(stream)][1].convert(packet)


def _check_open(stream: Any) -> None:
    """PyAV's streams point into their container, whose end they don't notice."""
    try:
        _ = stream.container.start_time
    except AssertionError as error:
        raise MediaError("The file of this packet is closed; write packets before that.") from error


def _carried() -> str:
    return ", ".join(sorted(CARRIED))
