"""A request's body on its way to a runner.

Go's HTTP/1.1 server sends no answer while the body is still coming: before the head it waits for the reader
of the body and swallows what is left of it (Go 1.25, ``server.go``, ``cw.writeHeader``). So a runner that
answers early is heard when the client has sent everything. Real orchestrators can lose data of such a
request, and the answer's end with it; that much isn't copied here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

__all__ = ["Upload", "whole"]

_SWALLOWED = 256 << 10  # bytes of an unread body that Go reads before it answers
_STUCK = 0.05  # seconds in which a runner that reads at all takes a piece


async def whole(request: web.Request) -> bytes:
    """A body of any size, whole; who waits for a 100 gets it now."""
    pieces = Upload(request).data()
    return b"" if pieces is None else b"".join([piece async for piece in pieces])


class Upload:
    """The body of one request.

    Args:
        request: The client's request.
    """

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._over = not request.body_exists or request.headers.get("Content-Length") == "0"
        self._waiting = False  # for the client, not for the runner
        self._moved = asyncio.Event()

    def data(self) -> AsyncIterator[bytes] | None:
        """The pieces as they come; None when the request has no body."""
        return None if self._over else self._pieces()

    async def settle(self, upstream: aiohttp.ClientResponse) -> None:
        """Wait until the body is over, or until a runner that is still answering takes no more of it."""
        while not self._over and upstream.connection is not None:
            self._moved.clear()
            try:
                async with asyncio.timeout(_STUCK):
                    await self._moved.wait()
            except TimeoutError:
                if not self._waiting and upstream.connection is not None:
                    return
        left, content = _SWALLOWED, self._request.content
        while left > 0 and not content.at_eof():
            left -= len(await content.readany())

    async def _pieces(self) -> AsyncIterator[bytes]:
        request = self._request
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            # Only now: a refusal comes before the body.
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            while True:
                self._waiting = True
                piece = await request.content.readany()
                self._waiting = False
                self._moved.set()
                if not piece:
                    return
                yield piece
        finally:
            self._over = True
            self._moved.set()
