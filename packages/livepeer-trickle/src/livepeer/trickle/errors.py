"""The root of every error of the SDK, and the errors of the transport.

    LivepeerError
    ├── ConfigurationError
    ├── MediaError
    └── TrickleError
        ├── ChannelNotFound
        ├── ChannelClosed
        └── TrickleConnectionError  (also a ConnectionError)

``livepeer.client`` adds the errors of calls under the same root.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ChannelClosed",
    "ChannelNotFound",
    "ConfigurationError",
    "LivepeerError",
    "MediaError",
    "TrickleConnectionError",
    "TrickleError",
]


class LivepeerError(Exception):
    """The root of every error that the Livepeer SDK raises.

    Args:
        message: What was wrong, and what would be right.
        hint: What to do about it, as a sentence.
        request_id: The id that went with the request, as the orchestrator and the worker saw it.
        orchestrator: The URL of the orchestrator concerned.
        retryable: Whether the same call may succeed when it is made again later.
        attempts: What was tried before the error, in order (`livepeer.client.Attempt`).
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        request_id: str | None = None,
        orchestrator: str | None = None,
        retryable: bool = False,
        attempts: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message: str = message
        self.hint: str | None = hint
        self.request_id: str | None = request_id
        self.orchestrator: str | None = orchestrator
        self.retryable: bool = retryable
        self.attempts: tuple[Any, ...] = attempts

    def __str__(self) -> str:
        details = [
            f"{name}={value}"
            for name, value in (("orchestrator", self.orchestrator), ("request_id", self.request_id))
            if value
        ]
        text = self.message
        if self.hint:
            text += f" {self.hint}"
        return f"{text} [{', '.join(details)}]" if details else text

    def __reduce__(self) -> tuple[Any, ...]:
        state = self.__dict__.copy()
        return (_rebuild, (type(self), self.args, state, _portable(self.__cause__)))


class _CopiedCause(Exception):
    """What stood behind an error that was pickled: the name of its class, and its text."""


def _portable(cause: BaseException | None) -> BaseException | None:
    """A cause as it goes into a pickle.

    Exceptions of other libraries hold sockets, contexts of TLS and headers; most can't be pickled, some can't
    be read again, and none should be sent to another process. Of those the name and the text remain.
    """
    if cause is None or isinstance(cause, LivepeerError | _CopiedCause):
        return cause
    kind = type(cause)
    if kind.__module__ == "builtins" and all(isinstance(one, str | int | None) for one in cause.args):
        return cause
    text = f"{kind.__module__}.{kind.__qualname__}: {cause}".removeprefix("builtins.").removesuffix(": ")
    copied = _CopiedCause(text)
    copied.__cause__ = _portable(cause.__cause__)
    return copied


def _rebuild(
    kind: type[LivepeerError],
    args: tuple[Any, ...],
    state: dict[str, Any],
    cause: BaseException | None = None,
) -> LivepeerError:
    """Make an error again from its pickle without calling a constructor that wants more than a message."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    if cause is not None:
        error.__cause__ = cause
    return error


class ConfigurationError(LivepeerError):
    """The caller's arguments, environment or installation can't work as they are."""


class MediaError(LivepeerError):
    """Media could not be encoded, decoded or written: not a video, no such codec, a wrong shape."""


class TrickleError(LivepeerError):
    """A trickle channel could not be read or written as asked."""


class ChannelNotFound(TrickleError):
    """The server has no such channel: it is over, or never was (404)."""


class ChannelClosed(TrickleError):
    """The channel ended while it was being written."""


class TrickleConnectionError(TrickleError, ConnectionError):
    """The server of the channel could not be reached, or broke the connection off."""
