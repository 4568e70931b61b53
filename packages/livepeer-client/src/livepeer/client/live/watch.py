"""Noticing that a session is over, and why, although nobody says so."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from ..errors import ChannelClosed, ChannelNotFound, LivepeerError, SessionEnded, SessionLost, SessionStalled
from ..routes._health import Health
from .missing import unpaid
from .silence import Seen, Silence, Stall

if TYPE_CHECKING:
    from livepeer.trickle import Transport

    from ..routes import Started

__all__ = ["Watch", "Watched"]

_TICK = 0.2  # seconds between two looks
_ENDING = 1.0  # seconds that a worker may take between the end of one channel and the end of the session
_GONE = (ChannelClosed, ChannelNotFound)
_logger = logging.getLogger("livepeer.client")


class Watched(Protocol):
    """What the watch sees of a session."""

    def seen(self, now: float) -> Seen:
        """Its clocks."""

    def ended_channels(self) -> tuple[str | None, bool]:
        """The media channel that the other side ended, if it did; and whether it ended all that are read."""

    def counts(self) -> tuple[int, int]:
        """Frames sent, and frames that came back."""

    def farewell(self) -> str | None:
        """The reason that the worker gave for ending the session, if it did."""

    def over(self, error: LivepeerError, *, in_order: bool) -> None:
        """The session is over; `in_order` when readers get their end from their channels."""


class Watch:
    """Looks at a connected session until it is over.

    Args:
        session: The session.
        started: Where it is.
        transport: Its connections.
        silence: Judges its clocks.
        request_id: The id for its errors.
    """

    def __init__(
        self, session: Watched, started: Started, transport: Transport, silence: Silence, request_id: str
    ) -> None:
        self._session = session
        self._started = started
        self._transport = transport
        self._silence = silence
        self._details: dict[str, Any] = {"orchestrator": started.orchestrator, "request_id": request_id}
        self._asking = asyncio.Lock()
        self._over: LivepeerError | None = None
        self._closing = False
        self._seen_channel: str | None = None
        self._certificate = self._pinned()
        self._task = asyncio.create_task(self._run(), name="livepeer-session-watch")

    def expect_the_end(self) -> None:
        """This side ends the session: that channels and the session end is ordinary from now on."""
        self._closing = True

    def unpaid(self, error: LivepeerError) -> None:
        """Nothing more is paid for the session."""
        self._end(self._unpaid(error))

    async def stop(self) -> None:
        """Look no longer."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def explain(self, error: LivepeerError, channel: str | None = None) -> LivepeerError:
        """What a failed read or write means: the session's end, if it has ended, else the error itself.

        Args:
            error: What failed.
            channel: The channel, if it is one without which the session can't go on.
        """
        if self._over is None and (self._closing or self._task.done()):
            return error
        try:
            async with asyncio.timeout(2 * _ENDING):
                closed = isinstance(error, _GONE)
                await self._find_out(closed=closed, channel=channel if closed else None)
        except TimeoutError:
            _logger.debug("why %s failed was not found out in time", self._started.session_id)
        return self._over or error

    async def _run(self) -> None:
        while self._over is None:
            await asyncio.sleep(_TICK)
            now, session = time.monotonic(), self._session
            channel, all_ended = session.ended_channels()
            if not self._closing and (all_ended or (channel is not None and channel != self._seen_channel)):
                self._seen_channel = channel
                await self._find_out(closed=True, channel=channel)
                if all_ended:
                    self._end(self._ended())
                continue
            seen = session.seen(now)
            if self._closing:
                seen = replace(seen, owed=True, expected=False)  # the end of the output is owed
            # Where the worker itself can't be asked, it is missed.
            if not self._started.app_url and not self._closing and self._silence.missed(now, seen):
                health = await self._find_out()
                unreachable = health is Health.UNREACHABLE
                silent = now - (seen.heard_at or now)
                self._end(
                    self._stalled(Stall("orchestrator", silent)) if unreachable else self._worker_gone()
                )
                continue
            action = self._silence.look(now, seen)
            if isinstance(action, Stall):
                self._end(self._stalled(action))
            elif action == "ask":
                health = await self._find_out()
                answer = {Health.MUTE: "mute", Health.UNREACHABLE: "unreachable"}.get(health, "alive")
                self._silence.asked(time.monotonic(), answer, flows=self._silence.flows(now, seen))  # type: ignore[arg-type]

    async def _find_out(self, *, closed: bool = False, channel: str | None = None) -> Health:
        """Ask the worker, and end the session when it can't go on.

        Args:
            closed: A channel has ended, so the session is about to, if the worker meant it.
            channel: A media channel that ended, without which the session can't go on.
        """
        deadline = time.monotonic() + _ENDING
        pause = 0.05
        async with self._asking:
            while True:
                if self._over is not None:
                    return Health.ALIVE
                health = await self._started.ask(self._transport, self._started)
                if health is Health.SESSION_GONE and self._pinned() != self._certificate:
                    health = Health.LOST  # started anew, which another call may have noticed first
                _logger.debug("session %s: %s", self._started.session_id, health.value)
                if self._closing and health is Health.SESSION_GONE:
                    return health
                if health is Health.SESSION_GONE:
                    self._end(self._ended())
                elif health is Health.WORKER_GONE:
                    self._end(self._worker_gone())
                elif health is Health.LOST:
                    self._end(self._lost())
                elif closed and time.monotonic() + pause < deadline:
                    await asyncio.sleep(pause)
                    pause *= 2
                    continue
                elif channel is not None and self._session.ended_channels()[1]:
                    self._end(self._ended())  # a worker that can't end the session itself ends its channels
                elif channel is not None:
                    self._end(self._channel_closed(channel))
                return health

    def _pinned(self) -> bytes | None:
        """The certificate of the orchestrator at this moment."""
        where = urlsplit(self._started.orchestrator)
        return self._transport.tls.pinned(where.hostname or "", where.port or 443)

    def _end(self, end: tuple[LivepeerError, bool]) -> None:
        if self._over is None:
            self._over, in_order = end
            if self._started.keeper is not None:
                self._started.keeper.halt()
            _logger.debug("session %s is over: %s", self._started.session_id, self._over)
            self._session.over(self._over, in_order=in_order)

    def _unpaid(self, error: LivepeerError) -> tuple[LivepeerError, bool]:
        return unpaid(error, **self._details), False

    def _ended(self) -> tuple[LivepeerError, bool]:
        keeper = self._started.keeper
        if keeper is not None and keeper.trouble is not None and not self._closing:
            return self._unpaid(keeper.trouble)  # for which the orchestrator has dropped it
        told = self._session.farewell()
        text = (
            f"The worker ended the session, and says why: {told}."
            if told
            else "The worker ended the session."
        )
        return SessionEnded(text, reason=told or "ended", **self._details), True

    def _worker_gone(self) -> tuple[LivepeerError, bool]:
        if self._session.farewell():
            return self._ended()
        sent, back = self._session.counts()
        return SessionEnded(
            f"The worker of {self._started.app!r} is gone in the middle of the session: {sent} frames had "
            f"been sent, {back} had come back.",
            hint="Begin another session; the orchestrator may have another worker.",
            reason="worker gone",
            **self._details,
        ), False

    def _lost(self) -> tuple[LivepeerError, bool]:
        return SessionLost(
            "The orchestrator can't be reached any more, or was started anew.",
            hint="Its sessions don't survive that; begin another one.",
            reason="orchestrator gone",
            **self._details,
        ), False

    def _channel_closed(self, channel: str) -> tuple[LivepeerError, bool]:
        return SessionEnded(
            f"Somebody closed the session's {channel} channel, and the worker goes on without it.",
            hint="Whoever knows a channel's URL can close it; begin another session.",
            reason="channel closed",
            **self._details,
        ), False

    def _stalled(self, stall: Stall) -> tuple[LivepeerError, bool]:
        sent, back = self._session.counts()
        counts = f"{sent} frames sent, {back} back"
        match stall.silent:
            case "worker":
                text = f"The worker has sent nothing for {stall.seconds:.1f} s while input flowed ({counts})."
                hint = "It hangs, or needs longer than stall_timeout= (startup_timeout= for the first frame)."
            case "input":
                text = f"No frame left this side for {stall.seconds:.1f} s, although some wait ({counts})."
                hint = "The encoder or the connection is stuck."
            case "orchestrator":
                text = f"The orchestrator has not answered for {stall.seconds:.1f} s ({counts})."
                hint = "The network in between is down, or the orchestrator hangs."
        return SessionStalled(
            text,
            hint=hint,
            silent=stall.silent,
            waited=stall.seconds,
            frames_in=sent,
            frames_out=back,
            **self._details,
        ), False
