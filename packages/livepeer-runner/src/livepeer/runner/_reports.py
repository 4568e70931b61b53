"""What a session's client is told of what went wrong: events, at most one a second of each place."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from livepeer.trickle.errors import MediaError

from ._calls import as_http_error

if TYPE_CHECKING:
    from livepeer.trickle.media import MediaOutput

__all__ = ["Reports"]

_logger = logging.getLogger("livepeer.runner")

_PACE = 1.0  # seconds between two events of one place


class Reports:
    """The errors of one session.

    Args:
        session_id: Whose log lines they are.
        emit: Sends an event.
    """

    def __init__(self, session_id: str, emit: Callable[[Any], None]) -> None:
        self._session_id = session_id
        self._emit = emit
        self._places: dict[str, _Place] = {}
        self._lost = (0, 0, 0, 0)

    def error(self, error: Exception, where: str, timestamp: float | None = None) -> None:
        """Tell the client and the log of an error.

        Args:
            error: What was raised.
            where: In what: the author's method, or the media.
            timestamp: The time of the frame concerned, in seconds.
        """
        count = self._places.setdefault(where, _Place()).add()
        if not count:
            return
        if isinstance(error, MediaError):  # it says what is wrong; whose code raised it says nothing
            _logger.warning("Session %s: %s", self._session_id, error)
            details: dict[str, Any] = {"type": "MediaError", "message": error.message, "status": 500}
        else:
            details = as_http_error(error, where).body()["error"]
        if timestamp is not None:
            details["timestamp"] = timestamp
        self._emit({"type": "error", "error": details, "count": count})

    def losses(self, source: MediaOutput) -> None:
        """Tell what of an input was no good, or gone before it could be read, since the last time."""
        lost = source.losses
        found = (lost.segments, lost.packets, lost.undecoded, lost.bytes)
        if found == self._lost:
            return
        segments, packets, undecoded, rest = (
            now - before for now, before in zip(found, self._lost, strict=True)
        )
        self._lost = found
        message = (
            f"Of the input {segments} segments were gone before they could be read, {packets} pictures or "
            f"pieces of sound came in part, {undecoded} could not be decoded, and {rest} bytes were none of "
            "these."
        )
        self.error(MediaError(message), "the input")


class _Place:
    """Counts errors, and says when they are due to be told."""

    def __init__(self) -> None:
        self._untold = 0
        self._told_at = float("-inf")

    def add(self) -> int:
        """Count one; the number to tell now, 0 for not yet."""
        self._untold += 1
        if time.monotonic() - self._told_at < _PACE:
            return 0
        self._told_at = time.monotonic()
        count, self._untold = self._untold, 0
        return count
