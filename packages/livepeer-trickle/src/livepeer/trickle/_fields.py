"""The headers of an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

__all__ = ["Fields"]

T = TypeVar("T")


class Fields(Mapping[str, str]):
    """Headers by their names, in any case; of several with one name, the first.

    Args:
        fields: Names and values, in the order in which they came.
    """

    __slots__ = ("_all", "_first")

    def __init__(self, fields: list[tuple[str, str]] | None = None) -> None:
        self._all = fields or []
        first: dict[str, tuple[str, str]] = {}
        for field in self._all:
            first.setdefault(field[0].lower(), field)
        self._first = first

    def getall(self, name: str) -> list[str]:
        """The values of every header of this name."""
        return [value for found, value in self._all if found.lower() == name.lower()]

    def get(self, name: str, default: T = None) -> str | T:  # type: ignore[assignment]
        """The value of a header, or something else where there is none."""
        found = self._first.get(name.lower())
        return default if found is None else found[1]

    def __getitem__(self, name: str) -> str:
        return self._first[name.lower()][1]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._first

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._first.values())

    def __len__(self) -> int:
        return len(self._first)

    def __repr__(self) -> str:
        return f"<Fields {self._all!r}>"
