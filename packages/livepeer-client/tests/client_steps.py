"""Cancels a coroutine at one of its suspensions, counted from its beginning."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any


@types.coroutine
def cancelled_at(number: int, late: bool, work: Coroutine[Any, Any, Any]) -> Generator[Any, Any, bool]:
    """Run a coroutine and cancel its task at one of its suspensions; whether it came so far.

    `late` cancels when what it waits for has just happened: the result is there, and gets lost.
    """
    task = asyncio.current_task()
    assert task is not None
    suspensions = 0
    thrown: BaseException | None = None
    while True:
        try:
            waiting_for = work.send(None) if thrown is None else work.throw(thrown)
        except StopIteration:
            return False
        except asyncio.CancelledError:
            return True
        finally:
            thrown = None  # it holds the frames of the work, and with them what the work had open
        if suspensions == number:
            if late and waiting_for is not None:
                waiting_for.add_done_callback(lambda _: task.cancel())
            else:
                task.cancel()
        suspensions += 1
        try:
            yield waiting_for
        except BaseException as error:
            thrown = error


async def awaited(stepping: Any) -> bool:
    """A coroutine, as tasks want one, of a generator that steps through another."""
    return bool(await stepping)
