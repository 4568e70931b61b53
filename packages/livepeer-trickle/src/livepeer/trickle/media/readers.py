"""One source, any number of readers at once, each with a queue of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from ..errors import LivepeerError
from .queues import BoundedQueue

__all__ = ["Fan", "MediaReader"]

T = TypeVar("T")


class Fan(Generic[T]):
    """Passes items on to every reader.

    Args:
        join: Called with the queue of a reader who asks for its first item. It puts in what the reader begins
            with, and then calls `attach`, at once or later.
    """

    def __init__(self, join: Callable[[BoundedQueue[T]], None]) -> None:
        self._join = join
        self._readers: list[BoundedQueue[T]] = []
        self._attached: dict[BoundedQueue[T], Callable[[T], bool] | None] = {}
        self._dropped = 0  # by readers that are gone
        self._ended = False
        self._error: Exception | None = None

    def __bool__(self) -> bool:
        """Whether anybody reads."""
        return bool(self._readers)

    @property
    def attached(self) -> bool:
        """Whether anybody gets what is put."""
        return bool(self._attached)

    @property
    def lossless(self) -> bool:
        """Whether there is a reader who wants every item."""
        return any(queue.lossless for queue in self._readers)

    @property
    def dropped(self) -> int:
        """Items that readers were too slow for, over all readers."""
        return self._dropped + sum(queue.dropped for queue in self._readers)

    @property
    def has_room(self) -> bool:
        """Whether no reader makes the next item wait, or skips one for it."""
        return not any(queue.full for queue in self._attached)

    def push(self, item: T) -> None:
        """Pass an item on without waiting."""
        for queue, wants in tuple(self._attached.items()):
            if wants is None or wants(item):
                queue.push(item)

    async def put(self, item: T) -> None:
        """Pass an item on, when each reader that drops nothing has room for it."""
        for queue, wants in tuple(self._attached.items()):
            if wants is None or wants(item):
                if queue.full:
                    await queue.put(item)
                else:
                    queue.push(item)

    def end(self, error: Exception | None = None) -> None:
        """End every reader, present and future, after what is on its way to it."""
        if not self._ended:
            self._ended, self._error = True, error
            for queue in self._readers:
                queue.end(error)

    def reader(self, queue: BoundedQueue[T]) -> MediaReader[T]:
        """A new reader with this queue."""
        return MediaReader(self, queue)

    def add(self, queue: BoundedQueue[T]) -> None:
        """A reader asks for its first item."""
        if self._ended:
            queue.end(self._error)
            return
        self._readers.append(queue)
        self._join(queue)

    def attach(self, queue: BoundedQueue[T], wants: Callable[[T], bool] | None = None) -> None:
        """From now on a reader who joined gets what is put; if `wants` is given, what it is true for."""
        if queue in self._readers:
            self._attached[queue] = wants

    def remove(self, queue: BoundedQueue[T]) -> None:
        """A reader is gone."""
        if queue in self._readers:
            self._readers.remove(queue)
            self._attached.pop(queue, None)
            self._dropped += queue.dropped
        queue.discard()


class MediaReader(Generic[T]):
    """An asynchronous iterator over what comes in.

    It takes part from its first item on until it is closed, or ends, or is let go (a ``break`` out of an
    ``async for`` over an unnamed one).
    """

    def __init__(self, fan: Fan[T], queue: BoundedQueue[T]) -> None:
        self._fan = fan
        self._queue = queue
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def dropped(self) -> int:
        """How many items this reader was too slow for."""
        return self._queue.dropped

    def __aiter__(self) -> MediaReader[T]:
        return self

    async def __anext__(self) -> T:
        self._join()
        try:
            return await self._queue.get()
        except (StopAsyncIteration, LivepeerError):
            self._fan.remove(self._queue)
            raise

    async def batch(self) -> list[T]:
        """All items that wait, at least one; empty at the end. Raises as the iteration does."""
        self._join()
        try:
            items = await self._queue.take_batch()
        except LivepeerError:
            self._fan.remove(self._queue)
            raise
        if not items:
            self._fan.remove(self._queue)
        return items

    async def aclose(self) -> None:
        """Take no further part."""
        self._loop = asyncio.get_running_loop()
        self._fan.remove(self._queue)

    async def __aenter__(self) -> MediaReader[T]:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def _join(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._fan.add(self._queue)

    def __del__(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed() and not self._queue.ended:
            # Any thread may collect it; whoever waits for room in its queue must not wait for ever.
            loop.call_soon_threadsafe(self._fan.remove, self._queue)
