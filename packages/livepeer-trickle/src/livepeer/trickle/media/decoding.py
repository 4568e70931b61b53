"""From encoded pictures and sound to frames: synchronous, for a worker thread."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import av

from ..errors import MediaError
from .frames import AudioFrame, VideoFrame
from .packets import CLOCK, Packet

__all__ = ["AudioDecoder", "Decoder", "VideoDecoder", "decode_all"]

_logger = logging.getLogger("livepeer.trickle")
_LOW_DELAY = 1 << 19  # AV_CODEC_FLAG_LOW_DELAY


class Decoder(Protocol):
    """What turns the packets of one track into frames."""

    @property
    def errors(self) -> int:
        """Packets that no frame could be made of."""

    def decode(self, packets: Iterable[Packet]) -> list[Any]:
        """Decode packets. Raises `MediaError` for a codec that PyAV doesn't have."""

    def flush(self) -> list[Any]:
        """The frames that are still held."""


def decode_all(decoders: Mapping[str, Decoder], packets: Iterable[Packet]) -> list[VideoFrame | AudioFrame]:
    """Decode packets of several tracks, each by the decoder of its kind; frames come in that order."""
    frames: list[VideoFrame | AudioFrame] = []
    for packet in packets:
        frames += decoders[packet.kind].decode((packet,))
    return frames


class VideoDecoder:
    """Decodes one video stream from its first key frame on; each frame comes out with its own packet.

    A stream whose frames are not in the order of their times (B-frames) is decoded with the delay it needs.
    """

    def __init__(self) -> None:
        self.errors: int = 0
        """Packets that no picture could be made of, or that followed one and build on it."""
        self._context: Any = None
        self._codec = ""
        self._pid = -1
        self._low_delay = False
        self._need_key = True

    def decode(self, packets: Iterable[Packet]) -> list[VideoFrame]:
        """Decode packets. Raises `MediaError` for a codec that PyAV doesn't have."""
        frames: list[VideoFrame] = []
        for packet in packets:
            if packet.discontinuity or packet.pid != self._pid:
                self._need_key, self._pid = True, packet.pid
            if self._need_key and not packet.is_keyframe:
                self.errors += self._context is not None
                continue
            reorders = packet.pts != packet.dts
            if packet.codec != self._codec or (reorders and self._low_delay and packet.is_keyframe):
                frames += self.flush()
                self._open(packet, low_delay=not reorders)
            elif self._need_key:
                frames += self._drain()
                self._context.flush_buffers()
            self._need_key = False
            try:
                frames += [_picture(raw) for raw in self._context.decode(packet.to_av())]
            except av.error.FFmpegError as error:
                _logger.debug("a picture at %s s could not be decoded: %s", packet.timestamp, error)
                self.errors += 1
                self._need_key = True
        return frames

    def flush(self) -> list[VideoFrame]:
        """The frames that the decoder still holds; after this it begins anew."""
        frames = self._drain()
        self._context, self._codec, self._need_key = None, "", True
        return frames

    def _drain(self) -> list[VideoFrame]:
        if self._context is None:
            return []
        try:
            return [_picture(raw) for raw in self._context.decode(None)]
        except av.error.FFmpegError as error:
            _logger.debug("the last pictures could not be decoded: %s", error)
            return []

    def _open(self, packet: Packet, *, low_delay: bool) -> None:
        context = _create(packet)
        context.thread_count = 1  # a second thread holds a frame back
        if low_delay:
            context.flags |= _LOW_DELAY
        self._context, self._codec, self._low_delay = context, packet.codec, low_delay


class AudioDecoder:
    """Decodes one audio stream; each piece of sound comes out with its own packet."""

    def __init__(self) -> None:
        self.errors: int = 0
        """Packets that no sound could be made of."""
        self._context: Any = None
        self._codec = ""
        self._pid = -1
        self._next: float | None = None

    def decode(self, packets: Iterable[Packet]) -> list[AudioFrame]:
        """Decode packets. Raises `MediaError` for a codec that PyAV doesn't have."""
        frames: list[AudioFrame] = []
        for packet in packets:
            if packet.codec != self._codec or packet.pid != self._pid:
                frames += self.flush()
                self._context, self._codec, self._pid = _create(packet), packet.codec, packet.pid
            elif packet.discontinuity:
                self._context.flush_buffers()
                self._next = None
            try:
                frames += [self._sound(raw) for raw in self._context.decode(packet.to_av())]
            except av.error.FFmpegError as error:
                _logger.debug("a piece of sound at %s s could not be decoded: %s", packet.timestamp, error)
                self.errors += 1
        return frames

    def flush(self) -> list[AudioFrame]:
        """The sound that the decoder still holds; after this it begins anew."""
        context, self._context, self._codec = self._context, None, ""
        frames: list[AudioFrame] = []
        if context is not None:
            try:
                frames = [self._sound(raw) for raw in context.decode(None)]
            except av.error.FFmpegError as error:
                _logger.debug("the last sound could not be decoded: %s", error)
        self._next = None
        return frames

    def _sound(self, raw: av.AudioFrame) -> AudioFrame:
        """The frame with its time; one without follows the one before."""
        timestamp = self._next if raw.pts is None else raw.pts / CLOCK
        frame = AudioFrame(raw, timestamp)
        self._next = None if timestamp is None else timestamp + frame.duration
        return frame


def _create(packet: Packet) -> Any:
    try:
        context = av.CodecContext.create(packet.codec, "r")
    except (ValueError, av.error.FFmpegError) as error:
        raise MediaError(f"This PyAV has no decoder for {packet.codec!r}.") from error
    if packet.extradata:
        context.extradata = packet.extradata
    return context


def _picture(raw: av.VideoFrame) -> VideoFrame:
    return VideoFrame(raw, None if raw.pts is None else raw.pts / CLOCK)
