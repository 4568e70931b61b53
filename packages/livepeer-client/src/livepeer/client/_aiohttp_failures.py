"""aiohttp's errors as those of our own connections; loaded when aiohttp has raised one."""

from __future__ import annotations

import zlib

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError, PayloadEncodingError

from livepeer.trickle.transport import (
    BodyBroken,
    CertificateChanged,
    ConnectFailed,
    ConnectTimedOut,
    InvalidURL,
    MalformedAnswer,
)

__all__ = ["as_ours"]


def as_ours(error: Exception) -> Exception:
    """The error that says the same.

    aiohttp wraps what its parser raises in a `ClientError` of its own; its parser in pure Python, which it
    uses where the other one isn't built, does not do so for a body that is being waited for.
    """
    match error:
        case CertificateChanged() | zlib.error():
            return error
        case aiohttp.ServerFingerprintMismatch():
            return CertificateChanged(error.expected, error.got, error.host, error.port)
        case aiohttp.ConnectionTimeoutError():
            return ConnectTimedOut(str(error))
        case aiohttp.ServerTimeoutError():
            return TimeoutError(str(error))
        case aiohttp.ClientConnectorCertificateError():
            return _because(error.certificate_error)
        case aiohttp.ClientConnectorError():
            return _because(error.os_error)
        case aiohttp.ClientPayloadError() | PayloadEncodingError():
            return BodyBroken(str(error))
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return InvalidURL(str(error))
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return MalformedAnswer(error.message)
        case aiohttp.ClientError():
            return ConnectionError(str(error))
    return error


def _because(cause: BaseException) -> ConnectFailed:
    failed = ConnectFailed(str(cause))
    failed.__cause__ = cause
    return failed
