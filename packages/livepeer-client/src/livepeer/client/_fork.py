"""What a child does with the event loops, connections and locks that it inherits by `fork`: nothing at all.

The child shares its parent's epoll set. Closing an inherited connection, or only letting it be collected,
takes the parent's sockets out of that set, and the parent's calls hang. So the child forgets them without
closing, and gives each a reference that nothing ever drops, not even the interpreter's end.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol

__all__ = ["abandon", "on_fork"]


class _Inheritor(Protocol):
    def _after_fork(self) -> None: ...


_inheritors: weakref.WeakSet[Any] = weakref.WeakSet()


def on_fork(inheritor: _Inheritor) -> None:
    """Call `inheritor._after_fork()` in every child that this process forks, as long as it lives."""
    _inheritors.add(inheritor)


def abandon(inherited: Any) -> None:
    """Keep an inherited object alive until the process is gone."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


def _after_fork_in_child() -> None:
    for inheritor in list(_inheritors):
        inheritor._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
