"""What an orchestrator says of a payment, or of a request that needs one. Pure decisions.

go-livepeer v0.9.1 (``server/ai_http.go``, ``core/orchestrator.go``, ``pm/``). A worker's own answer passes
through it unchanged, and may look like one of these: so after a payment only the orchestrator's own texts
count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from .._bodies import one_line
from .._urls import redact
from ..errors import LivepeerError, OrchestratorError, PaymentError
from ..payments.exchange import Asked
from ..payments.signing import is_out_of_funds

__all__ = ["paid_verdict"]

_ABOUT_TICKETS = re.compile(
    "invalid ticket|TicketParams expired|ticket params|ticket already used|invalid recipientRand"
    "|payment price does not match|mismatched manifest|Could not find Sender"
    "|ErrSegSig|ErrSegEncoding|missing auth token|invalid auth token|expired auth token"
    "|invalid expected price|[iI]nsufficient (?:account )?balance|cannot process payments"
    "|is inactive in round"
)
_TAKEN = "session already exists"


def paid_verdict(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    paid: bool,
    orchestrator: str,
    request_id: str,
) -> LivepeerError | None:
    """The error for an orchestrator's answer about payments; None where it is about something else.

    Args:
        status: The answer's status.
        headers: Its headers.
        body: Its body.
        paid: Whether a payment went with the request.
        orchestrator: The URL of the orchestrator.
        request_id: The call's.
    """
    own = headers.get("X-Content-Type-Options", "").lower() == "nosniff"
    text = one_line(body, 2000)
    if status == 402 and (not paid or own or _is_challenge(body)):
        return Asked(
            f"{redact(orchestrator)} asks to be paid.",
            body=body,
            orchestrator=orchestrator,
            request_id=request_id,
        )
    if not own:
        return None
    if is_out_of_funds(text):
        return OrchestratorError(
            f"{redact(orchestrator)} takes no payment: {text}.",
            status=status,
            body=text,
            orchestrator=orchestrator,
            request_id=request_id,
        )
    if paid and status in (400, 403, 409) and (_ABOUT_TICKETS.search(text) or _TAKEN in text):
        return PaymentError(
            f"{redact(orchestrator)} refused the payment: {status} ({text[:300]}).",
            hint="It counts as spent, because what became of its tickets isn't known. Another call gets "
            "another challenge.",
            orchestrator=orchestrator,
            request_id=request_id,
        )
    return None


def _is_challenge(body: bytes) -> bool:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "payment_params" in value
