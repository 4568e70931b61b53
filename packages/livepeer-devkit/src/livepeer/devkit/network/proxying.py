"""Requests carried to a runner and its answers back, as go-livepeer's reverse proxy carries them.

``server/ai_http.go`` (v0.9.1) sends them through Go's ``httputil.ReverseProxy``: the body streams both ways,
an answer without a length is flushed per write, a client that leaves ends the runner's request at once, and a
runner that dies in mid-body leaves a truncated answer.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import zlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from . import answers, paths, sniffing, upgrading
from .mux import split_target
from .uploading import Upload

__all__ = ["Cut", "Proxy", "Target", "connect_error"]

_HOP_BY_HOP = (
    "Connection",
    "Proxy-Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Te",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
)
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")
_GO_BUFFER = 2048  # bytes of an answer of known length that Go gathers before it sends the head


@dataclass(frozen=True)
class Target:
    """Where a request goes, and on behalf of which session.

    Args:
        url: The registered ``runner_url``, or a session's own target.
        app_path: The path behind ``/app/``, without escapes.
        route: The runner's id, as the runner is told it.
        session_id: The session.
        token: The session's secret.
        control_url: Where the runner asks for channels and the session's end.
    """

    url: str
    app_path: bytes
    route: str
    session_id: str
    token: str
    control_url: str

    @property
    def headers(self) -> dict[str, str]:
        """What the runner sees of the session."""
        return {
            "Livepeer-Runner-Route": self.route,
            "Livepeer-Session-Id": self.session_id,
            "Livepeer-Session-Token": self.token,
            "Livepeer-Session-Control": self.control_url,
        }


class Proxy:
    """The orchestrator's way to its runners: one pool of connections."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            # Shorter than a runner's own keep-alive, so that no request meets a connection being closed.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
            trust_env=False,
            max_line_size=1 << 20,
            max_field_size=1 << 20,
            max_headers=10_000,
        )

    async def aclose(self) -> None:
        """Close the pool."""
        await self._session.close()

    async def carry(
        self, request: web.Request, target: Target, on_answer: Callable[[], object] = lambda: None
    ) -> web.StreamResponse:
        """Send a client's request to a runner and its answer to the client.

        Args:
            request: The client's.
            target: The runner.
            on_answer: Called when the runner has begun to answer.
        """
        _, query = split_target(request.raw_path)
        parts = urlsplit(target.url)
        try:
            path = paths.twice(parts.path, target.app_path)
        except paths.PathError as error:
            return answers.error(str(error), 502)
        url = URL(f"{parts.scheme}://{parts.netloc}{path}{query}", encoded=True)
        headers = _outgoing(request, target)
        if headers.get("Upgrade"):
            on_answer()
            return await upgrading.carry(request, url, headers)
        if not any(name in headers for name in ("Accept-Encoding", "Range")) and request.method != "HEAD":
            headers["Accept-Encoding"] = "gzip"
            undo_gzip = True
        else:
            undo_gzip = False
        upload = Upload(request)
        try:
            upstream = await self._session.request(
                request.method, url, headers=headers, data=upload.data(), allow_redirects=False
            )
        except (aiohttp.ClientError, OSError) as error:
            return answers.error(connect_error(error, url), 502)
        on_answer()
        async with upstream:
            await upload.settle(upstream)
            return await _answer(request, upstream, undo_gzip)


class Cut:
    """A call that somebody else than its client may end."""

    def __init__(self) -> None:
        self._carrying: asyncio.Task[web.StreamResponse] | None = None
        self._happened = False
        self._answered = False

    def answered(self) -> None:
        """Note that something is on its way to the client."""
        self._answered = True

    def now(self) -> None:
        """End it: what was on its way to the client breaks off."""
        self._happened = True
        if self._carrying is not None:
            self._carrying.cancel()

    async def carry(
        self, request: web.Request, carrying: Coroutine[Any, Any, web.StreamResponse]
    ) -> web.StreamResponse:
        """Do what `Proxy.carry` does, until `now`."""
        self._carrying = asyncio.create_task(carrying)
        try:
            return await self._carrying
        except asyncio.CancelledError:
            if not self._happened:
                raise
            if not self._answered:
                return answers.error("context canceled", 502)
            _hang_up(request)
            return web.Response()


def without_hops(headers: CIMultiDict[str]) -> CIMultiDict[str]:
    """The headers that are meant for the other end, not for the next hop."""
    kept = headers.copy()
    for value in headers.getall("Connection", []):
        for name in value.split(","):
            kept.popall(name.strip(), None)
    for name in _HOP_BY_HOP:
        kept.popall(name, None)
    return kept


def _outgoing(request: web.Request, target: Target) -> CIMultiDict[str]:
    headers = without_hops(CIMultiDict(request.headers))
    if "trailers" in request.headers.get("Te", "").lower():
        headers["Te"] = "trailers"
    if "upgrade" in request.headers.get("Connection", "").lower() and "Upgrade" in request.headers:
        headers["Connection"] = "Upgrade"
        headers["Upgrade"] = request.headers["Upgrade"]
    for name in (*_FORWARDED, "Host", "Expect"):
        headers.popall(name, None)
    headers.update(target.headers)
    return headers


async def _answer(
    request: web.Request, upstream: aiohttp.ClientResponse, undo_gzip: bool
) -> web.StreamResponse:
    headers = CIMultiDict(upstream.headers)
    if "close" in headers.get("Connection", "").lower():
        del headers["Connection"]  # so Go's client takes it, and then knows of no other header named there
    headers = without_hops(headers)
    if upstream.status == 304:
        headers.popall("Content-Type", None)
    gunzip = None
    if undo_gzip and headers.get("Content-Encoding", "").lower() == "gzip":
        gunzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
        headers.popall("Content-Encoding")
        headers.popall("Content-Length", None)
    response = answers.BareStream(
        status=upstream.status, reason=answers.reason(upstream.status), headers=headers
    )
    if request.method == "HEAD" or upstream.status in (204, 304):
        return response
    if "Content-Length" not in headers and request.version >= aiohttp.HttpVersion11:
        response.enable_chunked_encoding()
    body = _Body(request, response)
    try:
        await body.begin()
        async for chunk in upstream.content.iter_any():
            await body.write(gunzip.decompress(chunk) if gunzip else chunk)
        await body.end()
    except (aiohttp.ClientError, zlib.error, OSError):
        _hang_up(request)
    return response


class _Body:
    """The body on its way to the client, with the buffer that Go has for an answer of known length."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._request = request
        self._response = response
        headers = response.headers
        self._sniff = hdrs.CONTENT_TYPE not in headers and "Content-Encoding" not in headers
        events = headers.get("Content-Type", "").startswith("text/event-stream")
        self._held: bytearray | None = bytearray() if "Content-Length" in headers and not events else None

    async def begin(self) -> None:
        """Send the head, unless it waits for the body's first bytes."""
        if self._held is None and not self._sniff:
            await self._response.prepare(self._request)

    async def write(self, data: bytes) -> None:
        """Pass a piece on, or hold it until there is enough."""
        if not data:
            return
        if self._sniff:
            self._response.headers[hdrs.CONTENT_TYPE] = sniffing.content_type(data)
            self._sniff = False
        if self._held is not None:
            self._held += data
            if len(self._held) < _GO_BUFFER:
                return
            data, self._held = bytes(self._held), None
        if not self._response.prepared:
            await self._response.prepare(self._request)
        await self._response.write(data)

    async def end(self) -> None:
        """Send what was held."""
        if self._held:
            await self._response.prepare(self._request)
            await self._response.write(bytes(self._held))


def _hang_up(request: web.Request) -> None:
    """End the client's connection as it is: a truncated body, or no answer at all."""
    if request.transport is not None:
        request.transport.close()


def connect_error(error: BaseException, url: URL) -> str:
    """Go's words for a runner that can't be reached or doesn't answer."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    address = f"{url.host}:{url.port}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {url.host}: no such host"
    malformed = (
        re.search(r"b'([^']*)'", str(error)) if isinstance(error, aiohttp.ClientResponseError) else None
    )
    if malformed:
        return f'net/http: HTTP/1.x transport connection broken: malformed HTTP response "{malformed[1]}"'
    number = cause.errno if isinstance(cause, OSError) else None
    if number is None:
        return str(error) or type(error).__name__
    words = {errno.ECONNREFUSED: "connection refused", errno.ECONNRESET: "connection reset by peer"}
    text = words.get(number, os.strerror(number).lower())
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"dial tcp {address}: connect: {text}"
    return f"read tcp {url.host}:0->{address}: read: {text}"
