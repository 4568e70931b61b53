"""Connected sockets that notice when their peer has vanished: TCP keep-alive is on."""

from __future__ import annotations

import asyncio
import select
import socket
import sys
from collections.abc import Callable
from typing import Any

from ._lookups import Lookups

__all__ = ["CONNECT_PATIENCE", "KEPT", "dial", "is_stale", "open_socket"]

CONNECT_PATIENCE = 10.0
"""Seconds for a connection, its name's lookup and TLS included, where a request names no limit."""

KEPT = 20.0
"""Seconds that an idle connection is kept: less than servers do. An orchestrator keeps it 10 minutes
(``HTTPIdleTimeout`` of go-livepeer v0.9.1), proxies before it about 60 s."""


async def dial(
    host: str, port: int, factory: Callable[[Any], socket.socket], lookups: Lookups | None = None
) -> socket.socket:
    """A socket connected to a host: its addresses are tried side by side. Raises `OSError`."""
    found = await (lookups or Lookups()).addresses(host, port)
    if len(found) == 1:
        return await _connect(found[0], factory)
    import aiohappyeyeballs  # loaded where there is something to choose

    connected: socket.socket = await aiohappyeyeballs.start_connection(
        found, happy_eyeballs_delay=0.25, interleave=1, socket_factory=factory
    )
    return connected


async def _connect(address: Any, factory: Callable[[Any], socket.socket]) -> socket.socket:
    opened = factory(address)
    try:
        opened.setblocking(False)
        await asyncio.get_running_loop().sock_connect(opened, address[4])
    except BaseException:
        opened.close()
        raise
    return opened


def open_socket(address: Any) -> socket.socket:
    """A socket with TCP keep-alive, so that a peer which vanished ends a silent long poll."""
    family, kind, proto, _, _ = address
    opened = socket.socket(family=family, type=kind, proto=proto)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
    return opened


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
