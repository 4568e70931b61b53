"""`LiveSession`: the face of a live session. `lifecycle` opens and closes it, `watch` notices its end."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from livepeer.trickle import media

from ..errors import ConfigurationError, ConnectionFailed, LivepeerError, SessionEnded
from ..results import Response
from .control import SessionWriter
from .http import SessionSocket, session_request
from .lifecycle import Lifecycle
from .media import SessionMedia
from .raw import RawChannel
from .reader import SessionReader
from .stats import SessionStats

if TYPE_CHECKING:
    from .._calls import Calls
    from .._http import Pool
    from ..routes import LiveCall, Started

__all__ = ["LiveSession"]

Status = Literal["new", "live", "ended"]


class LiveSession:
    """A live session with a worker. Made by `Gateway.live`; connects when entered or awaited.

    When the session ends before it is closed (the worker dies or ends it, the orchestrator is gone, the
    output stalls), `reason` and `error` say why within about two seconds, and so does what `write_frame`,
    ``control.write``, readers of frames and the iteration of events raise: a `SessionEnded`. Readers whose
    channel was ended in order end normally. While output stays away a live runner is asked over HTTP whether
    it is there (``GET /health``), at most every two seconds. BYOC workers and the containers of
    ``"live-video-to-video"`` can't be asked: only the orchestrator is, for the session's channels. That one
    of those has died shows when `Gateway.live`'s ``stall_timeout`` is over; without media, when its signs of
    life stay away for three of their intervals (30 s for workers of this SDK).

    An orchestrator ends a channel whose newest segment began more than five minutes ago. The control channel
    is kept alive; media channels are not: a pause of the input that long ends the session (and most workers
    end an idle one sooner).

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
        call: LiveCall,
        *,
        stall_timeout: float | None,
        startup_timeout: float | None,
    ) -> None:
        self.capability: str = call.capability
        self.request_id: str = call.request_id
        self.control: SessionWriter = SessionWriter("control", self._explain)
        self.events: SessionReader = SessionReader("events", self._explain)
        self.data: SessionReader = SessionReader("data", self._explain)
        self.events.on_message = self.control.answered
        self._media = SessionMedia(call.capability, self._explain)
        self._most = calls.most
        self._bill = call.bill
        self._life = Lifecycle(
            calls,
            pool,
            call,
            channels=(self._media, self.control, self.events, self.data),
            limits=(stall_timeout, startup_timeout),
            owner=self,
        )

    @property
    def status(self) -> Status:
        """``"new"`` before it is connected, ``"live"``, and ``"ended"`` when either side ended it."""
        return self._life.status

    @property
    def reason(self) -> str | None:
        """Why the session is over, in the words of `SessionEnded.reason`; None while it isn't."""
        return self._life.reason

    @property
    def error(self) -> LivepeerError | None:
        """What ended the session, when that was not `close`."""
        return self._life.error

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
            SessionEnded: The session is over.
        """
        self._check_open()
        return self._media.publish({"fps": fps, **options})

    def subscribe(self, **options: Any) -> media.MediaOutput:
        """The reader of the session's video, made at the first call.

        Args:
            options: Those of `livepeer.trickle.media.MediaOutput`.

        Raises:
            ConfigurationError: The session has no such channel, isn't connected, or has a reader made with
                other arguments.
            SessionEnded: The session is over.
        """
        self._check_open()
        return self._media.subscribe(options)

    async def update(self, params: Mapping[str, Any]) -> None:
        """Change the worker's parameters, in the way of its contract: a request, or a message on ``control``.

        Raises:
            CapabilityError: The worker refused them, and the session goes on. Where the way is a message,
                no answer tells.
            OrchestratorError: The orchestrator could not reach the worker.
            SessionEnded: The session is over; `SessionEnded.reason` says why.
            ChannelClosed, ChannelNotFound, TrickleError: As ``control.write``, where the way is a message.
        """
        change = self._session.update
        if change is None:
            await self.control.write(dict(params))
            return
        self._check_open()
        try:
            await change(dict(params))
            self.control.written_at = time.monotonic()
        except ConnectionFailed as error:
            told = await self._explain(error)
            if told is error:
                raise
            raise told from error

    def stats(self) -> SessionStats:
        """The session's counters, by channel; still there after its end."""
        media_in, media_out = self._media.stats()
        return SessionStats(
            media_in=media_in,
            media_out=media_out,
            control=self.control.stats(),
            events=self.events.stats(),
            data=self.data.stats(),
            lag=self._media.lag(),
            latency=self._media.latency(),
            cost=self._bill.cost,
        )

    def channel(self, name_or_url: str) -> RawChannel:
        """A channel of the session as bytes, by its name in `raw` (``"control"``) or its URL."""
        url = self._session.urls.get(name_or_url) or self._session.raw.get(f"{name_or_url}_url")
        if url is None and "://" in name_or_url:
            url = name_or_url
        if url is None:
            names = ", ".join(self._session.urls) or "none"
            raise ConfigurationError(f"This session has no channel {name_or_url!r}; it has: {names}.")
        return RawChannel(str(url), self._life.transport)

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
            OrchestratorError: The worker, or the session, is gone.
            ConnectionFailed, StreamError: The connection could not be made, or broke.
            ResponseError: Its answer has more than `Gateway`'s `max_response_bytes`.
        """
        session = self._session
        return await session_request(
            self._life.transport,
            session,
            method,
            path,
            input=input,
            headers=headers,
            request_id=self.request_id,
            pool=self._life.pool,
            most=self._most,
        )

    def websocket(self, path: str) -> SessionSocket:
        """Open a WebSocket to the worker: an `aiohttp.ClientWebSocketResponse`, awaited or ``async with``.

        Raises:
            CapabilityError: When it opens: the worker has no WebSocket there.
        """
        session = self._session
        return SessionSocket(
            self._life.transport, session, path, request_id=self.request_id, pool=self._life.pool
        )

    async def close(self, drain: float = 5.0) -> None:
        """End the session: finish the input, wait for the rest of the output, tell the orchestrator.

        Args:
            drain: Seconds to wait for frames and events that are still on their way; existing readers get
                them, and then end normally. With ``"live-video-to-video"`` of an AI worker, what is not back
                by then is lost, and so is what its container says once the input has ended.
        """
        await self._life.close(drain)

    async def aclose(self) -> None:
        """`close` without waiting for frames; the end of the event loop does it to what is still open."""
        await self._life.close(0.0)

    def __await__(self) -> Generator[Any, None, LiveSession]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> LiveSession:
        await self._life.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        await self._life.close(5.0 if kind is None else 0.0)

    @property
    def _session(self) -> Started:
        return self._life.started

    def _check_open(self) -> None:
        _ = self._session
        if self._life.error is not None:
            raise self._life.error
        if self.status == "ended":
            raise SessionEnded("The session is over.", reason=self.reason or "closed")

    async def _explain(self, error: LivepeerError, channel: str | None = None) -> LivepeerError:
        return await self._life.explain(error, channel)
