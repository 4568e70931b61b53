"""The errors of a runner, under the SDK's one root.

LivepeerError
├── ConfigurationError
│   └── PipelineDefinitionError   the class can't be served as it is written
├── HTTPError                     what an author raises to answer a call with a status of their choice
└── RegistrationError             the orchestrator refuses this runner
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from livepeer.trickle.errors import ConfigurationError, LivepeerError

__all__ = ["ConfigurationError", "HTTPError", "LivepeerError", "PipelineDefinitionError", "RegistrationError"]


class PipelineDefinitionError(ConfigurationError):
    """A pipeline class can't be served as it is written; raised when the class is defined."""


class HTTPError(LivepeerError):
    """The answer to a call, as an error: raise it in ``run``, ``on_stream_start`` or ``on_params_update``.

    Args:
        status: The HTTP status of the answer, 400 to 599.
        message: What the caller is told. It is the only text of the runner that reaches the caller: the
            text of any other exception stays in the runner's log.
        fields: What was wrong with which field of the input, as ``[{"field": …, "message": …}]``.
        headers: Headers of the answer, ``Retry-After`` for instance.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        fields: list[dict[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if not 400 <= status <= 599:
            raise ConfigurationError(
                f"HTTPError({status}, …): the status of an error is between 400 and 599."
            )
        super().__init__(message, retryable=status in (429, 503))
        self.status = status
        self.fields = fields
        self.headers: dict[str, str] = dict(headers or {})

    def instead_of(self, status: int, other: int) -> HTTPError:
        """This error, under another status where it has the one that can't be sent."""
        if self.status != status:
            return self
        return HTTPError(other, self.message, fields=self.fields, headers=self.headers)

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer: ``{"error": {"type", "message", "status", "fields"?}}``."""
        error: dict[str, Any] = {"type": type(self).__name__, "message": self.message, "status": self.status}
        if self.fields:
            error["fields"] = self.fields
        return {"error": error}


class InvalidInput(HTTPError):
    """The input of a call isn't what the pipeline declares (422)."""

    def __init__(self, message: str, fields: list[dict[str, Any]] | None = None) -> None:
        super().__init__(422, message, fields=fields)


class Unavailable(HTTPError):
    """No call can be taken now (503): loading, stopping, or every place taken."""

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(503, message, headers={"Retry-After": str(retry_after)})


class RunFailed(HTTPError):
    """The author's code raised (500); only the exception's class is named to the caller."""

    def __init__(self, where: str, error: BaseException) -> None:
        super().__init__(500, f"{where} raised {type(error).__name__}; the runner's log has the details.")
        self.kind: str = type(error).__name__

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer, whose ``type`` is the class of the author's exception."""
        content = super().body()
        content["error"]["type"] = self.kind
        return content


class RegistrationError(LivepeerError):
    """The orchestrator refuses to register this runner.

    Args:
        message: What it refused, and what would be right.
        status: The HTTP status of its answer; None when there was none.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        orchestrator: str | None = None,
        hint: str | None = None,
        retryable: bool = True,
    ) -> None:
        super().__init__(message, orchestrator=orchestrator, hint=hint, retryable=retryable)
        self.status = status
