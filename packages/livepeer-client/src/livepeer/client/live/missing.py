"""Why a channel of a session can't be used."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigurationError, LivepeerError, SessionEnded

__all__ = ["absent", "before", "over", "unpaid"]


def before(name: str) -> LivepeerError:
    """It isn't connected yet."""
    return ConfigurationError(
        f"session.{name} was used before the session was connected.",
        hint="Enter it first: async with gw.live(…) as session.",
    )


def absent(name: str) -> LivepeerError:
    """The session has none."""
    return ConfigurationError(
        f"This session has no {name} channel: the worker opened none.",
        hint="LiveSession.raw shows what it opened.",
    )


def over(name: str) -> LivepeerError:
    """This side has closed it."""
    return SessionEnded(f"session.{name} was used after the session was closed.", reason="closed")


def unpaid(error: LivepeerError, **details: Any) -> SessionEnded:
    """The session is over, because nothing more is paid for it."""
    ended = SessionEnded(
        f"The session is over, as no more is paid for it: {error.message}",
        hint=error.hint,
        reason="unpaid",
        **details,
    )
    ended.__cause__ = error
    return ended
