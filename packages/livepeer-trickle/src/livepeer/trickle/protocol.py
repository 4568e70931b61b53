"""What a trickle reader and writer decide, without I/O.

A channel is a series of segments, numbered from 0, of which the server keeps a ring of five. There is no
handshake: everything is in status codes and four headers. `ReaderState` and `WriterState` are told what the
server answered, and say what to do next; `livepeer.trickle.ring` is the server's half.

Source: go-livepeer v0.9.1, ``trickle/trickle_server.go``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "CLOSED",
    "CURRENT",
    "EXPECT_CONTENT",
    "LATEST",
    "NEXT",
    "NO_SUCH_SEGMENT",
    "RESET",
    "RING_SIZE",
    "SEQ",
    "Ask",
    "End",
    "Fail",
    "Outcome",
    "ReaderState",
    "Take",
    "WriterState",
    "backoff",
]

SEQ = "Lp-Trickle-Seq"
"""The number of the segment that was read or written."""
LATEST = "Lp-Trickle-Latest"
"""The next write's number (newest + 1) when the request began."""
CLOSED = "Lp-Trickle-Closed"
"""``terminated``: the channel is over, whatever the status and the body say."""
RESET = "Lp-Trickle-Reset"
"""On a POST: close the earlier segments that are still open, so that nobody waits for their rest."""
EXPECT_CONTENT = "Expect-Content"
"""On a POST that creates a channel: its content type."""

NO_SUCH_SEGMENT = 470
"""The status for "the channel lives, but has no such segment (now)"."""
RING_SIZE = 5
"""How many segments the server keeps: creating segment n evicts n-5."""
NEXT = -1
"""In place of a number: the segment that will be written next."""
CURRENT = -2
"""In place of a number: the newest segment that was begun."""

_MAX_FAILURES = 5  # in a row; with their pauses that is 1.2 seconds
_LONG_LIVED = 5.0  # seconds after which a cut connection is a proxy's idle limit and no failure
_OVERTAKEN_ASKS = 7  # for a segment that later ones overtook; with their delays that is a quarter second


def backoff(attempt: int, *, first: float = 0.05, limit: float = 0.8) -> float:
    """The pause in seconds before attempt number `attempt` (the first one again is 1)."""
    return float(min(first * 2 ** (attempt - 1), limit))


@dataclass(frozen=True, slots=True)
class Take:
    """The response's body is segment `seq`; its first `skip` bytes were delivered before a cut."""

    seq: int
    skip: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """GET `ReaderState.want` (again) after `delay` seconds; `alone` when no later one can be there."""

    delay: float = 0.0
    alone: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The channel is over; or, when not `found`, was never seen by this reader."""

    found: bool = True


@dataclass(frozen=True, slots=True)
class Fail:
    """Reading can't go on. `connection` tells whether the server was lost, or answered something else."""

    reason: str
    connection: bool = False


class ReaderState:
    """Which segment to ask for next, and what an answer means.

    Args:
        start: The first segment's number, or `NEXT`, or `CURRENT`.
    """

    def __init__(self, start: int = 0) -> None:
        if start < CURRENT:
            raise ValueError(
                f"start={start} is below -2; it is a segment's number, -1 (next) or -2 (current)"
            )
        self.want: int = start
        self.missed: int = 0
        self._found = False
        self._reading: int | None = None
        self._resume: tuple[int, int] | None = None  # the segment that was cut, and how much of it came
        self._ahead = 0
        self._behind = 0
        self._overtaken = 0
        self._failures = 0

    def on_response(
        self,
        status: int,
        headers: Mapping[str, str],
        *,
        elapsed: float = 0.0,
        following: int | None = None,
    ) -> Take | Ask | End | Fail:
        """Decide about the answer to ``GET /{channel}/{want}``.

        Args:
            status: The answer's status.
            headers: The answer's headers.
            elapsed: How long the request had waited for it, in seconds.
            following: The number that was asked for after this one, if there is one: what is under way
                already is not passed over.
        """
        if status == 404:
            return End(self._found)
        if status in (200, NO_SUCH_SEGMENT):
            self._found = True
            # The end can carry a 200 and a body ("Entry not found"), which is no media.
            if CLOSED in headers:
                return End()
            return self._take(headers) if status == 200 else self._elsewhere(headers, following)
        if status >= 500 or status in (408, 425, 429):
            if elapsed >= _LONG_LIVED:  # a proxy's idle limit, said with a 504
                self._failures = 0
            return self._failed(f"status {status}")
        return Fail(f"status {status}")

    def on_segment_end(self) -> None:
        """The body of the taken segment came to its end."""
        self._reading = None
        self._failures = 0

    def on_break(self, received: int = 0, *, elapsed: float = 0.0, refused: bool = False) -> Ask | Fail:
        """The connection broke: before an answer, or `received` bytes into the taken segment.

        Args:
            received: Bytes of the segment that were delivered so far; the GET is made again for the same
                segment, whose body starts from its start.
            elapsed: How long the request had lived, in seconds.
            refused: No connection could be made at all.
        """
        progress = False
        if self._reading is not None:
            previous = self._resume[1] if self._resume and self._resume[0] == self._reading else 0
            progress = received > previous
            self.want, self._resume = self._reading, (self._reading, received)
            self._reading = None
        if progress or elapsed >= _LONG_LIVED:
            self._failures = 0
        if refused and not self._found:
            return Fail("no connection", connection=True)
        return self._failed("the connection broke")

    def _take(self, headers: Mapping[str, str]) -> Take:
        seq = max(_number(headers.get(SEQ), self.want), 0)
        skip = self._resume[1] if self._resume and self._resume[0] == seq else 0
        self._reading, self.want = seq, seq + 1
        self._ahead = self._behind = self._overtaken = 0
        return Take(seq, skip)

    def _elsewhere(self, headers: Mapping[str, str], following: int | None) -> Ask:
        latest = max(_number(headers.get(LATEST), 0), 0)
        if self.want < 0:
            self.want = latest
            return Ask()
        if self.want >= latest:
            # The head follows the segment begun last, so it may also have run backwards: it will be back.
            self._ahead += 1
            return Ask(backoff(self._ahead, first=0.01, limit=0.5), alone=True)
        if not self._behind and latest - self.want < RING_SIZE and self._overtaken < _OVERTAKEN_ASKS:
            # The ring would still have it: its writer's first bytes were overtaken by those of a later one,
            # and will be here in a moment; or were cut off, and never will.
            self._overtaken += 1
            return Ask(backoff(self._overtaken, first=0.002, limit=0.2))
        # Fallen out of the ring, whose oldest segment is the head less five (or four: a reader that waits at
        # the head takes one of the places). Each further miss in a row goes nearer to the head, so that a
        # fast writer is caught in a few steps.
        target = max(self.want + 1, latest - max(1, RING_SIZE - self._behind))
        if following is not None and following <= target:
            target = max(self.want + 1, following)
        else:
            self._behind += 1
        self.missed += target - self.want
        self.want = target
        return Ask()

    def _failed(self, reason: str) -> Ask | Fail:
        self._failures += 1
        if self._failures > _MAX_FAILURES:
            return Fail(f"{reason}, {_MAX_FAILURES} times in a row", connection=True)
        return Ask(backoff(self._failures, limit=0.4))


class Outcome(enum.Enum):
    """What the answer to a POST means for the segment's data."""

    DONE = "the segment is at the server"
    SWALLOWED = "the segment had been closed before, and its data is lost"
    CLOSED = "the channel is over"
    NOT_FOUND = "there is no such channel"
    BROKEN = "the server failed; the next segment may succeed"
    REFUSED = "the server won't have it"


class WriterState:
    """Which number the next segment gets, and what became of the last one.

    Args:
        start: The first segment's number; None asks the server (``GET /{channel}/next``).
    """

    def __init__(self, start: int | None = None) -> None:
        if start is not None and start < 0:
            raise ValueError(
                f"start={start} is negative; a writer that begins at -1 loses its second segment"
            )
        self.seq = start
        self.confirmed: int = 0
        self._reset = False
        self._reset_said = False  # the last POST's headers had it
        self._known = False
        self._never_kept = False  # every answer ends its connection, so that it means nothing

    def on_next(self, status: int, headers: Mapping[str, str], body: str) -> Outcome:
        """Take the answer to ``GET /{channel}/next``; sets `seq` when the outcome is `Outcome.DONE`."""
        if CLOSED in headers:
            return Outcome.CLOSED
        if status == 200:
            self._known = True
            self._never_kept = _says_close(headers)
            self.seq = _number(body, _number(headers.get(LATEST), 0))
            return Outcome.DONE
        if status == 404:
            if self._known:
                return Outcome.CLOSED
            # Where the server makes channels at the first POST, this one will; else it answers 404 again.
            self.seq = 0
            return Outcome.DONE
        return Outcome.BROKEN if status >= 500 else Outcome.REFUSED

    def on_sent(self, seq: int) -> None:
        """The POST of segment `seq` was written to its end: the next one can follow before the answer."""
        self._advance(seq)

    def headers(self, mime_type: str) -> dict[str, str]:
        """The headers of the next POST."""
        headers = {"Content-Type": mime_type}
        self._reset_said = self._reset
        if self._reset:
            headers[RESET] = "1"
        return headers

    def on_answer(
        self, seq: int, status: int, headers: Mapping[str, str], *, sent: int, complete: bool
    ) -> Outcome:
        """Take the answer to a POST of segment `seq`.

        Args:
            seq: The segment's number.
            status: The answer's status.
            headers: The answer's headers.
            sent: Bytes of the segment given to the connection.
            complete: Whether the body had ended before the answer came.
        """
        if CLOSED in headers:
            return Outcome.CLOSED
        if status == 200:
            self._known = True
            # A closed segment is answered at once, with "Connection: close" and an unread body. Without
            # data that is the ordinary answer; and from a proxy that keeps no connection, every answer is.
            if not complete or (sent and _says_close(headers) and not self._never_kept):
                self.seq = None
                self._must_reset()
                return Outcome.SWALLOWED
            self._advance(seq)
            if self._reset_said:
                self._reset = self._reset_said = False
            self.confirmed += 1
            return Outcome.DONE
        if status == 404:
            return Outcome.CLOSED if self._known else Outcome.NOT_FOUND
        self.on_break(seq)
        return Outcome.BROKEN if status >= 500 else Outcome.REFUSED

    def on_break(self, seq: int, *, sent: bool = True) -> None:
        """The POST of segment `seq` was cut or given up; `sent` when the server may have seen a part.

        The segment stays open at the server, and its readers hang until its successor comes with `RESET`.
        """
        if sent:
            self._advance(seq)
            self._must_reset()
        elif self.seq is not None and self.seq > seq:
            # It was written, but to nobody. Its number is free again, unless a later one was written too.
            self.seq = seq if self.seq == seq + 1 else self.seq
            self._must_reset()

    def _must_reset(self) -> None:
        """The next POST closes what is left open; one that is under way without the header doesn't count."""
        self._reset, self._reset_said = True, False

    def _advance(self, seq: int) -> None:
        """The next segment comes after `seq`; later ones may be on their way already."""
        self.seq = seq + 1 if self.seq is None else max(self.seq, seq + 1)


def _says_close(headers: Mapping[str, str]) -> bool:
    return headers.get("Connection", "").lower() == "close"


def _number(text: str | None, default: int) -> int:
    try:
        return int(text) if text is not None else default
    except ValueError:
        return default
