"""HTTP as Livepeer's peers need it: one session per event loop, certificates pinned at first use.

Orchestrators make a certificate for themselves at every start, with an empty subject, so a name can't be
verified. What can be: that the orchestrator of this call is the one of the last call. `TLSPolicy` keeps that
memory, for any number of event loops and threads; `Transport` is one aiohttp session which follows it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import ssl
import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import aiohttp
from yarl import URL

from ._connections import Connections
from ._lookups import Resolver
from ._pooled import KEPT, Connector
from ._proxies import open_tunnel, proxy_for
from ._sockets import dial, open_socket
from ._version import __version__
from .errors import ConfigurationError

__all__ = ["CONNECT_PATIENCE", "CertificateChanged", "TLSMode", "TLSPolicy", "Transport", "hang_up"]

TLSMode = Literal["pin", "pin-strict", "verify", "insecure"]

_logger = logging.getLogger("livepeer.trickle")
CONNECT_PATIENCE = 10.0
"""Seconds for a connection, its name's lookup and TLS included, where a request names no limit."""

_GOODBYE = 1.0  # seconds for sockets to close
_REPIN_INTERVAL = 60.0  # seconds between two accepted changes of one host's certificate


class CertificateChanged(aiohttp.ServerFingerprintMismatch):
    """The peer's certificate is not the pinned one; the connection was closed before a request was sent.

    Attributes:
        accepted_in: In how many seconds a connection to the same peer is accepted: 0 when that is so now, as
            after the first change; None for never.
    """

    def __init__(
        self, expected: bytes, got: bytes, host: str, port: int, *, accepted_in: float | None = 0.0
    ) -> None:
        super().__init__(expected, got, host, port)
        self.accepted_in: float | None = accepted_in


class TLSPolicy:
    """Which certificates of orchestrators are accepted, remembered per host and port.

    Args:
        mode: ``"pin"`` accepts a certificate at first use and, after a change, the changed one for calls
            that begin later (once a minute per host at most). ``"pin-strict"`` refuses a changed certificate
            until the process restarts. ``"verify"`` is the ordinary verification against the system's
            certificate authorities or `ca`. ``"insecure"`` checks nothing.
        ca: The path of a PEM file with the authorities to trust, for ``"verify"``.
        repin_after: Instead of that minute, other seconds.
    """

    def __init__(
        self, mode: TLSMode = "pin", *, ca: str | None = None, repin_after: float | None = None
    ) -> None:
        if mode not in ("pin", "pin-strict", "verify", "insecure"):
            raise ConfigurationError(
                f"tls={mode!r} is unknown; it is one of 'pin', 'pin-strict', 'verify' and 'insecure'."
            )
        self.mode: TLSMode = mode
        self.ca = ca
        self.repin_after = repin_after
        # No locks here: a child that is forked while another thread holds one would wait for it for ever.
        # A dict's setdefault can't be torn between threads.
        self._pins: dict[tuple[str, int], _Pin] = {}
        self._verified: ssl.SSLContext | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}

    def ssl_for(self, url: URL) -> ssl.SSLContext | aiohttp.Fingerprint | bool:
        """The value of aiohttp's ``ssl=`` for a request to this URL."""
        if self.mode == "insecure":
            return False
        if self.mode == "verify":
            if self._verified is None:
                self._verified = ssl.create_default_context(cafile=self.ca)
            return self._verified
        return self._pin(url.host or "", url.port or 443)

    def context_for(
        self, host: str, port: int, protocol: str = "http/1.1", *, expected: bytes | None = None
    ) -> tuple[ssl.SSLContext, Callable[[Any], None] | None]:
        """How to open TLS to a host and port: a context, and what must pass on the open connection.

        The check raises `CertificateChanged`; it comes before a byte of a request. `protocol` is what the
        connection will speak, as ALPN names it. Where certificates are pinned, `expected` is the digest of
        the only one that will do; None takes the one that is pinned now.
        """
        context = self._contexts.get(protocol)
        if context is None:
            if self.mode == "verify":
                context = ssl.create_default_context(cafile=self.ca)
            else:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols([protocol])
            self._contexts[protocol] = context
        if self.mode in ("insecure", "verify"):
            return context, None
        return context, partial(self._pin(host, port).check, expected=expected)

    def _pin(self, host: str, port: int) -> _Pin:
        key = (host, port)
        pin = self._pins.get(key)
        if pin is None:
            made = _Pin(key, strict=self.mode == "pin-strict", repin_after=self.repin_after)
            pin = self._pins.setdefault(key, made)
        return pin

    def pinned(self, host: str, port: int) -> bytes | None:
        """The SHA-256 digest of the certificate pinned for a host and port, if there is one."""
        pin = self._pins.get((host, port))
        return pin.digest if pin else None

    def __getstate__(self) -> dict[str, Any]:
        return {"mode": self.mode, "ca": self.ca, "repin_after": self.repin_after}

    def __setstate__(self, state: dict[str, Any]) -> None:
        mode, ca, repin_after = state["mode"], state["ca"], state["repin_after"]
        self.__init__(mode, ca=ca, repin_after=repin_after)  # type: ignore[misc]


class _Pin(aiohttp.Fingerprint):
    """The certificate of one host and port, learned from the first connection.

    aiohttp calls `check` when the handshake is over and before it writes a request, and closes the
    connection when `check` raises: a changed certificate is noticed before a byte of the request.
    """

    def __init__(self, key: tuple[str, int], *, strict: bool, repin_after: float | None) -> None:
        super().__init__(b"\0" * 32)
        self._key = key
        self._strict = strict
        self._repin_after = repin_after
        self._repinned_at = float("-inf")
        self._learned: dict[str, bytes] = {}

    @property
    def digest(self) -> bytes | None:
        """The SHA-256 digest of the pinned certificate; None before the first connection."""
        return self._learned.get("pin")

    def check(self, transport: asyncio.Transport, *, expected: bytes | None = None) -> None:
        """Learn the certificate at first use; raise `CertificateChanged` when it is another one."""
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object is None:
            return
        found = hashlib.sha256(ssl_object.getpeercert(binary_form=True)).digest()
        pinned = self._learned.setdefault("pin", found)
        if found == pinned:
            if expected not in (None, found):
                raise CertificateChanged(expected, found, *self._key, accepted_in=None)
            return
        interval = _REPIN_INTERVAL if self._repin_after is None else self._repin_after
        left = self._repinned_at + interval - time.monotonic()
        if not self._strict and left <= 0:
            self._repinned_at = time.monotonic()
            self._learned["pin"] = found
            _logger.warning(
                "The certificate of %s:%d changed from %s to %s; orchestrators make one at each start.",
                *self._key,
                pinned.hex(),
                found.hex(),
            )
        accepted_in = None if self._strict else max(left, 0.0)
        raise CertificateChanged(pinned, found, *self._key, accepted_in=accepted_in)


class Transport:
    """One HTTP session of the running event loop: no cookies, no netrc, no redirects, no limits.

    A cookie jar would carry one worker's cookie to the next, ``trust_env`` would send passwords from
    ``~/.netrc``, and aiohttp's limit of 100 connections would let the 101st long poll wait in silence.

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
        self._session = self._make_session(keepalive_timeout=KEPT)
        self._fresh: aiohttp.ClientSession | None = None  # each of its requests has a connection of its own

    def _make_session(self, **options: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=Connector(socket_factory=self._open_socket, resolver=Resolver(), **options),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self.user_agent},
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_PATIENCE),
            trust_env=False,
            max_line_size=64 * 1024,
            max_field_size=64 * 1024,
        )

    @property
    def session(self) -> aiohttp.ClientSession:
        """The aiohttp session, for what `request` doesn't cover (a WebSocket)."""
        return self._session

    def request(self, method: str, url: str | URL, *, fresh: bool = False, **options: Any) -> Any:
        """Start a request: an awaitable and async context manager of `aiohttp.ClientResponse`.

        Takes the options of `aiohttp.ClientSession.request`; adds the pinned certificate and the proxy. A
        GET, PUT or DELETE is sent once more when a connection that was used before breaks; a POST never is.
        With `fresh` it goes over a connection that was made for it, which no server can be closing already.
        """
        session = self._session
        if fresh:
            session = self._fresh = self._fresh or self._make_session(force_close=True)
        return session.request(method, url, **self.options_for(url, **options))

    def options_for(self, url: str | URL, **options: Any) -> dict[str, Any]:
        """The aiohttp options of a request to this URL: its certificate, its proxy, no redirects."""
        target = url if isinstance(url, URL) else URL(url)
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
            opened = await open_tunnel(URL(proxy), host, port, self._open_socket)
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
        """The connections that channels are read and written over, which cost less than the session's."""
        return self._connections

    async def aclose(self) -> None:
        """Close every connection of this session, and return when the sockets are closed.

        Connections that were let go before may still be saying goodbye (TLS), and a loop that ends meanwhile
        would warn of them.
        """
        try:
            await self._connections.aclose()
        finally:
            await self._session.close()  # when this is cancelled meanwhile, too
            if self._fresh is not None:
                await self._fresh.close()
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


def hang_up(response: aiohttp.ClientResponse) -> None:
    """Close an answer that isn't read to its end, without TLS's goodbye, which would wait for the peer's."""
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()
