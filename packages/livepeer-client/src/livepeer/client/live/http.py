"""HTTP inside a live session: requests to the worker's own paths."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

from .._urls import check_path, join_path
from ..errors import CapabilityError, ConfigurationError
from ..inputs import encode_input
from ..results import Response, decode

if TYPE_CHECKING:
    import aiohttp

    from livepeer.trickle import Transport

    from .._http import Pool
    from ..routes import Started

__all__ = ["SessionSocket", "session_request"]


class SessionSocket:
    """A WebSocket of a session; it opens when it is awaited or entered."""

    def __init__(
        self, transport: Transport, session: Started, path: str, *, request_id: str, pool: Pool
    ) -> None:
        self._transport = transport
        self._pool = pool
        self._session = session
        self._url = _url(session, path)
        self._request_id = request_id
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    def __await__(self) -> Generator[Any, None, aiohttp.ClientWebSocketResponse]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> aiohttp.ClientWebSocketResponse:
        import aiohttp

        from .._observing import asking

        options = self._transport.options_for(self._url)
        del options["allow_redirects"]
        details: dict[str, Any] = {
            "orchestrator": self._session.orchestrator,
            "request_id": self._request_id,
        }
        headers = {"X-Request-Id": self._request_id}
        with asking(self._pool, "session", "GET", self._url, **details) as answered:
            try:
                self._socket = await self._transport.session.ws_connect(self._url, headers=headers, **options)
                answered(101)
            except aiohttp.WSServerHandshakeError as error:
                answered(error.status)
                raise CapabilityError(
                    f"{self._session.app!r} answered {error.status} instead of opening a WebSocket.",
                    status=error.status,
                    **details,
                ) from error
        return self._socket

    async def __aexit__(self, *exc_info: object) -> None:
        if self._socket is not None:
            await self._socket.close()


async def session_request(
    transport: Transport,
    session: Started,
    method: str,
    path: str,
    *,
    input: Any,
    headers: Mapping[str, str] | None,
    request_id: str,
    pool: Pool,
    most: int | None,
) -> Response:
    """Send one request below the session's app, and decode its answer of at most `most` bytes."""
    from .._bodies import whole
    from .._observing import asking
    from ..routes._verdict import verdict

    url = _url(session, path)
    sent = {**(headers or {}), "X-Request-Id": request_id}
    body = None
    if input is not None:
        encoded = encode_input(input)
        body = encoded.content
        sent.setdefault("Content-Type", encoded.content_type)
    began = time.monotonic()
    details: dict[str, Any] = {"orchestrator": session.orchestrator, "request_id": request_id}
    with asking(pool, "session", method, url, **details) as answered:
        async with await transport.send(method, url, headers=sent, body=body, escaped=True) as answer:
            answered(answer.status)
            content = await whole(
                answer, most, f"The answer of {session.app!r}",
                hint="Gateway(max_response_bytes=…) takes more, or with None anything.", **details,
            )  # fmt: skip
        if not 200 <= answer.status < 300:
            raise verdict(answer.status, answer.headers, content, capability=session.app, **details)
    return Response(
        data=decode(content, answer.content_type, answer.charset),
        content_type=answer.content_type,
        headers=answer.headers,
        status=answer.status,
        orchestrator=session.orchestrator,
        app=session.app,
        price=None,
        cost=0,
        elapsed=time.monotonic() - began,
        request_id=request_id,
    )


def _url(session: Started, path: str) -> str:
    """Where a path of the worker is."""
    if not session.app_url:
        raise ConfigurationError(
            f"No HTTP request reaches the worker of {session.app!r}: this session has channels only.",
            hint="session.update() and session.control reach it; HTTP paths are for live runners.",
        )
    return join_path(session.app_url, check_path(path))
