"""One live stream: its media, its parameters and events, its one thread, and its end.

It knows channels by their URLs and nothing of who made them, so every live contract can use it.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from livepeer.trickle.errors import ConfigurationError, LivepeerError, TrickleError

from ._calls import as_http_error
from ._host import Contract
from ._outbox import Outbox
from ._pump import Pump
from ._reports import Reports
from ._workers import Lease
from .errors import HTTPError
from .live_pipeline import LivePipeline

if TYPE_CHECKING:
    from livepeer.trickle import Transport

__all__ = ["ChannelURLs", "Contract", "LiveStream"]

_logger = logging.getLogger("livepeer.runner")

_DRAIN = 5.0  # seconds in which frames already read are finished when we end the stream ourselves
_HOOK = 10.0  # seconds that on_stream_stop may take before the rest of the end goes on without it
_PATIENCE = 5.0  # seconds in which a server takes the last messages
_GONE = 0.5  # the same, when the channels are said to be gone
_LINGER = 0.4  # seconds between the last bytes and the end of a channel, which empties it: readers catch up


@dataclass(frozen=True)
class ChannelURLs:
    """The channels of one stream, as the runner reaches them; None for those it doesn't have."""

    media_in: str | None = None
    media_out: str | None = None
    control: str | None = None
    events: str | None = None
    data: str | None = None


class LiveStream:
    """One live stream.

    Args:
        pipeline: The pipeline that was set up; the stream works on a copy.
        urls: Its channels.
        transport: What reaches them.
        place: Its place and thread, given back at its end.
        contract: How it was started.
        session_id: Who it is to the orchestrator.
        idle_timeout: After how many seconds without input it ends; None is never.
        heartbeat: After how many seconds without an event one says that it lives.
        on_end: Awaited at the very end; tells the orchestrator.
    """

    def __init__(
        self,
        pipeline: LivePipeline,
        urls: ChannelURLs,
        *,
        transport: Transport,
        place: Lease,
        contract: Contract,
        session_id: str,
        idle_timeout: float | None,
        heartbeat: float,
        on_end: Callable[[], Awaitable[None]],
    ) -> None:
        self.contract = contract
        self.session_id = session_id
        self.began_at: float = time.monotonic()
        self.pipeline: LivePipeline = copy.copy(pipeline)
        self.pipeline._emitter = self
        self.reason: str | None = None
        self._urls = urls
        self._transport = transport
        self._place = place
        self._idle_timeout = idle_timeout
        self._on_end = on_end
        self._events = Outbox(urls.events, transport, heartbeat=heartbeat) if urls.events else None
        self._data = Outbox(urls.data, transport, heartbeat=60.0) if urls.data else None
        self._asked: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._pump: Pump | None = None
        self._active_at = time.monotonic()
        self._reports = Reports(session_id, self.emit_event)

    async def start(self, params: dict[str, Any]) -> None:
        """Run ``on_stream_start`` and begin; raises `HTTPError` when the author's code refuses or fails."""
        where = "on_stream_start"
        try:
            await self._hook(self.pipeline.on_stream_start, self.pipeline.start_params(params))
            if self._urls.media_in:
                where = "encoder"
                self._pump = Pump(
                    self.pipeline,
                    self._urls.media_in,
                    self._urls.media_out,
                    transport=self._transport,
                    worker=lambda: self._place.worker,
                    reports=self._reports,
                )
        except BaseException as error:
            try:
                await self._close_channels(delete=True)
            finally:
                self._place.close()  # whoever cancelled the start, and however often
            if isinstance(error, HTTPError) or not isinstance(error, Exception):
                raise
            raise as_http_error(error, f"{type(self.pipeline).__name__}.{where}") from error
        self._task = asyncio.create_task(self._run(), name=f"live stream {self.session_id}")

    async def end(self, reason: str) -> None:
        """End the stream and wait until it has ended.

        ``"released"`` means that its channels are gone already; other reasons let the frames that were
        read come out, and reach the client as the event ``{"type": "ended", "reason": …}``, but for
        ``"stopped"``, which is the client's own.
        """
        if not self._asked.done():
            self._asked.set_result(reason)
        if reason == "released" and not self._released.done():
            self._released.set_result(None)
        if self._task is not None:
            await asyncio.wait({self._task})

    async def update(self, params: Any) -> None:
        """Give the author's code parameters; raises `HTTPError` when it refuses or fails."""
        if self.reason is not None:
            raise HTTPError(409, f"Stream {self.session_id} is ending.")
        self._active_at = time.monotonic()
        try:
            await self._hook(self.pipeline.on_params_update, self.pipeline.update_params(params))
        except Exception as error:
            raise as_http_error(error, f"{type(self.pipeline).__name__}.on_params_update") from error

    def emit_event(self, data: Any) -> None:
        """See `LivePipeline.emit_event`."""
        if self._events is not None:
            self._events.put(data)

    def emit_data(self, data: Any) -> None:
        """See `LivePipeline.emit_data`."""
        if self._data is not None:
            self._data.put(data)
        elif not self.pipeline.has_data():
            raise ConfigurationError(
                f"{type(self.pipeline).__name__} has no data channel. Set data = True on the class."
            )

    async def _run(self) -> None:
        work = [asyncio.create_task(self._read_control())]
        if self._idle_timeout is not None:
            work.append(asyncio.create_task(self._watch_idle(self._idle_timeout)))
        pump = asyncio.create_task(self._pump.run()) if self._pump is not None else None
        awaited: set[asyncio.Future[Any]] = {self._asked, pump} if pump else {self._asked}
        try:
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            self.reason = self._asked.result() if self._asked.done() else "input ended"
            await self._settle(pump)
            for task in work:
                task.cancel()
            await asyncio.wait(work)
            await self._finish()
        finally:
            for task in (*work, *([pump] if pump else ())):
                task.cancel()
            self._place.close()
            await self._on_end()

    async def _settle(self, pump: asyncio.Task[None] | None) -> None:
        """Let the frames that were read come out, unless nobody is there to see them."""
        if pump is None:
            return
        if not pump.done() and self.reason != "released" and self._pump is not None:
            await self._pump.stop()
            await asyncio.wait({pump}, timeout=_DRAIN)
        pump.cancel()
        await asyncio.wait({pump})
        if pump.cancelled() or (error := pump.exception()) is None:
            return
        if isinstance(error, TrickleError):
            self.reason = "released" if self.reason == "input ended" else self.reason
            _logger.debug("The channels of session %s ended", self.session_id, exc_info=error)
        else:
            self.reason = "error"
            self._reports.error(
                error if isinstance(error, Exception) else RuntimeError(str(error)), "the stream"
            )

    async def _finish(self) -> None:
        pipeline, reached = self.pipeline, self.reason != "released"
        try:
            await asyncio.wait_for(self._hook(pipeline.on_stream_stop), _HOOK)
        except Exception as error:
            self._reports.error(error, f"{type(pipeline).__name__}.on_stream_stop")
        if reached and self.reason not in ("input ended", "stopped"):
            self.emit_event({"type": "ended", "reason": self.reason})
        await self._close_channels(delete=reached, linger=reached)

    async def _close_channels(self, *, delete: bool, linger: bool = False) -> None:
        boxes = [box for box in (self._events, self._data) if box is not None]
        if self._pump is not None:
            await self._pump.close(finish=delete)
        # Channels that are gone refuse at once; a server that is gone with them may not answer at all.
        patience = _PATIENCE if delete else _GONE
        await asyncio.gather(*(box.flush(patience) for box in boxes))
        if linger:
            await asyncio.wait({self._released}, timeout=_LINGER)
        if delete and self._urls.media_out and self._pump is not None:
            with suppress(LivepeerError, OSError, TimeoutError):
                async with asyncio.timeout(5):
                    await (await self._transport.request("DELETE", self._urls.media_out)).release()
        await asyncio.gather(*(box.close(delete=delete) for box in boxes))

    async def _read_control(self) -> None:
        if self._urls.control is None:
            return
        from livepeer.trickle import ChannelReader

        reader = ChannelReader(self._urls.control, transport=self._transport)
        try:
            async for message in reader:
                self._active_at = time.monotonic()
                if message == {"keep": "alive"}:
                    continue
                try:
                    await self._hook(self.pipeline.on_params_update, self.pipeline.update_params(message))
                except Exception as error:
                    self._reports.error(error, f"{type(self.pipeline).__name__}.on_params_update")
        except TrickleError:
            _logger.debug("The control channel of session %s ended", self.session_id, exc_info=True)
        finally:
            await reader.aclose()
        # Without media nothing else tells of the end; a live runner's registration does.
        if self._pump is None and self.contract != "live-runner" and not self._asked.done():
            self._asked.set_result("released")

    async def _watch_idle(self, timeout: float) -> None:
        tick, quiet, seen = min(timeout / 10, 1.0), 0.0, self._active_at
        while quiet < timeout:
            await asyncio.sleep(tick)  # a process that stood still for hours counts a tick
            active_at = max(self._active_at, self._pump.active_at if self._pump else 0.0)
            # A frame in the works isn't silence: the first one may compile a model.
            busy = self._pump is not None and self._pump.busy
            quiet = 0.0 if busy or active_at != seen else quiet + tick
            seen = active_at
        if not self._asked.done():
            self._asked.set_result("idle")

    async def _hook(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method of the author's: on the loop when it is async, else on this stream's thread."""
        if inspect.iscoroutinefunction(method):
            return await method(*arguments)
        return await self._place.worker.submit(method, *arguments)
