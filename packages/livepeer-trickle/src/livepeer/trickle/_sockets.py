"""Connected sockets that notice when their peer has vanished: TCP keep-alive is on."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import aiohappyeyeballs

from ._lookups import look_up

__all__ = ["dial", "open_socket"]


async def dial(host: str, port: int, factory: Callable[[Any], socket.socket]) -> socket.socket:
    """A socket connected to a host: its addresses are tried side by side. Raises `OSError`."""
    connected: socket.socket = await aiohappyeyeballs.start_connection(
        await look_up(host, port), happy_eyeballs_delay=0.25, interleave=1, socket_factory=factory
    )
    return connected


def open_socket(address: Any) -> socket.socket:
    """A socket with TCP keep-alive, so that a peer which vanished ends a silent long poll."""
    family, kind, proto, _, _ = address
    opened = socket.socket(family=family, type=kind, proto=proto)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
    return opened
