"""aiohttp as a `Transport` needs it: for WebSockets, and for callers who know its interface.

It takes a third of a second to load on a slow machine, so it is loaded at its first use.

A request that is written to a connection which the server has just closed fails, and nobody can tell from
here whether it was read before. What can be told is whether the server had closed it already: that is in the
socket, even when the event loop had no turn to look (a loop that runs for each call only, code that blocks).
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from ._lookups import in_a_thread
from ._sockets import CONNECT_PATIENCE, is_stale
from ._tls import CertificateChanged

__all__ = ["Pinned", "make_session"]

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
_CONFIGURED = getattr(socket, "AI_ADDRCONFIG", 0)  # no addresses of families that this machine doesn't have


def make_session(
    user_agent: str, factory: Callable[[Any], socket.socket], **options: Any
) -> aiohttp.ClientSession:
    """A session without cookies, netrc and limits; options are those of aiohttp's connector."""
    return aiohttp.ClientSession(
        connector=Connector(socket_factory=factory, resolver=Resolver(), **options),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": user_agent},
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_PATIENCE),
        trust_env=False,
        max_line_size=64 * 1024,
        max_field_size=64 * 1024,
    )


class _Changed(CertificateChanged, aiohttp.ServerFingerprintMismatch):
    """A changed certificate, as aiohttp knows it: it closes the connection and raises it."""


class Pinned(aiohttp.Fingerprint):
    """A certificate that is pinned at first use.

    aiohttp calls `check` when the handshake is over and before it writes a request, and closes the connection
    when that raises.

    Args:
        check: Raises `CertificateChanged`.
    """

    def __init__(self, check: Callable[[asyncio.BaseTransport], None]) -> None:
        super().__init__(b"\0" * 32)
        self._check = check

    def check(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection pass, or not."""
        try:
            self._check(transport)
        except CertificateChanged as changed:
            raise _Changed(
                changed.expected, changed.got, changed.host, changed.port, accepted_in=changed.accepted_in
            ) from None


class Resolver(AbstractResolver):
    """Names to addresses, for aiohttp, which asks once for many requests, and keeps what it is told."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host."""
        return await in_a_thread(lambda: _resolve(host, port, family))

    async def close(self) -> None:
        """Nothing is kept."""


def _resolve(host: str, port: int, family: int) -> list[ResolveResult]:
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=_CONFIGURED)
    except socket.gaierror:
        if host.rstrip(".").lower() != "localhost":
            raise
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)  # without any network
    results = []
    for kind, _, proto, _, address in found:
        # By this, a link-local address keeps its interface.
        numeric, _ = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        results.append(
            ResolveResult(hostname=host, host=numeric, port=port, family=kind, proto=proto, flags=_NUMERIC)
        )
    return results


class Connector(aiohttp.TCPConnector):
    """aiohttp's connector, which looks at a connection before it gives it out again."""

    def __init__(self, **options: Any) -> None:
        super().__init__(limit=0, **options)
        kind: type[ResponseHandler] = _Protocol
        self._factory = partial(kind, loop=self._loop)
        self._given: weakref.WeakSet[Any] = weakref.WeakSet()

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        """A connection for a request: an idle one that is still good, or a fresh one."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol not in self._given:
                self._given.add(protocol)
                return connection
            if not is_stale(connection.transport):
                return connection
            connection.close()


class _Protocol(ResponseHandler):
    """aiohttp's end of a connection, which leaves no reader of a body waiting.

    Who waits for a body would wait for ever in two cases, because aiohttp (3.14) closes the connection and
    tells nobody: when the body goes on with what is no HTTP, such as a chunk without a size (where aiohttp's
    parser in C is built); and when its session is closed.
    """

    def connection_lost(self, exc: BaseException | None) -> None:
        body = self._payload
        super().connection_lost(exc)
        _end(body, aiohttp.ClientPayloadError("what came of the body is no HTTP"))

    def close(self) -> None:
        body = self._payload
        super().close()
        _end(body, aiohttp.ClientConnectionError("closed on this side"))

    def abort(self) -> None:
        body = self._payload
        super().abort()
        _end(body, aiohttp.ClientConnectionError("closed on this side"))


def _end(body: aiohttp.StreamReader | None, error: Exception) -> None:
    """Tell the reader of a body that nothing more comes of it."""
    if body is not None and not body.is_eof() and body.exception() is None:
        body.set_exception(error)
