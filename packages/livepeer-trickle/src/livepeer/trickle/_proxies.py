"""Proxies: which one the system's settings name, and a connection through it (CONNECT)."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

from ._exchange import ConnectFailed
from ._sockets import dial

__all__ = ["Proxy", "open_tunnel", "proxy_for"]

_MAX_HEAD = 64 * 1024


class _Place(Protocol):
    """A `Target` of ours, or a URL of yarl."""

    @property
    def scheme(self) -> str: ...
    @property
    def host(self) -> str | None: ...


class Proxy:
    """A proxy; `authorization` is the value of its header, "" for none."""

    __slots__ = ("authorization", "host", "port")

    def __init__(self, host: str, port: int, authorization: str = "") -> None:
        self.host: str = host
        self.port: int = port
        self.authorization: str = authorization

    @classmethod
    @lru_cache(maxsize=64)
    def of(cls, url: str) -> Proxy:
        """The proxy of a URL; of one URL always the same object.

        Raises:
            ConnectFailed: It is none that can be used here.
        """
        from yarl import URL

        read = URL(url)
        if read.scheme != "http" or read.host is None:
            raise ConnectFailed(f"the proxy {read.host} is no http:// one, which is what can be used here")
        secret = base64.b64encode(f"{read.user}:{read.password or ''}".encode()).decode()
        return cls(read.host, read.port or 80, f"Basic {secret}" if read.user is not None else "")


def proxy_for(url: _Place) -> str | None:
    """The proxy that the system's settings name for this URL; none for loopback."""
    host = url.host or ""
    if host == "localhost" or host.startswith("127.") or host == "::1":
        return None
    if sys.platform not in ("darwin", "win32") and not any(
        name.lower().endswith("_proxy") for name in os.environ
    ):
        return None
    import urllib.request  # it takes long to load, and most have no proxy

    scheme = {"ws": "http", "wss": "https"}.get(url.scheme, url.scheme)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(host):
        return None
    return proxy


async def open_tunnel(
    proxy: Proxy, host: str, port: int, factory: Callable[[Any], socket.socket]
) -> socket.socket:
    """A connected socket at whose other end the server is.

    Raises:
        ConnectFailed: The proxy refuses, or is none.
        OSError: The proxy can't be reached.
    """
    opened = await dial(proxy.host, proxy.port, factory)
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


def _request(proxy: Proxy, host: str, port: int) -> bytes:
    where = f"{host}:{port}"
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode()
