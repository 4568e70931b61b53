"""One port for HTTP/1.1 and gRPC: who a connection is for is known from its ALPN, or from its first bytes.

go-livepeer speaks HTTP/2 with everyone who offers it. Here HTTP/2 is gRPC's alone: a client that offers
HTTP/1.1, too, is given that.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import cast

__all__ = ["ALPN", "OnePort"]

ALPN = ("http/1.1", "h2")  # in the server's order of preference
_PREFACE = b"PRI * HTTP/2.0"  # how HTTP/2 begins where there is no ALPN
_TOO_MUCH = 256 * 1024  # bytes on their way to a side before the other side is no longer read


class OnePort:
    """Makes the protocol of each connection that comes in.

    Args:
        http: Makes one for HTTP/1.1.
        rpc: Starts the gRPC server, and says on which loopback port it listens; asked at the first call.
    """

    def __init__(self, http: Callable[[], asyncio.Protocol], rpc: Callable[[], Awaitable[int]]) -> None:
        self.http = http
        self._rpc = rpc
        self._port: asyncio.Task[int] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.Transport] = set()

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a connection that comes in."""
        return _Newcomer(self)

    async def rpc_port(self) -> int:
        """Where the gRPC server is; it starts at the first question."""
        if self._port is None:
            self._port = asyncio.ensure_future(self._started())
        return await asyncio.shield(self._port)

    def carry(self, client: asyncio.Transport, begun: bytes = b"") -> None:
        """Lead a connection to the gRPC server."""
        client.pause_reading()
        task = asyncio.get_running_loop().create_task(self._carry(client, begun))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def opened(self, transport: asyncio.Transport) -> None:
        """Remember a connection that HTTP's own server doesn't know."""
        self._open.add(transport)

    def closed(self, transport: asyncio.Transport) -> None:
        """Forget it."""
        self._open.discard(transport)

    def abort(self) -> None:
        """Cut these connections."""
        for task in self._tasks:
            task.cancel()
        for transport in tuple(self._open):
            transport.abort()

    async def _started(self) -> int:
        return await self._rpc()

    async def _carry(self, client: asyncio.Transport, begun: bytes) -> None:
        outer = _Side(self)
        client.set_protocol(outer)
        outer.connection_made(client)
        loop = asyncio.get_running_loop()
        try:
            port = await self.rpc_port()
            inner_transport, inner = await loop.create_connection(lambda: _Side(self), "127.0.0.1", port)
        except BaseException as error:
            client.abort()  # whatever it was, nobody will answer this client
            if isinstance(error, OSError):
                return
            raise
        outer.peer, inner.peer = inner_transport, client
        if outer.lost:
            inner_transport.abort()
            return
        if begun:
            inner_transport.write(begun)
        client.resume_reading()


class _Newcomer(asyncio.Protocol):
    """A connection of which nobody knows yet who it is for."""

    def __init__(self, port: OnePort) -> None:
        self._owner = port
        self._transport: asyncio.Transport | None = None
        self._begun = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if tls is None:
            self._owner.opened(self._transport)
        elif tls.selected_alpn_protocol() == "h2":
            self._owner.carry(self._transport)
        else:
            self._to_http()

    def data_received(self, data: bytes) -> None:
        self._begun += data
        assert self._transport is not None
        if self._begun.startswith(_PREFACE):
            self._owner.carry(self._transport, self._begun)
        elif not _PREFACE.startswith(self._begun):
            self._owner.closed(self._transport)
            self._to_http().data_received(self._begun)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._owner.closed(self._transport)

    def _to_http(self) -> asyncio.Protocol:
        assert self._transport is not None
        http = self._owner.http()
        self._transport.set_protocol(http)
        http.connection_made(self._transport)
        return http


class _Side(asyncio.Protocol):
    """One of the two connections of a gRPC client: what comes goes to the other."""

    def __init__(self, port: OnePort) -> None:
        self._owner = port
        self._transport: asyncio.Transport | None = None
        self.peer: asyncio.Transport | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_TOO_MUCH)
        self._owner.opened(self._transport)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None:
            self.peer.write(data)

    def pause_writing(self) -> None:
        if self.peer is not None:
            self.peer.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and not self.peer.is_closing():
            self.peer.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._transport is not None:
            self._owner.closed(self._transport)
        if self.peer is not None:
            self.peer.close()
