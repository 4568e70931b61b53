"""HTTP as Livepeer's peers need it, on one event loop, with certificates pinned at first use."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._connections import Connections, Origin
from ._exchange import ConnectFailed, ConnectTimedOut, Exchange, ExchangeClosed, MalformedAnswer
from ._proxies import Proxy, open_tunnel, proxy_for
from ._requests import BodyBroken, Reply, request_head
from ._sockets import CONNECT_PATIENCE, KEPT, dial, open_socket
from ._targets import InvalidURL, Target, target_of
from ._tls import CertificateChanged, TLSMode, TLSPolicy
from ._version import __version__

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from yarl import URL
else:  # so that the hints can be looked up without loading these
    ClientResponse = ClientSession = URL = Any

__all__ = [
    "CONNECT_PATIENCE",
    "BodyBroken",
    "CertificateChanged",
    "ConnectFailed",
    "ConnectTimedOut",
    "ExchangeClosed",
    "InvalidURL",
    "MalformedAnswer",
    "Reply",
    "TLSMode",
    "TLSPolicy",
    "Transport",
    "hang_up",
]

_AHEAD = 5.0  # seconds that a connection may wait for its request; servers close silent ones
_GOODBYE = 1.0  # seconds for sockets to close
_LARGE = 256 * 1024  # bytes of a body; more of it waits until the connection takes it
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110, 9.2.2
_BODIES = frozenset({"POST", "PUT", "PATCH"})  # whose requests say their length, 0 too


class Transport:
    """HTTP from the running event loop: no cookies, no netrc, no redirects, no limits.

    `send` goes over the connections that channels use; `request` and `session` are aiohttp's, which is loaded
    when one of them is used first. A cookie jar would carry one worker's cookie to the next, ``trust_env``
    would send passwords from ``~/.netrc``, and aiohttp's limit of 100 connections would let the 101st long
    poll wait in silence.

    Args:
        tls: Which certificates to accept; first-use pinning when absent.
        user_agent: What requests call themselves.
        credentials: The ``Authorization`` of requests to some origins, by origin (``"https://host:port"``,
            as `yarl.URL.origin` writes it); those that have one of their own keep it.
    """

    def __init__(
        self,
        *,
        tls: TLSPolicy | None = None,
        user_agent: str | None = None,
        credentials: Mapping[str, str] | None = None,
    ) -> None:
        self.tls: TLSPolicy = tls or TLSPolicy()
        self.user_agent: str = user_agent or f"livepeer-trickle/{__version__}"
        self._credentials = credentials or {}
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._connections = Connections(self.tls, self._open_socket)
        self._origins: dict[tuple[str, str, str | None], Origin] = {}
        self._closed = False
        self._session: ClientSession | None = None
        self._fresh: ClientSession | None = None  # each of its requests has a connection of its own

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        escaped: bool = False,
        fresh: bool = False,
        connect: float | None = CONNECT_PATIENCE,
        context: ssl.SSLContext | None = None,
        ahead: Exchange | None = None,
    ) -> Reply:
        """Send a request, and return its answer when the head of that is there.

        A GET, PUT or DELETE is sent once more when a connection that was used before breaks; a POST never is.

        Args:
            method: Such as ``"POST"``.
            url: Where to. No redirect is followed.
            headers: Beside those that every request has; they come before those.
            body: All of its body.
            escaped: Whether the URL's path goes as it is.
            fresh: Whether it has a connection that is made for it, which no server can be closing already.
            connect: Seconds for a connection, its name's lookup and TLS included; None is any number.
            context: How TLS is opened, instead of by the policy.
            ahead: What `ahead` made for this request; where it can't be used, another connection is made.

        Raises:
            ConnectFailed: There was no connection.
            CertificateChanged: There was one, to another peer than before; nothing was sent.
            MalformedAnswer: What came is no HTTP.
            OSError: The connection broke.
            ValueError: It can't be sent: an `InvalidURL`, or a header with a line break.
        """
        target = target_of(url, escaped=escaped)
        origin = self._origin_of(target, context)
        small = body is None or len(body) <= _LARGE
        if ahead is not None and not ahead.is_untouched(origin, _AHEAD):
            ahead.close()
            ahead = None
        # No name here stands for the head: a traceback that shows them would show its credentials.
        if ahead is not None:
            exchange = ahead
            exchange.bodyless = method == "HEAD"
            exchange.write(self._beginning(method, target, origin, headers or {}, body))
            exchange.request_ended = small
        else:
            exchange = self._connections.start(
                origin,
                self._beginning(method, target, origin, headers or {}, body),
                whole=small,
                replay=small and method in _REPEATABLE,
                fresh=fresh,
                patience=connect,
                bodyless=method == "HEAD",
            )
        try:
            if body is not None and not small:
                exchange.feed(body)
            await exchange.answer()
        except BaseException:
            exchange.close()
            raise
        return Reply(url, exchange)

    def ahead(self, url: str, *, escaped: bool = False, connect: float | None = CONNECT_PATIENCE) -> Exchange:
        """Begin to make the connection of a request that comes in a moment, for `send` with `fresh`.

        Whoever doesn't send it closes what is returned.
        """
        origin = self._origin_of(target_of(url, escaped=escaped), None)
        return self._connections.start(origin, b"", whole=False, fresh=True, patience=connect)

    def _origin_of(self, target: Target, context: ssl.SSLContext | None) -> Origin:
        """The server of a request, which may be another one tomorrow, as a channel's may not."""
        via = proxy_for(target) if target.scheme == "http" else None
        key = target.scheme, target.authority, via
        found = self._origins.get(key) if context is None else None
        if found is None:
            proxy = Proxy.of(via) if via is not None else None
            found = Origin(target, self.user_agent, context=context, via=proxy, steady=False)
            if context is None:
                self._origins[key] = found
        return found

    def _beginning(
        self, method: str, target: Target, origin: Origin, headers: Mapping[str, str], body: bytes | None
    ) -> bytes:
        """A request's head, and its body where that is small."""
        more = {}
        if known := self._credentials.get(target.origin):
            more["Authorization"] = known
        if origin.via is not None and origin.via.authorization:
            more["Proxy-Authorization"] = origin.via.authorization
        size = len(body) if body is not None else 0 if method in _BODIES else None
        head = request_head(
            method, target, self.user_agent, headers, size=size, absolute=origin.via is not None, more=more
        )
        return head + body if body and len(body) <= _LARGE else head

    @property
    def session(self) -> ClientSession:
        """The aiohttp session, for what nothing else covers (a WebSocket)."""
        if self._session is None:
            self._session = self._make_session(keepalive_timeout=KEPT)
        return self._session

    def _make_session(self, **options: Any) -> ClientSession:
        from ._aiohttp import make_session

        if self._closed:
            raise RuntimeError("Session is closed")
        return make_session(self.user_agent, self._open_socket, **options)

    def request(self, method: str, url: str | URL, *, fresh: bool = False, **options: Any) -> Any:
        """Start a request: an awaitable and async context manager of `aiohttp.ClientResponse`.

        Takes the options of `aiohttp.ClientSession.request`; adds the pinned certificate and the proxy. A
        GET, PUT or DELETE is sent once more when a connection that was used before breaks; a POST never is.
        With `fresh` it goes over a connection that was made for it, which no server can be closing already.
        """
        session = self.session
        if fresh:
            session = self._fresh = self._fresh or self._make_session(force_close=True)
        return session.request(method, url, **self.options_for(url, **options))

    def options_for(self, url: str | URL, **options: Any) -> dict[str, Any]:
        """The aiohttp options of a request to this URL: its certificate, its proxy, no redirects."""
        import yarl

        target = url if isinstance(url, yarl.URL) else yarl.URL(url)
        if target.scheme in ("https", "wss"):
            options.setdefault("ssl", self.tls.ssl_for(target))
        if self._credentials and (known := self._credentials.get(str(target.origin()))):
            headers = options.get("headers") or {}
            if not any(name.lower() == "authorization" for name in headers):
                options["headers"] = {**headers, "Authorization": known}
        options.setdefault("proxy", proxy_for(target))
        options.setdefault("allow_redirects", False)
        return options

    async def dial(self, url: URL, protocol: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a URL's host, for another protocol than HTTP/1.1: its certificate is checked, its
        proxy asked.

        Args:
            url: Where to; ``https`` for TLS.
            protocol: What it will speak, as ALPN names it.

        Raises:
            CertificateChanged: The certificate isn't the pinned one; no byte was sent.
            OSError: It could not be made.
        """
        host, port = url.host or "", url.port or 443
        context, check = self.tls.context_for(host, port, protocol) if url.scheme == "https" else (None, None)
        proxy = proxy_for(url)
        if proxy is None:
            opened = await dial(host, port, self._open_socket)
        else:
            opened = await open_tunnel(Proxy.of(proxy), host, port, self._open_socket)
        reader, writer = await asyncio.open_connection(
            sock=opened, ssl=context, server_hostname=host if context else None
        )
        try:
            if check is not None:
                check(writer.transport)
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer

    @property
    def connections(self) -> Connections:
        """The connections that channels are read and written over, and `send` goes over."""
        return self._connections

    async def aclose(self) -> None:
        """Close every connection, and return when the sockets are closed.

        Connections that were let go before may still be saying goodbye (TLS), and a loop that ends meanwhile
        would warn of them.
        """
        self._closed = True
        try:
            await self._connections.aclose()
        finally:
            for session in (self._session, self._fresh):  # when this is cancelled meanwhile, too
                if session is not None:
                    await session.close()
        deadline = time.monotonic() + _GOODBYE
        while any(opened.fileno() != -1 for opened in self._sockets) and time.monotonic() < deadline:
            await asyncio.sleep(0.001)

    async def __aenter__(self) -> Transport:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def _open_socket(self, address: Any) -> socket.socket:
        opened = open_socket(address)
        self._sockets.add(opened)
        return opened


def hang_up(response: ClientResponse | Reply) -> None:
    """Close an answer that isn't read to its end, without TLS's goodbye, which would wait for the peer's."""
    if not isinstance(response, Reply):
        connection = response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
    response.close()
