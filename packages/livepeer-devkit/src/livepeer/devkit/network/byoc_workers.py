"""An orchestrator's requests to BYOC workers (``byoc/utils.go``, v0.9.1): POST, redirects, one time limit."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping

import aiohttp
from yarl import URL

from . import paths
from .byoc_registry import Capability
from .proxying import connect_error
from .validation import Refused

__all__ = ["WorkerFailed", "Workers", "authorization", "worker_url"]

_REDIRECTS = 10  # requests in a row, Go's limit
_TO_GET = (301, 302, 303)
_AGAIN = (307, 308)
_PIECE = 256 * 1024  # bytes that go out at once


class WorkerFailed(Exception):
    """A worker gave no answer; the text is Go's.

    Args:
        text: Why.
        late: Whether it only took too long.
    """

    def __init__(self, text: str, *, late: bool = False) -> None:
        super().__init__(text)
        self.late = late


class Workers:
    """The way to the workers: one pool of connections, which believes every certificate."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            # Shorter than a worker's own keep-alive, so that no request meets a connection being closed.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2, ssl=False),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Content-Type"),
            headers={"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
            trust_env=False,
            max_line_size=1 << 20,
            max_field_size=1 << 20,
        )

    async def aclose(self) -> None:
        """Close the pool."""
        await self._session.close()

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout: float
    ) -> aiohttp.ClientResponse:
        """Ask a worker, and follow where it sends; the answer with its body still to read.

        Args:
            url: Where, as `worker_url` makes it.
            body: The body.
            headers: Further headers.
            timeout: Seconds to wait for the answer's headers.

        Raises:
            WorkerFailed: There was no answer, or not in time.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._follow(url, body, dict(headers))
        except TimeoutError:
            raise WorkerFailed(f'Post "{url}": context canceled', late=True) from None

    async def _follow(
        self, address: str, body: bytes | None, headers: dict[str, str]
    ) -> aiohttp.ClientResponse:
        method, url = "POST", URL(address, encoded=True)
        for _ in range(_REDIRECTS):
            if url.scheme not in ("http", "https"):
                raise WorkerFailed(f'Post "{url}": unsupported protocol scheme "{url.scheme}"')
            if not url.host:
                raise WorkerFailed(f'Post "{url}": http: no Host in request URL')
            try:
                response = await self._session.request(
                    method, url, data=_payload(body), headers=headers, allow_redirects=False
                )
            except (aiohttp.ClientError, OSError) as error:
                raise WorkerFailed(f'Post "{url}": {connect_error(error, url)}') from None
            location = response.headers.get("Location")
            if response.status not in _TO_GET + _AGAIN or not location:
                return response
            response.close()
            if response.status in _TO_GET:
                method, body = "GET", None
                headers.pop("Content-Type", None)
            try:
                url = url.join(URL(location))
            except ValueError as error:
                text = f'failed to parse Location header "{location}": {error}'
                raise WorkerFailed(f'Post "{url}": {text}') from None
        raise WorkerFailed(f'Post "{location}": stopped after {_REDIRECTS} redirects')


def _payload(body: bytes | None) -> bytes | io.BytesIO | None:
    """A large body goes in pieces: whole it would keep everybody else waiting."""
    return io.BytesIO(body) if body and len(body) > _PIECE else body


def worker_url(capability: Capability, path: bytes) -> str:
    """The address of a worker's route; raises `Refused` when that is none.

    Args:
        capability: Whose worker.
        path: What comes behind its URL, without escapes; a ``?`` or ``#`` in it begins a query or is the end.
    """
    text = capability.url + path.decode("utf-8", "surrogateescape")
    shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    try:
        _ = URL(text, encoded=True).port  # a bad one shows only when it is read
    except ValueError as error:
        raise Refused(f'parse "{shown}": {error}', 500) from None
    start = text.find("/", text.find("://") + 3)
    if start < 0:
        return text
    rest, mark, query = text[start:].partition("#")[0].partition("?")
    try:
        plain = paths.unescape(rest)
    except paths.PathError as error:
        raise Refused(f'parse "{shown}": {error}', 500) from None
    return text[:start] + (rest if paths.valid_escaped(rest) else paths.escape(plain)) + mark + query


def authorization(capability: Capability | None) -> dict[str, str]:
    """What the orchestrator authenticates with at a worker that registered with a token."""
    return {"Authorization": f"Bearer {capability.token}"} if capability and capability.token else {}
