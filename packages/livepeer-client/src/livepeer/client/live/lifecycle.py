"""The life of a session: it is opened, it may end by itself, and it is closed; then nothing of it is left."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Literal

from livepeer import trickle

from ..errors import ConfigurationError, LivepeerError, SessionEnded, SessionLost
from .control import SessionWriter
from .drain import drain_events, drain_input, drain_output, end_channel
from .media import SessionMedia
from .missing import unpaid
from .observed import Observed
from .reader import SessionReader
from .silence import Silence
from .watch import Watch

if TYPE_CHECKING:
    from .._calls import Calls
    from .._http import Pool
    from ..routes import LiveCall, Started

__all__ = ["Lifecycle"]

_PATIENCE = 5.0  # seconds that a cancelled caller waits for a start, or an end, that is in flight
_LAST_READ = 1.0  # seconds for a reader to find the end of an output that was ended from here
_logger = logging.getLogger("livepeer.client")


class Lifecycle:
    """Opens and closes one session, and ends its channels when the session ends by itself.

    Args:
        calls: Starts it.
        pool: The gateway's connections.
        call: What to start.
        channels: Its media, control, events and data.
        limits: `stall_timeout` and `startup_timeout` of `Gateway.live`.
        owner: The `LiveSession`, which the pool closes with its loop.
    """

    def __init__(
        self,
        calls: Calls,
        pool: Pool,
        call: LiveCall,
        *,
        channels: tuple[SessionMedia, SessionWriter, SessionReader, SessionReader],
        limits: tuple[float | None, float | None],
        owner: Any,
    ) -> None:
        self._calls = calls
        self._pool = pool
        self._call = call
        self._media, self._control, self._events, self._data = channels
        self._observed = Observed(*channels)
        self._limits = limits
        self._owner = owner
        self._status: Literal["new", "live", "ended"] = "new"
        self._reason: str | None = None
        self._started: Started | None = None
        self._transport: trickle.Transport | None = None
        self._watch: Watch | None = None
        self._closing: asyncio.Task[None] | None = None
        self._released = False

    @property
    def error(self) -> LivepeerError | None:
        """See `LiveSession.error`."""
        return self._observed.error

    @property
    def status(self) -> Literal["new", "live", "ended"]:
        """See `LiveSession.status`."""
        if self._status == "live" and (self.error is not None or self._observed.ended_channels()[1]):
            return "ended"
        return self._status

    @property
    def reason(self) -> str | None:
        """See `LiveSession.reason`."""
        if isinstance(self.error, SessionEnded):
            return self.error.reason
        return self._reason or ("ended" if self.status == "ended" else None)

    @property
    def started(self) -> Started:
        """The session at its orchestrator; raises `ConfigurationError` before there is one."""
        if self._started is None:
            raise ConfigurationError(
                "The session isn't connected yet.", hint="Enter it first: async with gw.live(…) as session."
            )
        return self._started

    @property
    def pool(self) -> Pool:
        """The gateway's connections."""
        return self._pool

    @property
    def transport(self) -> trickle.Transport:
        """The connections."""
        assert self._transport is not None
        return self._transport

    async def open(self) -> None:
        """Start the session, and connect its channels."""
        if self._status != "new":
            raise SessionEnded(
                "A session can be opened once; gw.live(…) makes another.", reason="opened before"
            )
        self._transport = await self._pool.transport()
        starting = asyncio.create_task(self._start())
        try:
            self._started = started = await asyncio.shield(starting)
        except asyncio.CancelledError:
            stopping = self._pool.adopt(lambda: _stop_when_started(starting))
            await asyncio.wait({stopping}, timeout=_PATIENCE)
            raise
        urls = started.urls
        self._media.connect(urls, self._transport)
        self._control.connect(urls.get("control"), self._transport, lines=started.takes_lines)
        self._events.connect(urls.get("events"), self._transport)
        self._data.connect(urls.get("data"), self._transport)
        self._status = "live"
        if urls:
            self._watch = Watch(
                self._observed, started, self._transport, Silence(*self._limits), self._call.request_id
            )
        self._pool.enlist(self._owner)
        if (keeper := started.keeper) is not None:
            keeper.on_over.append(self._unpaid)
            if keeper.error is not None:
                self._unpaid(keeper.error)

    async def close(self, drain: float) -> None:
        """End the session; see `LiveSession.close`."""
        if self._closing is None:
            if self._status != "live":
                self._status = "ended"
                self._reason = self._reason or "closed"
                return
            self._status = "ended"
            self._reason = self._reason or "closed"
            self._closing = asyncio.create_task(self._close(drain if self._orderly else 0.0))
        await self._finish(self._closing)

    async def explain(self, error: LivepeerError, channel: str | None = None) -> LivepeerError:
        """What a failure means: the end of the session, or just itself; see `Watch.explain`."""
        if self.error is None and self._watch is not None:
            return await self._watch.explain(error, channel)
        return self.error or error

    # Inside

    def _unpaid(self, error: LivepeerError) -> None:
        """Nothing more is paid for the session, whose end its start has seen to."""
        if self._closing is not None or self.error is not None:
            return
        if self._watch is not None:
            self._watch.unpaid(error)
        else:
            ended = unpaid(error, orchestrator=self.started.orchestrator, request_id=self._call.request_id)
            self._observed.over(ended, in_order=False)

    async def _start(self) -> Started:
        started = await self._calls.open_live(self._call)
        if "publish" in started.urls or "subscribe" in started.urls:
            await asyncio.to_thread(_load_media)
        return started

    async def _close(self, drain: float) -> None:
        deadline = time.monotonic() + drain
        ends_all = self.started.input_ends_all
        try:
            if drain > 0:
                await self._drain(deadline)
            elif self._media.writer is not None:
                await self._media.writer.abort()
            if ends_all:
                await self._drain_events(drain, deadline)
            await self._stop_watch()
            await self._control.close(delete=self.error is None and not ends_all)
            if not ends_all:
                await self._drain_events(drain, deadline)
        except LivepeerError as error:
            # The other side was faster: an ordinary end.
            _logger.debug("closing %s: %s", self.started.session_id, error)
        finally:
            await self._stop_watch()
            await self._release()
            if drain > 0 and self._orderly:  # readers find the end that their channel has now
                await drain_output(self._media, min(deadline, time.monotonic() + _LAST_READ))
            if self._media.reader is not None:
                await self._media.reader.aclose()
            await self._events.close()
            await self._data.close()
            self._pool.discharge(self._owner)

    async def _drain(self, deadline: float) -> None:
        """Finish the input, and let the output come."""
        writer = self._media.writer
        ends_all = self.started.input_ends_all
        if writer is not None:
            if self.error is None:
                await drain_input(self._media, deadline, ends_all=ends_all)
            if self._watch is not None:
                self._watch.expect_the_end()
            if self.error is not None:
                await writer.abort()
            elif not ends_all:
                await end_channel(writer.url, self.transport)
        if ends_all and self.error is None:
            return  # its output ends with the session
        if self._orderly and (writer or self.error):
            # A watch that finds the worker dead ends the reader.
            await drain_output(self._media, deadline, may_stay=not self.started.app_url)

    async def _drain_events(self, drain: float, deadline: float) -> None:
        if drain > 0 and self._orderly:
            messages = (self._events, self._data)
            ends_all = self.started.input_ends_all
            await drain_events(messages, self._last_input_at(), deadline, ends_all=ends_all)

    @property
    def _orderly(self) -> bool:
        """Whether what is on its way can still come."""
        return self._observed.in_order

    def _last_input_at(self) -> float:
        """When the worker was last given something to answer."""
        if self._media.writer is not None:
            return time.monotonic()
        return self._control.written_at or 0.0

    async def _release(self) -> None:
        if self._released:
            return
        self._released = True
        if isinstance(self.error, SessionLost):
            self._pool.adopt(self.started.stop)  # there is nobody to tell; it tries some times
        else:
            await self.started.stop()

    async def _stop_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            await watch.stop()

    async def _finish(self, task: asyncio.Task[None]) -> None:
        """Wait for a task; when cancelled, for some seconds more, then leave it in the gateway's care."""
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            try:
                await asyncio.wait({task}, timeout=_PATIENCE)
            finally:
                if not task.done():
                    self._pool.adopt(lambda: _to_its_end(task))
            raise


def _load_media() -> None:
    """Load PyAV in a thread, so that the loop doesn't stand still when the first frame is written."""
    from livepeer.trickle import media

    try:
        _ = media.MediaPublish, media.MediaOutput
    except LivepeerError:
        return  # it isn't installed, which publish() and subscribe() tell


async def _stop_when_started(starting: asyncio.Task[Started]) -> None:
    """Wait for a start that its caller gave up, and stop what it brought; else nobody knows that job's id."""
    try:
        started = await starting
    except LivepeerError:
        return
    await started.stop()


async def _to_its_end(task: asyncio.Task[None]) -> None:
    await asyncio.wait({task})
