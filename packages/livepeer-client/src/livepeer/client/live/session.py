"""`LiveSession`: connects, hands out its channels, and leaves nothing running when it is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from livepeer import trickle
from livepeer.trickle import media

from ..errors import ConfigurationError, LivepeerError, SessionEnded
from ..results import Response
from .channels import RawChannel, SessionReader, SessionWriter
from .drain import drain_media
from .http import SessionSocket, session_request
from .stats import ChannelStats, SessionStats

if TYPE_CHECKING:
    from .._calls import Calls
    from .._http import Pool
    from ..routes import Started

__all__ = ["LiveSession"]

Status = Literal["new", "live", "ended"]

_PATIENCE = 5.0  # seconds that a cancelled caller waits for a start that is in flight
_logger = logging.getLogger("livepeer.client")


class LiveSession:
    """A live session with a worker. Made by `Gateway.live`; connects when entered or awaited.

    Attributes:
        control: Writes JSON messages to the worker.
        events: Reads JSON messages of the worker.
        data: Reads JSON messages of the worker, where it has such a channel.
        request_id: The id that goes with the session.
    """

    def __init__(
        self,
        calls: Calls,
        pool: Pool,
        capability: str,
        *,
        model: str | None,
        params: dict[str, Any] | None,
        request_id: str | None,
        stream_id: str | None,
        path: str | None,
    ) -> None:
        from .._calls import request_id as make_id
        from ..routes import LiveCall

        if params is not None and not isinstance(params, Mapping):
            raise ConfigurationError(f"params= is a {type(params).__name__}; it is a dict.")
        self.capability: str = capability
        self.request_id: str = request_id or make_id()
        self.control: SessionWriter = SessionWriter("control")
        self.events: SessionReader = SessionReader("events")
        self.data: SessionReader = SessionReader("data")
        self._calls = calls
        self._pool = pool
        self._call = LiveCall(capability, self.request_id, model, params, stream_id, path)
        self._status: Status = "new"
        self._started: Started | None = None
        self._transport: trickle.Transport | None = None
        self._publish: tuple[dict[str, Any], media.MediaPublish] | None = None
        self._subscribe: tuple[dict[str, Any], media.MediaOutput] | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def status(self) -> Status:
        """``"new"`` before it is connected, ``"live"``, and ``"ended"`` when either side closed it."""
        if self._status == "live" and "events" in self._session.urls and self.events.ended.is_set():
            return "ended"
        return self._status

    @property
    def manifest_id(self) -> str:
        """The network's name for the session."""
        return str(self._session.raw.get("manifest_id") or self._session.session_id)

    @property
    def orchestrator(self) -> str:
        """The URL of the orchestrator that carries the session."""
        return self._session.orchestrator

    @property
    def raw(self) -> dict[str, Any]:
        """The worker's answer to the start."""
        return self._session.raw

    def publish(self, *, fps: float = 30.0, **options: Any) -> media.MediaPublish:
        """The writer of the session's video, made at the first call.

        Args:
            fps: Frames per second, for frames that bring no timestamp.
            options: Those of `livepeer.trickle.media.MediaPublish`.

        Raises:
            ConfigurationError: The session has no such channel, isn't connected, or has a writer made with
                other arguments.
        """
        wanted = {"fps": fps, **options}
        if self._publish is None:
            url = self._channel_url("publish", "takes no media")
            # The channel was made for this session, so its first segment is known without asking.
            options = {"start": 0, **wanted}
            self._publish = (wanted, media.MediaPublish(url, transport=self._transport, **options))
        _same("publish", wanted, self._publish[0])
        return self._publish[1]

    def subscribe(self, **options: Any) -> media.MediaOutput:
        """The reader of the session's video, made at the first call.

        Args:
            options: Those of `livepeer.trickle.media.MediaOutput`.

        Raises:
            ConfigurationError: The session has no such channel, isn't connected, or has a reader made with
                other arguments.
        """
        if self._subscribe is None:
            url = self._channel_url("subscribe", "sends no media")
            self._subscribe = (options, media.MediaOutput(url, transport=self._transport, **options))
        _same("subscribe", options, self._subscribe[0])
        return self._subscribe[1]

    async def update(self, params: Mapping[str, Any]) -> None:
        """Change the worker's parameters."""
        await self.control.write(dict(params))

    def stats(self) -> SessionStats:
        """The session's counters, by channel."""
        sent = self._publish[1] if self._publish else None
        received = self._subscribe[1] if self._subscribe else None
        return SessionStats(
            media_in=ChannelStats(sent.frames, sent.bytes, sent.dropped) if sent else ChannelStats(),
            media_out=ChannelStats(received.frames_in, received.bytes_in, received.dropped)
            if received
            else ChannelStats(),
            control=self.control.stats(),
            events=self.events.stats(),
            data=self.data.stats(),
        )

    def channel(self, name_or_url: str) -> RawChannel:
        """A channel of the session as bytes, by its name in `raw` (``"control"``) or its URL."""
        url = self._session.urls.get(name_or_url) or self._session.raw.get(f"{name_or_url}_url")
        if url is None and "://" in name_or_url:
            url = name_or_url
        if url is None:
            names = ", ".join(self._session.urls) or "none"
            raise ConfigurationError(f"This session has no channel {name_or_url!r}; it has: {names}.")
        assert self._transport is not None
        return RawChannel(str(url), self._transport)

    async def request(
        self, method: str, path: str, *, input: Any = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Send an HTTP request to the worker inside the session.

        Args:
            method: Such as ``"GET"``.
            path: The path below the worker, with its query.
            input: As for `Gateway.run`; None sends no body.
            headers: More headers for the worker.

        Raises:
            CapabilityError: The worker's own error.
        """
        session = self._session
        assert self._transport is not None
        return await session_request(
            self._transport, session, method, path, input=input, headers=headers, request_id=self.request_id
        )

    def websocket(self, path: str) -> SessionSocket:
        """Open a WebSocket to the worker: an `aiohttp.ClientWebSocketResponse`, awaited or ``async with``.

        Raises:
            CapabilityError: When it opens: the worker has no WebSocket there.
        """
        session = self._session
        assert self._transport is not None
        return SessionSocket(self._transport, session, path, request_id=self.request_id)

    async def close(self, drain: float = 5.0) -> None:
        """End the session: finish the input, wait for the rest of the output, tell the orchestrator.

        Args:
            drain: Seconds to wait for frames that are still on their way; existing readers get them.
        """
        if self._closing is None:
            if self._status != "live":
                self._status = "ended"
                return
            self._status = "ended"
            self._closing = asyncio.create_task(self._close(drain))
        await self._finish(self._closing)

    async def aclose(self) -> None:
        """`close` without waiting for frames; the end of the event loop does it to what is still open."""
        await self.close(drain=0.0)

    def __await__(self) -> Generator[Any, None, LiveSession]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> LiveSession:
        if self._status != "new":
            raise SessionEnded(
                "A session can be opened once; gw.live(…) makes another.", reason="opened before"
            )
        self._transport = await self._pool.transport()
        starting = asyncio.create_task(self._start())
        try:
            self._started = await asyncio.shield(starting)
        except asyncio.CancelledError:
            stopping = self._pool.adopt(lambda: _stop_when_started(starting))
            await asyncio.wait({stopping}, timeout=_PATIENCE)
            raise
        urls = self._started.urls
        self.control.connect(urls.get("control"), self._transport)
        self.events.connect(urls.get("events"), self._transport)
        self.data.connect(urls.get("data"), self._transport)
        self._status = "live"
        self._pool.enlist(self)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        await self.close(drain=5.0 if kind is None else 0.0)

    @property
    def _session(self) -> Started:
        if self._started is None:
            raise ConfigurationError(
                "The session isn't connected yet.", hint="Enter it first: async with gw.live(…) as session."
            )
        return self._started

    async def _start(self) -> Started:
        started = await self._calls.open_live(self._call)
        if "publish" in started.urls or "subscribe" in started.urls:
            await asyncio.to_thread(_load_media)
        return started

    def _channel_url(self, role: str, lacks: str) -> str:
        url = self._session.urls.get(role)
        if self._status == "ended":
            raise SessionEnded("The session is over.", reason="closed")
        if url is None:
            raise ConfigurationError(
                f"{self.capability!r} {lacks}: the session has no {role} channel.",
                hint="LiveSession.raw shows what the worker opened.",
            )
        return url

    async def _close(self, drain: float) -> None:
        assert self._transport is not None
        try:
            if self._publish is not None:
                output = self._subscribe[1] if self._subscribe else None
                if drain > 0:
                    await drain_media(self._publish[1], output, self._transport, drain)
                else:
                    await self._publish[1].abort()
            await self.control.close()
        except LivepeerError as error:
            # The other side was faster: an ordinary end.
            _logger.debug("closing %s: %s", self.manifest_id, error)
        finally:
            await self._session.stop()
            if self._subscribe is not None:
                await self._subscribe[1].aclose()
            await self.events.close()
            await self.data.close()
            self._pool.discharge(self)

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


def _same(verb: str, wanted: dict[str, Any], given: dict[str, Any]) -> None:
    if wanted != given:
        raise ConfigurationError(
            f"session.{verb}() was called with {wanted} after it had been called with {given}; "
            "a session has one."
        )
