"""What a publisher has to do, one after the other: a bounded queue with one who puts and one who takes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import av

from .packets import Packet
from .segments import Piece

__all__ = ["Job", "JobQueue"]


class Job(NamedTuple):
    """A frame to encode, a packet to pass on, pieces to write, a future to set (a flush), or an error."""

    item: av.VideoFrame | av.AudioFrame | Packet | Sequence[Piece] | asyncio.Future[None] | BaseException
    ticks: int = 0
    written_at: float = 0.0

    @property
    def rank(self) -> int:
        """What is dropped first: pictures, then sound; 2 for what is never dropped."""
        return 0 if isinstance(self.item, av.VideoFrame) else 1 if isinstance(self.item, av.AudioFrame) else 2


class JobQueue:
    """Holds a number of jobs; who puts waits for `room` first, or drops what waits longest.

    Args:
        limit: How many may wait.
    """

    def __init__(self, limit: int) -> None:
        self.dropped: int = 0
        self._limit = limit
        self._jobs: deque[Job] = deque()
        self._taker: asyncio.Future[Any] | None = None
        self._putter: asyncio.Future[Any] | None = None
        self._ended = False
        self._held = False

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def full(self) -> bool:
        """Whether who puts has to wait."""
        return len(self._jobs) >= self._limit and not self._ended

    @property
    def idle(self) -> bool:
        """Whether the taker waits for a job."""
        return self._taker is not None and not self._taker.done() and not (self._held or self._ended)

    async def room(self) -> None:
        """Wait until there is room, or the queue has ended. One may wait at a time."""
        while self.full:
            self._putter = asyncio.get_running_loop().create_future()
            try:
                await self._putter
            finally:
                self._putter = None

    def make_room(self) -> None:
        """Drop frames, the oldest first and pictures before sound, until there is room (or none is left)."""
        while self.full:
            rank, index = min((job.rank, index) for index, job in enumerate(self._jobs))
            if rank > 1:
                return
            del self._jobs[index]
            self.dropped += 1

    def push(self, job: Job) -> None:
        """Add a job, whether there is room or not; an ended queue ignores it."""
        if not self._ended:
            self._jobs.append(job)
            self._wake_taker()

    def hold(self) -> None:
        """A job goes past the queue: those that come now wait for `release`."""
        self._held = True

    def release(self, job: Job | None = None) -> None:
        """The job that went past the queue is done, or goes on as this one, before all others."""
        self._held = False
        if job is not None:
            self._jobs.appendleft(job)
        if self._jobs or self._ended:
            self._wake_taker()

    async def take(self) -> Job | None:
        """The oldest job; None when the queue has ended and is empty."""
        while self._held or not self._jobs:
            if self._ended and not self._held:
                return None
            self._taker = asyncio.get_running_loop().create_future()
            try:
                await self._taker
            finally:
                self._taker = None
        _wake(self._putter)
        return self._jobs.popleft()

    def end(self) -> None:
        """Nothing more is put; what waits can still be taken."""
        self._ended = True
        self._wake_taker()
        _wake(self._putter)

    def discard(self) -> None:
        """Forget what waits, and end."""
        self._jobs.clear()
        self.end()

    def _wake_taker(self) -> None:
        if not self._held:
            _wake(self._taker)


def _wake(waiter: asyncio.Future[Any] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
