"""The event loop behind the synchronous verbs: one daemon thread a process, started at the first call."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from ._fork import abandon, on_fork
from .errors import ConfigurationError

__all__ = ["LoopThread", "loop_thread"]

T = TypeVar("T")

_UNWIND = 6.0  # seconds that an interrupted call has to close what it opened
_POLL = 0.25  # seconds; Windows can't interrupt a wait without an end


class LoopThread:
    """Runs coroutines for callers in other threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended = False
        on_fork(self)
        atexit.register(self.stop)

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine to its end and return its result.

        An interrupt (Ctrl-C) cancels the coroutine, waits for it to unwind, and goes on.

        Args:
            make: Makes the coroutine; called only when it will run.

        Raises:
            ConfigurationError: The caller is this loop's own thread, which would wait for itself.
        """
        if threading.current_thread() is self._thread:
            raise ConfigurationError(
                "A synchronous verb was called on Livepeer's own event-loop thread, which would wait for "
                "itself for ever.",
                hint="Call the _async form here, or the synchronous one from another thread.",
            )
        if self._ended and threading.current_thread() is not threading.main_thread():
            _stand_still()
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        loop = self.loop()
        try:
            loop.call_soon_threadsafe(_begin, loop, make, future)
            return _result(future)
        except (RuntimeError, concurrent.futures.CancelledError):
            if self._ended:
                _stand_still()
            raise
        except (KeyboardInterrupt, SystemExit):
            future.cancel()
            self._await_unwinding(future)
            raise

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function on the loop, if it still runs; used when things are collected."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(function)
            except RuntimeError:
                return  # closed in between: what it held is closed as well

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, running."""
        if self._loop is None:
            with self._lock:
                if self._loop is None:
                    self._start()
        assert self._loop is not None
        return self._loop

    def stop(self) -> None:
        """End the loop and its thread, closing what is open; at the interpreter's exit."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            self._ended = True
        if loop is None or thread is None or loop.is_closed():
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_UNWIND)

    def _start(self) -> None:
        loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_serve, args=(loop,), name="livepeer-client", daemon=True)
        self._thread.start()
        self._loop = loop

    def _await_unwinding(self, future: concurrent.futures.Future[Any]) -> None:
        """Wait until the loop has handled the cancellation, so that the connection is closed."""
        settled = threading.Event()

        async def settle() -> None:
            pending = [task for task in asyncio.all_tasks() if task.cancelling()]
            if pending:
                await asyncio.wait(pending, timeout=_UNWIND)
            settled.set()

        try:
            asyncio.run_coroutine_threadsafe(settle(), self.loop())
            settled.wait(_UNWIND)
        except (KeyboardInterrupt, RuntimeError):
            return  # a second Ctrl-C: the user doesn't want to wait

    def _after_fork(self) -> None:
        if self._loop is not None:
            abandon(self._loop)
            abandon(self._thread)
        self._lock = threading.Lock()
        self._loop = self._thread = None


def _begin(
    loop: asyncio.AbstractEventLoop,
    make: Callable[[], Coroutine[Any, Any, T]],
    future: concurrent.futures.Future[T],
) -> None:
    """Run a coroutine as a task of this loop, for a future that its caller waits for, and may cancel.

    asyncio's own `run_coroutine_threadsafe` takes a coroutine, which an interrupt at the wrong moment leaves
    without anybody to await it.
    """
    if future.cancelled():
        return
    # The caller's future must not be what keeps the task: asyncio's books of its tasks would then be kept in
    # the caller's thread, where an interrupt that falls into them is swallowed.
    open_tasks = [loop.create_task(make())]

    def ended(task: asyncio.Task[T]) -> None:
        open_tasks.clear()
        error = concurrent.futures.CancelledError() if task.cancelled() else task.exception()
        if not future.set_running_or_notify_cancel():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())

    def given_up(future: concurrent.futures.Future[T]) -> None:
        if future.cancelled() and not loop.is_closed():
            loop.call_soon_threadsafe(_cancel, open_tasks)

    open_tasks[0].add_done_callback(ended)
    future.add_done_callback(given_up)


def _cancel(open_tasks: list[asyncio.Task[Any]]) -> None:
    for task in open_tasks:
        task.cancel()


def _result(future: concurrent.futures.Future[T]) -> T:
    if sys.platform != "win32":
        return future.result()
    while True:
        done, _ = concurrent.futures.wait([future], timeout=_POLL)
        if done:
            return future.result()


def _stand_still() -> NoReturn:
    """Stop this thread for ever: the interpreter exits, as daemon threads find out in any blocking call."""
    while True:
        threading.Event().wait()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        while tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        # Not loop.shutdown_default_executor(): it starts a thread, which an exiting interpreter refuses.
        loop.close()  # which lets the threads of its executor go, if it has one


loop_thread = LoopThread()
