"""Reading live video: a trickle channel of MPEG-TS in; frames, packets, bytes or a file out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, overload

from ..errors import ConfigurationError, LivepeerError
from ..subscriber import TrickleSubscriber
from ..transport import Transport
from .frames import AudioFrame, VideoFrame
from .intake import Intake
from .losses import Losses
from .packets import Packet
from .queues import BoundedQueue
from .readers import MediaReader
from .saving import Recording
from .worker import Worker

__all__ = ["MediaOutput"]

_Bytes = bytes

_BACKLOG = 16 * 1024 * 1024  # bytes that may wait for one reader
_SOUND = 0.1  # seconds of sound that count as one frame in a reader's queue


class MediaOutput:
    """One subscription to a channel of live video, for any number of readers at once.

    It starts when the first reader asks for its first item, or by `start`. A reader that comes later begins
    with the present segment. Packets, bytes and files lose nothing: a slow reader of them makes the
    subscription wait, and what falls out of the server's ring meanwhile is counted in `missed`. Only what is
    read is decoded.

    Args:
        url: The channel's URL.
        transport: The HTTP session to use; one of its own when absent.
        start: The number of the first segment, or -1 for the one written next, or -2 for the newest.

    Readers raise `ChannelNotFound`, `TrickleConnectionError` and `TrickleError` as `TrickleSubscriber`
    does; those of frames and packets raise `MediaError` when what comes is no media, and all raise what
    `fail` was given.
    """

    def __init__(self, url: str, *, transport: Transport | None = None, start: int = 0) -> None:
        self._subscriber = TrickleSubscriber(url, transport=transport, start=start)
        self._intake = Intake(self._subscriber)
        self.url: str = self._subscriber.url

    @property
    def frames_in(self) -> int:
        """Encoded pictures that came in."""
        return self._intake.frames_in

    @property
    def audio_in(self) -> int:
        """Encoded pieces of sound that came in."""
        return self._intake.audio_in

    @property
    def bytes_in(self) -> int:
        """Bytes that came in."""
        return self._intake.bytes_in

    @property
    def last_timestamp(self) -> float | None:
        """The time of the newest picture that came in (of sound, where there is no picture), in seconds."""
        return self._intake.last_timestamp

    @property
    def last_arrival_at(self) -> float | None:
        """When bytes came last, by `time.monotonic`."""
        return self._intake.last_arrival_at

    @property
    def missed(self) -> int:
        """Segments that fell out of the server's ring before they were read."""
        return self._subscriber.missed

    @property
    def dropped(self) -> int:
        """Frames that slow readers of `frames` skipped, over all of them."""
        return self.losses.frames

    @property
    def losses(self) -> Losses:
        """What of the stream was lost so far, and where; false when nothing was."""
        return self._intake.losses()

    @property
    def ended(self) -> bool:
        """Whether the channel is over (or lost, or this was closed)."""
        return self._intake.ended

    @property
    def started(self) -> bool:
        """Whether the channel is, or was, read: a reader has asked for its first item."""
        return self._intake.started

    @property
    def held_up(self) -> bool:
        """Whether reading waits for a slow reader (or the decoder) on this side just now."""
        return self._intake.held_up

    @property
    def finished(self) -> bool:
        """Whether the channel is over and everything of it is decoded."""
        return self.ended and self._intake.decoding.done

    @property
    def error(self) -> LivepeerError | None:
        """What ended it, when that was not the channel's end."""
        return self._intake.error

    @property
    def explain(self) -> Callable[[LivepeerError], Awaitable[LivepeerError]] | None:
        """Asked when reading fails, for an error that says more: a live session may know why."""
        return self._intake.explain

    @explain.setter
    def explain(self, ask: Callable[[LivepeerError], Awaitable[LivepeerError]] | None) -> None:
        self._intake.explain = ask

    @property
    def on_packet(self) -> Callable[[Packet], None] | None:
        """Called with each packet when it is complete, before any reader has it."""
        return self._intake.on_packet

    @on_packet.setter
    def on_packet(self, call: Callable[[Packet], None] | None) -> None:
        self._intake.on_packet = call

    @property
    def on_frame(self) -> Callable[[VideoFrame | AudioFrame], None] | None:
        """Called with each decoded frame when it is handed to its readers."""
        return self._intake.decoding.on_frame

    @on_frame.setter
    def on_frame(self, call: Callable[[VideoFrame | AudioFrame], None] | None) -> None:
        self._intake.decoding.on_frame = call

    def start(self) -> None:
        """Begin to read the channel now, and not with the first reader."""
        self._intake.start()

    @overload
    def frames(
        self,
        kind: Literal["video"] = "video",
        *,
        drop: Literal["oldest"] | None = "oldest",
        queue_size: int = 8,
    ) -> MediaReader[VideoFrame]: ...

    @overload
    def frames(
        self, kind: Literal["audio"], *, drop: Literal["oldest"] | None = "oldest", queue_size: int = 8
    ) -> MediaReader[AudioFrame]: ...

    @overload
    def frames(
        self, kind: Literal["all"], *, drop: Literal["oldest"] | None = "oldest", queue_size: int = 8
    ) -> MediaReader[VideoFrame | AudioFrame]: ...

    def frames(
        self,
        kind: Literal["video", "audio", "all"] = "video",
        *,
        drop: Literal["oldest"] | None = "oldest",
        queue_size: int = 8,
    ) -> MediaReader[Any]:
        """Decoded frames, in the order of their times; ends normally with the channel.

        Args:
            kind: ``"video"``, ``"audio"``, or ``"all"``: both, in sync. There a frame waits for those of the
                other track that come before it; for half a second at most, so that a track which falls
                silent doesn't hold the other up. What comes later than that comes out of order.
            drop: What happens when more than `queue_size` frames wait for this reader: ``"oldest"`` skips
                those that wait longest; None makes everything wait for it.
            queue_size: How many frames may wait. Of sound, 0.1 s count as one.

        A late reader begins with the present segment's key frame. Where frames of the kind are decoded for
        others already, that costs decoding the segment again, and is done with ``drop=None``; without, it
        begins with the next frame.
        """
        if kind not in ("video", "audio", "all"):
            raise ConfigurationError(f"kind={kind!r} can't be; it is 'video', 'audio' or 'all'.")
        if queue_size < 1:
            raise ConfigurationError(f"queue_size={queue_size} can't be; it is at least 1.")
        if drop not in (None, "oldest"):
            raise ConfigurationError(f"drop={drop!r} can't be; it is None or 'oldest'.")
        queue: BoundedQueue[Any] = BoundedQueue(queue_size, drop_oldest=drop == "oldest", weigh=_share)
        return self._intake.decoding.fans[kind].reader(queue)

    def packets(self) -> MediaReader[Packet]:
        """Encoded pictures and sound, in order; ends normally with the channel."""
        return self._intake.packets.reader(BoundedQueue(_BACKLOG, weigh=_size))

    def bytes(self) -> MediaReader[_Bytes]:
        """The stream's bytes (MPEG-TS), as they come; ends normally with the channel."""
        return self._intake.bytes.reader(BoundedQueue(_BACKLOG, weigh=len))

    async def save(self, path: str | os.PathLike[str]) -> Path:
        """Save the stream to its end as a file: mp4, mov, mkv or ts by its suffix, without transcoding.

        When reading fails, or this is cancelled, what came until then is saved before the error goes on.

        Returns:
            The path.

        Raises:
            MediaError: The suffix is unknown, the file can't be made, or nothing came that can be saved.
        """
        recording = Recording(Path(path))
        worker = Worker("livepeer-save")
        complete = False
        try:
            async with self.packets() as packets:
                while batch := await packets.batch():
                    await worker.submit(recording.write, batch)
            complete = True
        finally:
            finishing = worker.submit(recording.finish, complete)
            worker.close()
            await asyncio.shield(finishing)
        return recording.path

    def fail(self, error: LivepeerError) -> None:
        """Stop reading, and end every reader with this error, after what it has already.

        For whoever knows better why nothing comes any more. What has ended already stays as it ended.
        """
        self._intake.fail(error)

    async def aclose(self) -> None:
        """Stop reading. Readers get what is decoded already, and end normally."""
        await self._intake.aclose()

    async def __aenter__(self) -> MediaOutput:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


def _size(packet: Packet) -> int:
    return len(packet.data)


def _share(frame: VideoFrame | AudioFrame) -> float:
    return frame.duration / _SOUND if isinstance(frame, AudioFrame) else 1.0
