"""How long a call may wait, and for what."""

from __future__ import annotations

import asyncio
import math
import weakref
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

from .errors import ConfigurationError

__all__ = ["Timeout", "TimeoutValue", "as_timeout", "out_of_time", "total_of_call"]


@dataclass(frozen=True, slots=True)
class Timeout:
    """The limits of a call, each in seconds; ``None`` is no limit.

    Attributes:
        connect: For a connection, the TLS handshake included.
        first_byte: From the start of a request to the status line of its answer.
        idle: Between two pieces of content; keep-alive comments don't count.
        total: For the whole call.
    """

    connect: float | None = 10.0
    first_byte: float | None = None
    idle: float | None = None
    total: float | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigurationError(
                    f"Timeout {name}={value!r} is not a number of seconds above 0.",
                    hint="Use None for no limit.",
                )


TimeoutValue = float | Timeout | None
"""What `timeout=` takes: a total in seconds, a `Timeout`, or None for no total."""


_total: ContextVar[weakref.ref[asyncio.Timeout]] = ContextVar("_total")


def total_of_call(limit: asyncio.Timeout) -> None:
    """This is the total of the call that is made in this context.

    It is kept weakly: the context lives on in the callbacks of connections, and a `Timeout` holds its task.
    """
    _total.set(weakref.ref(limit))


def out_of_time() -> bool:
    """Whether the total of the call that is made in this context has passed.

    Whoever is cancelled, and has something to wait for before it can end, waits only when it has not.
    """
    kept = _total.get(None)
    limit = kept() if kept is not None else None
    return limit is not None and limit.expired()


def as_timeout(value: TimeoutValue) -> Timeout:
    """The `Timeout` that a caller's value stands for; a number is a total."""
    if isinstance(value, Timeout):
        return value
    if value is None or (isinstance(value, float) and math.isinf(value) and value > 0):
        return _NONE
    return _of_total(value) if isinstance(value, float) else Timeout(total=value)


_NONE = Timeout()
_of_total = lru_cache(maxsize=16)(lambda seconds: Timeout(total=seconds))  # most calls have the same
