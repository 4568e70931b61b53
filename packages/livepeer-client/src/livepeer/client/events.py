"""Server-sent events, JSON lines and chunks, decoded incrementally from bytes.

Follows the WHATWG HTML standard, section "Interpreting an event stream", cut anywhere: in the middle of a
line, of a ``\\r\\n``, of a multi-byte character.
"""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from typing import Any, Protocol

from .errors import LivepeerError, StreamError

__all__ = [
    "MAX_EVENT",
    "ChunkDecoder",
    "Decoder",
    "LineDecoder",
    "SSEDecoder",
    "StreamEvent",
    "WholeDecoder",
    "decoder_for",
]

MAX_EVENT = 64 * 1024 * 1024  # bytes of one event; more is a stream that forgot its line ends


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of a stream.

    Attributes:
        data: The event's text; bytes for a chunked body that isn't text.
        event: Its type, when the worker named one.
        id: The stream's last event id.
        retry: The reconnection time that the worker asks for, in milliseconds.
    """

    data: str | bytes
    event: str | None = None
    id: str | None = None
    retry: int | None = None

    def json(self) -> Any:
        """The data as a Python value.

        Raises:
            StreamError: The data is no JSON.
        """
        try:
            return json.loads(self.data)
        except (ValueError, RecursionError) as error:
            shown = self.data if len(self.data) <= 80 else self.data[:80]
            raise StreamError(f"The event's data is not JSON: {error}: {shown!r}.") from error


class Decoder(Protocol):
    """What turns pieces of a body into events.

    Attributes:
        done: Nothing more is to be read.
        failure: What is wrong with the end, once there is one.
        incomplete: Whether nothing is wrong but that the end is not the worker's own.
        metadata: What the network said beside the events.
    """

    done: bool
    failure: LivepeerError | None
    incomplete: bool
    metadata: dict[str, Any]

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """The events that are complete with this piece."""
        ...

    def finish(self) -> list[StreamEvent]:
        """The events that the end of the body completes."""
        ...


class _Honest:
    """A decoder of a body whose end is the worker's, and says all that there is to say."""

    def __init__(self) -> None:
        self.done: bool = False
        self.failure: LivepeerError | None = None
        self.incomplete: bool = False
        self.metadata: dict[str, Any] = {}


class _Lines:
    """Cuts bytes into lines at ``\\n``, ``\\r`` and ``\\r\\n``, wherever the pieces are cut."""

    def __init__(self) -> None:
        self._rest = bytearray()  # has no line end
        self._skip_newline = False

    def feed(self, chunk: bytes) -> list[bytes]:
        if self._skip_newline and chunk:
            # The piece before ended in \r: a \n here belongs to the same line end.
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
            self._skip_newline = False
        if b"\r" in chunk:
            self._skip_newline = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, newline, others = chunk.partition(b"\n")
        self._keep(first)
        if not newline:
            return []
        *lines, rest = others.split(b"\n")
        lines.insert(0, self.rest())
        self._rest.clear()
        self._keep(rest)
        return lines

    def rest(self) -> bytes:
        return bytes(self._rest)

    def _keep(self, piece: bytes) -> None:
        self._rest += piece
        if len(self._rest) > MAX_EVENT:
            raise StreamError(
                f"The stream sent {len(self._rest)} bytes without a line end; that is no event stream."
            )


class SSEDecoder(_Honest):
    """Decodes ``text/event-stream``. An event whose whole data is ``[DONE]`` ends it and is not yielded."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = _Lines()
        self._begun = False
        self._data: list[bytes] = []
        self._size = 0
        self._event: str | None = None
        self._id: str | None = None
        self._retry: int | None = None

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """The events that are complete with this piece."""
        events: list[StreamEvent] = []
        lines = self._lines.feed(chunk)
        if lines and not self._begun:
            self._begun = True
            lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
        for line in lines:
            if line:
                self._field(line)
                continue
            event = self._dispatch()
            if self.done:
                break
            if event is not None:
                events.append(event)
        return events

    def finish(self) -> list[StreamEvent]:
        """Nothing: the standard drops an event that its stream's end cut off."""
        return []

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._size += len(value)
            if self._size > MAX_EVENT:
                raise StreamError(f"One event of the stream has over {MAX_EVENT} bytes.")
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            self._retry = int(value[:18])

    def _dispatch(self) -> StreamEvent | None:
        data, event, retry = self._data, self._event, self._retry
        self._data, self._size, self._event, self._retry = [], 0, None, None
        if not data:
            return None
        text = (data[0] if len(data) == 1 else b"\n".join(data)).decode("utf-8", "replace")
        if text == "[DONE]":
            self.done = True
            return None
        return StreamEvent(text, event or None, self._id, retry)


class LineDecoder(_Honest):
    """Decodes JSON lines: each line that isn't blank is an event."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = _Lines()

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """The lines that are complete with this piece."""
        return [
            StreamEvent(line.decode("utf-8", "replace")) for line in self._lines.feed(chunk) if line.strip()
        ]

    def finish(self) -> list[StreamEvent]:
        """The last line, when no line end follows it."""
        rest = self._lines.rest()
        return [StreamEvent(rest.decode("utf-8", "replace"))] if rest.strip() else []


class ChunkDecoder(_Honest):
    """Makes an event of each piece of a body, text or bytes, as it arrives."""

    def __init__(self, charset: str | None) -> None:
        super().__init__()
        try:
            self._text = codecs.getincrementaldecoder(charset)("replace") if charset else None
        except LookupError:
            self._text = None

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """The piece as an event; without the half of a character at its end."""
        data: str | bytes = self._text.decode(chunk) if self._text else chunk
        return [StreamEvent(data)] if data else []

    def finish(self) -> list[StreamEvent]:
        """What is left of a character that was cut."""
        rest = self._text.decode(b"", final=True) if self._text else ""
        return [StreamEvent(rest)] if rest else []


class WholeDecoder(_Honest):
    """Makes one event of a whole body: half of a JSON value is of no use to anybody."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """Nothing yet."""
        self._pieces.append(chunk)
        return []

    def finish(self) -> list[StreamEvent]:
        """The body."""
        body = b"".join(self._pieces)
        return [StreamEvent(body.decode("utf-8", "replace"))] if body else []


def decoder_for(content_type: str, charset: str | None = None) -> Decoder:
    """The decoder for a media type."""
    if content_type == "text/event-stream":
        return SSEDecoder()
    if content_type in (
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/jsonlines",
    ):
        return LineDecoder()
    if content_type == "application/json" or content_type.endswith("+json"):
        return WholeDecoder()
    if content_type.startswith("text/"):
        return ChunkDecoder(charset or "utf-8")
    return ChunkDecoder(None)
