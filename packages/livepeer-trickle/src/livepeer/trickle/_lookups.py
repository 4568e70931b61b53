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

__all__ = ["Lookups", "in_a_thread"]

_KEPT = 10.0  # seconds that addresses are believed


class Lookups:
    """Addresses of hosts, each looked up once for all who want it at the same time, and kept for a while."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], tuple[float, asyncio.Future[list[Any]]]] = {}

    async def addresses(self, host: str, port: int) -> list[Any]:
        """The addresses of a host, as `socket.getaddrinfo` has them; raises `socket.gaierror`."""
        if ":" in host or not host.strip("0123456789."):
            with contextlib.suppress(socket.gaierror):
                # An address is no name, and takes no time.
                # In bytes, which Python doesn't take for a name to be encoded.
                return socket.getaddrinfo(
                    host.encode(), port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
                )
        loop = asyncio.get_running_loop()
        until, looking = self._found.get((host, port), (0.0, None))
        if looking is None or (looking.done() and (_failed(looking) or loop.time() > until)):
            looking = _start(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            self._found[host, port] = loop.time() + _KEPT, looking
        return await asyncio.shield(looking)


def _failed(future: asyncio.Future[list[Any]]) -> bool:
    return future.cancelled() or future.exception() is not None


async def in_a_thread(function: Callable[[], list[Any]]) -> list[Any]:
    """Call a function in a daemon thread; a caller that is cancelled leaves it there."""
    return await _start(function)


def _start(function: Callable[[], list[Any]]) -> asyncio.Future[list[Any]]:
    """Begin to call a function in a daemon thread; the running loop's future of what it returns."""
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
    return future
