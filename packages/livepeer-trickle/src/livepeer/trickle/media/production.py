"""From frames and packets to the channel: one task, and a thread for the encoders."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import av

from ..errors import LivepeerError, MediaError
from .audio_encoding import AudioEncoder
from .encoding import VideoEncoder
from .jobs import Job, JobQueue
from .packets import WRAP, Packet
from .segments import Piece, SegmentCutter
from .sending import Sender
from .worker import Worker

__all__ = ["Production"]

_logger = logging.getLogger("livepeer.trickle")
_REMEMBERED = 512  # writes


class Production:
    """Does one job after the other, and gives what comes out to the channel at once.

    Args:
        queue: The jobs.
        video: The encoder of pictures.
        audio: The encoder of sound.
        gop: Seconds that a segment lasts.
        make_sender: Makes the writer of the channel; it gets what is to be called when a segment was lost.
    """

    def __init__(
        self,
        queue: JobQueue,
        video: VideoEncoder,
        audio: AudioEncoder,
        *,
        gop: float,
        make_sender: Callable[[Callable[[], None]], Sender],
    ) -> None:
        self.queue = queue
        self.cutter: SegmentCutter = SegmentCutter(gop)
        self.sender: Sender = make_sender(self._on_break)
        self.error: LivepeerError | None = None
        """Why nothing more is written."""
        self.explain: Callable[[LivepeerError], Awaitable[LivepeerError]] | None = None
        self._video = video
        self._audio = audio
        self._worker = Worker("livepeer-encode")
        self._task: asyncio.Task[None] | None = None
        self._written_at: dict[int, float] = {}

    def declare(self, kind: Literal["video", "audio"], context: Any, *, as_it_is: bool) -> None:
        """Put a stream into the tables before its first packet, which `context` (PyAV's) decodes."""
        encoder = self._video if kind == "video" else self._audio
        codec = context.codec.canonical_name if as_it_is else encoder.codec
        self.cutter.declare(kind, codec, channels=context.channels if kind == "audio" else 0)

    def push(self, job: Job) -> None:
        """Add a job, whether there is room or not."""
        if self.queue.idle and isinstance(job.item, av.VideoFrame):
            # Nobody has to be woken for it: its bytes go out when the encoder's answer comes.
            self.queue.hold()
            self._worker.send(self._encoded, self._encode_video, job.item, job.ticks)
            return
        self.queue.push(job)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="livepeer-media-publish")

    async def flush(self) -> None:
        """Wait until all that was pushed is written, to the last sample; the encoders begin anew after it."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.push(Job(done))
        assert self._task is not None
        await asyncio.wait({done, self._task}, return_when=asyncio.FIRST_COMPLETED)

    async def finish(self) -> None:
        """Do what waits, and end the last segment."""
        self.queue.end()
        if self._task is not None:
            await self._task

    async def abort(self) -> None:
        """Forget what waits, and break the segment off."""
        self.queue.discard()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def fail(self, error: LivepeerError) -> None:
        """Write nothing more, for this reason; the first one counts."""
        if self.error is None:
            _logger.debug("publishing to %s ended: %s", self.sender.url, error)
            self.error = error
            self.queue.discard()

    def note(self, ticks: int, now: float) -> None:
        """Remember when the frame of this time was written."""
        self._written_at[ticks % WRAP] = now
        if len(self._written_at) > _REMEMBERED:
            del self._written_at[next(iter(self._written_at))]

    def written_at(self, ticks: int) -> float | None:
        """When the frame of this time was written; None when that isn't remembered."""
        return self._written_at.get(ticks % WRAP)

    def _encoded(self, pieces: list[Piece] | None, error: BaseException | None) -> None:
        """A frame that went past the queue is encoded: write it, or leave to the task what has to wait."""
        if error is not None:
            self.queue.release(Job(error))
            return
        assert pieces is not None
        written = 0
        while written < len(pieces) and self.sender.write_now(pieces[written]):
            written += 1
        self.queue.release(Job(pieces[written:]) if written < len(pieces) else None)

    async def _run(self) -> None:
        """Encode and write until the queue ends. An error is kept for the next call, not raised."""
        try:
            while (job := await self.queue.take()) is not None:
                for piece in await self._do(job):
                    await self.sender.write(piece)
                if isinstance(job.item, asyncio.Future) and not job.item.done():
                    job.item.set_result(None)
            for piece in await self._finish():
                await self.sender.write(piece)
            await self.sender.end_segment()
        except LivepeerError as error:
            self.fail(error if self.explain is None or self.error else await self.explain(error))
        except Exception as error:
            wrapped = MediaError(f"Encoding failed: {error!r}.")
            wrapped.__cause__ = error
            self.fail(wrapped)
        finally:
            self._worker.close()
            await self.sender.abort_segment()

    async def _do(self, job: Job) -> Sequence[Piece]:
        item = job.item
        if isinstance(item, Packet):
            return self._mux([item])
        if isinstance(item, av.VideoFrame):
            return await self._in_thread(self._encode_video, item, job.ticks)
        if isinstance(item, av.AudioFrame):
            pieces = await self._in_thread(self._encode_audio, item, job.ticks)
            for piece in pieces if not self.sender.frames else ():
                self.note(piece.ticks or 0, job.written_at)
            return pieces
        if isinstance(item, asyncio.Future):
            return await self._finish()
        if isinstance(item, BaseException):
            raise item
        return item

    async def _in_thread(self, work: Callable[..., list[Piece]], *arguments: Any) -> list[Piece]:
        pieces: list[Piece] = await self._worker.submit(work, *arguments)
        return pieces

    def _encode_video(self, frame: av.VideoFrame, ticks: int) -> list[Piece]:
        return self._mux(self._video.encode(frame, ticks))

    def _encode_audio(self, frame: av.AudioFrame, ticks: int) -> list[Piece]:
        return self._mux(self._audio.encode(frame, ticks))

    async def _finish(self) -> list[Piece]:
        return await self._in_thread(self._finish_encoders) if self._worker.started else []

    def _finish_encoders(self) -> list[Piece]:
        packets = self._audio.finish() + self._video.finish()
        return self._mux(sorted(packets, key=lambda packet: packet.dts or 0))

    def _mux(self, packets: list[Packet]) -> list[Piece]:
        pieces = [self.cutter.add(packet) for packet in packets]
        return [piece for piece in pieces if piece is not None]

    def _on_break(self) -> None:
        self.cutter.restart()
        self._video.force_key = True
