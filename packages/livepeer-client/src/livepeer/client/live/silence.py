"""When the silence of a live session means something. Pure decisions, without I/O.

A worker that dies leaves the segment that it wrote open at the orchestrator, whose readers wait for ever; a
worker that hangs does the same. All that can be seen is that input flows and nothing comes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Seen", "Silence", "Stall"]

Side = Literal["worker", "input", "orchestrator"]

_SUSPICIOUS = 0.75  # seconds without output after which the worker is asked whether it is there
_AGAIN = 2.0  # seconds between two such questions while input flows
_SELDOM = 15.0  # the most seconds between two when nothing is written
_MISSED = 3.0  # how many signs of life may stay away
_PATIENT = 5.0  # the least seconds that they may
_PAUSE = 3.0  # seconds without a write after which the input is paused, and the silence is the caller's own


@dataclass(frozen=True, slots=True)
class Seen:
    """What a session looks like at one moment. Times are seconds of the monotonic clock; None is never.

    Attributes:
        written_at: When something was last given to the connection.
        arrived_at: When output last came.
        heard_at: When anything at all last came from the worker, events included.
        waiting: Frames that wait on this side for the encoder or the connection.
        beat: After how many seconds without anything else the worker gave signs of life; None is never.
        owed: Whether the newest frame that was written is not back.
        expected: Whether somebody reads output, and isn't itself what holds it up.
    """

    written_at: float | None = None
    arrived_at: float | None = None
    heard_at: float | None = None
    waiting: int = 0
    beat: float | None = None
    owed: bool = False
    expected: bool = True


@dataclass(frozen=True, slots=True)
class Stall:
    """The silence is too long: which side fell silent, and for how many seconds."""

    silent: Side
    seconds: float


class Silence:
    """Watches the clock of one session.

    Args:
        stall_timeout: Seconds that output may stay away while input flows; None is for ever.
        startup_timeout: The same, before the first output.
    """

    def __init__(self, stall_timeout: float | None, startup_timeout: float | None) -> None:
        self._limit = stall_timeout
        self._first_limit = startup_timeout
        self._resumed_at: float | None = None  # when the input began to flow, after its last pause
        self._paused = False
        self._pause = max(_PAUSE, (stall_timeout or 0) / 2)
        self._ask_at = 0.0
        self._interval = _AGAIN
        self._mute = False
        self._unreachable = False

    def look(self, now: float, seen: Seen) -> Literal["ask"] | Stall | None:
        """What to do: ask the worker whether it is there (then call `asked`), give up, or nothing."""
        flows = self._flows(now, seen)
        if self._resumed_at is None or not (flows or seen.owed):
            return None
        since = max(self._resumed_at, seen.arrived_at or 0.0)
        limit = self._limit if seen.arrived_at is not None else self._first_limit
        # What counts is the input that got no answer: a pause of the input is no silence of the worker. One
        # that doesn't even answer when it is asked can't blame the input.
        fed_until = now if seen.waiting or self._mute else (seen.written_at or 0.0)
        if seen.expected and limit is not None and fed_until - since >= limit:
            return Stall(self._side(now, seen, limit), now - since)
        quiet = now - max(self._resumed_at, seen.heard_at or 0.0)
        answered = not seen.waiting and not seen.owed and (seen.heard_at or 0.0) >= (seen.written_at or 0.0)
        if quiet < _SUSPICIOUS or answered:
            self._interval, self._mute, self._unreachable = _AGAIN, False, False
            return None
        return "ask" if now >= self._ask_at else None

    def asked(self, now: float, answer: Literal["alive", "mute", "unreachable"], *, flows: bool) -> None:
        """The worker was asked, and is not known to be gone.

        Args:
            now: The time.
            answer: It answered, it didn't, or the orchestrator didn't either.
            flows: Whether input flows; else the next question waits longer each time.
        """
        self._mute, self._unreachable = answer != "alive", answer == "unreachable"
        self._interval = _AGAIN if flows else min(2 * self._interval, _SELDOM)
        self._ask_at = now + self._interval

    def missed(self, now: float, seen: Seen) -> bool:
        """Whether a worker that gave signs of life gives none any more."""
        if seen.beat is None or seen.heard_at is None:
            return False
        return now - seen.heard_at > max(_MISSED * seen.beat, _PATIENT)

    def flows(self, now: float, seen: Seen) -> bool:
        """Whether input flows, or tries to."""
        recent = seen.written_at is not None and now - seen.written_at < self._pause
        return recent or seen.waiting > 0

    def _flows(self, now: float, seen: Seen) -> bool:
        """`flows`, remembering when it began."""
        flows = self.flows(now, seen)
        if flows and self._resumed_at is None:
            self._resumed_at = seen.written_at if seen.written_at is not None else now
        elif not flows and not seen.owed:
            self._resumed_at = None
        elif not flows:
            self._paused = True
        elif self._paused:
            self._resumed_at, self._paused = seen.written_at or now, False
        return flows

    def _side(self, now: float, seen: Seen, limit: float) -> Side:
        if self._unreachable:
            return "orchestrator"
        stuck = seen.written_at is None or now - seen.written_at >= limit
        return "input" if seen.waiting and stuck else "worker"
