"""JSON out of bytes as they come: one value, or one to a line, or one over several lines. No I/O."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["MessageDecoder"]

_LIMIT = 16 * 1024 * 1024  # bytes; what is longer and still no JSON is given up


class MessageDecoder:
    """Cuts one segment's bytes into JSON values. `malformed` counts what was no JSON and was left out."""

    def __init__(self) -> None:
        self.malformed: int = 0
        self._pending = b""  # the begin of a value that goes on in the next line
        self._line: list[bytes] = []

    def feed(self, data: bytes) -> list[Any]:
        """Take the next bytes, and return the values whose line ended in them."""
        messages: list[Any] = []
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._line.append(line)
            messages += self._decode(b"".join(self._line), last=False)
            self._line.clear()
        if rest:
            self._line.append(rest)
        return messages

    def finish(self) -> list[Any]:
        """The segment is over: return the values that were not ended by a line's end."""
        rest = b"".join(self._line)
        self._line.clear()
        return self._decode(rest, last=True)

    def _decode(self, line: bytes, *, last: bool) -> list[Any]:
        data = self._pending + b"\n" + line if self._pending else line
        self._pending = b""
        text = data.decode("utf-8", "replace").strip()
        messages: list[Any] = []
        position = 0
        while position < len(text):
            try:
                message, position = _decoder.raw_decode(text, position)
            except ValueError as error:
                incomplete = isinstance(error, json.JSONDecodeError) and error.pos >= len(text)
                if incomplete and not last and len(data) < _LIMIT:
                    self._pending = text[position:].encode()
                else:
                    self.malformed += 1
                break
            except RecursionError:
                self.malformed += 1
                break
            messages.append(message)
            position = _skip_space(text, position)
        return messages


_decoder = json.JSONDecoder()


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position
