"""HTTP connections that are used again, as long as their server hasn't closed them.

A request that is written to a connection which the server has just closed fails, and nobody can tell from
here whether it was read before. What can be told is whether the server had closed it already: that is in the
socket, even when the event loop had no turn to look (a loop that runs for each call only, code that blocks).
"""

from __future__ import annotations

import asyncio
import select
import sys
import weakref
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

__all__ = ["KEPT", "Connector", "is_stale"]

KEPT = 20.0
"""Seconds that an idle connection is kept: less than servers do. An orchestrator keeps it 10 minutes
(``HTTPIdleTimeout`` of go-livepeer v0.9.1), proxies before it about 60 s."""


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


def is_stale(transport: asyncio.BaseTransport | None) -> bool:
    """Whether an idle connection was closed by its peer, or has something to read that nobody asked for."""
    opened = transport.get_extra_info("socket") if transport is not None else None
    descriptor = opened.fileno() if opened is not None else -1
    if descriptor < 0:
        return True
    if sys.platform == "win32":  # has no poll; elsewhere select can't take large numbers
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
