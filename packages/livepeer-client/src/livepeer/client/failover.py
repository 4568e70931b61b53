"""Whether a call that failed may be made again elsewhere, and what was tried before it failed.

Another orchestrator is tried only where the work provably did not begin; at most three are. Whatever else
happened, the call ends in an error: no work is begun, or paid for, twice. One request id goes with every
attempt and is in every error, and `LivepeerError.attempts` tells what was tried.

What it comes to, in full; the tests read this table. "Next" is the next orchestrator, else the error that is
named is raised::

    What happened                                        | How it was called            | Then
    -----------------------------------------------------+------------------------------+--------------------
    the connection is refused                            | all                          | next
    TLS fails                                            | all                          | next
    the certificate has changed                          | all                          | next
    no connection in time                                | runner, byoc                 | next
    closed before the request was read                   | all                          | ConnectionFailed
    closed in the middle of the body                     | all                          | ConnectionFailed
    closed after the body, on a kept connection          | all                          | ConnectionFailed
    closed after the body                                | all                          | ConnectionFailed
    reset after the body                                 | all                          | ConnectionFailed
    closed in the middle of the answer's head            | all                          | ConnectionFailed
    no answer in first_byte seconds                      | runner, session, byoc        | FirstByteTimeout
    no answer in total seconds                           | runner, session, byoc        | DeadlineExceeded
    what comes is no HTTP                                | all                          | ResponseError
    closed in the middle of the result                   | runner, session, byoc        | StreamError
    a pause in the middle of the result                  | runner, session, byoc        | IdleTimeout
    404 runner not found                                 | runner, reserve              | next
    404 runner session not found                         | session, live                | next
    503 no capacity available for runner                 | runner, reserve              | next
    400 runner is not single-shot                        | runner                       | OrchestratorError
    502 the worker refuses the connection                | runner, session, live        | next
    502 the worker has no address                        | runner, session, live        | next
    502 the worker broke off                             | runner, session, live        | OrchestratorError
    502 of a proxy, with such a text                     | runner, session, live        | CapabilityError
    503 of a proxy                                       | runner, session, live        | CapabilityError
    402 payment required                                 | runner, session, live        | PaymentUnsupported
    503 No capacity available for capability             | byoc, byoc-live              | next
    500 the worker refuses the connection                | byoc, lv2v                   | next
    500 the worker has redirected to nobody              | byoc                         | CapabilityError
    500 the worker broke off                             | byoc, lv2v                   | OrchestratorError
    500 the worker took too long                         | byoc                         | FirstByteTimeout
    500 the worker doesn't take the token                | byoc, byoc-live              | CapabilityError
    500 Error sending request to worker                  | byoc-live                    | OrchestratorError
    503 of a proxy                                       | byoc                         | OrchestratorError
    400 Could not verify job creds                       | byoc, byoc-live              | PaymentUnsupported
    400 Insufficient balance for request                 | byoc                         | InsufficientBalance
    503 a livepeer.runner whose places are taken         | byoc, byoc-live, lv2v        | next
    503 insufficient capacity                            | lv2v                         | next
    500 no container for the model                       | lv2v                         | next
    the worker's own 404                                 | runner, session, byoc paid   | CapabilityError
    the worker's own 404                                 | byoc free                    | its /run, once
    the worker's own 405                                 | byoc free                    | its /run, once
    the worker's own 422                                 | all                          | CapabilityError
    the worker's own 429                                 | runner, session, byoc        | CapabilityError
    the worker's own 500                                 | all                          | CapabilityError
    the worker's own 503                                 | runner, session, live, byoc  | CapabilityError
    307 to the same path with a slash                    | runner, session, byoc        | there, once
    303 to the same path with a slash                    | runner, session, byoc        | CapabilityError
    307 to elsewhere                                     | runner, session, byoc        | CapabilityError

"runner" is `run` and `stream` on a single-shot live runner; "reserve" and "session" are the two requests that
they make on a persistent one; "live" is `live` there. "byoc" is `run` and `stream` on a BYOC worker,
"byoc-live" `live` there. "lv2v" is `live` on an orchestrator's own pipeline; its other request, for a token,
may fail in any way, and the next orchestrator is asked. Paid calls are treated as free ones are, but for the
worker's own 404; and they go over connections of their own, so never over one that was kept.

A live runner with a price is paid in three requests: "ask" is the call, or the reservation of a session,
without a payment; "sign" goes to the signer; "pay" is the first one again, with the payment. What the request
with the payment says of the worker is treated as above, and where it proves that the work didn't begin and
what became of the tickets, the next orchestrator is paid. "Kept" tickets were seen and not taken: they aren't
spent, the budget sets them aside, and the next call to that runner within a minute uses them. Where it isn't
known whether tickets were taken they are spent, and nobody else is paid for the same work::

    What happened                              | Request | Then                | Spent
    -------------------------------------------+---------+---------------------+------
    402 without a challenge                    | ask     | PaymentError        | no
    402 a price over max_price                 | ask     | next                | no
    500 insufficient sender reserve            | ask     | InsufficientBalance | no
    503 live runner price unavailable          | ask     | OrchestratorError   | no
    closed                                     | ask     | ConnectionFailed    | no
    it can't be reached                        | sign    | SignerError         | no
    400 no sender deposit                      | sign    | InsufficientBalance | no
    400 ticket faceValue over max faceValue    | sign    | InsufficientBalance | no
    400 more than 100 tickets                  | sign    | SignerError         | no
    401, 403, 429                              | sign    | SignerError         | no
    480 refresh, twice                         | sign    | SignerError         | no
    481 price over a ceiling                   | sign    | next                | no
    482 no tickets                             | sign    | SignerError         | no
    483 of its webhook                         | sign    | InsufficientBalance | no
    500 of any kind                            | sign    | SignerError         | no
    what is no payment                         | sign    | SignerError         | no
    more tickets than were due                 | sign    | SignerError         | no
    over the budget                            | sign    | BudgetExceeded      | no
    the connection is refused                  | pay     | next                | no
    404 runner not found                       | pay     | next                | kept
    503 no capacity available for runner       | pay     | next                | kept
    502 the worker refuses the connection      | pay     | next                | yes
    502 the worker broke off                   | pay     | OrchestratorError   | yes
    402 another challenge                      | pay     | PaymentError        | yes
    400 invalid ticket                         | pay     | PaymentError        | yes
    403 another session's                      | pay     | PaymentError        | yes
    409 session already exists                 | pay     | PaymentError        | yes
    closed                                     | pay     | ConnectionFailed    | yes
    no answer in first_byte seconds            | pay     | FirstByteTimeout    | yes
    the worker's own 402                       | pay     | CapabilityError     | yes
    the worker's own 404                       | pay     | CapabilityError     | yes
    the worker's own 500                       | pay     | CapabilityError     | yes

Through a gateway node one of two things leads to the next: no connection to the node, to the next node;
its own 400 "No orchestrators found for capability", to the next orchestrator. It pays for whatever else
happens, and may have made the call, so that ends it: a 200 without a word, too, by which a node passes on
most failures.

What is read only (discovery, prices, schemas) may be asked for again when a kept connection breaks.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ._urls import redact
from .errors import (
    Attempt,
    CapabilityNotFound,
    CapacityError,
    ConfigurationError,
    LivepeerError,
    OrchestratorError,
    PriceExceeded,
)

if TYPE_CHECKING:
    from .payments.ledger import Bill
    from .routes import Route

__all__ = ["GONE", "MOST", "NO_CAPABILITY", "TO_PAY", "Trail", "not_begun", "unknown"]

MOST = 3
"""Candidates that may fail before a call does."""

NO_CAPABILITY = "No capacity available for capability"
"""What an orchestrator says of a BYOC capability that it doesn't have."""

GONE = frozenset({"runner not found", "runner session not found"})
"""What it says of a live runner that it doesn't have."""

TO_PAY = (
    "Gateway(signer_url=…), LIVEPEER_SIGNER_URL or a token names a signer that pays for live runners; or use "
    "a free one, or an orchestrator that runs offchain."
)
"""What to do where payment is asked for."""

# Go says so of a connection that was never made. With anything else before it, it may be a worker's own text.
_NEVER_MADE = re.compile(
    r'(?:job not able to be processed, removing capability err=)?(?:Post "[^"]*": )?dial tcp\b'
)


def unknown(error: LivepeerError) -> bool:
    """Whether the orchestrator knew no such runner or capability.

    Nothing was begun then, and what was listed of it is out of date.
    """
    if isinstance(error, CapabilityNotFound):
        return True
    return isinstance(error, OrchestratorError) and (
        (error.status == 404 and error.body in GONE) or error.body == NO_CAPABILITY
    )


def not_begun(error: LivepeerError) -> bool:
    """Whether no worker can have begun the work, so that another candidate may be asked for it.

    A status proves nothing by its number, since proxies use them as they like; what does is the text of the
    orchestrator itself.
    """
    from ._http import unsent

    if isinstance(error, OrchestratorError):
        return unknown(error) or (error.status in (500, 502) and bool(_NEVER_MADE.match(error.body)))
    return isinstance(error, CapabilityNotFound | CapacityError | PriceExceeded) or unsent(error)


class Trail:
    """What one call has tried, for the error that it may end in.

    Args:
        request_id: The id that goes with every attempt.
    """

    def __init__(self, request_id: str) -> None:
        self.attempts: list[Attempt] = []
        """What has failed, in order."""
        self.paid: bool = False
        """Whether a payment goes with every request."""
        self.bill: Bill | None = None
        """What the call has paid."""
        self._request_id = request_id
        self._trying: Route | None = None

    @property
    def waits_for(self) -> str:
        """Who is late, as the end of a sentence."""
        if self._trying is None:
            return "it was not known yet who has it"
        return f"{redact(self._trying.orchestrator)} had not answered"

    def trying(self, route: Route) -> None:
        """A route is being gone now."""
        self._trying = route
        if self.bill is not None:
            self.bill.sent = self.bill.unpaid = False

    def failed(self, error: LivepeerError, *, begun: bool) -> None:
        """The route that was gone ended in an error, and its worker may have begun, or not.

        Before any route there is nothing to note.
        """
        from ._http import unsent

        route, self._trying = self._trying, None
        if route is None:
            return
        error.orchestrator = error.orchestrator or route.orchestrator
        paid = self.paid or (self.bill is not None and self.bill.sent)
        self.attempts.append(
            Attempt(
                route.orchestrator,
                route.name,
                f"{type(error).__name__}: {error.message}",
                begun=begun,
                paid=(paid or (route.name == "gateway_node" and begun)) and not unsent(error),
            )
        )

    def __enter__(self) -> Trail:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """An error that leaves the block is the call's last word, and tells all of it."""
        if isinstance(error, LivepeerError):
            unpaid = self.bill is not None and self.bill.unpaid
            harmless = unpaid or isinstance(error, ConfigurationError) or not_begun(error)
            self.failed(error, begun=not harmless)
            error.request_id = error.request_id or self._request_id
            error.attempts = tuple(self.attempts)
