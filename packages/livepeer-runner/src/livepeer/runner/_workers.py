"""Threads for the author's synchronous code.

A worker is one daemon thread that does its jobs in order, so a generator or a live session stays on one
thread (CUDA contexts and sqlite connections insist on that). Daemon threads, because code that never returns
may not keep the process from ending; kept for reuse, because libraries hold pools per thread.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Lease", "Slots", "Worker"]

_T = TypeVar("_T")


class Worker:
    """One thread that does jobs in order."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[concurrent.futures.Future[Any], Callable[[], Any]] | None]
        self._jobs = queue.SimpleQueue()
        self._last: concurrent.futures.Future[Any] | None = None
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, function: Callable[..., _T], *args: Any) -> concurrent.futures.Future[_T]:
        """Do this job after those before it."""
        future: concurrent.futures.Future[_T] = concurrent.futures.Future()
        self._last = future
        self._jobs.put((future, lambda: function(*args)))
        return future

    async def call(self, function: Callable[..., _T], *args: Any) -> _T:
        """Do this job and wait for it; a cancelled wait leaves a job that has begun running."""
        return await asyncio.wrap_future(self.submit(function, *args))

    @property
    def busy(self) -> bool:
        """Whether a job is waiting or running."""
        return self._last is not None and (self._last.running() or not self._last.done())

    def close(self) -> None:
        """End the thread when the jobs before are done."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = function()
            except BaseException as error:
                future.set_exception(_portable(error))
            else:
                future.set_result(result)
                del result
            del job, future, function


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
        loop = asyncio.get_running_loop()

        def freed(_: object) -> None:
            try:
                loop.call_soon_threadsafe(self._slots._give_back, worker)
            except RuntimeError:  # the loop is closed: the process is ending
                worker.close()

        worker.submit(lambda: None).add_done_callback(freed)
