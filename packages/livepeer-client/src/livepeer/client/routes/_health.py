"""Asking whether a session and its worker are there.

An orchestrator notices a dead live runner only when its heartbeats have stayed away for 20 seconds, but an
HTTP request through the session shows it at once: the orchestrator answers 502 itself (go-livepeer v0.9.1,
``server/ai_http.go``). Any other answer, a worker's 404 for a path that it doesn't have too, means that it is
alive. Where no request reaches the worker (BYOC, LV2V) the session's channels tell whether the orchestrator
still has it, and nothing tells of the worker but its silence.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from .._urls import join_path
from ..errors import ConnectionFailed, LivepeerError, OrchestratorError, StreamError
from ._verdict import verdict

if TYPE_CHECKING:
    from livepeer.trickle import Transport

    from . import Started

__all__ = ["Health", "ask_channels", "ask_worker"]

_PATH = "/health"
_PATIENCE = 1.5  # seconds for an answer
_LOOK = 4096  # bytes of an answer that are read
_TRIES = 3  # a connection may break once; one that is refused again and again has nobody at its end
_PAUSE = 0.2  # seconds
_ROLES = ("control", "subscribe", "publish", "events", "data")  # the one that is kept alive from here first


class Health(enum.Enum):
    """What became of the question."""

    ALIVE = "the worker answers"
    MUTE = "the worker doesn't answer, the orchestrator does"
    UNREACHABLE = "nobody answers, and nobody refuses"
    WORKER_GONE = "the orchestrator can't reach the worker"
    SESSION_GONE = "the orchestrator knows no such session"
    LOST = "the orchestrator refuses the connection, or is another one"


async def ask_worker(transport: Transport, session: Started) -> Health:
    """Ask the worker; takes three seconds at most, and a few milliseconds when somebody is there."""
    health = await _until_sure(transport, session, _ask)
    if health is Health.MUTE and not await _orchestrator_answers(transport, session):
        return Health.UNREACHABLE
    return health


async def ask_channels(transport: Transport, session: Started) -> Health:
    """Ask the orchestrator for the session's channels, where no request reaches the worker."""
    return await _until_sure(transport, session, _ask_channels)


async def _until_sure(
    transport: Transport,
    session: Started,
    ask: Callable[[Transport, Started], Awaitable[tuple[Health, bool]]],
) -> Health:
    health, refused = Health.ALIVE, False
    for attempt in range(_TRIES):
        if attempt:
            await asyncio.sleep(_PAUSE)
        health, sure = await ask(transport, session)
        if sure:
            break
        refused = refused or health is Health.LOST
    # Who refused a moment ago and now knows no such session was started anew.
    return Health.LOST if refused and health is Health.SESSION_GONE else health


async def _ask(transport: Transport, session: Started) -> tuple[Health, bool]:
    """The health, and whether to believe it at once."""
    from .._http import translated

    url = join_path(session.app_url, _PATH)
    try:
        with translated(url):
            async with asyncio.timeout(_PATIENCE), await transport.send("GET", url) as answer:
                if answer.status not in (404, 502):
                    return Health.ALIVE, True
                body = await answer.content.read(_LOOK)
    except LivepeerError as error:
        if isinstance(error, ConnectionFailed):
            return Health.LOST, False
        # A worker that dies under the question leaves a broken answer; who is late says nothing.
        return (Health.WORKER_GONE, False) if isinstance(error, StreamError) else (Health.MUTE, True)
    told = verdict(
        answer.status, answer.headers, body, capability=session.app, orchestrator="", request_id=""
    )
    if not isinstance(told, OrchestratorError):
        return Health.ALIVE, True
    if told.status == 404:
        return Health.SESSION_GONE, True
    return Health.WORKER_GONE, "connection refused" in told.body


async def _ask_channels(transport: Transport, session: Started) -> tuple[Health, bool]:
    """The session is there while one of its channels is; somebody may have closed the others."""
    from .._http import translated

    for role in _ROLES:
        url = session.urls.get(role)
        if url is None:
            continue
        try:
            with translated(url):
                async with asyncio.timeout(_PATIENCE), await transport.send("GET", f"{url}/next") as answer:
                    if answer.status != 404:
                        return Health.ALIVE, True
        except LivepeerError as error:
            return (Health.LOST, False) if isinstance(error, ConnectionFailed) else (Health.UNREACHABLE, True)
    return Health.SESSION_GONE, True


async def _orchestrator_answers(transport: Transport, session: Started) -> bool:
    """Whether the orchestrator itself answers, where no worker is asked."""
    from .._http import translated

    url = next((f"{url}/next" for url in session.urls.values()), session.orchestrator)
    try:
        with translated(url):
            async with asyncio.timeout(_PATIENCE), await transport.send("GET", url):
                return True
    except LivepeerError:
        return False
