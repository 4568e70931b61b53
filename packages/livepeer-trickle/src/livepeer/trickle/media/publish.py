"""Writing live media: frames, packets or bytes in, a trickle channel of MPEG-TS out."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal

import av

from ..errors import ConfigurationError, LivepeerError, MediaError
from ..transport import Transport
from .audio_encoding import AudioEncoder
from .cameras import CameraReader
from .counters import Counters
from .encoding import VideoEncoder
from .inputs import EncodedPacket, Frame, PacketTaker, to_av
from .jobs import Job, JobQueue
from .production import Production
from .sending import Sender
from .sources import FileReader
from .timing import Clock
from .ts_segments import StreamCutter

__all__ = ["MediaPublish"]


class MediaPublish(Counters):
    """Encodes frames, or takes what is encoded already, and writes it to a channel in segments.

    A segment begins at each key frame of the video, or about every `gop` seconds where there is only sound.
    Pictures and sound may come in any order; each stream appears with its first frame. Times are kept to
    1/90000 s (modulo 26.5 hours, where MPEG-TS begins anew), and those of pictures must grow. Pictures may
    change their size; an odd one is made even by scaling, as H.264 demands.

    Args:
        url: The channel's URL.
        transport: The HTTP session to use; one of its own when absent.
        fps: Frames per second, for frames that bring no time of their own, and for rate control.
        queue_size: How many frames may wait for the encoder.
        drop: What a full queue does: None makes `write_frame` wait, so that nothing is lost; ``"oldest"``
            drops the frame that waits longest (pictures before sound), which suits a camera.
        codec: The encoder of pictures, as libavcodec calls it: ``"libx264"``, ``"libx265"``,
            ``"h264_nvenc"`` and others. One that this machine can't open is told by the second write.
        bitrate: Bits per second; constant quality when absent.
        gop: Seconds between two key frames, which is also the length of a segment.
        options: More options of the encoder, which win over ours. Those are, for libx264, its fastest preset
            with the loop filter, at crf 22; ``{"preset": "veryfast"}`` takes twice the work for fewer bits.
        audio_codec: The encoder of sound: ``"aac"``, or ``"libopus"``, which is less late (27 ms, not 64).
        audio_bitrate: Bits per second; the encoder's own choice when absent.
        audio_options: More options of the encoder of sound.
        sample_rate: Of arrays of sound, and of the stream where the encoder can, in Hz.
        start: The number of the first segment; the server is asked when absent.

    Raises:
        MediaError: There is no such encoder.
    """

    def __init__(
        self,
        url: str,
        *,
        transport: Transport | None = None,
        fps: float = 30.0,
        queue_size: int = 8,
        drop: Literal["oldest"] | None = None,
        codec: str = "libx264",
        bitrate: int | None = None,
        gop: float = 1.0,
        options: Mapping[str, str] | None = None,
        audio_codec: str = "aac",
        audio_bitrate: int | None = None,
        audio_options: Mapping[str, str] | None = None,
        sample_rate: int = 48_000,
        start: int | None = None,
    ) -> None:
        _check_arguments(fps=fps, queue_size=queue_size, gop=gop, drop=drop, sample_rate=sample_rate)
        self._queue = JobQueue(queue_size)
        production = Production(
            self._queue,
            VideoEncoder(codec, fps=fps, gop=gop, bitrate=bitrate, options=options),
            AudioEncoder(audio_codec, sample_rate=sample_rate, bitrate=audio_bitrate, options=audio_options),
            gop=gop,
            make_sender=lambda on_break: Sender(url, transport=transport, start=start, on_break=on_break),
        )
        super().__init__(production, StreamCutter(gop))
        self.fps = fps
        self.sample_rate = sample_rate
        self._sender = production.sender
        self.url: str = self._sender.url
        self._clock = Clock(fps)
        self._packets = PacketTaker()
        self._written_as: Literal["media", "bytes"] | None = None
        self._drop = drop == "oldest"
        self._order = asyncio.Lock()
        self._error_told = False
        self._closed = False

    @property
    def explain(self) -> Callable[[LivepeerError], Awaitable[LivepeerError]] | None:
        """Asked when writing fails, for an error that says more: a live session may know why."""
        return self._production.explain

    @explain.setter
    def explain(self, asked: Callable[[LivepeerError], Awaitable[LivepeerError]] | None) -> None:
        self._production.explain = asked

    async def write_frame(self, frame: Frame, *, timestamp: float | None = None) -> None:
        """Write a picture or a piece of sound; waits while the queue is full.

        Args:
            frame: A picture: a `VideoFrame`, PyAV's frame, an array ``(height, width, 3)`` uint8 RGB, or a
                PIL image. Or sound: an `AudioFrame`, PyAV's frame, or an array ``(samples, channels)`` or
                ``(samples,)``, float32 of -1 to 1 or int16, at `sample_rate`.
                Arrays and images may be changed again when this returns.
            timestamp: When to show it (of sound: the first sample), in seconds; else the frame's own, else
                1/fps after the one before, or where the sound before ends.

        Raises:
            MediaError: It is no such frame, or its time doesn't grow, or the encoder failed.
            ChannelClosed: The channel ended.
            ChannelNotFound: There is no such channel.
            TrickleConnectionError: The server can't be reached.
        """
        async with self._order:
            await self._room()
            self._push_frame(frame, timestamp)

    def try_write_frame(self, frame: Frame, *, timestamp: float | None = None) -> bool:
        """Write a frame if it need not wait; else count it in `dropped` and return False. Raises likewise."""
        self._check("media")
        if self._drop:
            self._queue.make_room()
        if self._order.locked() or self._queue.full:
            to_av(frame, self.sample_rate)
            self._refused += 1
            return False
        self._push_frame(frame, timestamp)
        return True

    async def write_packet(self, packet: EncodedPacket) -> None:
        """Write a packet that is encoded already, as it is: nothing is transcoded.

        Packets come in the order of decoding; those of pictures before the first key frame are left out.

        Args:
            packet: A `Packet`, or PyAV's of any container: H.264 or HEVC (with or without B-frames), AAC,
                Opus, MP3. One without a time is shown 1/fps after the one before.

        Raises:
            MediaError: MPEG-TS doesn't carry it, or it can't be converted. Else as `write_frame`.
        """
        async with self._order:
            await self._room()
            self._check("media")
            for taken in self._packets.take(packet):
                ready = self._clock.packet(taken)
                self._production.note(ready.pts or 0, time.monotonic())
                self._production.push(Job(ready))

    async def write_bytes(self, data: bytes) -> None:
        """Write MPEG-TS that is muxed already, as it is, cut anywhere; segments begin at its key frames.

        What comes before the first key frame is left out. A stream that is written so takes nothing else.

        Args:
            data: The next bytes.

        Raises:
            MediaError: It is no MPEG-TS. Else as `write_frame`.
        """
        async with self._order:
            await self._room()
            self._check("bytes")
            pieces = self._stream_cutter.feed(data)
            now = time.monotonic()
            for ticks in self._stream_cutter.times:
                self._production.note(ticks, now)
            if pieces:
                self._production.push(Job(pieces))

    async def publish_file(self, path: str | os.PathLike[str], *, realtime: bool = True) -> None:
        """Write the video and the sound of a file, and return when all is written.

        H.264, HEVC, AAC, Opus and MP3 go as they are; what MPEG-TS doesn't carry is transcoded. Times are the
        file's own, or go on from what was written before.

        Args:
            path: The file, or a URL that libavformat can read.
            realtime: Whether to write each packet when its time has come, or all as fast as it goes.

        Raises:
            MediaError: The file can't be read, or has neither video nor sound. Else as `write_frame`.
        """
        await FileReader(self, path, realtime=realtime).run()

    async def publish_camera(
        self,
        name: str,
        *,
        format: str | None = None,  # as av.open calls it
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Write what a camera (or another input device) sees, until it ends or this is cancelled.

        When the encoder is behind, the oldest frame is dropped, and counted in `dropped`.

        Args:
            name: The device: ``"/dev/video0"`` on Linux, ``"0"`` on macOS, a camera's name on Windows.
            format: libavdevice's name of the input; else the platform's: v4l2, avfoundation or dshow.
            options: Its options, as ``{"video_size": "1280x720", "framerate": "30"}``.

        Raises:
            MediaError: There is no such camera or input, or it failed. Else as `write_frame`.
        """
        await CameraReader(self, name, format=format, options=options).run()

    async def close(self, *, delete: bool = True, linger: float = 0.25) -> None:
        """Encode what waits, wait for the last segment's answer, and end the channel.

        Args:
            delete: Whether to end the channel for everybody; otherwise it only isn't written any more.
            linger: Seconds between the last answer and that end, which takes away from readers what they
                have not asked for yet. After an error there is no such wait.

        Raises the error that kept frames from being written, when no call told it before.
        """
        if self._closed:
            return
        self._closed = True
        wait = 0.0
        try:
            await self._production.finish()
            if self._production.error is None and self.bytes:
                wait = linger
        finally:
            await self._sender.close(delete=delete, linger=wait)
        self._raise_error(again=False)

    async def abort(self) -> None:
        """Let go at once: frames that wait are forgotten, the channel goes on without this writer."""
        self._closed = True
        await self._production.abort()
        await self._sender.abort()

    def fail(self, error: LivepeerError) -> None:
        """End the writing with this error, which calls that wait and later ones raise."""
        if not self._closed:
            self._production.fail(error)

    async def __aenter__(self) -> MediaPublish:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        try:
            await self.close()
        except LivepeerError:
            if kind is None:
                raise

    async def _flush(self) -> None:
        """Wait until all is written that was; the encoders begin anew after it."""
        async with self._order:
            self._check("media")
            await self._production.flush()
        self._raise_error()

    def _offer(self, frame: Frame, timestamp: float | None) -> None:
        """Write a frame now; where there is no room, the oldest one is dropped."""
        self._queue.make_room()
        self._push_frame(frame, timestamp)

    def _declare(self, streams: Iterable[tuple[Any, bool]]) -> None:
        """Put streams into the tables to be written: PyAV's, and whether they go as they are."""
        for stream, as_it_is in streams:
            self._production.declare(stream.type, stream.codec_context, as_it_is=as_it_is)

    async def _room(self) -> None:
        if self._drop:
            self._queue.make_room()
        await self._queue.room()

    def _check(self, written_as: Literal["media", "bytes"]) -> None:
        if self._closed:
            raise MediaError(f"The publisher of {self.url} is closed; it takes no frame any more.")
        self._raise_error()
        if self._written_as not in (None, written_as):
            raise MediaError(
                "A stream is written as bytes, or as frames and packets: only one can say what is in it."
            )
        self._written_as = written_as

    def _push_frame(self, frame: Frame, timestamp: float | None) -> None:
        """Check a frame, give it its time, and put it into the queue."""
        self._check("media")
        raw, own = to_av(frame, self.sample_rate)
        timestamp, now = own if timestamp is None else timestamp, time.monotonic()
        if isinstance(raw, av.AudioFrame):
            ticks = self._clock.audio(timestamp, raw.samples / raw.sample_rate)
        else:
            ticks = self._clock.video(timestamp)
            self._production.note(ticks, now)
        self._production.push(Job(raw, ticks, now))

    def _raise_error(self, *, again: bool = True) -> None:
        error = self._production.error
        if error is not None and (again or not self._error_told):
            self._error_told = True
            raise error


def _check_arguments(*, fps: float, queue_size: int, gop: float, drop: str | None, sample_rate: int) -> None:
    if not 0 < fps <= 1000:
        raise ConfigurationError(f"fps={fps} can't be; it is frames per second, over 0 and up to 1000.")
    if queue_size < 1:
        raise ConfigurationError(f"queue_size={queue_size} can't be; it is at least 1.")
    if not 0 < gop <= 60:
        raise ConfigurationError(f"gop={gop} can't be; it is seconds between key frames, up to 60.")
    if drop not in (None, "oldest"):
        raise ConfigurationError(f"drop={drop!r} can't be; it is None or 'oldest'.")
    if not 8000 <= sample_rate <= 192_000:
        raise ConfigurationError(f"sample_rate={sample_rate} can't be; it is in Hz, 8000 to 192000.")
