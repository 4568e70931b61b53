"""What the failures of connections are called here."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import zlib
from types import TracebackType
from typing import Any

from livepeer.trickle.transport import (
    CONNECT_PATIENCE,
    BodyBroken,
    CertificateChanged,
    ConnectFailed,
    ConnectTimedOut,
    ExchangeClosed,
    InvalidURL,
    MalformedAnswer,
)

from ._urls import redact
from .errors import (
    ConfigurationError,
    ConnectionFailed,
    ConnectTimeout,
    FirstByteTimeout,
    IdleTimeout,
    LivepeerError,
    ResponseError,
    StreamError,
)

__all__ = ["as_livepeer_error", "translated", "unsent", "way_out", "within"]


class within:  # a class: an asynchronous generator can't begin once a loop closes its own
    """Gives a peer some seconds for the whole of what is asked inside, its name, TLS and all.

    Args:
        seconds: How many.
        where: The URL that is called.
        details: `request_id` and `orchestrator` for the error.

    Raises:
        FirstByteTimeout: They have passed.
    """

    __slots__ = ("_details", "_limit", "_seconds", "_where")

    def __init__(self, seconds: float, where: str, **details: Any) -> None:
        self._seconds = seconds
        self._where = where
        self._details = details
        self._limit = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError as late:
            raise FirstByteTimeout(
                f"{redact(self._where)} did not answer within {self._seconds:g} s.",
                waited=self._seconds,
                retryable=True,
                **self._details,
            ) from late


class translated:  # a class, which costs a call less than a generator does
    """Raises this SDK's error for whatever the connections, ssl, the socket or aiohttp raise inside.

    Args:
        where: The URL that is called.
        connect: The seconds that a connection may take; None is what a `Transport` allows by itself.
        details: `request_id` and `orchestrator` for the error.
    """

    __slots__ = ("_details", "_where")

    def __init__(self, where: str, **details: Any) -> None:
        self._where = where
        self._details = details

    def __enter__(self) -> None:
        """Nothing happens before something is raised."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, LivepeerError):
            return
        if isinstance(error, Exception) and (isinstance(error, _TRANSLATED) or _is_aiohttps(error)):
            raise as_livepeer_error(error, redact(self._where), **self._details) from error


_TRANSLATED = (OSError, ValueError, RuntimeError, asyncio.IncompleteReadError, zlib.error)


def _is_aiohttps(error: Exception) -> bool:
    """Whether aiohttp raised it; who hasn't loaded it has nothing of it."""
    return any(kind.__module__.startswith("aiohttp.") for kind in type(error).__mro__)


def as_livepeer_error(
    error: Exception, where: str, *, connect: float | None = None, **details: Any
) -> LivepeerError:
    """What this SDK calls an error of the libraries below it."""
    if _is_aiohttps(error):
        from ._aiohttp_failures import as_ours

        error = as_ours(error)
    match error:
        case CertificateChanged():
            return ConnectionFailed(
                f"The certificate of {where} is not the one that was pinned; nothing was sent.",
                hint=f"An orchestrator makes a certificate at each start, so this may be a restart: "
                f"{_acceptance(error.accepted_in)}",
                retryable=error.accepted_in is not None,
                **details,
            )
        case ConnectTimedOut():
            seconds = connect if connect is not None else CONNECT_PATIENCE
            return ConnectTimeout(
                f"No connection to {where} within {seconds:g} s.",
                hint="Nothing was sent. Check that it runs there, and that no firewall is in between.",
                waited=seconds,
                retryable=True,
                **details,
            )
        case ConnectFailed():
            return _no_connection(error.__cause__ or error, where, details)
        case ssl.SSLError():
            return _no_tls(error, where, details)
        case TimeoutError():
            return IdleTimeout(f"{where} sent nothing for too long.", **details)
        case BodyBroken() | asyncio.IncompleteReadError() | zlib.error():
            return StreamError(
                f"The answer of {where} broke off before its end.",
                hint="The worker, or the orchestrator before it, died or closed the connection.",
                **details,
            )
        case InvalidURL():
            return ConfigurationError(f"{where} is not a URL that can be called.", **details)
        case MalformedAnswer():
            return ResponseError(f"The answer of {where} can't be read: {error}.", **details)
        case ExchangeClosed() | RuntimeError():
            return ConnectionFailed(f"The connection to {where} was closed on this side.", **details)
        case OSError():
            return ConnectionFailed(
                f"{where} closed the connection before it answered.",
                hint="Whether the work was done is unknown.",
                **details,
            )
    return ConfigurationError(f"The request to {where} can't be made: {error}.", **details)


def unsent(error: LivepeerError) -> bool:
    """Whether nothing of a request was sent: there was no connection, or its peer was not the one that it has
    to be."""
    if isinstance(error, ConnectTimeout):
        return True
    cause = error.__cause__
    if isinstance(cause, Exception) and _is_aiohttps(cause):
        from ._aiohttp_failures import as_ours

        cause = as_ours(cause)
    return isinstance(cause, ConnectFailed | CertificateChanged)


def _no_connection(error: BaseException, where: str, details: dict[str, Any]) -> LivepeerError:
    match error:
        case socket.gaierror():
            return ConnectionFailed(
                f"The host of {where} has no address: {error.strerror or error}.",
                hint="Check the URL for a typing mistake, and that this machine can resolve names.",
                **details,
            )
        case ssl.SSLError():
            return _no_tls(error, where, details)
    return ConnectionFailed(
        f"No connection to {where}: {_reason(error)}.",
        hint=way_out(error),
        retryable=True,
        **details,
    )


def way_out(error: BaseException) -> str:
    """What to do about a connection that could not be made."""
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        return (
            "This machine is at fault: the process has as many files and sockets open as it may. Make fewer "
            "calls at once (an asyncio.Semaphore), or allow more: `ulimit -n`, or LimitNOFILE of its service."
        )
    return "Check that the orchestrator runs there and that the port is right."


def _no_tls(error: BaseException, where: str, details: dict[str, Any]) -> LivepeerError:
    return ConnectionFailed(
        f"TLS with {where} failed: {error}.",
        hint="An http:// orchestrator called as https:// fails like this; so does tls='verify' with "
        "a certificate that the orchestrator signed itself.",
        **details,
    )


def _acceptance(seconds: float | None) -> str:
    """When a changed certificate is accepted."""
    if seconds is None:
        return "tls='pin-strict' refuses it for as long as this gateway lives; another Gateway accepts it."
    if seconds > 0:
        return f"but the second one within a minute; a call is accepted again in {seconds:.0f} s."
    return "a call that begins now accepts it, unless tls='pin-strict'."


def _reason(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    if number:
        return os.strerror(number)  # asyncio's own text is "Connect call failed" and an address
    return getattr(error, "strerror", None) or str(error) or "the other side closed it"
