"""Whose error an answer of ``/ai/stream/*`` is. Pure decisions.

go-livepeer (v0.9.1, ``byoc/stream_orchestrator.go``) passes a worker's status and body on, without its
content type; its own errors are Go's ``http.Error``, with ``X-Content-Type-Options: nosniff``. A worker's 401
it replaces, and forgets the capability.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import (
    CapabilityError,
    CapacityError,
    InsufficientBalance,
    LivepeerError,
    OrchestratorError,
    PaymentUnsupported,
)
from ..failover import NO_CAPABILITY
from ._byoc_verdict import is_full_runner, kind_of
from ._verdict import HINTS, message_of

__all__ = ["NO_WORKER", "stream_verdict"]

NO_WORKER = "Error sending request to worker"  # it is down, or took too long


def stream_verdict(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    capability: str,
    verb: str,
    details: dict[str, Any],
) -> LivepeerError:
    """The error for an answer with a status outside of 200 to 299.

    Args:
        status: The status.
        headers: Its headers.
        body: Its body.
        capability: The capability.
        verb: What was asked for: "start" or "update".
        details: `orchestrator` and `request_id`.
    """
    content = body.removesuffix(b"\n")
    text = message_of(content)
    if headers.get("X-Content-Type-Options", "").lower() == "nosniff":
        return _orchestrators_own(status, text, capability, verb, details)
    if status == 500 and text == "Orchestrator worker failure":
        return CapabilityError(
            f"The worker of {capability!r} does not accept the orchestrator's token (401).",
            hint="Its owner has to register it again, with the token that it takes.",
            status=401,
            body=content,
            content_type="text/plain",
            **details,
        )
    if status == 503 and is_full_runner(content):
        return CapacityError(
            f"{capability!r} takes no session now: {text}", hint="Try again when one has ended.", **details
        )
    hint = "The worker takes no live sessions; call it with run or stream." if status in (404, 405) else None
    return CapabilityError(
        f"{capability!r} answered the {verb} of a session with {status}: {text or 'without a text'}.",
        hint=hint if verb == "start" else HINTS.get(status) if status == 422 else None,
        status=status,
        body=content,
        content_type=kind_of(content),
        retryable=status in (429, 503),
        **details,
    )


def _orchestrators_own(
    status: int, text: str, capability: str, verb: str, details: dict[str, Any]
) -> LivepeerError:
    if text == NO_CAPABILITY:
        return OrchestratorError(
            f"The orchestrator has no {capability!r} any more.",
            hint="A worker registers it again, some seconds after it was forgotten.",
            status=status,
            body=text,
            retryable=True,
            **details,
        )
    if "Could not verify job creds" in text:
        return PaymentUnsupported(
            f"The orchestrator takes signed jobs of {capability!r} only, and this version can't sign.",
            hint="Use an orchestrator that runs offchain.",
            **details,
        )
    if status == 402 or "Insufficient balance" in text:
        return InsufficientBalance(
            f"{capability!r} asks for payment: {text}.",
            hint="This version of livepeer-client can't pay; use an orchestrator that runs offchain.",
            **details,
        )
    if text == NO_WORKER:
        return OrchestratorError(
            f"The worker of {capability!r} is not there, or took too long to {verb} a session.",
            hint="It may be restarting, or loading its model; whether it began is unknown."
            if verb == "start"
            else "It may be gone; session.status tells when that is sure.",
            status=status,
            body=text,
            retryable=True,
            **details,
        )
    return OrchestratorError(
        f"The orchestrator refused to {verb} a session of {capability!r}: "
        f"{text or f'status {status}, without a text'}.",
        status=status,
        body=text,
        **details,
    )
