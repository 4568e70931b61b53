"""Every error of a call, under one root.

    LivepeerError
    ├── ConfigurationError
    │   └── InputError              (also a ValueError)
    ├── NoOrchestratorError         .rejections
    ├── CapabilityNotFound          .capability .available
    ├── ConnectionFailed            (also a ConnectionError)
    ├── LivepeerTimeout             (also a TimeoutError) .waited
    │   ├── ConnectTimeout
    │   ├── FirstByteTimeout
    │   ├── IdleTimeout
    │   └── DeadlineExceeded
    ├── CapabilityError             .status .body .content_type
    ├── CapacityError               .retry_after
    ├── OrchestratorError           .status .body
    ├── ResponseError               .body
    ├── PaymentError
    │   ├── PriceExceeded
    │   ├── InsufficientBalance     .address
    │   ├── BudgetExceeded
    │   ├── SignerError
    │   └── PaymentUnsupported
    ├── StreamError
    ├── SessionEnded                .reason
    │   ├── SessionLost             (also a ConnectionFailed)
    │   └── SessionStalled          (also a LivepeerTimeout) .silent .waited .frames_in .frames_out
    ├── MediaError                  (livepeer.trickle)
    └── TrickleError                (livepeer.trickle)
        ├── ChannelNotFound
        ├── ChannelClosed
        └── TrickleConnectionError  (also a ConnectionError)

Each has `message`, `hint`, `request_id`, `orchestrator`, `retryable` and `attempts`. Fields say what a
program needs to know; nobody has to parse a message. No error of a library below comes through: it is the
`__cause__`. All of them can be pickled; a cause of another library becomes its name and text by that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from livepeer.trickle.errors import (
    ChannelClosed,
    ChannelNotFound,
    ConfigurationError,
    LivepeerError,
    MediaError,
    TrickleConnectionError,
    TrickleError,
)

__all__ = [
    "Attempt",
    "BudgetExceeded",
    "CapabilityError",
    "CapabilityNotFound",
    "CapacityError",
    "ChannelClosed",
    "ChannelNotFound",
    "ConfigurationError",
    "ConnectTimeout",
    "ConnectionFailed",
    "DeadlineExceeded",
    "FirstByteTimeout",
    "IdleTimeout",
    "InputError",
    "InsufficientBalance",
    "LivepeerError",
    "LivepeerTimeout",
    "MediaError",
    "NoOrchestratorError",
    "OrchestratorError",
    "PaymentError",
    "PaymentUnsupported",
    "PriceExceeded",
    "Rejection",
    "ResponseError",
    "SessionEnded",
    "SessionLost",
    "SessionStalled",
    "SignerError",
    "StreamError",
    "TrickleConnectionError",
    "TrickleError",
]


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one place to call was not used.

    Attributes:
        where: The URL of the orchestrator, or of the runner behind it.
        reason: What was wrong with it.
        hint: What could be done about it.
        retryable: Whether it may be usable in a moment.
    """

    where: str
    reason: str
    hint: str | None = None
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One place where a call was tried, and why it failed there; see `LivepeerError.attempts`.

    Attributes:
        orchestrator: The URL of the orchestrator.
        route: How it was called: ``"live_runner"``, ``"byoc"``, ``"lv2v"`` or ``"gateway_node"``.
        reason: The kind of the error, and its message.
        begun: Whether a worker may have begun the work.
        paid: Whether a payment had been sent; through a gateway node, whether it may have sent one.
    """

    orchestrator: str
    route: str
    reason: str
    begun: bool
    paid: bool


class InputError(ConfigurationError, ValueError):
    """The input of a call can't be sent: it has no JSON form, or its file can't be read."""


class NoOrchestratorError(LivepeerError):
    """No orchestrator could be asked, or none that answered may be used; retryable if a rejection is.

    Args:
        rejections: Every candidate with the reason against it.
    """

    def __init__(self, message: str, *, rejections: tuple[Rejection, ...] = (), **details: Any) -> None:
        details.setdefault("retryable", any(rejection.retryable for rejection in rejections))
        super().__init__(message, **details)
        self.rejections: tuple[Rejection, ...] = rejections

    def __str__(self) -> str:
        lines = [super().__str__()]
        for rejection in self.rejections:
            line = f"  - {rejection.where}: {rejection.reason}"
            lines.append(f"{line} {rejection.hint}" if rejection.hint else line)
        return "\n".join(lines)


class CapabilityNotFound(LivepeerError):
    """Every orchestrator answered, and none has the capability.

    Args:
        capability: The name that was asked for.
        available: The names that were there.
    """

    def __init__(
        self, message: str, *, capability: str, available: tuple[str, ...] = (), **details: Any
    ) -> None:
        super().__init__(message, **details)
        self.capability: str = capability
        self.available: tuple[str, ...] = available


class ConnectionFailed(LivepeerError, ConnectionError):
    """The peer could not be reached, its certificate changed, or it broke the connection off."""


class LivepeerTimeout(LivepeerError, TimeoutError):
    """Something took longer than the call's `Timeout` allows.

    Args:
        waited: The limit that passed, in seconds.
    """

    def __init__(self, message: str, *, waited: float | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.waited: float | None = waited


class ConnectTimeout(LivepeerTimeout):
    """No connection (TCP and TLS) within `Timeout.connect` seconds; nothing was sent."""


class FirstByteTimeout(LivepeerTimeout):
    """No status line of an answer within `Timeout.first_byte` seconds; the work may go on."""


class IdleTimeout(LivepeerTimeout):
    """No content for `Timeout.idle` seconds in the middle of an answer."""


class DeadlineExceeded(LivepeerTimeout):
    """The whole call took longer than `Timeout.total` seconds."""


class CapabilityError(LivepeerError):
    """The worker's own answer was an error: a status of 400 or above, or an error event of its stream.

    Args:
        status: The HTTP status; 200 when the error came as an event of a stream.
        body: The body of the answer, as bytes.
        content_type: The media type of the body.
    """

    def __init__(
        self, message: str, *, status: int, body: bytes = b"", content_type: str = "", **details: Any
    ) -> None:
        super().__init__(message, **details)
        self.status: int = status
        self.body: bytes = body
        self.content_type: str = content_type


class CapacityError(LivepeerError):
    """Every place of the capability is taken at the moment.

    Args:
        retry_after: In how many seconds the peer says that another try makes sense.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, **details: Any) -> None:
        super().__init__(message, retryable=True, **details)
        self.retry_after: float | None = retry_after


class OrchestratorError(LivepeerError):
    """The orchestrator itself refused or failed: the runner is gone, or can't be reached behind it.

    Args:
        status: The HTTP status.
        body: The text of the answer.
    """

    def __init__(self, message: str, *, status: int, body: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.status: int = status
        self.body = body


class ResponseError(LivepeerError):
    """An answer was not what its content type, the protocol or `output_type` promise.

    Args:
        body: The body of the answer, as bytes.
    """

    def __init__(self, message: str, *, body: bytes = b"", **details: Any) -> None:
        super().__init__(message, **details)
        self.body = body


class PaymentError(LivepeerError):
    """A payment was asked for and could not be made."""


class PriceExceeded(PaymentError):
    """The price is over the limit of the caller or of the signer."""


class InsufficientBalance(PaymentError):
    """The wallet behind the signer has not enough funds.

    Args:
        address: The wallet's address, to be funded; None where it isn't known.
    """

    def __init__(self, message: str, *, address: str | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.address: str | None = address


class BudgetExceeded(PaymentError):
    """One more ticket would pass the gateway's budget."""


class SignerError(PaymentError):
    """The remote signer could not be reached, or refused to sign."""


class PaymentUnsupported(PaymentError):
    """The capability is not free, and there is no way to pay for it here."""


class StreamError(LivepeerError):
    """A stream broke off before its end, or was not what it claimed to be."""


class SessionEnded(LivepeerError):
    """A live session is over.

    Args:
        reason: Why, one of these or what the worker said of it:
            ``"closed"``: this side closed it.
            ``"ended"``: the other side ended it, in order.
            ``"idle"``, ``"error"``, ``"shutdown"``: the same, with the reason that the worker gave.
            ``"channel closed"``: somebody ended a media channel, and the worker goes on without it.
            ``"worker gone"``: the worker's process can't be reached any more.
            ``"orchestrator gone"``: the orchestrator can't be reached any more, or was started anew.
            ``"unpaid"``: nothing more is paid for it; the `PaymentError`, or what else kept payments from
            their way, is its ``__cause__``.
            ``"stalled"``: it fell silent, see `SessionStalled`.
            ``"opened before"``: it can't be opened again.
    """

    def __init__(self, message: str, *, reason: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.reason: str = reason


class SessionLost(SessionEnded, ConnectionFailed):
    """The orchestrator of a live session can't be reached any more, or has forgotten everything."""


class SessionStalled(SessionEnded, LivepeerTimeout):
    """No output of a live session came for longer than `Gateway.live` was told to wait.

    Args:
        silent: Who fell silent: ``"worker"`` (it gets the input and sends nothing), ``"input"`` (frames wait
            on this side and none gets out), or ``"orchestrator"`` (it doesn't answer any more).
        waited: For how many seconds, as `LivepeerTimeout` has it.
        frames_in: Frames that had been sent to the worker.
        frames_out: Frames that had come back.
    """

    def __init__(
        self,
        message: str,
        *,
        silent: Literal["worker", "input", "orchestrator"] = "worker",
        frames_in: int = 0,
        frames_out: int = 0,
        **details: Any,
    ) -> None:
        super().__init__(message, reason="stalled", **details)
        self.silent: Literal["worker", "input", "orchestrator"] = silent
        self.frames_in: int = frames_in
        self.frames_out: int = frames_out
