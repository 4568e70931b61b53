"""HTTP inside a live session: requests to the worker's own paths."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._urls import check_path, join_path
from ..inputs import encode_input
from ..results import Response, decode

if TYPE_CHECKING:
    from livepeer.trickle import Transport

    from ..routes import Started

__all__ = ["session_request"]


async def session_request(
    transport: Transport,
    session: Started,
    method: str,
    path: str,
    *,
    input: Any,
    headers: Mapping[str, str] | None,
    request_id: str,
) -> Response:
    """Send one request below the session's app, and decode its answer."""
    from .._http import translated
    from ..routes._verdict import verdict

    url = join_path(session.app_url, check_path(path))
    sent = {**(headers or {}), "X-Request-Id": request_id}
    body = None
    if input is not None:
        encoded = encode_input(input)
        body = encoded.content
        sent.setdefault("Content-Type", encoded.content_type)
    began = time.monotonic()
    with translated(url, orchestrator=session.orchestrator, request_id=request_id):
        async with transport.request(method, url, data=body, headers=sent) as answer:
            content = await answer.read()
    if not 200 <= answer.status < 300:
        raise verdict(
            answer.status,
            answer.headers,
            content,
            capability=session.app,
            orchestrator=session.orchestrator,
            request_id=request_id,
        )
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
