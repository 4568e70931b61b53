"""One request on its way to a worker: its time limits, its one redirect, and an error's body."""

from __future__ import annotations

import asyncio
import logging
import ssl
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .._http import Pool, same_slash, translated
from .._observing import Observation
from .._urls import redact
from ..errors import FirstByteTimeout, LivepeerError
from . import Call

if TYPE_CHECKING:
    from livepeer.trickle._exchange import Exchange
    from livepeer.trickle.transport import Reply

__all__ = ["Judge", "send"]

Judge = Callable[[int, Mapping[str, str], bytes], LivepeerError]

_logger = logging.getLogger("livepeer.client")
_MAX_ERROR = 1024 * 1024  # bytes read of an error's body
_ERROR_PATIENCE = 5.0  # seconds for it, once its status is there


async def send(
    pool: Pool,
    url: str,
    call: Call,
    *,
    route: str,
    headers: Mapping[str, str],
    orchestrator: str,
    judge: Judge,
    control: bool = True,
    context: ssl.SSLContext | None = None,
    ahead: Exchange | None = None,
) -> tuple[Reply, Observation | None]:
    """Send a call's request, and return the response when its head is there.

    Args:
        pool: The gateway's connections.
        url: Where to, already escaped.
        call: What to send, and how long it may take.
        route: The route's name, for who observes.
        headers: Beside the body's content type.
        orchestrator: The orchestrator's URL, for errors.
        judge: Makes the error of an answer with a status outside of 200 to 299.
        control: Whether the request is none of the caller's own, and over for who observes with its head.
        context: How TLS is opened, where that isn't by the gateway's policy.
        ahead: A connection that was begun for it.

    Returns:
        The response; and who observes it, if somebody does, and has to be told of its end.
    """
    seen = pool.observer.begin(route, call.method, url, orchestrator=orchestrator, request_id=call.request_id)
    if seen is None:
        return (
            await _exchange(
                pool, url, call, headers, orchestrator, judge=judge, context=context, ahead=ahead
            ),
            None,
        )
    try:
        response = await _exchange(
            pool, url, call, headers, orchestrator, judge=judge, context=context, seen=seen, ahead=ahead
        )
    except BaseException as error:
        seen.end(error)
        raise
    if control:
        seen.end()
    return response, seen


async def _exchange(
    pool: Pool,
    url: str,
    call: Call,
    headers: Mapping[str, str],
    orchestrator: str,
    *,
    judge: Judge,
    context: ssl.SSLContext | None,
    seen: Observation | None = None,
    ahead: Exchange | None = None,
) -> Reply:
    details = {"orchestrator": orchestrator, "request_id": call.request_id}
    transport = await pool.transport()
    target = url
    sent = dict(headers)
    if call.method != "GET":
        sent["Content-Type"] = call.body.content_type
    with translated(url, connect=call.timeout.connect, **details):
        for _ in range(2):
            sending = transport.send(
                call.method,
                target,
                headers=sent,
                body=call.body.content if call.method != "GET" else None,
                escaped=True,
                fresh=call.paid,
                connect=call.timeout.connect,
                context=context,
                ahead=ahead,
            )
            ahead = None
            try:
                if call.timeout.first_byte is None:
                    response = await sending
                else:
                    async with asyncio.timeout(call.timeout.first_byte) as waiting:
                        response = await sending
            except TimeoutError as error:
                if call.timeout.first_byte is None or not waiting.expired():
                    raise
                raise FirstByteTimeout(
                    f"{call.capability!r} sent no answer within {call.timeout.first_byte} s.",
                    hint="Whether the work was done is unknown; Timeout(first_byte=…) allows it longer.",
                    waited=call.timeout.first_byte,
                    **details,
                ) from error
            # Only these two say that nothing was done yet; after any other, the worker may have worked.
            location = response.headers.get("Location", "") if response.status in (307, 308) else ""
            moved = same_slash(target, location) if location else None
            if moved is None:
                break
            response.release()
            target = moved
        if seen is not None:
            seen.answered(response.status)
        if 200 <= response.status < 300:
            return response
        try:
            content = await _read_up_to(response, _MAX_ERROR)
        finally:
            response.close()
    raise judge(response.status, response.headers, content)


async def _read_up_to(response: Reply, limit: int) -> bytes:
    """The beginning of a body; an error's is kept even when the connection breaks in its middle, or waits."""
    body = bytearray()
    try:
        async with asyncio.timeout(_ERROR_PATIENCE):
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) >= limit:
                    break
    except (OSError, zlib.error):  # a TimeoutError is an OSError
        _logger.debug("the body of an error from %s broke off", redact(response.url))
    return bytes(body[:limit])
