"""From frames to encoded pictures: synchronous, for a worker thread."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import av
import av.logging
from av.video.reformatter import VideoReformatter

from ..errors import MediaError
from .packets import CLOCK, TICK, Packet

__all__ = ["VideoEncoder", "check_codec", "open_encoder", "speaking_of"]

_PICTURE_I, _PICTURE_ANY = 1, 0  # AVPictureType
_NEVER = 1_000_000  # frames
# Without delay, and with an IDR picture for every key frame that is asked for.
_DEFAULTS: dict[str, dict[str, str]] = {
    # Beside superfast at its usual quality (crf 23): a third less time in the encoder and in every decoder,
    # as much signal to noise, a seventh more bits. Without the loop filter ultrafast would show its blocks.
    "libx264": {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "deblock": "0:0",
        "crf": "22",
        "forced-idr": "1",
        "sc_threshold": "0",
        "bf": "0",
    },
    "libx265": {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "forced-idr": "1",
        "x265-params": "log-level=none:scenecut=0:bframes=0",
    },
    "nvenc": {"preset": "p3", "tune": "ull", "zerolatency": "1", "delay": "0", "forced-idr": "1"},
    "qsv": {"preset": "veryfast", "async_depth": "1", "forced_idr": "1"},
    "amf": {"usage": "ultralowlatency"},
    "videotoolbox": {"realtime": "1"},
}
_CARRIED = {"video": ("h264", "hevc"), "audio": ("aac", "opus")}


def check_codec(encoder: str, kind: str) -> str:
    """The codec that an encoder makes, as ``"h264"`` for ``"libx264"``.

    Raises:
        MediaError: This PyAV has no encoder of this name, or it makes what streams don't carry.
    """
    try:
        codec = av.codec.Codec(encoder, "w")
    except (ValueError, av.error.FFmpegError) as error:
        usual = "libx264" if kind == "video" else "aac"
        raise MediaError(
            f"This PyAV has no encoder {encoder!r}.", hint=f'"{usual}" comes with PyAV\'s own wheels.'
        ) from error
    made = codec.canonical_name
    if made not in _CARRIED[kind]:
        names = " or ".join(_CARRIED[kind])
        raise MediaError(f"{encoder!r} makes {made}; a stream's {kind} is {names}.")
    return made


def open_encoder(context: Any, defaults: Mapping[str, str], options: Mapping[str, str]) -> None:
    """Open an encoder; `options` win over `defaults`.

    Raises:
        MediaError: It can't be opened here (the text says why), or an option is unknown.
    """
    name = context.name
    context.options = {**defaults, **options}
    try:
        context.open()
    except (av.error.FFmpegError, ValueError, TypeError, OSError) as error:
        why = _reason(context) or error
        raise MediaError(
            f"The encoder {name!r} can't be opened: {why}",
            hint="Check its options, and whether this machine has the hardware and driver that it needs.",
        ) from error
    unknown = sorted(set(options) & set(context.options))  # the encoder leaves what it does not know
    if unknown:
        raise MediaError(f"The encoder {name!r} has no option {', '.join(map(repr, unknown))}.")


@contextlib.contextmanager
def speaking_of(doing: str) -> Iterator[None]:
    """PyAV's errors as `MediaError`."""
    try:
        yield
    except (av.error.FFmpegError, ValueError, TypeError, OSError) as error:
        raise MediaError(f"PyAV could not {doing}: {error}.") from error


class VideoEncoder:
    """Encodes frames, each with its time; a frame of another size begins anew, with a key frame.

    Args:
        encoder: libavcodec's name of the encoder.
        fps: The usual number of frames per second, for rate control; the frames' own times are kept.
        gop: Seconds between two key frames.
        bitrate: Bits per second; None for constant quality.
        options: More options of the encoder, which win over ours.

    Raises:
        MediaError: There is no such encoder.
    """

    def __init__(
        self, encoder: str, *, fps: float, gop: float, bitrate: int | None, options: Mapping[str, str] | None
    ) -> None:
        self.codec: str = check_codec(encoder, "video")
        self._encoder = encoder
        self._rate = Fraction(fps).limit_denominator(1001)
        self._gop = max(round(gop * CLOCK), 1)
        self._bitrate = bitrate
        self._options = dict(options or {})
        self._context: Any = None
        self._reformatter = VideoReformatter()  # keeps its tables from frame to frame
        self._shape = (0, 0, "")  # width, height and format of what it takes as it is
        self._in_ticks = False  # its packets' times are
        self._next_key = 0
        self.force_key: bool = False
        """Set to make the next frame a key frame."""

    def encode(self, frame: av.VideoFrame, ticks: int) -> list[Packet]:
        """Encode one frame, shown at `ticks`/90000 s. Raises `MediaError`."""
        # 4:2:0 has no odd sizes: an odd one is scaled down by a pixel.
        width, height = max(frame.width & ~1, 2), max(frame.height & ~1, 2)
        packets: list[Packet] = []
        if self._context is None or (self._context.width, self._context.height) != (width, height):
            packets = self.finish()
            self._open(width, height)
        with speaking_of("encode"):
            picture: Any = frame
            if (frame.width, frame.height, frame.format.name) != self._shape:
                picture = self._reformatter.reformat(frame, width, height, self._context.pix_fmt)
            is_key = self.force_key or ticks >= self._next_key
            before: Any = picture.pts, picture.time_base, picture.pict_type
            try:
                picture.pts, picture.time_base = ticks, TICK
                # A decoded frame brings the type it had in its own stream, which x264 would obey.
                picture.pict_type = _PICTURE_I if is_key else _PICTURE_ANY
                encoded = self._context.encode(picture)
            finally:
                if picture is frame:  # the caller's own
                    picture.pts, time_base, picture.pict_type = before
                    picture.time_base = time_base or Fraction(0, 1)  # PyAV reads 0/1 as None
            if is_key:
                self._next_key, self.force_key = ticks + self._gop, False
            return packets + [self._packet(packet) for packet in encoded]

    def finish(self) -> list[Packet]:
        """What the encoder still holds; the next frame begins anew. Raises `MediaError`."""
        context, self._context, self.force_key = self._context, None, True
        if context is None:
            return []
        with speaking_of("finish encoding"):
            return [self._packet(packet) for packet in context.encode(None)]

    def _open(self, width: int, height: int) -> None:
        context: Any = av.CodecContext.create(self._encoder, "w")
        context.width, context.height = width, height
        formats = [known.name for known in context.codec.video_formats or ()]
        wanted = [name for name in ("yuv420p", "nv12") if name in formats]
        context.pix_fmt = (wanted or formats or ["yuv420p"])[0]
        context.time_base = TICK
        context.framerate = self._rate
        context.gop_size = _NEVER  # key frames come by time, as we ask for them
        context.max_b_frames = 0
        # More threads cut a frame into slices, which only large ones are worth.
        context.thread_count = 1 if width * height <= 1280 * 720 else min(4, os.cpu_count() or 1)
        family = self._encoder if self._encoder in _DEFAULTS else self._encoder.rpartition("_")[2]
        defaults = dict(_DEFAULTS.get(family, {}))
        if self._bitrate is not None:
            context.bit_rate = self._bitrate
            defaults.pop("crf", None)
            defaults |= {"maxrate": str(self._bitrate), "bufsize": str(self._bitrate)}
        open_encoder(context, defaults, self._options)
        self._context = context
        self._shape = (width, height, context.pix_fmt)
        self._in_ticks = context.time_base == TICK

    def _packet(self, packet: Any) -> Packet:
        pts, dts = packet.pts, packet.dts
        if not self._in_ticks:
            pts, dts = int(pts * packet.time_base * CLOCK), int(dts * packet.time_base * CLOCK)
        return Packet("video", self.codec, bytes(packet), pts, dts, packet.is_keyframe)


def _reason(context: Any) -> str:
    """What an encoder says when it is opened once more; the error alone is "Operation not permitted"."""
    level = av.logging.get_level()
    try:
        av.logging.set_level(av.logging.ERROR)
        with av.logging.Capture() as lines:
            with contextlib.suppress(Exception):
                context.open()
            return " ".join(text.strip().rstrip(".") + "." for _, _, text in lines if text.strip())
    finally:
        av.logging.set_level(level)
