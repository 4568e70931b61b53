"""Whether a call that failed may be made again elsewhere, and what was tried before it failed.

These are pure decisions. Another orchestrator is tried only where the work provably did not begin; at most
three are. Whatever else happened, the call ends in an error: no work is begun, or paid for, twice. One
request id goes with every attempt and is in every error, and `LivepeerError.attempts` tells what was tried.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ._urls import redact
from .errors import (
    Attempt,
    CapabilityNotFound,
    CapacityError,
    ConfigurationError,
    LivepeerError,
    OrchestratorError,
)

if TYPE_CHECKING:
    from .routes import Route

__all__ = ["GONE", "MOST", "NO_CAPABILITY", "Trail", "not_begun", "unknown"]

MOST = 3
"""Candidates that may fail before a call does."""

NO_CAPABILITY = "No capacity available for capability"
"""What an orchestrator says of a BYOC capability that it doesn't have."""

GONE = frozenset({"runner not found", "runner session not found"})
"""What it says of a live runner that it doesn't have."""

# Go says so of a connection that was never made. With `Get` it is the one to where a worker that has done the
# job redirects, and with anything else before it, it may be a worker's own text.
_NEVER_MADE = re.compile(
    r'(?:job not able to be processed, removing capability err=)?(?:Post "[^"]*": )?dial tcp\b'
)


def unknown(error: LivepeerError) -> bool:
    """Whether the orchestrator knew no such runner or capability.

    Nothing was begun then, and what was listed of it is out of date.
    """
    if isinstance(error, CapabilityNotFound):
        return True
    return isinstance(error, OrchestratorError) and (
        (error.status == 404 and error.body in GONE) or error.body == NO_CAPABILITY
    )


def not_begun(error: LivepeerError) -> bool:
    """Whether no worker can have begun the work, so that another candidate may be asked for it.

    A status proves nothing by its number, since proxies use them as they like; what does is the text of the
    orchestrator itself.
    """
    from ._http import unsent

    if isinstance(error, OrchestratorError):
        return unknown(error) or (error.status in (500, 502) and bool(_NEVER_MADE.match(error.body)))
    return isinstance(error, CapabilityNotFound | CapacityError) or unsent(error)


class Trail:
    """What one call has tried, for the error that it may end in.

    Args:
        request_id: The id that goes with every attempt.
        paid: Whether a payment goes with every request.
    """

    def __init__(self, request_id: str, *, paid: bool = False) -> None:
        self.attempts: list[Attempt] = []
        """What has failed, in order."""
        self._request_id = request_id
        self._paid = paid
        self._trying: Route | None = None

    @property
    def waits_for(self) -> str:
        """Who is late, as the end of a sentence."""
        if self._trying is None:
            return "it was not known yet who has it"
        return f"{redact(self._trying.orchestrator)} had not answered"

    def trying(self, route: Route) -> None:
        """A route is being gone now."""
        self._trying = route

    def failed(self, error: LivepeerError, *, begun: bool) -> None:
        """The route that was gone ended in an error, and its worker may have begun, or not.

        Before any route there is nothing to note.
        """
        from ._http import unsent

        route, self._trying = self._trying, None
        if route is None:
            return
        error.orchestrator = error.orchestrator or route.orchestrator
        self.attempts.append(
            Attempt(
                route.orchestrator,
                route.name,
                f"{type(error).__name__}: {error.message}",
                begun=begun,
                paid=self._paid and not unsent(error),
            )
        )

    def __enter__(self) -> Trail:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """An error that leaves the block is the call's last word, and tells all of it."""
        if isinstance(error, LivepeerError):
            harmless = isinstance(error, ConfigurationError) or not_begun(error)
            self.failed(error, begun=not harmless)
            error.request_id = error.request_id or self._request_id
            error.attempts = tuple(self.attempts)
