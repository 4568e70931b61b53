"""The gateway's connections: one `Transport` per event loop, and what their failures are called."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from livepeer.trickle.transport import CertificateChanged, TLSPolicy, Transport, hang_up

from ._fork import abandon, on_fork
from ._urls import redact
from ._version import __version__
from .errors import (
    ConfigurationError,
    ConnectionFailed,
    ConnectTimeout,
    IdleTimeout,
    LivepeerError,
    ResponseError,
    StreamError,
)

__all__ = ["Pool", "running_loop", "translated"]


class Pool:
    """A `Transport` for each event loop that a gateway is used on.

    Each is held by an asynchronous generator that was started on its loop: `asyncio.run` ends those before
    it closes the loop, so nobody has to close a gateway.
    """

    def __init__(self, tls: TLSPolicy) -> None:
        self.tls = tls
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _OnLoop] = (
            weakref.WeakKeyDictionary()
        )
        on_fork(self)

    async def transport(self) -> Transport:
        """The transport of the running loop."""
        loop = running_loop()
        mine = self._loops.get(loop)
        if mine is None:
            answers: weakref.WeakSet[aiohttp.ClientResponse] = weakref.WeakSet()
            held = _hold(self.tls, answers)
            mine = self._loops[loop] = _OnLoop(await anext(held), held, answers)
        return mine.transport

    def track(self, response: aiohttp.ClientResponse) -> None:
        """Close this answer with the connections of its loop, when nobody did before."""
        mine = self._loops.get(running_loop())
        if mine is not None:
            mine.answers.add(response)

    async def adopt(self, work: Coroutine[Any, Any, Any]) -> None:
        """Let work finish that its caller no longer waits for; `aclose` waits for it."""
        await self.transport()
        tasks = self._loops[running_loop()].tasks
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def aclose(self) -> None:
        """Wait for adopted work, and close the connections of the running loop."""
        mine = self._loops.pop(running_loop(), None)
        if mine is not None:
            await asyncio.gather(*mine.tasks, return_exceptions=True)
            await mine.held.aclose()

    def loops(self) -> list[asyncio.AbstractEventLoop]:
        """The loops with open connections."""
        return [loop for loop in list(self._loops) if not loop.is_closed()]

    def _after_fork(self) -> None:
        for loop, mine in list(self._loops.items()):
            abandon(loop)
            abandon(mine)
        self._loops = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class _OnLoop:
    """What a pool has on one loop."""

    transport: Transport
    held: AsyncGenerator[Transport, None]
    answers: weakref.WeakSet[aiohttp.ClientResponse]
    tasks: set[asyncio.Future[Any]] = field(default_factory=set)


async def _hold(
    tls: TLSPolicy, answers: weakref.WeakSet[aiohttp.ClientResponse]
) -> AsyncGenerator[Transport, None]:
    transport = Transport(tls=tls, user_agent=f"livepeer-client/{__version__}")
    try:
        yield transport
    finally:
        for answer in list(answers):
            hang_up(answer)
        await transport.aclose()


def running_loop() -> asyncio.AbstractEventLoop:
    """The running asyncio loop.

    Raises:
        ConfigurationError: There is none: the caller runs on another library's loop, such as trio's.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "The asynchronous verbs need a running asyncio event loop, and there is none here.",
            hint="Under trio, call the synchronous verb in a thread: "
            "await trio.to_thread.run_sync(functools.partial(gw.run, …)).",
        ) from None


@contextlib.contextmanager
def translated(where: str, **details: Any) -> Iterator[None]:
    """Raise this SDK's error for whatever aiohttp, ssl or the socket raises inside.

    Args:
        where: The URL that is called.
        details: `request_id` and `orchestrator` for the error.
    """
    try:
        yield
    except (aiohttp.ClientError, OSError, ValueError, asyncio.IncompleteReadError) as error:
        if isinstance(error, LivepeerError):
            raise
        raise as_livepeer_error(error, redact(where), **details) from error


def as_livepeer_error(error: Exception, where: str, **details: Any) -> LivepeerError:
    """What this SDK calls an error of the libraries below it."""
    match error:
        case CertificateChanged():
            return ConnectionFailed(
                f"The certificate of {where} is not the one that was pinned; nothing was sent.",
                hint="An orchestrator makes a certificate at each start, so this may be a restart: a call "
                "that begins now accepts it, unless tls='pin-strict'.",
                retryable=True,
                **details,
            )
        case aiohttp.ConnectionTimeoutError():
            return ConnectTimeout(f"No connection to {where} in time.", retryable=True, **details)
        case aiohttp.ServerTimeoutError() | TimeoutError():
            return IdleTimeout(f"{where} sent nothing for too long.", **details)
        case aiohttp.ClientConnectorDNSError():
            return ConnectionFailed(
                f"The host of {where} has no address: {error.os_error.strerror or error.os_error}.",
                hint="Check the URL for a typing mistake, and that this machine can resolve names.",
                **details,
            )
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            return ConnectionFailed(
                f"TLS with {where} failed: {error}.",
                hint="An http:// orchestrator called as https:// fails like this; so does tls='verify' with "
                "a certificate that the orchestrator signed itself.",
                **details,
            )
        case aiohttp.ClientConnectorError():
            reason = error.os_error.strerror or str(error.os_error)
            return ConnectionFailed(
                f"No connection to {where}: {reason}.",
                hint="Check that the orchestrator runs there and that the port is right.",
                retryable=True,
                **details,
            )
        case aiohttp.ClientPayloadError() | asyncio.IncompleteReadError():
            return StreamError(
                f"The answer of {where} broke off before its end.",
                hint="The worker, or the orchestrator before it, died or closed the connection.",
                **details,
            )
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return ConfigurationError(f"{where} is not a URL that can be called.", **details)
        case aiohttp.ClientResponseError():
            return ResponseError(f"The answer of {where} can't be read: {error.message}.", **details)
        case aiohttp.ClientError() | OSError():
            return ConnectionFailed(
                f"{where} closed the connection before it answered.",
                hint="Whether the work was done is unknown.",
                **details,
            )
    return ConfigurationError(f"The request to {where} can't be made: {error}.", **details)


def same_slash(sent: URL, location: str) -> URL | None:
    """Where a redirect leads, when it only adds the missing slash on the same origin; else None."""
    target = sent.join(URL(location))
    if target.origin() == sent.origin() and target.path == sent.path + "/" and target.query == sent.query:
        return target
    return None
