"""A session's outgoing messages: emitted from any thread, written to a trickle channel by the event loop.

Messages that wait together travel in one segment, as JSON lines, and segments begin at most every 50 ms: the
server keeps five, so a burst of one segment each would be lost on a reader some way off.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import threading
from typing import TYPE_CHECKING, Any

from livepeer.trickle.errors import TrickleError

from .results import json_bytes

if TYPE_CHECKING:
    from livepeer.trickle import Transport, TricklePublisher

__all__ = ["Outbox"]

_logger = logging.getLogger("livepeer.runner")

_LIMIT = 1000  # messages that wait; more, and the oldest are dropped and counted
_PACE = 0.05  # seconds between the beginnings of two segments
KEEP_ALIVE = b'{"keep":"alive"}'


class Outbox:
    """The messages of one channel, in order.

    Args:
        url: The channel.
        transport: What reaches it.
        heartbeat: After how many seconds of silence ``{"keep": "alive"}`` is written; the server sweeps a
            channel after 300.
    """

    def __init__(self, url: str, transport: Transport, *, heartbeat: float) -> None:
        self._url = url
        self._transport = transport
        self._heartbeat = heartbeat
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting: collections.deque[bytes] = collections.deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._publisher: TricklePublisher | None = None
        self._task = asyncio.create_task(self._write(), name="outbox of a session")
        self.dropped = 0

    def put(self, message: Any) -> None:
        """Add a message, from any thread; raises TypeError when it can't be JSON."""
        line = json_bytes(message)
        with self._lock:
            if self._closing:
                return
            if len(self._waiting) >= _LIMIT:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(line)
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:
            _logger.debug("A message was emitted after the end of its event loop")

    async def flush(self, patience: float) -> None:
        """Take no more messages, and wait until those that are there are written, for so many seconds."""
        with self._lock:
            self._closing = True
        self._arrived.set()
        await asyncio.wait({self._task}, timeout=patience)
        self._task.cancel()

    async def close(self, *, delete: bool = True) -> None:
        """End the channel, or only its writing; what `flush` did not wait for is lost."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if self._publisher is not None:
            try:
                await asyncio.wait_for(self._publisher.close(delete=delete), 5)
            except (TrickleError, TimeoutError):
                _logger.debug("A session's channel was closed before its writer", exc_info=True)

    async def _write(self) -> None:
        from livepeer.trickle import TricklePublisher

        self._publisher = publisher = TricklePublisher(
            self._url, transport=self._transport, mime_type="application/json", start=0
        )
        try:
            while True:
                try:
                    await asyncio.wait_for(self._arrived.wait(), self._heartbeat)
                except TimeoutError:
                    await publisher.write(KEEP_ALIVE)
                    continue
                self._arrived.clear()
                with self._lock:
                    lines = list(self._waiting)
                    self._waiting.clear()
                    closing = self._closing
                if lines:
                    await publisher.write(b"\n".join(lines))
                if closing:
                    return
                await asyncio.sleep(_PACE)
        except TrickleError:
            _logger.debug("A session's channel ended; its messages go nowhere", exc_info=True)
        finally:
            with self._lock:
                self._closing = True
                self._waiting.clear()
