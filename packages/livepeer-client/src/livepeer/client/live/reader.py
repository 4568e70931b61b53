"""Messages of the worker: fetched as they come, kept for whoever iterates."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ..errors import ChannelNotFound, LivepeerError
from .missing import absent, before
from .stats import ChannelStats

if TYPE_CHECKING:
    from livepeer.trickle import ChannelReader, Transport

__all__ = ["SessionReader"]

_KEPT = 1000  # messages that wait for a reader; more push the oldest out
_SWEPT = 290.0  # seconds without a message after which an orchestrator may have ended the channel itself
_KEEP_ALIVE = {"keep": "alive"}  # says nothing; workers write it so that the channel isn't swept

Explain = Callable[[LivepeerError], Awaitable[LivepeerError]]


class SessionReader:
    """Reads the worker's JSON messages: ``async for event in session.events`` (or ``session.events()``).

    Messages are fetched from the start of the session on, whether somebody iterates or not, and the last
    thousand are kept. The iteration ends normally with the channel, and raises `SessionEnded` when the
    session ended in another way. Several readers share the messages.

    Args:
        name: What the channel is called.
        explain: Told of a failure; gives the error that says why.
    """

    def __init__(self, name: str, explain: Explain) -> None:
        self._name = name
        self._explain = explain
        self._missing: LivepeerError | None = before(name)
        self._reader: ChannelReader | None = None
        self._task: asyncio.Task[None] | None = None
        self._messages: deque[Any] = deque()
        self._news = asyncio.Event()
        self._failure: LivepeerError | None = None
        self._received = 0
        self._pushed_out = 0
        self._connected_at = 0.0
        self._ended_at: float | None = None
        self.ended: asyncio.Event = asyncio.Event()
        """Set when the channel is over."""
        self.heard_at: float | None = None
        """When a message last came, by the monotonic clock."""
        self.on_message: Callable[[], None] = lambda: None
        """Called with each message that comes."""
        self.beat: float | None = None
        """How many seconds of silence the worker follows with a sign of life, as it was seen to do."""
        self.farewell: str | None = None
        """The reason that the worker gave for ending the session (``{"type": "ended", "reason": …}``)."""

    @property
    def exists(self) -> bool:
        """Whether the session has this channel."""
        return self._reader is not None

    @property
    def lapsed(self) -> bool:
        """Whether it is over because nothing was written to it for five minutes, which tells nothing."""
        since = max(self._connected_at, self.heard_at or 0.0)
        return self._ended_at is not None and self._ended_at - since > _SWEPT

    @property
    def open(self) -> bool:
        """Whether there is such a channel, and it is not over."""
        return self._reader is not None and not self.ended.is_set()

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
        reader = self._reader
        return ChannelStats(
            frames=self._received,
            bytes=reader.bytes if reader else 0,
            dropped=self._pushed_out,
            missed=reader.missed if reader else 0,
        )

    def connect(self, url: str | None, transport: Transport) -> None:
        """Begin to read, or learn that there is no such channel."""
        if url is None:
            self._missing = absent(self._name)
            self.ended.set()
            return
        from livepeer.trickle import ChannelReader

        self._missing = None
        self._connected_at = time.monotonic()
        self._reader = ChannelReader(url, transport=transport)
        self._task = asyncio.create_task(self._fetch(self._reader), name=f"livepeer-{self._name}")

    def fail(self, error: LivepeerError) -> None:
        """The session is over: what was received can still be iterated, and then this is raised.

        Also when the channel came to its end in order just before: what goes down closes its channels first.
        """
        if self._reader is None:
            return
        self._failure = self._failure or error
        if not self.ended.is_set():
            self.ended.set()
            self._news.set()
            if self._task is not None:
                self._task.cancel()

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
                before, self.heard_at = self.heard_at or self._connected_at, time.monotonic()
                self.on_message()
                if message == _KEEP_ALIVE:
                    self.beat = max(self.beat or 0.0, self.heard_at - before)
                    continue
                if isinstance(message, dict) and message.get("type") == "ended":
                    self.farewell = str(message.get("reason") or "ended")
                self._received += 1
                self._messages.append(message)
                if len(self._messages) > _KEPT:
                    self._messages.popleft()
                    self._pushed_out += 1
                self._news.set()
        except ChannelNotFound:
            pass  # over before it was read: an ordinary end
        except LivepeerError as error:
            self._failure = await self._explain(error)
        finally:
            self._ended_at = time.monotonic()
            self.ended.set()
            self._news.set()
