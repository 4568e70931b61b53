"""The GETs of a channel that are under way before anybody reads their segments.

The server keeps five segments and waits for nobody. So the next GET is sent when the head of the last answer
comes, and not when somebody has read its body: a reader stays at the head while its owner takes its time, and
what it was answered with is its own, whatever the ring forgets.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable

from ._exchange import Exchange
from ._wire import Endpoint
from .protocol import following

__all__ = ["Lookahead"]

_SEGMENTS = 64  # that are under way, or wait for their reader
_BYTES = 2 * 1024 * 1024  # of them that are here already


class Lookahead:
    """A queue of GETs, in the order of their segments.

    Args:
        endpoint: The channel.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._asked: deque[tuple[int, Exchange]] = deque()
        self._prepared = False
        self._last: Exchange | None = None  # the newest, while nothing was asked because of its answer
        # An exchange lives as long as its connection, which must not keep a forgotten reader alive.
        self._answered = _weakly(self)

    @property
    def next_number(self) -> int | None:
        """The number of the first segment in the queue."""
        return self._asked[0][0] if self._asked else None

    def first(self, want: int) -> Exchange:
        """The GET of this segment, begun if it isn't in the queue; those of earlier ones are given up."""
        while self._asked and self._asked[0][0] < want:
            self._asked.popleft()[1].close()
        if not self._asked or self._asked[0][0] != want:
            exchange = self._start(want)
            self._asked.appendleft((want, exchange))
            if len(self._asked) == 1:
                self._last = exchange
                if not self._prepared:
                    self._prepared = True
                    self._endpoint.prepare()
        return self._asked[0][1]

    def pop(self) -> None:
        """The first one is its reader's from now on."""
        self._asked.popleft()

    def extend(self) -> None:
        """Ask for what can be had, or waited for, after the newest."""
        last = self._last
        if last is None or not last.status or len(self._asked) >= _SEGMENTS:
            return
        if sum(exchange.waiting for _, exchange in self._asked) >= _BYTES:
            return
        self._last = None
        for number in following(last.status, last.headers):
            self._last = self._start(number)
            self._asked.append((number, self._last))

    def forget_broken(self) -> None:
        """A connection broke: what broke with it is asked for again when its turn comes."""
        good = 0
        for _, exchange in self._asked:
            if exchange.error is not None:
                break
            good += 1
        while len(self._asked) > good:
            self._asked.pop()[1].close()
        self._last = self._asked[-1][1] if self._asked else None
        self._prepared = False

    def close(self) -> None:
        """Give them all up."""
        self._last = None
        while self._asked:
            self._asked.pop()[1].close()

    def _start(self, number: int) -> Exchange:
        exchange = self._endpoint.start("GET", f"/{number}")
        exchange.on_answer = self._answered
        return exchange


def _weakly(lookahead: Lookahead) -> Callable[[], None]:
    reference = weakref.ref(lookahead)

    def extend() -> None:
        found = reference()
        if found is not None:
            found.extend()

    return extend
