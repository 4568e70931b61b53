"""Headers for a signer or a discovery service: a dict, or a function that is asked again in time."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from ._secrets import hidden
from ._threads import in_daemon_thread
from .errors import ConfigurationError

__all__ = ["HeaderSource", "HeadersLike", "check_headers"]

HeadersLike = Mapping[str, str] | Callable[[], Any]
"""A dict of headers; or a function, ordinary or async, that returns one, or a pair of one and of when it
expires: in seconds since 1970, or as a `datetime` with a time zone."""

_MARGIN = 30.0  # seconds before their expiry when headers are asked for again
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[^\0\r\n]*")


class HeaderSource:
    """The headers of one place, kept as long as they last.

    A function that names no expiry is called for each request: it may well have a memory of its own. It runs
    on the loop of the call that needs its headers; an ordinary function in a thread, because it may wait.

    Args:
        given: What the user gave.
        name: The argument's name, for errors.
    """

    def __init__(self, given: HeadersLike, name: str) -> None:
        self._given = given
        self._name = name
        self._kept: tuple[float, dict[str, str]] | None = None  # until when (since 1970), and what

    @property
    def renewable(self) -> bool:
        """Whether asking again can bring others."""
        return callable(self._given)

    async def get(self, *, renew: bool = False) -> dict[str, str]:
        """The headers of now.

        Args:
            renew: Don't use those which are kept: the place refused them.

        Raises:
            ConfigurationError: The function raised, or returned something else.
        """
        if not callable(self._given):
            return dict(self._given)
        kept = self._kept
        if kept is not None and not renew and time.time() < kept[0]:
            return kept[1]
        try:
            if inspect.iscoroutinefunction(self._given):
                answer = hidden(await self._given())
            else:
                answer = hidden(await in_daemon_thread(self._given))
                if inspect.isawaitable(answer):
                    answer = hidden(await answer)
        except Exception as error:
            # Its text stays out of the message, because it may hold what it wanted to send.
            raise ConfigurationError(
                f"The function given as {self._name}= raised {type(error).__name__}.",
                hint="Its own error is this one's __cause__.",
            ) from error
        headers, expires_at = _read(answer, self._name)
        if expires_at is not None:
            life = expires_at - time.time()
            self._kept = (expires_at - min(_MARGIN, life / 4), headers)
        return headers


def check_headers(value: Any, name: str) -> dict[str, str]:
    """The headers, when they can be sent; their values never come into a message.

    Raises:
        ConfigurationError: They can't be.
    """
    value = hidden(value)
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{name} is a {type(value).__name__}; it is a dict of texts, or a function that returns one."
        )
    for key, content in value.items():
        if not isinstance(key, str) or not _NAME.fullmatch(key):
            raise ConfigurationError(f"{name} has a name that can't be a header's: {key!r}.")
        if not isinstance(content, str) or not _VALUE.fullmatch(content):
            raise ConfigurationError(
                f"{name} has a value for {key!r} that can't be sent: not one line of text."
            )
    return dict(value)


def _read(answer: Any, name: str) -> tuple[dict[str, str], float | None]:
    headers, expires_at = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, None)
    from datetime import datetime  # which few programs need

    if isinstance(expires_at, datetime):
        if expires_at.tzinfo is None:
            raise ConfigurationError(
                f"{name}= returned a datetime without a time zone.",
                hint="datetime.now(timezone.utc) + … has one; time.time() + … does, too.",
            )
        expires_at = expires_at.timestamp()
    if expires_at is not None and (isinstance(expires_at, bool) or not isinstance(expires_at, int | float)):
        raise ConfigurationError(
            f"{name}= returned a {type(expires_at).__name__} for when its headers expire.",
            hint="It is seconds since 1970, such as time.time() + 300, or a datetime with a time zone.",
        )
    return check_headers(headers, f"What {name}= returned"), expires_at
