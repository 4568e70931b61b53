"""The media of one stream: each kind of it through the author's method, or past it as it came.

A kind that the pipeline has a method for is decoded, processed and encoded; the packets of a kind without one
are written as they are. The kinds don't wait for each other, but for one that gets too far ahead.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from livepeer.trickle.errors import LivepeerError, MediaError, TrickleError

from ._output import Nowhere, Sink, publisher, ready
from ._reports import Reports
from ._steps import Steps
from .live_pipeline import LivePipeline

if TYPE_CHECKING:
    from livepeer.trickle import Transport
    from livepeer.trickle.media import AudioFrame, MediaReader, VideoFrame

    from ._workers import Worker

__all__ = ["Pump"]

_T = TypeVar("_T")
_Kind = Literal["video", "audio"]

_JUMP = 0.25  # seconds that an input's times go back by when it begins anew, and isn't only out of order
_AT_ONCE = 16  # pieces of sound on the author's thread: else each would wait for a picture of its own


class Pump:
    """Carries the media of one stream until its input ends.

    Args:
        pipeline: The session's pipeline.
        source: The URL of the input's channel.
        sink: The URL of the output's, which is written from its first segment on; None when nobody wants
            the output.
        transport: What reaches them.
        worker: The session's thread, made at first use.
        reports: Told what goes wrong.

    Raises:
        ConfigurationError: The class names an encoder that there isn't.
    """

    def __init__(
        self,
        pipeline: LivePipeline,
        source: str,
        sink: str | None,
        *,
        transport: Transport,
        worker: Callable[[], Worker],
        reports: Reports,
    ) -> None:
        from livepeer.trickle.media import MediaOutput

        self.active_at: float = time.monotonic()
        """When something was last done."""
        self._pipeline = pipeline
        self._source = MediaOutput(source, transport=transport)
        self._publisher: Callable[..., Sink] = (
            partial(publisher, pipeline, sink, transport=transport) if sink else Nowhere
        )
        self._sink: Sink = self._publisher(start=0)
        self._writing = asyncio.Lock()
        self._written: dict[str, float] = {}  # the last time of each kind
        self._worker = worker
        self._reports = reports
        self._steps = Steps()
        self._input_error: LivepeerError | None = None

    @property
    def busy(self) -> bool:
        """Whether the author's code has a frame, or the output one that it has no room for."""
        return self._steps.busy

    async def run(self) -> None:
        """Carry everything; ends when the input does and all that was read of it is written.

        Raises:
            TrickleError: A channel was lost.
            MediaError: The input is no media, or `max_errors` frames in a row failed.
        """
        pipeline, parts = self._pipeline, []
        passed = {"video", "audio"}
        if pipeline.has_video():
            parts.append(self._process("video", pipeline.process_video, at_once=1))
            passed.discard("video")
        if pipeline.has_audio():
            parts.append(self._process("audio", pipeline.process_audio, at_once=_AT_ONCE))
            passed.discard("audio")
        if passed:
            parts.append(self._pass_on(passed))
        watching = asyncio.create_task(self._watch_losses())
        try:
            await _all(*parts)
        finally:
            watching.cancel()
        if self._input_error is not None:
            raise self._input_error
        self._reports.losses(self._source)

    async def stop(self) -> None:
        """Read no more; `run` ends when what was read is written."""
        await self._source.aclose()

    async def close(self, *, finish: bool) -> None:
        """Finish the output's last segment; or let go at once, as when nobody is there to take its end."""
        with suppress(LivepeerError):
            await self._source.aclose()
        with suppress(LivepeerError):
            await (self._sink.close(delete=False) if finish else self._sink.abort())

    async def _pass_on(self, kinds: set[str]) -> None:
        async with aclosing(self._read(self._source.packets())) as packets:
            async for packet in packets:
                if packet.kind in kinds:
                    await self._keep_step(packet.kind, packet.timestamp)
                    try:
                        async with self._writing:
                            await self._sink.write_packet(packet)
                    except MediaError as error:  # of a codec that the output can't have: the rest goes on
                        self._reports.error(error, "the input", packet.timestamp)
                    self.active_at = time.monotonic()

    async def _process(self, kind: _Kind, method: Callable[[Any], Any], *, at_once: int) -> None:
        """Frames in, frames out, in order; `at_once` of them may be with the author's code."""
        room = asyncio.Semaphore(at_once)
        jobs: asyncio.Queue[tuple[Any, Callable[[], Awaitable[Any]]] | None] = asyncio.Queue()

        async def begin() -> None:
            drop = self._pipeline.drop if kind == "video" else None
            async with aclosing(self._read(self._source.frames(kind, drop=drop))) as frames:
                await room.acquire()
                async for frame in frames:
                    await self._keep_step(kind, frame.timestamp)
                    self._steps.begin(kind, frame.timestamp)
                    jobs.put_nowait((frame, self._begun(method, frame)))
                    await room.acquire()
            jobs.put_nowait(None)

        async def end() -> None:
            failed = 0
            while (job := await jobs.get()) is not None:
                frame, result = job
                try:
                    await self._write(kind, frame, await result())
                    failed = 0
                except TrickleError:
                    raise
                except Exception as error:
                    failed += 1
                    where = f"{type(self._pipeline).__name__}.process_{kind}"
                    self._reports.error(error, where, frame.timestamp)
                    if failed >= self._pipeline.max_errors:
                        raise MediaError(f"{failed} frames in a row failed in {where}.") from error
                finally:
                    self._steps.end(kind)
                    self.active_at = time.monotonic()
                    room.release()

        await _all(begin(), end())

    def _begun(self, method: Callable[[Any], Any], frame: Any) -> Callable[[], Awaitable[Any]]:
        """Give a frame to the author's thread now, or to the loop when it is this one's turn."""
        if inspect.iscoroutinefunction(method):

            async def later() -> Any:
                return ready(await method(frame), frame)

            return later
        begun = self._worker().submit(lambda: ready(method(frame), frame))
        return lambda: begun

    async def _write(self, kind: str, frame: VideoFrame | AudioFrame, result: Any) -> None:
        if result is None:
            return
        own = getattr(result, "timestamp", None)
        timestamp = frame.timestamp if own is None else own
        async with self._writing:
            if timestamp is not None:
                if timestamp < self._written.get(kind, timestamp) - _JUMP:
                    await self._begin_anew()
                self._written[kind] = timestamp
            await self._sink.write_frame(result, timestamp=timestamp)

    async def _begin_anew(self) -> None:
        """Go on with another encoder where the input's times went back: none can follow that."""
        await self._sink.close(delete=False)
        self._sink = self._publisher()
        self._written.clear()

    async def _keep_step(self, kind: str, timestamp: float | None) -> None:
        if self._pipeline.drop is None:  # where pictures are skipped, sound goes on without them
            await self._steps.keep(kind, timestamp)

    async def _watch_losses(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._reports.losses(self._source)

    async def _read(self, reader: MediaReader[_T]) -> AsyncGenerator[_T, None]:
        """What comes, to its end; an error of the input is kept, for what came before it is still in work."""
        async with aclosing(reader):
            try:
                async for item in reader:
                    yield item
            except LivepeerError as error:
                self._input_error = self._input_error or error


async def _all(*parts: Awaitable[None]) -> None:
    """Wait for all of them; the first error ends the others."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
