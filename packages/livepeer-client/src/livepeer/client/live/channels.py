"""The JSON channels of a session: always there, and usable once it is connected and has such a channel."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from ..errors import ChannelNotFound, ConfigurationError, LivepeerError, SessionEnded
from .stats import ChannelStats

if TYPE_CHECKING:
    from livepeer.trickle import ChannelReader, ChannelWriter, Transport

__all__ = ["RawChannel", "SessionReader", "SessionWriter"]

_KEPT = 1000  # messages that wait for a reader; more push the oldest out
_KEEP_ALIVE = {"keep": "alive"}  # says nothing; a channel without a message for 5 minutes is swept
_SILENCE = 60.0  # seconds without a message after which one of those is written


class SessionWriter:
    """Writes JSON messages to the worker: ``await session.control.write({"prompt": "a cat"})``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._writer: ChannelWriter | None = None
        self._missing = _before(name)
        self._written = 0
        self._written_at = 0.0
        self._keeper: asyncio.Task[None] | None = None

    async def write(self, message: Any) -> None:
        """Write one message, a JSON value; returns when the orchestrator has it.

        Raises:
            ConfigurationError: This session has no such channel, or isn't connected yet.
            SessionEnded: The session is over.
            TrickleError: The channel could not be written.
        """
        if self._writer is None:
            raise self._missing
        await self._writer.write(message)
        self._written += 1
        self._written_at = time.monotonic()

    def stats(self) -> ChannelStats:
        """How many messages were written."""
        return ChannelStats(frames=self._written)

    def connect(self, url: str | None, transport: Transport) -> None:
        """Begin, or learn that there is no such channel."""
        if url is None:
            self._missing = _absent(self._name)
            return
        from livepeer.trickle import ChannelWriter

        self._writer = ChannelWriter(url, transport=transport)
        self._written_at = time.monotonic()
        self._keeper = asyncio.create_task(self._keep_alive(self._writer))

    async def close(self) -> None:
        """End the channel."""
        writer, self._writer = self._writer, None
        self._missing = _over(self._name)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        if writer is not None:
            await writer.close()

    async def _keep_alive(self, writer: ChannelWriter) -> None:
        try:
            while True:
                silent = time.monotonic() - self._written_at
                if silent >= _SILENCE:
                    await writer.write(_KEEP_ALIVE)
                    self._written_at, silent = time.monotonic(), 0.0
                await asyncio.sleep(_SILENCE - silent)
        except LivepeerError:
            return  # the channel is over, which the next write tells


class SessionReader:
    """Reads the worker's JSON messages: ``async for event in session.events`` (or ``session.events()``).

    Messages are fetched from the start of the session on, whether somebody iterates or not, and the last
    thousand are kept. The iteration ends normally with the channel. Several readers share the messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._missing: LivepeerError | None = _before(name)
        self._reader: ChannelReader | None = None
        self._task: asyncio.Task[None] | None = None
        self._messages: deque[Any] = deque()
        self._news = asyncio.Event()
        self._failure: LivepeerError | None = None
        self._received = 0
        self._pushed_out = 0
        self.ended: asyncio.Event = asyncio.Event()
        """Set when the channel is over."""

    def __call__(self) -> SessionReader:
        """The reader itself."""
        return self

    def __aiter__(self) -> SessionReader:
        return self

    async def __anext__(self) -> Any:
        if self._missing is not None:
            raise self._missing
        while not self._messages:
            if self.ended.is_set():
                if self._failure is not None:
                    raise self._failure
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._messages.popleft()

    def stats(self) -> ChannelStats:
        """How many messages were received, and how many nobody read in time."""
        missed = self._reader.missed if self._reader else 0
        return ChannelStats(frames=self._received, dropped=self._pushed_out + missed)

    def connect(self, url: str | None, transport: Transport) -> None:
        """Begin to read, or learn that there is no such channel."""
        if url is None:
            self._missing = _absent(self._name)
            self.ended.set()
            return
        from livepeer.trickle import ChannelReader

        self._missing = None
        self._reader = ChannelReader(url, transport=transport)
        self._task = asyncio.create_task(self._fetch(self._reader))

    async def close(self) -> None:
        """Stop reading; what was received can still be iterated."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._reader is not None:
            await self._reader.aclose()

    async def _fetch(self, reader: ChannelReader) -> None:
        try:
            async for message in reader:
                if message == _KEEP_ALIVE:
                    continue
                self._received += 1
                self._messages.append(message)
                if len(self._messages) > _KEPT:
                    self._messages.popleft()
                    self._pushed_out += 1
                self._news.set()
        except ChannelNotFound:
            pass  # over before it was read: an ordinary end
        except LivepeerError as error:
            self._failure = error
        finally:
            self.ended.set()
            self._news.set()


class RawChannel:
    """One channel of a session as bytes; its two ends are `livepeer.trickle`'s.

    Args:
        url: The channel's URL.
        transport: The session's HTTP connections.
    """

    def __init__(self, url: str, transport: Transport) -> None:
        self.url: str = url
        self._transport = transport

    def publisher(self, *, mime_type: str = "application/octet-stream") -> Any:
        """A `livepeer.trickle.TricklePublisher`; close it when you are done."""
        from livepeer.trickle import TricklePublisher

        return TricklePublisher(self.url, transport=self._transport, mime_type=mime_type)

    def subscriber(self, *, start: int = 0) -> Any:
        """A `livepeer.trickle.TrickleSubscriber`, from a segment's number on (-2: the newest)."""
        from livepeer.trickle import TrickleSubscriber

        return TrickleSubscriber(self.url, transport=self._transport, start=start)


def _before(name: str) -> LivepeerError:
    return ConfigurationError(
        f"session.{name} was used before the session was connected.",
        hint="Enter it first: async with gw.live(…) as session.",
    )


def _absent(name: str) -> LivepeerError:
    return ConfigurationError(
        f"This session has no {name} channel: the worker opened none.",
        hint="LiveSession.raw shows what it opened.",
    )


def _over(name: str) -> LivepeerError:
    return SessionEnded(f"session.{name} was used after the session was closed.", reason="closed")
