"""Threads for the author's synchronous code.

A worker is one daemon thread that does its jobs in order, so a generator or a live session stays on one
thread (CUDA contexts and sqlite connections insist on that). Daemon threads, because code that never returns
may not keep the process from ending; kept for reuse, because libraries hold pools per thread.
"""

from __future__ import annotations

import asyncio
import collections
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Lease", "Slots", "Worker"]

_T = TypeVar("_T")


class Worker:
    """One thread that does jobs in order, for one event loop.

    Results come back without a `concurrent.futures.Future` in between, which costs twice as much: 40 µs a job
    instead of 90, and a live stream has a hundred jobs a second.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]] | None]
        self._jobs = queue.SimpleQueue()
        self._open = 0
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, function: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:
        """Do this job after those before it; one that has begun is done although its future is cancelled."""
        future: asyncio.Future[_T] = self._loop.create_future()
        self._open += 1
        self._jobs.put((future, function, args))
        return future

    @property
    def busy(self) -> bool:
        """Whether a job is waiting or running."""
        return self._open > 0

    def close(self) -> None:
        """End the thread when the jobs before are done."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function, args = job
            result, error = None, None
            try:
                if not future.cancelled():
                    result = function(*args)
            except BaseException as raised:
                error = _portable(raised)
            try:
                self._loop.call_soon_threadsafe(self._deliver, future, result, error)
            except RuntimeError:  # the loop is closed: the process is ending
                return
            del job, future, function, args, result, error

    def _deliver(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._open -= 1
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
            future.exception()  # a job that nobody waits for may fail


def _portable(error: BaseException) -> BaseException:
    """Wrap StopIteration, which no future can carry, and SystemExit, which would end the server."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the pipeline's code raised {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


class Slots:
    """The places of a runner: at most `capacity` calls or sessions at once, each with its worker."""

    def __init__(self, capacity: int, name: str) -> None:
        self.capacity = capacity
        self.in_use: int = 0
        self._name = name
        self._idle: list[Worker] = []
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()
        self._closed = False

    async def take(self, patience: float) -> Lease | None:
        """A place, or None when none becomes free within `patience` seconds.

        An orchestrator counts a place as free when its client has gone, which is a moment before the code
        that ran for that client has ended.
        """
        if self.in_use < self.capacity:
            self.in_use += 1
            return Lease(self)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await asyncio.wait({turn}, timeout=patience)
        except asyncio.CancelledError:
            if turn.done():
                self._give_back(None)
            raise
        finally:
            if not turn.done():
                self._waiting.remove(turn)
        return Lease(self) if turn.done() else None

    def close(self) -> None:
        """End the idle threads; busy ones end when their job does."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _worker(self) -> Worker:
        return self._idle.pop() if self._idle else Worker(f"livepeer-runner {self._name}")

    def _give_back(self, worker: Worker | None) -> None:
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self.in_use -= 1
        if worker is not None:
            if self._closed:
                worker.close()
            else:
                self._idle.append(worker)


class Lease:
    """One place, held until the author's code has really ended: an abandoned thread still uses the GPU."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._worker: Worker | None = None
        self._open = True

    @property
    def worker(self) -> Worker:
        """The thread of this place."""
        if self._worker is None:
            self._worker = self._slots._worker()
        return self._worker

    def close(self) -> None:
        """Give the place back, after the jobs that the thread still has."""
        if not self._open:
            return
        self._open = False
        worker = self._worker
        if worker is None or not worker.busy:
            self._slots._give_back(worker)
            return
        worker.submit(lambda: None).add_done_callback(lambda _: self._slots._give_back(worker))
