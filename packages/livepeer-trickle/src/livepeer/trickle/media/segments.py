"""Cutting a stream into segments at which readers can join: decisions only, no I/O."""

from __future__ import annotations

from typing import Literal, NamedTuple

from .mpegts.muxer import Muxer
from .packets import CLOCK, Packet

__all__ = ["Piece", "SegmentCutter", "parameter_sets"]

_SPS = {"h264": (0x1F, 7), "hevc": (0x7E, 33 << 1)}


class Piece(NamedTuple):
    """Bytes of the stream that go out together."""

    data: bytes
    begins: bool
    """Whether a new segment begins with them."""
    frames: int = 0
    """Pictures that are in them."""
    audio_frames: int = 0
    """Frames of sound that are in them."""
    ticks: int | None = None
    """When the last of them is to be shown, in ticks of 1/90000 s."""


class SegmentCutter:
    """Puts packets into MPEG-TS as they come, and begins a segment where decoding can begin.

    That is at key frames of video, or, where there is no video, every `gop` seconds. Each segment begins with
    the tables; a stream is in them from its first packet on.

    Args:
        gop: Seconds that a segment of sound lasts; key frames that are closer than a quarter of it share one.
    """

    def __init__(self, gop: float) -> None:
        self.undecodable: int = 0
        """Pictures left out because no key frame came before them."""
        self._gop = round(gop * CLOCK)
        self._muxer = Muxer()
        self._streams: dict[int | Literal["video"], _Stream] = {}
        self._changed = False  # the tables did
        self._open = False
        self._began_at = 0
        self._has_key = False
        self._has_video = False  # the present segment has
        self._parameters = b""

    def declare(
        self, kind: Literal["video", "audio"], codec: str, *, pid: int = 0, channels: int = 2
    ) -> None:
        """Put a stream into the tables before its first packet. Raises `MediaError` for other codecs."""
        self._stream("video" if kind == "video" else pid, kind, codec, channels)

    def restart(self) -> None:
        """The present segment broke: the next one begins with the next packet that can begin one."""
        self._open = self._has_key = False

    def add(self, packet: Packet) -> Piece | None:
        """The bytes of a packet that has a time; None when it is left out. Raises `MediaError`."""
        video = packet.kind == "video"
        if video and not packet.is_keyframe and not self._has_key:
            self.undecodable += 1
            return None
        channels = 1 if packet.codec == "opus" and not packet.data[0] & 0x04 else 2
        stream = self._stream("video" if video else packet.pid, packet.kind, packet.codec, channels)
        assert packet.pts is not None
        times = stream.times(packet.pts, packet.pts if packet.dts is None else packet.dts)
        if times is None:
            return None
        pts, dts = times
        begins = self._begins_video(packet, dts) if video else self._begins_audio(dts)
        if begins:
            self._open, self._began_at, self._has_video = True, dts, False
        self._has_video |= video
        tables = self._muxer.tables() if begins or self._changed else b""
        self._changed = False
        data = tables + self._muxer.write(
            stream.pid,
            packet.data,
            pts=pts,
            dts=dts,
            is_keyframe=packet.is_keyframe,
            discontinuity=packet.discontinuity,
        )
        return Piece(data, begins, int(video), int(not video), pts)

    def _begins_video(self, packet: Packet, dts: int) -> bool:
        if not packet.is_keyframe:
            return False
        self._has_key = True
        found = parameter_sets(packet.codec, packet.data) or self._parameters
        changed = bool(self._parameters) and found != self._parameters
        self._parameters = found
        if not self._open or changed:
            return True
        # Sound that came first shares its segment with the picture that it belongs to.
        age = dts - self._began_at
        return (self._has_video and not 0 <= age < self._gop // 4) or not 0 <= age < self._gop

    def _begins_audio(self, dts: int) -> bool:
        if not self._open:
            return True
        video = self._streams.get("video")
        if (
            video is not None
            and video.last is not None
            and abs(dts - video.last) <= max(2 * self._gop, CLOCK)
        ):
            return False  # its key frames begin the segments
        return not 0 <= dts - self._began_at < self._gop

    def _stream(
        self, key: int | Literal["video"], kind: Literal["video", "audio"], codec: str, channels: int
    ) -> _Stream:
        stream = self._streams.get(key)
        if stream is not None and stream.codec == codec:
            return stream
        pid = self._muxer.add_stream(kind, codec, channels=channels)
        if stream is not None:
            self._muxer.remove_stream(stream.pid)
        self._streams[key] = made = _Stream(pid, codec)
        self._changed = True
        return made


class _Stream:
    def __init__(self, pid: int, codec: str) -> None:
        self.pid = pid
        self.codec = codec
        self.last: int | None = None  # dts

    def times(self, pts: int, dts: int) -> tuple[int, int] | None:
        """The times as MPEG-TS can say them: from 0 on. None for what was over before."""
        if pts < 0 and self.codec not in ("h264", "hevc", "opus"):
            return None  # an encoder's lead-in, which would be heard late
        dts = max(dts, 0)
        if self.last is not None and self.last - CLOCK // 1000 < dts <= self.last:
            dts = self.last + 1  # an encoder that reorders begins before 0
        self.last = dts
        return max(pts, dts), dts


def parameter_sets(codec: str, data: bytes) -> bytes:
    """The sequence parameter set of a picture in Annex B, which says its size; empty when there is none."""
    if codec not in _SPS:
        return b""
    mask, kind = _SPS[codec]
    position = data.find(b"\x00\x00\x01")
    while 0 <= position < len(data) - 3:
        end = data.find(b"\x00\x00\x01", position + 3)
        if data[position + 3] & mask == kind:
            return data[position + 3 : end if end >= 0 else None].rstrip(b"\x00")
        position = end
    return b""
