"""Server-sent events, the form in which a generator's results travel.

The stream of a call is: one event per yielded value, then ``data: [DONE]``. When the code raises in
mid-stream, the last event is ``event: error`` with ``{"error": {"type", "message", "status"}}`` as its data,
and there is no ``[DONE]``: a reader that knows neither still sees that the stream is incomplete.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .errors import ConfigurationError, HTTPError
from .results import json_bytes

__all__ = ["Event", "encode_event"]

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
LINE_LIMIT = 60 * 1024
"""Bytes in one line of a BYOC stream: an orchestrator ends a stream, without a word, at a line of 64 KiB
(go-livepeer v0.9.1, ``byoc/job_orchestrator.go``, a `bufio.Scanner`)."""

_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class Event:
    """One server-sent event, for a generator that wants more than data.

    Args:
        data: A ``str``, sent as it is (each line break begins a line of data, so ``\\r`` arrives as
            ``\\n``), or any JSON value, sent as JSON.
        event: The event's name; ``error`` is what the runner itself uses for a failure.
        id: The event's id.
        retry: How long a reader waits before it connects again, in milliseconds.
    """

    data: Any = ""
    event: str | None = None
    id: str | None = None
    retry: int | None = None

    def __post_init__(self) -> None:
        for field in ("event", "id"):
            value = getattr(self, field)
            if value is not None and _LINE_END.search(value):
                raise ConfigurationError(
                    f"An event's {field} is one line; this one has a line break: {value!r}."
                )


def encode_event(item: Any) -> bytes:
    """The bytes of one event, from an `Event` or from the data alone.

    A text that is exactly ``[DONE]`` is sent as a JSON string, because a reader takes it for the end.
    """
    event = item if isinstance(item, Event) else Event(item)
    if isinstance(event.data, str):
        text = '"[DONE]"' if event.data.strip() == "[DONE]" else event.data
    else:
        text = json_bytes(event.data).decode()
    lines = []
    if event.event is not None:
        lines.append(f"event: {event.event}")
    if event.id is not None:
        lines.append(f"id: {event.id}")
    if event.retry is not None:
        lines.append(f"retry: {event.retry}")
    lines += [f"data: {line}" for line in _LINE_END.split(text)]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


def too_long(event: bytes) -> HTTPError | None:
    """Why an orchestrator would end a BYOC stream at this event; None when it wouldn't."""
    if len(event) <= LINE_LIMIT or (longest := max(map(len, event.split(b"\n")))) <= LINE_LIMIT:
        return None
    return HTTPError(
        500,
        f"An event has a line of {longest} bytes, and a BYOC stream carries {LINE_LIMIT} (60 KiB) in one: "
        "yield smaller pieces. Streams of a live runner have no such limit.",
    )


def encode_error(error: HTTPError) -> bytes:
    """The last event of a stream that failed."""
    return encode_event(Event(error.body(), event="error"))
