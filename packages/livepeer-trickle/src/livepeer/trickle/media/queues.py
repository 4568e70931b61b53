"""A bounded queue between one who makes and one who takes, on one event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["BoundedQueue"]

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """Putting waits when it is full, or drops the oldest; taking waits when it is empty.

    Args:
        limit: How much may wait: items, or what `weigh` gives for them.
        drop_oldest: Whether a full queue drops its oldest items instead of making the putter wait.
        weigh: The weight of an item; a queue takes an item that is heavier than the limit when it is empty.
    """

    def __init__(
        self, limit: int, *, drop_oldest: bool = False, weigh: Callable[[T], float] | None = None
    ) -> None:
        self.dropped: int = 0
        self._limit = limit
        self._drop_oldest = drop_oldest
        self._weigh = weigh or (lambda _: 1)
        self._items: deque[T] = deque()
        self._weight: float = 0
        self._getters: list[asyncio.Future[None]] = []
        self._putters: deque[asyncio.Future[None]] = deque()
        self._ended = False
        self._error: Exception | None = None

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        """What waits, oldest first."""
        return iter(self._items)

    @property
    def lossless(self) -> bool:
        """Whether putting waits for room instead of dropping what is oldest."""
        return not self._drop_oldest

    @property
    def full(self) -> bool:
        """Whether the next item has to wait for room, or pushes another one out."""
        return self._full()

    @property
    def ended(self) -> bool:
        """Whether nothing more can be put."""
        return self._ended

    async def put(self, item: T) -> None:
        """Add an item, when there is room; an ended queue ignores it, or raises its error."""
        if self._drop_oldest and self._full():
            # A taker who only waits isn't slow: it shall take what is there before anything is dropped.
            await asyncio.sleep(0)
        while self._full() and not self._drop_oldest and not self._ended:
            turn = asyncio.get_running_loop().create_future()
            self._putters.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn in self._putters:
                    self._putters.remove(turn)
                else:
                    self._let_in()
                raise
        self.push(item)

    def try_put(self, item: T) -> bool:
        """Add an item if `put` would not have to wait; False if it would."""
        if self._full() and not self._drop_oldest and not self._ended:
            return False
        self.push(item)
        return True

    def offer(self, item: T) -> bool:
        """Add an item if there is room; else count it as dropped (or the oldest, if that is the way here)."""
        if self._full() and not self._drop_oldest and not self._ended:
            self.dropped += 1
            return False
        self.push(item)
        return True

    def push(self, item: T) -> None:
        """Add an item without waiting for room."""
        if self._ended:
            if self._error is not None:
                raise self._error
            return
        while self._drop_oldest and self._full():
            self._weight -= self._weigh(self._items.popleft())
            self.dropped += 1
        self._items.append(item)
        self._weight += self._weigh(item)
        self._wake_getters()

    async def get(self) -> T:
        """The oldest item. Raises StopAsyncIteration when the queue has ended and is empty, or its error."""
        if not await self._filled():
            raise StopAsyncIteration
        item = self._items.popleft()
        self._weight -= self._weigh(item)
        self._let_in()
        return item

    async def take(self) -> T | None:
        """As `get`, but None at the end."""
        try:
            return await self.get()
        except StopAsyncIteration:
            return None

    async def take_batch(self, limit: int | None = None) -> list[T]:
        """All items that wait, up to `limit`, at least one; empty at the end. Raises the queue's error."""
        if not await self._filled():
            return []
        items = [self._items.popleft() for _ in range(min(len(self._items), limit or len(self._items)))]
        self._weight -= sum(map(self._weigh, items))
        self._let_in()
        return items

    def forget(self, unwanted: Callable[[T], bool]) -> int:
        """Take out the waiting items for which `unwanted` is true; returns how many."""
        kept = [item for item in self._items if not unwanted(item)]
        forgotten = len(self._items) - len(kept)
        self._items = deque(kept)
        self._weight = sum(map(self._weigh, kept))
        self._let_in()
        return forgotten

    def end(self, error: Exception | None = None) -> None:
        """Nothing more comes: what waits can still be taken, then the taker gets the end or the error."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake_getters()
            self._let_in()

    def discard(self) -> None:
        """The taker is gone: forget what waits, and let nobody wait for room."""
        self._items.clear()
        self._weight = 0
        self.end()

    async def _filled(self) -> bool:
        """Wait for an item; False at the end. Raises the queue's error."""
        while not self._items:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return False
            turn = asyncio.get_running_loop().create_future()
            self._getters.append(turn)
            try:
                await turn
            finally:
                self._getters.remove(turn)
        return True

    def _full(self) -> bool:
        return bool(self._items) and self._weight >= self._limit

    def _wake_getters(self) -> None:
        for turn in self._getters:
            if not turn.done():
                turn.set_result(None)

    def _let_in(self) -> None:
        """Wake who waits for room: one at a time, as each may fill the queue again; all at the end."""
        while self._putters and (self._ended or not self._full()):
            turn = self._putters.popleft()
            if not turn.done():
                turn.set_result(None)
                if not self._ended:
                    return
