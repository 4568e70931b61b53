"""The GETs of a channel that are under way before anybody wants their segments.

The server keeps five segments and waits for nobody. So a reader has its next GETs at the server already, one
behind the other on one connection: after a segment the server goes on with the next by itself, whatever
reader, network and machine do meanwhile. What is answered waits here.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable

from ._exchange import Exchange
from ._wire import Endpoint
from .protocol import CLOSED, SEQ

__all__ = ["Lookahead"]

_DEPTH = 16  # GETs that are not answered
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
        self._last: tuple[int, Exchange] | None = None  # the newest, which may have been popped
        # An exchange lives as long as its connection, which must not keep a forgotten reader alive.
        self._answered = _weakly(self)

    @property
    def next_number(self) -> int | None:
        """The number of the first segment in the queue."""
        return self._asked[0][0] if self._asked else None

    def first(self, want: int, *, alone: bool = False) -> Exchange:
        """The GET of this segment, begun if it isn't in the queue; those of earlier ones are given up.

        Args:
            want: The number, or one of those that stand for a number.
            alone: The segment may not be there: ask for no other before it is answered.
        """
        while self._asked and self._asked[0][0] < want:
            self._asked.popleft()[1].discard()
        if not self._asked or self._asked[0][0] != want:
            exchange = self._start(want, None)
            self._asked.appendleft((want, exchange))
            if len(self._asked) == 1:
                self._last = self._asked[0]
                if not alone and want >= 0:
                    self.extend()
        return self._asked[0][1]

    def pop(self) -> None:
        """The first one is its reader's from now on."""
        self._asked.popleft()

    def extend(self) -> None:
        """Ask for what comes after the newest, as far as there is room."""
        if self._last is None:
            return
        number, last = self._last
        if _says_no(last):
            return
        if number < 0:
            if not last.status or not last.headers.get(SEQ, "").isdigit():
                return  # its number comes with its answer
            number = int(last.headers[SEQ])
        unanswered, size = 0, 0
        for _, exchange in self._asked:
            if _says_no(exchange):
                return  # a server that fails, say, isn't asked for more and more meanwhile
            unanswered += not exchange.status
            size += exchange.waiting
        while unanswered < _DEPTH and size < _BYTES and len(self._asked) < _SEGMENTS:
            number, unanswered = number + 1, unanswered + 1
            self._last = number, self._start(number, self._last[1])
            self._asked.append(self._last)

    def forget_unanswered(self) -> None:
        """What isn't answered by a segment is asked for again when its turn comes."""
        good = 0
        for _, exchange in self._asked:
            if exchange.error is not None or exchange.status != 200:
                break
            good += 1
        while len(self._asked) > good:
            self._asked.pop()[1].discard()
        self._last = self._asked[-1] if self._asked else None

    def close(self) -> None:
        """Give them all up."""
        self._last = None
        while self._asked:
            self._asked.pop()[1].close()

    def _start(self, number: int, after: Exchange | None) -> Exchange:
        exchange = self._endpoint.start("GET", f"/{number}", after=after)
        exchange.on_answer = self._answered
        return exchange


def _says_no(exchange: Exchange) -> bool:
    return exchange.error is not None or exchange.status not in (0, 200) or CLOSED in exchange.headers


def _weakly(lookahead: Lookahead) -> Callable[[], None]:
    reference = weakref.ref(lookahead)

    def extend() -> None:
        found = reference()
        if found is not None:
            found.extend()

    return extend
