"""Texts that don't show themselves: tracebacks with local variables, and reprs, say that something is there.

They are texts otherwise, so they travel through everything that takes texts; aiohttp's own variables hold
them, too. `str` makes an ordinary one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._urls import redact

__all__ = ["Address", "Secret", "hidden", "hidden_urls"]


class Secret(str):
    """A token, a password, or the value of a header."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Address(str):
    """A URL, whose password and query are secrets."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(redact(str(self)))


def hidden(value: Any) -> Any:
    """The value, with a `Secret` for each text in it; keys of dicts, which are names, stay."""
    if isinstance(value, str):
        return Secret(value)
    if isinstance(value, Mapping):
        return {name: hidden(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(hidden, value))
    return value


def hidden_urls(value: Any) -> Any:
    """The URL, or the list of some, with an `Address` for each."""
    if isinstance(value, str):
        return Address(value)
    if isinstance(value, list | tuple):
        return [hidden_urls(one) for one in value]
    return value
