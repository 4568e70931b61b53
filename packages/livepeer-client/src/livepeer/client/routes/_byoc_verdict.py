"""Whose error an answer of ``/process/request`` is, and whether its work was begun. Pure decisions.

go-livepeer (v0.9.1, ``byoc/job_orchestrator.go``) makes ``text/plain`` with a newline at its end of every
error, a worker's too. What tells them apart is the header ``X-Metadata``: it is there, and may be empty, when
a worker answered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ..errors import (
    CapabilityError,
    CapacityError,
    FirstByteTimeout,
    InsufficientBalance,
    LivepeerError,
    OrchestratorError,
    PaymentUnsupported,
    SignerError,
)
from ..failover import NO_CAPABILITY
from ._verdict import HINTS, message_of

__all__ = ["is_full_runner", "job_verdict", "kind_of"]

_CREDENTIALS = "Could not verify job creds"
_BALANCE = "Insufficient balance for request"
_REFUSED = (_CREDENTIALS, _BALANCE)
_NOT_PROCESSED = "job not able to be processed"
_ASKED = re.compile(r'Post "([^"]*)": dial tcp\b')
_BROKE_OFF = frozenset({"unexpected EOF", "EOF"})


def job_verdict(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    capability: str,
    timeout_seconds: int,
    orchestrator: str,
    request_id: str,
    path: str = "",
    signed: bool = False,
) -> LivepeerError:
    """The error for an answer with a status outside of 200 to 299, to a request for the worker's `path`."""
    details: dict[str, Any] = {"orchestrator": orchestrator, "request_id": request_id}
    content = body.removesuffix(b"\n")
    text = message_of(content)
    if "X-Metadata" not in headers:
        if signed and text in _REFUSED:
            return _refused(text, capability, details)
        return _orchestrators_own(status, text, capability, timeout_seconds, details, path=path)
    if status == 500 and text in _BROKE_OFF:
        return OrchestratorError(
            f"The worker of {capability!r} broke off in the middle of its answer ({text}).",
            hint="It may have done the work.",
            status=status,
            body=text,
            retryable=True,
            **details,
        )
    if status == 503 and is_full_runner(content):
        return CapacityError(
            f"{capability!r} takes no call now: {text}", hint="Try again when a call has ended.", **details
        )
    return CapabilityError(
        f"{capability!r} answered {status}: {text or 'without a text'}.",
        hint=HINTS.get(status),
        status=status,
        body=content,
        content_type=kind_of(content),
        retryable=status in (429, 503),
        **details,
    )


def _refused(text: str, capability: str, details: dict[str, Any]) -> LivepeerError:
    """The orchestrator took the signature of a job, or the payment that came with it, for none."""
    if text == _CREDENTIALS:
        return SignerError(
            f"The orchestrator does not take how the signer signed the job of {capability!r}: {text}.",
            hint="Both have to be of versions of go-livepeer that sign jobs in the same way.",
            **details,
        )
    return InsufficientBalance(
        f"What was paid for {capability!r} does not last for a minute: {text}.",
        hint="The orchestrator credited less than the payment was worth; its operator sees why.",
        **details,
    )


def _orchestrators_own(
    status: int, text: str, capability: str, timeout_seconds: int, details: dict[str, Any], *, path: str
) -> LivepeerError:
    if status == 500 and text.startswith(_NOT_PROCESSED):
        return _not_processed(text, capability, timeout_seconds, details, path=path)
    if text == _CREDENTIALS:
        return PaymentUnsupported(
            f"The orchestrator takes signed jobs of {capability!r} only, and this version can't sign.",
            hint="Use an orchestrator that runs offchain.",
            **details,
        )
    if text == _BALANCE:
        return InsufficientBalance(
            f"{capability!r} asks for payment: {text}.",
            hint="This version of livepeer-client can't pay; use an orchestrator that runs offchain.",
            **details,
        )
    if text == NO_CAPABILITY:
        return OrchestratorError(
            f"The orchestrator has no {capability!r} any more.",
            hint="A worker registers it again, some seconds after it was forgotten.",
            status=status,
            body=text,
            retryable=True,
            **details,
        )
    return OrchestratorError(
        f"The orchestrator refused {capability!r}: {text or f'status {status}, without a text'}.",
        status=status,
        body=text,
        **details,
    )


def _not_processed(
    text: str, capability: str, timeout_seconds: int, details: dict[str, Any], *, path: str
) -> LivepeerError:
    """The worker gave no answer; the text that follows ``err=`` is Go's, and says why."""
    reason = text.partition("err=")[2]
    if reason.endswith(("context canceled", "context deadline exceeded")):
        return FirstByteTimeout(
            f"The worker of {capability!r} sent no answer within the job's {timeout_seconds} s.",
            hint="Whether the work was done is unknown; timeout= allows it longer.",
            waited=float(timeout_seconds),
            **details,
        )
    if "auth token failed" in reason:
        return CapabilityError(
            f"The worker of {capability!r} does not accept the orchestrator's token (401).",
            hint="Its owner has to register it again, with the token that it takes.",
            status=401,
            body=text.encode(),
            content_type="text/plain",
            **details,
        )
    asked = _ASKED.match(reason)
    if asked and not urlsplit(asked[1]).path.endswith(path):
        # The orchestrator follows redirects, and a worker may redirect when it has done its work.
        return CapabilityError(
            f"The worker of {capability!r} redirected to where nobody is ({reason}).",
            hint="It may have done the work.",
            status=500,
            body=text.encode(),
            content_type="text/plain",
            **details,
        )
    if "dial tcp" in reason:
        message, hint = f"The worker of {capability!r} is not there ({reason}).", "It may be restarting."
    else:
        message = f"The worker of {capability!r} broke off before it answered ({reason})."
        hint = "It may have begun the work."
    return OrchestratorError(message, hint=hint, status=500, body=text, retryable=True, **details)


def is_full_runner(content: bytes) -> bool:
    """Whether this is what `livepeer.runner` says when it begins no work: it keeps its own count here, as no
    orchestrator does it."""
    try:
        return bool(json.loads(content)["error"]["type"] == "Unavailable")
    except (ValueError, RecursionError, TypeError, KeyError):
        return False


def kind_of(content: bytes) -> str:
    """The content type that the worker's error had, as far as its body tells."""
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return "text/plain"
    return "application/json"
