"""What publisher and subscriber share: where a channel is, requests to it, and errors with our names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ._connections import Origin
from ._exchange import ConnectFailed, Exchange, ExchangeClosed
from ._targets import target_of
from ._tls import CertificateChanged
from .errors import ConfigurationError, TrickleConnectionError
from .transport import Transport

if TYPE_CHECKING:
    from ._connections import Connections

BROKEN = OSError
"""Every way in which a connection can't be made, or breaks."""


class Endpoint:
    """The URL of a channel, and the connections to reach it: the caller's, or some of its own."""

    def __init__(self, url: str, transport: Transport | None) -> None:
        if not str(url).startswith(("http://", "https://")):
            raise ConfigurationError(
                f"{url!r} is not the URL of a trickle channel; one begins with https:// or http://."
            )
        self.url: str = str(url).rstrip("/")
        self._given = transport
        self._own: Transport | None = None
        self._path = ""
        self._origin: Origin | None = None

    @property
    def transport(self) -> Transport:
        """The transport; made at first use, on the running event loop, when none was given."""
        if self._given is not None:
            return self._given
        if self._own is None:
            self._own = Transport()
        return self._own

    def start(
        self,
        method: str,
        suffix: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        after: Exchange | None = None,
    ) -> Exchange:
        """Send a request; raises nothing: `Exchange.answer` tells what became of it.

        Args:
            method: Such as ``"GET"``.
            suffix: What follows the channel's URL, as ``"/3"``.
            headers: The request's headers.
            body: All of its body.
            after: A request that this one may follow on its connection before that is answered.
        """
        head = self._head(method, suffix, headers)
        if body is None:
            head += b"\r\n"
        else:
            head += b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        replay = method in ("GET", "DELETE")
        return self._connections.start(self._where, head, whole=True, replay=replay, after=after)

    def upload(
        self, suffix: str, headers: Mapping[str, str], first: bytes, after: Exchange | None
    ) -> Exchange:
        """Begin a chunked POST, whose chunks the caller frames and writes; `first` goes with its head."""
        head = self._head("POST", suffix, headers) + b"Transfer-Encoding: chunked\r\n\r\n"
        return self._connections.start(self._where, head + first, whole=False, after=after)

    async def aclose(self) -> None:
        """Close the transport if it is our own."""
        own, self._own = self._own, None
        if own is not None:
            await own.aclose()

    @property
    def _connections(self) -> Connections:
        return self.transport.connections

    @property
    def _where(self) -> Origin:
        if self._origin is None:
            target = target_of(self.url)
            self._path = target.path
            self._origin = Origin(target, self.transport.user_agent)
        return self._origin

    def _head(self, method: str, suffix: str, headers: Mapping[str, str] | None) -> bytes:
        fields = self._where.fields
        target = f"{method} {self._path}{suffix}".encode()
        if headers:
            more = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
            return target + fields + more.encode("latin-1")
        return target + fields


def is_final(error: BaseException) -> bool:
    """Whether trying again can't help."""
    return isinstance(error, CertificateChanged | ExchangeClosed)


def is_refused(error: BaseException) -> bool:
    """Whether no connection was made, so that the server can't have seen a byte of the request."""
    return isinstance(error, ConnectFailed | CertificateChanged | ExchangeClosed)


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
    """What an error says, without the number that comes before it."""
    strerror = getattr(error, "strerror", None)
    return strerror or str(error) or type(error).__name__
