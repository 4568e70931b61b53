"""Coroutines on the event loops of other threads, which may stop or be closed at any moment."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from ._fork import abandon, on_fork

__all__ = ["Elsewhere"]

_PATIENCE = 20.0  # seconds that the other loops get
_LOOK = 0.1  # seconds between two looks at whether they still run
_logger = logging.getLogger("livepeer.client")

Make = Callable[[], Coroutine[Any, Any, None]]
_Running = list[tuple[asyncio.AbstractEventLoop, "concurrent.futures.Future[None]"]]


class Elsewhere:
    """Runs a coroutine on each of some loops, except the caller's own.

    asyncio's `run_coroutine_threadsafe` waits for ever when its loop ends before it has begun.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        on_fork(self)

    def run(self, loops: Iterable[asyncio.AbstractEventLoop], make: Make, *, wait: bool) -> None:
        """Run it, and wait for it, for 20 s at most.

        A caller whose own loop runs must not wait: the other thread may just do the same, for that one.
        """
        running = self._begin(loops, make)
        deadline = time.monotonic() + _PATIENCE
        while wait and (left := _left(running)) and time.monotonic() < deadline:
            concurrent.futures.wait(left, timeout=_LOOK)

    async def arun(self, loops: Iterable[asyncio.AbstractEventLoop], make: Make) -> None:
        """`run`, awaited."""
        running = self._begin(loops, make)
        deadline = time.monotonic() + _PATIENCE
        while (left := _left(running)) and time.monotonic() < deadline:
            await asyncio.wait([asyncio.wrap_future(done) for done in left], timeout=_LOOK)

    def _begin(self, loops: Iterable[asyncio.AbstractEventLoop], make: Make) -> _Running:
        here = asyncio._get_running_loop()
        running: _Running = []
        for loop in loops:
            if loop is not here and loop.is_running():
                done: concurrent.futures.Future[None] = concurrent.futures.Future()
                with contextlib.suppress(RuntimeError):  # it was closed in between
                    loop.call_soon_threadsafe(self._start, loop, make, done)
                    running.append((loop, done))
        return running

    def _start(
        self, loop: asyncio.AbstractEventLoop, make: Make, done: concurrent.futures.Future[None]
    ) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()):
                _logger.debug("what another thread asked for failed: %r", error)
            if done.set_running_or_notify_cancel():
                done.set_result(None)

        task = loop.create_task(make())
        self._tasks.add(task)
        task.add_done_callback(ended)

    def _after_fork(self) -> None:
        abandon(self._tasks)
        self._tasks = set()


def _left(running: _Running) -> list[concurrent.futures.Future[None]]:
    """Those that aren't done and still can be: a loop that has stopped doesn't go on."""
    return [done for loop, done in running if not done.done() and loop.is_running()]
