"""From frames to the bytes of an MPEG-TS stream: synchronous, for a worker thread."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import av

from ..errors import MediaError
from .packets import CLOCK

__all__ = ["Chunk", "VideoEncoder", "check_codec"]

_PICTURE_I, _PICTURE_ANY = 1, 0  # AVPictureType
_NEVER = 1_000_000  # frames
_X264 = {"preset": "superfast", "tune": "zerolatency", "forced-idr": "1", "sc_threshold": "0", "bf": "0"}
_MUXER = {
    "flush_packets": "1",
    "max_delay": "0",
    "mpegts_copyts": "1",  # else every timestamp is moved
    "omit_video_pes_length": "0",  # with a length, a reader needn't wait for the next frame
    "pat_period": "86400",  # key frames bring the tables anyway
    "sdt_period": "86400",
}


class Chunk(NamedTuple):
    """The bytes of one encoded frame; those of a key frame begin with the stream's tables."""

    is_keyframe: bool
    data: bytes
    ticks: int


def check_codec(codec: str) -> None:
    """Raise `MediaError` when this PyAV has no encoder of this name."""
    try:
        av.codec.Codec(codec, "w")
    except (ValueError, av.error.FFmpegError) as error:
        raise MediaError(
            f"This PyAV has no encoder {codec!r}.", hint='"libx264" comes with PyAV\'s own wheels.'
        ) from error


class VideoEncoder:
    """Encodes frames of one size, and puts them into MPEG-TS.

    Args:
        codec: libavcodec's name of the encoder.
        fps: The usual number of frames per second, for rate control; the frames' own times are kept.
        gop: Seconds between two key frames.
        bitrate: Bits per second; None for constant quality.
        options: More options of the encoder, which win over ours.
    """

    def __init__(
        self, codec: str, *, fps: float, gop: float, bitrate: int | None, options: Mapping[str, str] | None
    ) -> None:
        self._codec = codec
        self._rate = Fraction(fps).limit_denominator(1001)
        self._gop = max(round(gop * CLOCK), 1)
        self._bitrate = bitrate
        self._options = dict(options or {})
        self._sink = _Sink()
        self._container: Any = None
        self._stream: Any = None
        self._next_key = 0
        self.force_key: bool = False
        """Set to make the next frame a key frame."""

    def encode(self, frame: av.VideoFrame, ticks: int) -> list[Chunk]:
        """Encode one frame, shown at `ticks`/90000 s. Raises `MediaError`."""
        # H.264 in 4:2:0 has no odd sizes: an odd one is scaled down by a pixel.
        picture = frame.reformat(width=frame.width & ~1, height=frame.height & ~1, format="yuv420p")
        with _as_media_error("encode"):
            if self._stream is None:
                self._open(picture.width, picture.height)
            is_key = self.force_key or ticks >= self._next_key
            before: Any = picture.pts, picture.time_base, picture.pict_type
            try:
                picture.pts, picture.time_base = ticks, Fraction(1, CLOCK)
                # A decoded frame brings the type it had in its own stream, which x264 would obey.
                picture.pict_type = _PICTURE_I if is_key else _PICTURE_ANY
                packets = self._stream.encode(picture)
            finally:
                if picture is frame:  # the caller's own
                    picture.pts, time_base, picture.pict_type = before
                    picture.time_base = time_base or Fraction(0, 1)  # PyAV reads 0/1 as None
            if is_key:
                self._next_key, self.force_key = ticks + self._gop, False
            return self._mux(packets)

    def finish(self) -> list[Chunk]:
        """What the encoder still holds; it takes no frame after this. Raises `MediaError`."""
        if self._stream is None:
            return []
        with _as_media_error("finish encoding"):
            return self._mux(self._stream.encode(None))

    def close(self) -> None:
        """Free the encoder. Never raises."""
        container, self._container, self._stream = self._container, None, None
        if container is not None:
            with contextlib.suppress(Exception):
                container.close()

    def _open(self, width: int, height: int) -> None:
        self._container = av.open(self._sink, "w", format="mpegts", options=dict(_MUXER))
        options = dict(_X264) if self._codec == "libx264" else {}
        if self._bitrate is not None and self._codec == "libx264":
            options |= {"maxrate": str(self._bitrate), "bufsize": str(self._bitrate)}
        stream = self._container.add_stream(self._codec, rate=self._rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, CLOCK)
        context = stream.codec_context
        context.time_base = Fraction(1, CLOCK)
        context.gop_size = _NEVER  # key frames come by time, as we ask for them
        context.max_b_frames = 0
        # More threads cut a frame into slices, which only large ones are worth.
        context.thread_count = 1 if width * height <= 1280 * 720 else min(4, os.cpu_count() or 1)
        if self._bitrate is not None:
            context.bit_rate = self._bitrate
        context.options = options | self._options
        self._stream = stream

    def _mux(self, packets: list[Any]) -> list[Chunk]:
        chunks = []
        for packet in packets:
            is_keyframe, ticks = packet.is_keyframe, int(packet.pts * packet.time_base * CLOCK)
            self._container.mux(packet)
            chunks.append(Chunk(is_keyframe, self._sink.take(), ticks))
        return chunks


class _Sink:
    """The file that the muxer writes to."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


@contextlib.contextmanager
def _as_media_error(doing: str) -> Any:
    try:
        yield
    except (av.error.FFmpegError, ValueError, TypeError, OSError) as error:
        raise MediaError(f"PyAV could not {doing}: {error}.") from error
