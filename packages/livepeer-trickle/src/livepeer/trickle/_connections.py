"""The keep-alive connections of one event loop to the servers of channels: made, pinned, kept and closed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from yarl import URL

from ._connection import Connection
from ._exchange import ConnectFailed, Exchange, ExchangeClosed
from ._proxies import open_tunnel, proxy_for
from ._sockets import dial

if TYPE_CHECKING:
    from .transport import TLSPolicy

__all__ = ["Connections", "Origin"]

_CONNECT = 10.0  # seconds for a connection, TLS included
_BUFFER = 128 * 1024  # bytes that are read at once
_IDLE = 20.0  # seconds after which an idle connection isn't used again: servers close them too


class Origin:
    """A server, and the headers that every request to it has.

    Args:
        url: Any URL there.
        user_agent: What requests call themselves.
    """

    def __init__(self, url: URL, user_agent: str) -> None:
        self.url: URL = url.origin()
        self.host: str = url.host or ""
        self.port: int = url.port or (443 if url.scheme == "https" else 80)
        self.key: tuple[str, str, int] = (url.scheme, self.host, self.port)
        agent = f"User-Agent: {user_agent}\r\n"
        self.fields: bytes = f" HTTP/1.1\r\nHost: {self.url.authority}\r\n{agent}".encode()
        self.certificate: bytes | None = None
        """The server's, at the first connection that a request went over."""

    def takes(self, certificate: bytes | None) -> bool:
        """Whether a server with this certificate is the one of the first connection, if there was one.

        A channel doesn't survive its server: one that was started anew, whose certificate others may have
        accepted by now, would answer that there is no such channel, as if it had ended in order.
        """
        if self.certificate is None:
            self.certificate = certificate
        return self.certificate == certificate


class Connections:
    """Any number of connections; a request takes one that is idle, or makes one.

    Args:
        tls: Which certificates to accept.
        factory: Makes sockets, as `open_socket` does.
    """

    def __init__(self, tls: TLSPolicy, factory: Callable[[Any], socket.socket]) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.buffer: memoryview = memoryview(bytearray(_BUFFER))
        self._tls = tls
        self._factory = factory
        self._idle: dict[tuple[str, str, int], list[Connection]] = {}
        self._open: set[Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._pruning: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def busy(self) -> int:
        """How many connections carry an exchange, or are being made."""
        return len(self._open) + len(self._connecting) - sum(map(len, self._idle.values()))

    def start(
        self,
        origin: Origin,
        request: bytes,
        *,
        whole: bool,
        replay: bool = False,
        after: Exchange | None = None,
    ) -> Exchange:
        """Send a request; returns at once.

        Args:
            origin: The server.
            request: Its head and what is there of its body.
            whole: Whether that is all of it; else `Exchange.write` and `Exchange.end` bring the rest.
            replay: Whether it may be sent once more, when an idle connection turns out to be closed.
            after: A request on whose connection this one follows, if it can.
        """
        exchange = Exchange(self.loop, replay=request if replay else None)
        exchange.write(request)
        exchange.request_ended = whole
        if after is None or not after.follow(exchange):
            self._carry(origin, exchange)
        return exchange

    def restart(self, origin: Origin, exchange: Exchange, *, after: Exchange | None = None) -> None:
        """Send a request once more, on a connection made for it, or behind another that is sent once more."""
        assert exchange.replay is not None
        exchange.write(exchange.replay)
        exchange.replay = None
        if after is None or not after.follow(exchange):
            self._connect(origin, exchange)

    def release(self, connection: Connection) -> None:
        """A connection is idle."""
        connection.idle_since = self.loop.time()
        self._idle.setdefault(connection.origin.key, []).append(connection)
        if self._pruning is None:
            self._pruning = self.loop.call_later(_IDLE, self._prune)

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self._open.discard(connection)
        idle = self._idle.get(connection.origin.key, ())
        if connection in idle:
            self._idle[connection.origin.key].remove(connection)

    async def aclose(self) -> None:
        """Close every connection; its socket closes in the loop's next turns."""
        self._closed = True
        if self._pruning is not None:
            self._pruning.cancel()
        for connection in self._open:
            connection.abort()
        connecting = tuple(self._connecting)
        for task in connecting:
            task.cancel()
        await asyncio.gather(*connecting, return_exceptions=True)

    def _carry(self, origin: Origin, exchange: Exchange) -> None:
        idle = self._idle.get(origin.key)
        while idle:
            connection = idle.pop()
            if connection.is_open and self.loop.time() - connection.idle_since < _IDLE:
                if not origin.takes(connection.certificate):
                    idle.append(connection)
                    break
                connection.begin(exchange)
                return
            connection.abort()
        self._connect(origin, exchange)

    def _connect(self, origin: Origin, exchange: Exchange) -> None:
        if self._closed:
            exchange.fail(ExchangeClosed("the transport is closed"))
            return
        task = self.loop.create_task(self._make(origin, exchange), name="trickle-connect")
        exchange.connecting = task
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _make(self, origin: Origin, exchange: Exchange) -> None:
        connection = Connection(self, origin)
        try:
            async with asyncio.timeout(_CONNECT):
                await self._open_to(origin, connection)
        except asyncio.CancelledError:
            connection.abort()
            exchange.fail(ExchangeClosed("the transport is closed"))
            raise
        except TimeoutError:
            connection.abort()
            exchange.fail(ConnectFailed(f"no connection within {_CONNECT:g} s"))
        except OSError as error:
            connection.abort()
            failed = ConnectFailed(error.strerror or str(error) or type(error).__name__)
            failed.__cause__ = error
            exchange.fail(failed)
        except Exception as error:  # a certificate that isn't the pinned one, among others
            connection.abort()
            exchange.fail(error)
        else:
            self._open.add(connection)
            if exchange.error is None:
                connection.begin(exchange)
            else:
                self.release(connection)

    async def _open_to(self, origin: Origin, connection: Connection) -> None:
        context, check = None, None
        if origin.url.scheme == "https":
            context, check = self._tls.context_for(origin.host, origin.port, expected=origin.certificate)
        proxy = proxy_for(origin.url)
        if proxy is None:
            opened = await dial(origin.host, origin.port, self._factory)
        else:
            opened = await open_tunnel(URL(proxy), origin.host, origin.port, self._factory)
        transport, _ = await self.loop.create_connection(
            lambda: connection, sock=opened, ssl=context, server_hostname=origin.host if context else None
        )
        if check is not None:
            check(transport)
            connection.certificate = self._tls.pinned(origin.host, origin.port)
            origin.takes(connection.certificate)

    def _prune(self) -> None:
        self._pruning = None
        now = self.loop.time()
        for key, idle in list(self._idle.items()):
            for connection in [one for one in idle if now - one.idle_since >= _IDLE]:
                idle.remove(connection)
                connection.abort()
            if not idle:
                del self._idle[key]
        left = [one.idle_since for idle in self._idle.values() for one in idle]
        if left:
            self._pruning = self.loop.call_at(min(left) + _IDLE, self._prune)
