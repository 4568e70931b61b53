"""Functions of the caller's that may wait, in daemon threads.

asyncio's own `to_thread` uses the loop's executor: when such a function never returns, the end of
`asyncio.run` and the interpreter's exit wait for it. Nobody waits for a daemon thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_daemon_thread"]

T = TypeVar("T")


async def in_daemon_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread of its own, with the caller's context variables.

    A caller that is cancelled leaves it there. What the function raises is raised here.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[T] | BaseException] = loop.create_future()

    def settle(outcome: tuple[T] | BaseException) -> None:
        if not future.done():  # else nobody waits any more
            future.set_result(outcome)

    def work() -> None:
        outcome: tuple[T] | BaseException
        try:
            outcome = (function(),)
        except BaseException as error:
            outcome = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, outcome)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="livepeer-waiting", daemon=True).start()
    outcome = await future
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome[0]
