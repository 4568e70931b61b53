"""Messages to the worker: in order, none lost in a burst, and the channel alive while nothing is written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ..errors import LivepeerError, TrickleError
from .missing import absent, before, over
from .stats import ChannelStats

if TYPE_CHECKING:
    from livepeer.trickle import ChannelWriter, Transport

__all__ = ["SessionWriter"]

_KEEP_ALIVE = {"keep": "alive"}  # says nothing; a channel without a message for 5 minutes is swept
_SILENCE = 60.0  # seconds without a message after which one of those is written
_BURST = 3  # messages that may follow each other at once; the ring holds four that are finished
_APART = 0.05  # seconds between two further ones
_ROLL = 0.5  # seconds that a segment of several messages lasts

Explain = Callable[[LivepeerError], Awaitable[LivepeerError]]


class SessionWriter:
    """Writes JSON messages to the worker: ``await session.control.write({"prompt": "a cat"})``.

    Args:
        name: What the channel is called.
        explain: Told of a failure; gives the error that says why.
    """

    def __init__(self, name: str, explain: Explain) -> None:
        self._name = name
        self._explain = explain
        self._writer: ChannelWriter | None = None
        self._missing: LivepeerError | None = before(name)
        self._written = 0
        self._bytes = 0
        self._alive_at = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self._order = asyncio.Lock()
        self._pace: Pace | None = None
        self.written_at: float | None = None
        """When the caller last wrote, by the monotonic clock."""

    async def write(self, message: Any) -> None:
        """Write one message, a JSON value; returns when the orchestrator has it.

        To a worker of this SDK a message is on its way when this returns, and what becomes of it is told
        within half a second, by the next call. To another one a burst is written at 20 messages a second, or
        as fast as the worker answers: each goes into a segment of its own, of which four are kept.

        Raises:
            ConfigurationError: This session has no such channel, or isn't connected yet.
            SessionEnded: The session is over; `SessionEnded.reason` says why.
            ChannelClosed, ChannelNotFound: Somebody ended this channel, and the session goes on.
            TrickleError: The channel could not be written, or the message is no JSON.
        """
        if self._missing is not None:
            raise self._missing
        writer = self._writer
        assert writer is not None
        try:
            async with self._order:
                if self._pace is not None:
                    await self._pace.turn()
                await writer.write(message)
        except TrickleError as error:
            told = await self._explain(error)
            if told is error:
                raise
            raise told from error
        self._written += 1
        self._bytes = writer.bytes
        self.written_at = self._alive_at = time.monotonic()

    def stats(self) -> ChannelStats:
        """How many messages were written, and their bytes."""
        return ChannelStats(frames=self._written, bytes=self._bytes)

    def connect(self, url: str | None, transport: Transport, *, lines: bool) -> None:
        """Begin, or learn that there is no such channel.

        Args:
            url: The channel.
            transport: The session's connections.
            lines: Whether the worker takes several messages to a segment.
        """
        if url is None:
            self._missing = absent(self._name)
            return
        from livepeer.trickle import ChannelWriter, JSONLWriter

        self._missing = None
        if lines:
            self._writer = JSONLWriter(url, transport=transport, roll_after=_ROLL)
        else:
            self._writer, self._pace = ChannelWriter(url, transport=transport), Pace()
        self._alive_at = time.monotonic()
        self._keeper = asyncio.create_task(self._keep_alive(self._writer), name="livepeer-keep-alive")

    def fail(self, error: LivepeerError) -> None:
        """The session is over: later writes raise this."""
        if self._missing is None:
            self._missing = error

    def answered(self) -> None:
        """The worker sent something: it reads what it is written."""
        if self._pace is not None:
            self._pace.refill()

    async def close(self, *, delete: bool = True) -> None:
        """End the channel, or just leave it."""
        writer, self._writer = self._writer, None
        self._missing = self._missing or over(self._name)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        if writer is not None:
            await writer.close(delete=delete)

    async def _keep_alive(self, writer: ChannelWriter) -> None:
        try:
            while True:
                silent = time.monotonic() - self._alive_at
                if silent >= _SILENCE:
                    await writer.write(_KEEP_ALIVE)
                    self._alive_at, silent = time.monotonic(), 0.0
                await asyncio.sleep(_SILENCE - silent)
        except LivepeerError:
            return  # the channel is over, which the next write tells


class Pace:
    """Spaces messages out, so that a reader some way off finds each of them in the ring."""

    def __init__(self) -> None:
        self._free_at = 0.0  # when the ring is deemed to be read, by the monotonic clock

    async def turn(self) -> None:
        """Wait until one more may be written."""
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + _APART
        wait = self._free_at - now - _BURST * _APART
        if wait > 0:
            await asyncio.sleep(wait)

    def refill(self) -> None:
        """What was written has been read."""
        self._free_at = 0.0
