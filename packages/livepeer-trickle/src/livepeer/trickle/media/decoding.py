"""From encoded pictures to frames: synchronous, for a worker thread."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import av

from ..errors import MediaError
from .frames import VideoFrame
from .packets import CLOCK, Packet

__all__ = ["VideoDecoder"]

_logger = logging.getLogger("livepeer.trickle")
_LOW_DELAY = 1 << 19  # AV_CODEC_FLAG_LOW_DELAY


class VideoDecoder:
    """Decodes one video stream from its first key frame on; each frame comes out with its own packet.

    A stream whose frames are not in the order of their times (B-frames) is decoded with the delay it needs.
    """

    def __init__(self) -> None:
        self.errors: int = 0
        """Packets that could not be decoded."""
        self._context: Any = None
        self._codec = ""
        self._need_key = True

    def decode(self, packets: Iterable[Packet]) -> list[VideoFrame]:
        """Decode packets. Raises `MediaError` for a codec that PyAV doesn't have."""
        frames: list[VideoFrame] = []
        for packet in packets:
            if packet.discontinuity:
                self._need_key = True
            if self._need_key and not packet.is_keyframe:
                continue
            if packet.codec != self._codec:
                frames += self.flush()
                self._open(packet)
            elif self._need_key:
                self._context.flush_buffers()
            self._need_key = False
            try:
                frames += [_frame(raw) for raw in self._context.decode(packet.to_av())]
            except av.error.FFmpegError as error:
                _logger.debug("a packet at %s s could not be decoded: %s", packet.timestamp, error)
                self.errors += 1
                self._need_key = True
        return frames

    def flush(self) -> list[VideoFrame]:
        """The frames that the decoder still holds; after this it begins anew."""
        if self._context is None:
            return []
        context, self._context, self._codec = self._context, None, ""
        try:
            return [_frame(raw) for raw in context.decode(None)]
        except av.error.FFmpegError as error:
            _logger.debug("the last frames could not be decoded: %s", error)
            return []

    def _open(self, packet: Packet) -> None:
        try:
            context: Any = av.CodecContext.create(packet.codec, "r")
        except (ValueError, av.error.FFmpegError) as error:
            raise MediaError(f"This PyAV has no decoder for {packet.codec!r}.") from error
        context.thread_count = 1  # a second thread holds a frame back
        if packet.pts == packet.dts:
            context.flags |= _LOW_DELAY
        self._context, self._codec = context, packet.codec


def _frame(raw: av.VideoFrame) -> VideoFrame:
    return VideoFrame(raw, None if raw.pts is None else raw.pts / CLOCK)
