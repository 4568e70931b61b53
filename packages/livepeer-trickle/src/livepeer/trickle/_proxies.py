"""Proxies: which one the system's settings name, and a connection through it (CONNECT)."""

from __future__ import annotations

import asyncio
import base64
import socket
import urllib.request
from collections.abc import Callable
from typing import Any

from yarl import URL

from ._exchange import ConnectFailed
from ._sockets import dial

__all__ = ["open_tunnel", "proxy_for"]

_MAX_HEAD = 64 * 1024


def proxy_for(url: URL) -> str | None:
    """The proxy that the system's settings name for this URL; none for loopback."""
    host = url.host or ""
    if host == "localhost" or host.startswith("127.") or host == "::1":
        return None
    scheme = {"ws": "http", "wss": "https"}.get(url.scheme, url.scheme)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(host):
        return None
    return proxy


async def open_tunnel(
    proxy: URL, host: str, port: int, factory: Callable[[Any], socket.socket]
) -> socket.socket:
    """A connected socket at whose other end the server is.

    Raises:
        ConnectFailed: The proxy refuses, or is none.
        OSError: The proxy can't be reached.
    """
    if proxy.scheme != "http" or proxy.host is None:
        raise ConnectFailed(f"the proxy {proxy.host} is no http:// one, which is what can be used here")
    opened = await dial(proxy.host, proxy.port or 80, factory)
    try:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(opened, _request(proxy, host, port))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            # Byte by byte at its end: what follows belongs to the server.
            received = await loop.sock_recv(opened, 1)
            if not received or len(head) > _MAX_HEAD:
                raise ConnectFailed(f"the proxy {proxy.host} gave no answer")
            head += received
        if head.split(b" ", 2)[1:2] != [b"200"]:
            said = head.split(b"\r\n", 1)[0].decode("latin-1")
            raise ConnectFailed(f"the proxy {proxy.host} refused: {said}")
    except BaseException:
        opened.close()
        raise
    return opened


def _request(proxy: URL, host: str, port: int) -> bytes:
    where = f"{host}:{port}"
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
    if proxy.user is not None:
        secret = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {secret}")
    return "\r\n".join([*lines, "", ""]).encode()
