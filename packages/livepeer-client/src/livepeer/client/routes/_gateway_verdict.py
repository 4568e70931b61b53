"""What an answer of a gateway node means, and what it was before the node lost its type. Pure decisions.

go-livepeer (v0.9.1, ``byoc/job_gateway.go``) passes on the body of an orchestrator's answer, and of its
headers ``Livepeer-Balance`` and ``X-Metadata``. Of errors it passes on those under 500, by Go's
``http.Error``: so with a newline more than the orchestrator wrote, which itself wrote one. An error of its
own has just one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import (
    CapabilityError,
    CapabilityNotFound,
    InsufficientBalance,
    LivepeerError,
    OrchestratorError,
)
from ..events import StreamEvent, WholeDecoder, decoder_for
from ._byoc_verdict import kind_of
from ._verdict import HINTS, message_of

if TYPE_CHECKING:
    from . import Answer

__all__ = ["RestoringDecoder", "gateway_verdict", "no_answer", "restored"]

_NOT_FOUND = "No orchestrators found for capability {}\n"
_NO_FUNDS = b"Insufficient balance for request"
_NO_CREDENTIALS = b"Could not verify job creds"
_LINES = "application/x-ndjson"
_ONLY_BYOC = (
    "A gateway node calls BYOC capabilities, and only where it runs on a chain; and only orchestrators that "
    "are in its -orchAddr, spelt the same. Live runners are called without gateway_url=."
)


def gateway_verdict(
    status: int, body: bytes, *, capability: str, gateway: str, orchestrator: str, request_id: str, path: str
) -> LivepeerError:
    """The error for an answer with a status outside of 200 to 299, to a request for the worker's `path`."""
    details: dict[str, Any] = {"orchestrator": orchestrator, "request_id": request_id}
    if status == 400 and body == _NOT_FOUND.format(capability).encode():
        return CapabilityNotFound(
            f"The gateway node {gateway} finds no {capability!r} with a free place at {orchestrator}.",
            hint=_ONLY_BYOC,
            capability=capability,
            **details,
        )
    if not body.endswith(b"\n\n"):
        text = message_of(body)
        hint = "It answers as no gateway node does: check gateway_url=." if status in (404, 405) else None
        return OrchestratorError(
            f"The gateway node {gateway} refused {capability!r}: {text or f'status {status}, no text'}.",
            hint=hint,
            status=status,
            body=text,
            **details,
        )
    content = body[:-2]
    if status == 400 and content == _NO_FUNDS:
        return InsufficientBalance(
            f"What the gateway node {gateway} paid for {capability!r} does not last for a minute, which the "
            "orchestrator asks for.",
            hint="Its operator sees why: its wallet has no deposit or reserve left, or the capability costs "
            "more a minute than 600 tickets are worth.",
            **details,
        )
    text = message_of(content)
    if status == 400 and content == _NO_CREDENTIALS:
        return OrchestratorError(
            f"The orchestrator does not take what the gateway node {gateway} signed: {text}.",
            hint="Both have to be of versions of go-livepeer that sign jobs in the same way.",
            status=status,
            body=text,
            **details,
        )
    hint = HINTS.get(status)
    if status in (404, 405):
        hint = f"The worker has no path {path}, or doesn't take POST there; path= names another."
    return CapabilityError(
        f"{capability!r} answered {status}: {text or 'without a text'}.",
        hint=hint,
        status=status,
        body=content,
        content_type=kind_of(content),
        retryable=status == 429,
        **details,
    )


def no_answer(
    capability: str, gateway: str, *, orchestrator: str, request_id: str, timeout_seconds: int
) -> LivepeerError:
    """The error for a 200 that doesn't say which orchestrator it is of: it is of none."""
    return OrchestratorError(
        f"{capability!r} failed behind the gateway node {gateway}, which answered nothing at all.",
        hint=f"Gateway nodes say no more of a worker that died, that answered 401 or 5xx, or nothing within "
        f"{timeout_seconds} s; nor when the node can't pay. The work may have been begun, and paid for.",
        status=200,
        orchestrator=orchestrator,
        request_id=request_id,
    )


def restored(body: bytes, told: str, *, lines: bool = False) -> str:
    """The media type of a whole body, which the node guesses anew: of everything that it takes for plain text
    (Go's ``http.DetectContentType``), JSON is JSON, and what is no text is bytes.

    Args:
        body: The body, to its end.
        told: What the answer says.
        lines: Whether JSON lines count.
    """
    if told != "text/plain":
        return told
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return "application/octet-stream"
    if _is_json(text):
        return "application/json"
    pieces = [line.strip() for line in text.split("\n") if line.strip()] if lines else []
    if len(pieces) > 1 and all(piece[0] in "{[" and _is_json(piece) for piece in pieces):
        return _LINES
    return told


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] not in tuple('{["-0123456789tfn'):
        return False
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)


class RestoringDecoder(WholeDecoder):
    """Makes events of a whole body, once it is there: a gateway node holds back everything but events itself.

    Args:
        answer: Whose body it is; learns what the body turns out to be.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self._answer = answer

    def finish(self) -> list[StreamEvent]:
        """The body: each of its JSON lines, or all of it."""
        body = b"".join(self._pieces)
        kind = self._answer.content_type = restored(body, self._answer.content_type, lines=True)
        decoder = decoder_for(kind, self._answer.response.charset)
        return [*(decoder.feed(body) if body else ()), *decoder.finish()]
