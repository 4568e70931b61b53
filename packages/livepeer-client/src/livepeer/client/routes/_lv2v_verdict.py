"""What the orchestrator's refusal to start a live video-to-video job means. Pure decisions.

go-livepeer (v0.9.1, ``server/ai_http.go``, ``ai/worker/worker.go``) answers 500 with a text for whatever
happened at the container, whose own status is in that text; it drops the connection for the statuses that it
doesn't foresee.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import (
    CapabilityError,
    CapabilityNotFound,
    CapacityError,
    ConnectionFailed,
    LivepeerError,
    OrchestratorError,
    PaymentUnsupported,
)
from ._verdict import HINTS, message_of

__all__ = ["PIPELINE", "dropped", "job_refused", "unknown_model"]

PIPELINE = "live-video-to-video"

_RETURNED = re.compile(r"container returned (\d{3}): ?(.*)", re.DOTALL)
_OWN_STATUS = re.compile(r"([45]\d\d) (.+)", re.DOTALL)
_UNREADABLE = ("json: cannot unmarshal", "invalid character", "unexpected end of JSON input")
_TOKEN = frozenset({"missing auth token", "invalid auth token"})


def job_refused(
    status: int, body: bytes, *, model: str, models: tuple[str, ...], details: dict[str, Any]
) -> LivepeerError:
    """The error for an answer with a status outside of 200 to 299.

    Args:
        status: The status.
        body: The body.
        model: The model that was asked for.
        models: Those that the orchestrator lists.
        details: `orchestrator` and `request_id`.
    """
    text = message_of(body)
    if status == 503:
        return CapacityError(
            f"The orchestrator has no place for {model!r} ({text}).",
            hint="Try again when a session has ended, or at another orchestrator.",
            **details,
        )
    if status == 402 or (status == 403 and text == "ErrSegSig") or "nsufficient balance" in text:
        return PaymentUnsupported(
            f"{PIPELINE!r} asks for payment here ({text}), and this version can't pay yet.",
            hint="Use an orchestrator that runs offchain.",
            **details,
        )
    if status == 403 and text in _TOKEN:
        return OrchestratorError(
            f"The orchestrator does not know the token that it handed out before ({text}).",
            hint="It may have been started anew meanwhile; a further try gets another token.",
            status=status,
            body=text,
            retryable=True,
            **details,
        )
    if status == 500:
        return _at_the_container(text, body, model, models, details)
    return OrchestratorError(
        f"The orchestrator refused to start {PIPELINE!r}: {status} {text}.",
        status=status,
        body=text,
        **details,
    )


def unknown_model(model: str | None, models: tuple[str, ...], details: dict[str, Any]) -> CapabilityNotFound:
    """The orchestrator has no such model, or no live video-to-video at all."""
    what = f"{PIPELINE}/{model}" if model else PIPELINE
    listed = ", ".join(models)
    return CapabilityNotFound(
        f"The orchestrator has no {what!r}.",
        hint=f"Its models are: {listed}." if models else "It runs no live video-to-video at all.",
        capability=what,
        available=tuple(f"{PIPELINE}/{name}" for name in models),
        **details,
    )


def dropped(model: str, details: dict[str, Any]) -> ConnectionFailed:
    """The connection was closed without an answer, and nobody knows whether a job began."""
    return ConnectionFailed(
        f"The orchestrator dropped the connection instead of saying whether {model!r} started.",
        hint="It does so when the container answers with a status other than 200, 400, 401, 422 and 500, or "
        "without JSON; or it died. A job that began meanwhile ends by itself after five minutes.",
        **details,
    )


def _at_the_container(
    text: str, body: bytes, model: str, models: tuple[str, ...], details: dict[str, Any]
) -> LivepeerError:
    if text.startswith("no container image found"):
        return unknown_model(model, models, details)
    if returned := _RETURNED.search(text):
        status, said = int(returned[1]), returned[2]
        # livepeer-runner says so what it would answer elsewhere, because here only a 500 comes through.
        if status == 500 and (own := _OWN_STATUS.match(said)):
            status, said = int(own[1]), own[2]
        if status == 503:
            return CapacityError(
                f"The container of {model!r} has no place ({said}).",
                hint="Try again when a session has ended, or at another orchestrator.",
                **details,
            )
        return CapabilityError(
            f"The container of {model!r} answered {status}: {said or 'without a text'}.",
            hint=HINTS.get(status) if status == 422 else None,
            status=status,
            body=said.encode(),
            content_type="application/json" if status == 422 else "text/plain",
            **details,
        )
    if text.startswith(_UNREADABLE):
        return CapabilityError(
            f"The container of {model!r} answered what the orchestrator can't read: {text}.",
            # An error of its own whose form is another than the orchestrator knows.
            status=422 if "HTTPValidationError" in text else 500,
            body=body,
            content_type="text/plain",
            **details,
        )
    if "connection refused" in text or "dial tcp" in text:
        return OrchestratorError(
            f"The container of {model!r} is not there ({text}).",
            hint="It may be restarting.",
            status=500,
            body=text,
            retryable=True,
            **details,
        )
    if text.startswith("Post "):
        return OrchestratorError(
            f"The container of {model!r} broke off before it answered ({text}).",
            hint="It may have begun; the orchestrator has ended that job.",
            status=500,
            body=text,
            retryable=True,
            **details,
        )
    return OrchestratorError(
        f"The orchestrator could not start {model!r}: {text}.", status=500, body=text, **details
    )
