"""Names to addresses, each in a daemon thread of its own.

asyncio looks names up in the loop's default executor. One of its few threads is taken for as long as a name
server doesn't answer, which holds up every other lookup; and an interpreter that exits, or an `asyncio.run`
that ends, waits for all of them. Nobody waits for a daemon thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

__all__ = ["Resolver", "look_up"]

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
_CONFIGURED = getattr(socket, "AI_ADDRCONFIG", 0)  # no addresses of families that this machine doesn't have


async def look_up(host: str, port: int) -> list[Any]:
    """The addresses of a host, as `socket.getaddrinfo` has them; raises `socket.gaierror`."""
    with contextlib.suppress(socket.gaierror):
        # An address is no name, and takes no time.
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return await _in_a_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


class Resolver(AbstractResolver):
    """The same for aiohttp, which asks once for many requests, and keeps what it is told for a while."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host."""
        return await _in_a_thread(lambda: _resolve(host, port, family))

    async def close(self) -> None:
        """Nothing is kept."""


def _resolve(host: str, port: int, family: int) -> list[ResolveResult]:
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=_CONFIGURED)
    except socket.gaierror:
        if host.rstrip(".").lower() != "localhost":
            raise
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)  # without any network
    results = []
    for kind, _, proto, _, address in found:
        # By this, a link-local address keeps its interface.
        numeric, _ = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        results.append(
            ResolveResult(hostname=host, host=numeric, port=port, family=kind, proto=proto, flags=_NUMERIC)
        )
    return results


async def _in_a_thread(function: Callable[[], list[Any]]) -> list[Any]:
    """Call a function in a daemon thread; a caller that is cancelled leaves it there."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Any]] = loop.create_future()

    def settle(result: list[Any] | None, error: Exception | None) -> None:
        if future.done():
            return  # nobody waits any more
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result or [])

    def work() -> None:
        result: list[Any] | None = None
        error: Exception | None = None
        try:
            result = function()
        except Exception as failure:
            error = failure
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name="livepeer-lookup", daemon=True).start()
    return await future
