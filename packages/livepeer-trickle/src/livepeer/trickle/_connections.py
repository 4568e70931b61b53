"""The keep-alive connections of one event loop to its servers: made, pinned, kept and closed."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._connection import Connection
from ._exchange import ConnectFailed, ConnectTimedOut, Exchange, ExchangeClosed
from ._lookups import Lookups
from ._proxies import Proxy, open_tunnel, proxy_for
from ._sockets import CONNECT_PATIENCE, KEPT, dial
from ._targets import Target
from ._tls import CertificateChanged

if TYPE_CHECKING:
    from ._tls import TLSPolicy

__all__ = ["Connections", "Origin"]

Key = tuple[str, str, int, ssl.SSLContext | None, Proxy | None]

_BUFFER = 128 * 1024  # bytes that are read at once


class Origin:
    """A server, and the headers that every request to it has.

    Args:
        target: Any URL there.
        user_agent: What requests call themselves.
        context: How TLS is opened, where that isn't the pool's own way.
        via: A proxy that takes the requests themselves, instead of a tunnel.
        steady: Whether a server with another certificate is another one, whose answers mean nothing.
    """

    def __init__(
        self,
        target: Target,
        user_agent: str,
        *,
        context: ssl.SSLContext | None = None,
        via: Proxy | None = None,
        steady: bool = True,
    ) -> None:
        self.target: Target = target
        self.host: str = target.host
        self.port: int = target.port
        self.context: ssl.SSLContext | None = context
        self.via: Proxy | None = via
        self.key: Key = (target.scheme, self.host, self.port, context, via)
        agent = f"User-Agent: {user_agent}\r\n"
        self.fields: bytes = f" HTTP/1.1\r\nHost: {target.authority}\r\n{agent}".encode()
        self.certificate: bytes | None = None
        """The server's, at the first connection that a request went over."""
        self._steady = steady

    def takes(self, certificate: bytes | None) -> bool:
        """Whether a server with this certificate is the one of the first connection, if there was one.

        A channel doesn't survive its server: one that was started anew, whose certificate others may have
        accepted by now, would answer that there is no such channel, as if it had ended in order.
        """
        if not self._steady:
            return True
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
        self._lookups = Lookups()
        self._idle: dict[Key, list[Connection]] = {}
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
        fresh: bool = False,
        patience: float | None = CONNECT_PATIENCE,
        bodyless: bool = False,
    ) -> Exchange:
        """Send a request; returns at once.

        Args:
            origin: The server.
            request: Its head and what is there of its body.
            whole: Whether that is all of it; else `Exchange.write` and `Exchange.end` bring the rest.
            replay: Whether it may be sent once more, when an idle connection turns out to be closed.
            after: A request on whose connection this one follows, if it can.
            fresh: Whether it has a connection of its own, which no server can be closing already.
            patience: Seconds that a connection may take; None is any number.
            bodyless: Whether the answer has no body, whatever its headers say.
        """
        exchange = Exchange(self.loop, origin, replay=request if replay else None)
        exchange.write(request)
        exchange.request_ended = whole
        exchange.patience = patience
        exchange.bodyless = bodyless
        if fresh:
            exchange.alone = True
            self._connect(exchange)
            return exchange
        if after is None or not after.follow(exchange):
            self._carry(exchange)
        return exchange

    def restart(self, exchange: Exchange, *, after: Exchange | None = None) -> None:
        """Send a request once more, on a connection made for it, or behind another that is sent once more."""
        assert exchange.replay is not None
        exchange.write(exchange.replay)
        exchange.replay = None
        if after is None or not after.follow(exchange):
            self._connect(exchange)

    def release(self, connection: Connection) -> None:
        """A connection is idle."""
        connection.idle_since = self.loop.time()
        self._idle.setdefault(connection.origin.key, []).append(connection)
        if self._pruning is None:
            self._pruning = self.loop.call_later(KEPT, self._prune)

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
            connection.hang_up(ExchangeClosed("the connections were closed on this side"))
        connecting = tuple(self._connecting)
        for task in connecting:
            task.cancel()
        await asyncio.gather(*connecting, return_exceptions=True)

    def _carry(self, exchange: Exchange) -> None:
        origin = exchange.origin
        idle = self._idle.get(origin.key)
        while idle:
            connection = idle.pop()
            if (
                connection.is_open
                and self.loop.time() - connection.idle_since < KEPT
                # A request that can't be sent twice must not go to who hears nothing any more.
                and (exchange.replay is not None or not connection.is_stale())
            ):
                if not origin.takes(connection.certificate):
                    idle.append(connection)
                    break
                connection.begin(exchange)
                return
            connection.abort()
        self._connect(exchange)

    def _connect(self, exchange: Exchange) -> None:
        if self._closed:
            exchange.fail(ExchangeClosed("the transport is closed"))
            return
        task = self.loop.create_task(self._make(exchange), name="trickle-connect")
        exchange.connecting = task
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _make(self, exchange: Exchange) -> None:
        origin, patience = exchange.origin, exchange.patience
        connection = Connection(self, origin)
        limit = asyncio.timeout(patience)
        try:
            async with limit:
                await self._open_to(origin, connection)
        except asyncio.CancelledError:
            connection.abort()
            exchange.fail(ExchangeClosed("the transport is closed"))
            raise
        except CertificateChanged as error:
            connection.abort()
            exchange.fail(error)
        except OSError as error:
            connection.abort()
            if limit.expired():
                exchange.fail(ConnectTimedOut(f"no connection within {patience:g} s"))
            else:
                failed = ConnectFailed(error.strerror or str(error) or type(error).__name__)
                failed.__cause__ = error
                exchange.fail(failed)
        except Exception as error:
            connection.abort()
            exchange.fail(error)
        else:
            self._open.add(connection)
            if exchange.error is None:
                connection.begin(exchange)
            else:
                self.release(connection)

    async def _open_to(self, origin: Origin, connection: Connection) -> None:
        context, check = origin.context, None
        if origin.target.scheme == "https" and context is None:
            context, check = self._tls.context_for(origin.host, origin.port, expected=origin.certificate)
        if origin.via is not None:
            opened = await dial(origin.via.host, origin.via.port, self._factory, self._lookups)
        elif proxy := proxy_for(origin.target):
            opened = await open_tunnel(Proxy.of(proxy), origin.host, origin.port, self._factory)
        else:
            opened = await dial(origin.host, origin.port, self._factory, self._lookups)
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
            for connection in [one for one in idle if now - one.idle_since >= KEPT]:
                idle.remove(connection)
                connection.abort()
            if not idle:
                del self._idle[key]
        left = [one.idle_since for idle in self._idle.values() for one in idle]
        if left:
            self._pruning = self.loop.call_at(min(left) + KEPT, self._prune)
