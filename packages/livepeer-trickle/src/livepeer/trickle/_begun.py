"""Running a coroutine at once, in a callback, as far as it doesn't wait; a task does the rest.

A task that is woken for something that was there already costs a turn of the event loop, each time.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any

__all__ = ["Begun", "begin"]


def begin(work: Coroutine[Any, Any, None]) -> Begun | None:
    """Run a coroutine until it waits; None when it is done by then. What it raises, the rest raises."""
    try:
        waits_for = work.send(None)
    except StopIteration:
        return None
    except Exception as error:
        return Begun(work, None, error)
    return Begun(work, waits_for, None)


class Begun:
    """The rest of a coroutine: to be awaited by a task, or closed."""

    def __init__(self, work: Coroutine[Any, Any, None], waits_for: Any, error: Exception | None) -> None:
        self._work = work
        self._waits_for = waits_for
        self._error = error

    def __await__(self) -> Generator[Any, Any, None]:
        if self._error is not None:
            raise self._error
        waits_for = self._waits_for
        try:
            while True:
                try:
                    sent = yield waits_for
                except BaseException as error:
                    waits_for = self._work.throw(error)
                else:
                    waits_for = self._work.send(sent)
        except StopIteration:
            return

    def close(self) -> None:
        """Give it up."""
        self._work.close()
