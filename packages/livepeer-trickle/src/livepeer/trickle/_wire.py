"""What publisher and subscriber share at the edge to aiohttp: a transport, and errors with our names."""

from __future__ import annotations

from typing import Any

import aiohttp

from .errors import ConfigurationError, TrickleConnectionError
from .transport import CertificateChanged, Transport

BROKEN = (aiohttp.ClientError, OSError, TimeoutError)
"""Every way in which aiohttp says that a connection could not be made, or broke."""


class TransportClosed(aiohttp.ClientConnectionError):
    """The caller closed the transport under us."""


class Endpoint:
    """The URL of a channel, and the HTTP session to reach it: the caller's, or one of its own."""

    def __init__(self, url: str, transport: Transport | None) -> None:
        if not str(url).startswith(("http://", "https://")):
            raise ConfigurationError(
                f"{url!r} is not the URL of a trickle channel; one begins with https:// or http://."
            )
        self.url = str(url).rstrip("/")
        self._given = transport
        self._own: Transport | None = None

    @property
    def transport(self) -> Transport:
        """The transport; made at first use, on the running event loop, when none was given."""
        if self._given is not None:
            return self._given
        if self._own is None:
            self._own = Transport()
        return self._own

    def request(self, method: str, url: str, **options: Any) -> Any:
        """Start a request, as `Transport.request` does."""
        transport = self.transport
        if transport.session.closed:
            raise TransportClosed("the transport is closed")
        return transport.request(method, url, **options)

    async def aclose(self) -> None:
        """Close the transport if it is our own."""
        own, self._own = self._own, None
        if own is not None:
            await own.aclose()


def is_final(error: BaseException) -> bool:
    """Whether trying again can't help."""
    return isinstance(error, CertificateChanged | TransportClosed)


def is_refused(error: BaseException) -> bool:
    """Whether no connection was made, so that the server can't have seen a byte of the request."""
    return isinstance(error, aiohttp.ClientConnectorError | CertificateChanged | TransportClosed)


def connection_error(doing: str, url: str, error: BaseException) -> TrickleConnectionError:
    """The error for a connection that could not be made, or broke."""
    what = told_by(error)
    if isinstance(error, CertificateChanged):
        return TrickleConnectionError(
            f"{doing} {url}: the server's certificate changed, so it is another one or was started anew.",
            hint="Channels don't survive that; begin a new session.",
        )
    return TrickleConnectionError(f"{doing} {url}: {what}.", retryable=not is_final(error))


def told_by(error: BaseException) -> str:
    """What an error says, without aiohttp's repr of our certificate."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error.os_error)
    return str(error) or type(error).__name__
