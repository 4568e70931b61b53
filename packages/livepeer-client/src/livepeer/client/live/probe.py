"""Asking the worker of a session whether it is there.

An orchestrator notices a dead worker only when its heartbeats have stayed away for 20 seconds, but an HTTP
request through the session shows it at once: the orchestrator answers 502 itself (go-livepeer v0.9.1,
``server/ai_http.go``). Any other answer, a worker's 404 for a path that it doesn't have too, means that it is
alive.
"""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING

from .._urls import join_path
from ..errors import ConnectionFailed, LivepeerError, OrchestratorError, StreamError
from ..routes._verdict import verdict

if TYPE_CHECKING:
    from livepeer.trickle import Transport

    from ..routes import Started

__all__ = ["Health", "probe"]

_PATH = "/health"
_PATIENCE = 1.5  # seconds for an answer
_LOOK = 4096  # bytes of an answer that are read
_TRIES = 3  # a connection may break once; one that is refused again and again has nobody at its end
_PAUSE = 0.2  # seconds


class Health(enum.Enum):
    """What became of the question."""

    ALIVE = "the worker answers"
    MUTE = "the worker doesn't answer, the orchestrator does"
    UNREACHABLE = "nobody answers, and nobody refuses"
    WORKER_GONE = "the orchestrator can't reach the worker"
    SESSION_GONE = "the orchestrator knows no such session"
    LOST = "the orchestrator refuses the connection, or is another one"


async def probe(transport: Transport, session: Started) -> Health:
    """Ask; takes three seconds at most, and a few milliseconds when somebody is there."""
    health = Health.ALIVE
    for attempt in range(_TRIES):
        if attempt:
            await asyncio.sleep(_PAUSE)
        health, sure = await _ask(transport, session)
        if sure:
            break
    if health is Health.MUTE and not await _orchestrator_answers(transport, session):
        return Health.UNREACHABLE
    return health


async def _ask(transport: Transport, session: Started) -> tuple[Health, bool]:
    """The health, and whether to believe it at once."""
    from .._http import translated

    url = join_path(session.app_url, _PATH)
    try:
        with translated(url):
            async with asyncio.timeout(_PATIENCE), transport.request("GET", url) as answer:
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


async def _orchestrator_answers(transport: Transport, session: Started) -> bool:
    """Whether the orchestrator itself answers, where no worker is asked."""
    from .._http import translated

    url = next((f"{url}/next" for url in session.urls.values()), session.orchestrator)
    try:
        with translated(url):
            async with asyncio.timeout(_PATIENCE), transport.request("GET", url):
                return True
    except LivepeerError:
        return False
