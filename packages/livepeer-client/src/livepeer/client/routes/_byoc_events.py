"""What a BYOC orchestrator does to a worker's event stream, undone. Pure decisions, without I/O.

go-livepeer (v0.9.1, ``byoc/job_orchestrator.go``) forwards a stream line by line, and

- writes ``data: {"balance": 0.000}`` and two blank lines before any line that contains ``[DONE]``, wherever
  that line stands: in the middle of an event, too, and inside of JSON;
- ends a stream that isn't paid for any more by an event of its own;
- sends blank lines without end after the worker's last line, or when a line has 64 KiB;
- ends the stream without a word when the job's time is over.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ..errors import CapabilityError, InsufficientBalance, LivepeerError, StreamError
from ..events import MAX_EVENT, SSEDecoder, StreamEvent
from ._verdict import message_of

__all__ = ["BYOCDecoder"]

_BALANCE = re.compile(rb'data: (\{"balance": -?\d+\.\d{3}\})')
_NO_FUNDS = (b"event: insufficient balance", b'data: {"balance": 0}')
_FLOOD = 1024  # blank lines in a row; the orchestrator sends as many in a millisecond
_FIELDS = (b"data", b"event", b"id", b"retry", b"")
_MAX_STRAY = 4096  # bytes kept of what is no event


class BYOCDecoder:
    """Decodes ``text/event-stream`` as it comes through an orchestrator.

    A line that could be the orchestrator's is held back until the line after its two blank lines tells whose
    it is: an event of the worker that is ``{"balance": 1.000}`` to the letter comes with the line after it.

    Args:
        capability: Its name, for errors.
        timeout_seconds: What the job's header said.
        metadata: What is known beside the events already.
        through_node: Whether a gateway node is in between, which may go on with the same job's stream from
            another orchestrator, without a blank line, right behind the line with ``[DONE]``.
    """

    def __init__(
        self,
        capability: str,
        timeout_seconds: int,
        metadata: dict[str, Any] | None = None,
        *,
        through_node: bool = False,
    ) -> None:
        self.done = False
        self.incomplete = False
        self.failure: LivepeerError | None = None
        self.metadata: dict[str, Any] = metadata if metadata is not None else {}
        self._capability = capability
        self._timeout_seconds = timeout_seconds
        self._through_node = through_node
        self._events = SSEDecoder()
        self._rest = bytearray()  # has no line end
        self._held: list[bytes] = []
        self._last = b""
        self._blank = 0
        self._any_event = False
        self._stray = bytearray()

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """The worker's events that are complete with this piece."""
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        self._rest += rest
        if len(self._rest) > MAX_EVENT:
            raise StreamError(f"The stream sent {len(self._rest)} bytes without a line end.")
        out: list[bytes] = []
        for line in lines:
            if self.done:
                break
            self._line(line, out)
        return self._decoded(out)

    def finish(self) -> list[StreamEvent]:
        """What the end of the body completes; it is no end of the worker's own."""
        out = self._release()
        if self._last == b"data: [DONE]":
            out.append(b"")  # only its blank line is missing
        events = self._decoded(out)
        if not self.done:
            self._cut(
                f"the orchestrator ended it, as it does {self._timeout_seconds} s after its beginning",
                "A longer timeout= lets it go on.",
            )
        return events

    def _line(self, line: bytes, out: list[bytes]) -> None:
        if self._held:
            if len(self._held) < 3 and not line:
                self._held.append(line)
                return
            if len(self._held) == 3 and b"[DONE]" in line:
                self._take_balance()
            else:
                out += self._release()
        if _BALANCE.fullmatch(line):
            self._held = [line]
            return
        self._blank = 0 if line else self._blank + 1
        if self._blank >= _FLOOD:
            self._cut(
                "its worker has gone",
                "It died, or sent a line of 64 KiB or more, which no orchestrator passes on, or it ends its "
                "streams without [DONE]: allow_incomplete=True takes that for an end.",
            )
        elif (self._last, line) == _NO_FUNDS:
            self._end(
                InsufficientBalance(
                    f"The stream of {self._capability!r} was ended: its payments are used up.",
                    hint="What came before is the worker's; nothing follows.",
                )
            )
        elif self._through_node and line == b"data: [DONE]" and not self._last:
            out += [line, b""]
            self.done = True
        else:
            out.append(line)
            self._note(line)
        self._last = line

    def _decoded(self, out: list[bytes]) -> list[StreamEvent]:
        if not out:
            return []
        events = self._events.feed(b"\n".join(out) + b"\n")
        self._any_event = self._any_event or bool(events)
        if self._events.done:
            self.done, self.incomplete, self.failure = True, False, None
        return events

    def _release(self) -> list[bytes]:
        """The held lines, which are the worker's after all."""
        held, self._held = self._held, []
        if held:
            self._last = held[-1]
            self._blank = len(held) - 1
            self._any_event = True
        return held

    def _take_balance(self) -> None:
        found = _BALANCE.fullmatch(self._held[0])
        assert found is not None
        self.metadata["balance"] = json.loads(found[1])["balance"]
        self._held = []

    def _note(self, line: bytes) -> None:
        """Keep what is no event stream at all: an error's body, whose status became 200 on the way."""
        if not self._any_event and line and line.partition(b":")[0] not in _FIELDS:
            self._stray += line[: max(0, _MAX_STRAY - len(self._stray))] + b"\n"

    def _cut(self, why: str, hint: str) -> None:
        text = bytes(self._stray).strip()
        if text and not self._any_event:
            self._end(
                CapabilityError(
                    f"{self._capability!r} answered with an event stream that is none: {message_of(text)}.",
                    hint="A worker's error of this type loses its status on the way.",
                    status=200,
                    body=text,
                    content_type="text/event-stream",
                )
            )
            return
        self._end(StreamError(f"The stream of {self._capability!r} ended without [DONE]: {why}.", hint=hint))
        self.incomplete = True

    def _end(self, failure: LivepeerError) -> None:
        self.done, self.failure = True, failure
