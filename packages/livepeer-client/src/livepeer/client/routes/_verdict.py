"""Whose error an answer is: the worker's, or the orchestrator's in front of it. Pure decisions.

go-livepeer (v0.9.1, ``server/ai_http.go``) answers with Go's ``http.Error``: ``text/plain; charset=utf-8``,
``X-Content-Type-Options: nosniff``, and one of a few texts. A worker's answer passes unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import (
    CapabilityError,
    CapacityError,
    LivepeerError,
    OrchestratorError,
    PaymentError,
    PaymentUnsupported,
)
from ..failover import GONE, TO_PAY

__all__ = ["HINTS", "message_of", "verdict"]

_REFUSED = "connection refused"
_NO_PRICE = "live runner price unavailable"
_REFUSALS = GONE | {
    "no capacity available for runner",
    "runner is not single-shot",
    "only persistent runners have sessions",
    "live runners are not supported",
}


def verdict(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    capability: str,
    orchestrator: str,
    request_id: str,
    pays: bool = False,
) -> LivepeerError:
    """The error for an answer with a status outside of 200 to 299.

    Args:
        status: The answer's status.
        headers: Its headers.
        body: Its body.
        capability: What was called.
        orchestrator: The URL of the orchestrator.
        request_id: The call's.
        pays: Whether the gateway can pay; then a 402 that comes here is the worker's own, or of a runner that
            was listed without a price.
    """
    content_type = headers.get("Content-Type", "").partition(";")[0].strip()
    details: dict[str, Any] = {"orchestrator": orchestrator, "request_id": request_id}
    is_json = content_type == "application/json" or content_type.endswith("+json")
    text = message_of(body) if is_json else _shorten(body[:4096].decode("utf-8", "replace"))
    if status < 400:
        return CapabilityError(
            f"{capability!r} answered with a redirect ({status}) to {headers.get('Location', 'nowhere')!r}, "
            "which is not followed.",
            hint="A redirect would carry the request elsewhere; call the right path with path=.",
            status=status,
            body=body,
            content_type=content_type,
            **details,
        )
    if is_orchestrators_own(status, headers, text):
        return _own(status, text, capability, details)
    if status == 402 and not pays:
        return PaymentUnsupported(
            f"{capability!r} asks for payment, and this gateway has no signer to pay with.",
            hint=TO_PAY,
            **details,
        )
    if status == 402 and b"payment_params" in body:
        return PaymentError(
            f"{capability!r} asks for payment, and was listed as free of charge.",
            hint="It may have got its price just now; a call in some seconds sees it.",
            retryable=True,
            **details,
        )
    return CapabilityError(
        f"{capability!r} answered {status}: {text or 'without a text'}.",
        hint=HINTS.get(status),
        status=status,
        body=body,
        content_type=content_type,
        retryable=status in (429, 503),
        **details,
    )


def is_orchestrators_own(status: int, headers: Mapping[str, str], text: str) -> bool:
    """Whether the orchestrator wrote this answer, and not the worker behind it."""
    if headers.get("X-Content-Type-Options", "").lower() != "nosniff":
        return False
    return status == 502 or text in _REFUSALS or text.startswith(_NO_PRICE)


HINTS = {
    404: "The worker has no such path; path= names another.",
    405: "The worker's path does not take POST; path= names another.",
    413: "The worker does not take an input of this size.",
    422: "The worker does not take this input; its schema says what it takes.",
}


def _own(status: int, text: str, capability: str, details: dict[str, Any]) -> LivepeerError:
    if text == "no capacity available for runner":
        return CapacityError(
            f"Every place of {capability!r} is taken.", hint="Try again when a call has ended.", **details
        )
    if status == 502 and _REFUSED in text:
        message, hint = f"The worker of {capability!r} is not there ({text}).", "It may be restarting."
    elif status == 502:
        message = f"The worker of {capability!r} broke off before it answered ({text})."
        hint = "It may have begun the work."
    elif text in GONE:
        message, hint = (
            f"The runner of {capability!r} has gone ({text}).",
            "It may come back in some seconds.",
        )
    else:
        return OrchestratorError(
            f"The orchestrator refused {capability!r}: {text}.", status=status, body=text, **details
        )
    return OrchestratorError(message, hint=hint, status=status, body=text, retryable=True, **details)


def message_of(body: bytes) -> str:
    """What an error's body says, in one line: its message where it is JSON that has one."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    for name in ("error", "detail", "message"):
        found = value.get(name) if isinstance(value, dict) else None
        if isinstance(found, dict):
            found = found.get("message")
        if isinstance(found, str) and found:
            return _shorten(found)
    return _shorten(body[:4096].decode("utf-8", "replace"))


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 500 else line[:500] + "…"
