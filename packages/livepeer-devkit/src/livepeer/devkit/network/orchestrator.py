"""The embedded orchestrator: every part of it on one port.

Left for later: the built-in batch pipelines. Payments are in `paid`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from aiohttp import web

from livepeer.trickle import TrickleServer

from . import answers, paths
from .ai_worker import AIWorker
from .apps import Apps
from .byoc import Byoc
from .byoc_accounts import Accounts, Free
from .byoc_registry import Capabilities
from .byoc_streams import ByocStreams
from .byoc_workers import Workers
from .certificate import server_context
from .credentials import AuthTokens
from .discovery import Discovery
from .gojson import GoJSONError
from .heartbeat import Heartbeats
from .lv2v import LiveVideoToVideo
from .mux import Mux, split_target
from .one_port import OnePort
from .oversize import refuse_oversize
from .proxying import Proxy
from .registry import HEARTBEAT_INTERVAL, Registry
from .sessions import SessionCallbacks
from .validation import Refused

if TYPE_CHECKING:
    from livepeer.client._grpc import lp_rpc_pb2 as net

    from .paid.till import Till

__all__ = ["Orchestrator", "listen"]

_MAX_HEADER = 1 << 20  # bytes, Go's default
_TRICKLE = (
    "POST /ai/trickle/{channel}",
    "DELETE /ai/trickle/{channel}",
    "GET /ai/trickle/{channel}/{seq}",
    "POST /ai/trickle/{channel}/{seq}",
    "DELETE /ai/trickle/{channel}/{seq}",
)


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Take a port of the host; 0 is any free one."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


class Orchestrator:
    """An orchestrator on a listening socket, as an async context manager.

    Args:
        listener: Where it listens (`listen`).
        secret: What runners register with; empty turns registration off.
        tls: Whether it speaks HTTPS, with a certificate made at each start.
        models: The models of its AI worker (`models.checked_models`); none: it has no AI worker.
        paid: What makes it an on-chain node (`paid.till.Till`); offchain nothing costs anything.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        secret: str,
        tls: bool = True,
        models: Sequence[Mapping[str, Any]] = (),
        paid: Mapping[str, Any] | None = None,
    ) -> None:
        host, port = listener.getsockname()[:2]
        self.url: str = f"{'https' if tls else 'http'}://{host}:{port}"
        self.on_channel_closed: list[Callable[[str], None]] = []
        self.trickle: TrickleServer = TrickleServer(on_close=self._channel_closed)
        self.worker: AIWorker = AIWorker(models)
        self.tokens: AuthTokens = AuthTokens()
        self._secret = secret
        self.till: Till | None = None
        if paid is not None:
            from .paid.till import Till

            self.till = Till(paid, self.tokens, self.worker, self.url)
        prices = self.till.prices if self.till is not None else None
        self.registry: Registry = Registry(secret, self.trickle, self.url, prices=prices)
        self.capabilities: Capabilities = Capabilities()
        self._listener = listener
        self._context = server_context(host) if tls else None
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Orchestrator:
        proxy, workers = Proxy(), Workers()
        self._stack.push_async_callback(proxy.aclose)
        self._stack.push_async_callback(workers.aclose)
        app = self._application(proxy, workers)
        runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,  # a client that leaves is noticed at once
            auto_decompress=False,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
            max_headers=10_000,
            keepalive_timeout=600,
            shutdown_timeout=0,
        )
        await runner.setup()
        refuse_oversize(runner)
        self._stack.push_async_callback(runner.cleanup)
        await self.worker.start()
        self._stack.push_async_callback(self.worker.aclose)
        assert runner.server is not None
        port = OnePort(runner.server, self._start_rpc)
        server = await asyncio.get_running_loop().create_server(port, sock=self._listener, ssl=self._context)
        self._stack.callback(port.abort)
        self._stack.callback(server.close)
        housekeeping = asyncio.create_task(self._housekeeping())
        self._stack.callback(housekeeping.cancel)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    def _application(self, proxy: Proxy, workers: Workers) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        app.on_response_prepare.append(answers.prepare_headers)
        self.trickle.add_routes(app)
        mux, paid = Mux(), None
        if self.till is not None:
            paid = self.till.reservations(self.registry)
            self._stack.callback(paid.close)
            self.till.add_routes(mux)
        apps = Apps(self.registry, proxy, paid)
        lv2v = LiveVideoToVideo(
            self.worker, self.trickle, self.tokens, self._capabilities, self.url, till=self.till
        )
        self.on_channel_closed.append(lv2v.channel_closed)
        accounts = self._accounts()
        for part in (
            Heartbeats(self.registry),
            Discovery(self.registry),
            SessionCallbacks(self.registry),
            lv2v,
            apps,
            Byoc(
                self._secret,
                self.capabilities,
                workers,
                self.url,
                accounts=accounts,
                interval=self.till.interval if self.till is not None else None,
            ),
            ByocStreams(self.capabilities, workers, self.trickle, self.url, accounts=accounts),
        ):
            part.add_routes(mux)
        for pattern in _TRICKLE:  # served above; here for what a wrong method or a missing slash gets
            mux.handle(pattern, _nothing)

        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                paths.unescape(split_target(request.raw_path)[0])
            except paths.PathError:
                return web.Response(status=400, text="400 Bad Request", headers={"Connection": "close"})
            try:
                carried = await apps.run(request)
                return carried if carried is not None else await mux.dispatch(request)
            except Refused as refused:
                return answers.error(refused.text, refused.status)
            except answers.PaymentRequired as required:
                return required.answer
            except GoJSONError as error:
                return answers.error(str(error), 400)
            except ConnectionResetError:
                if request.transport is not None and not request.transport.is_closing():
                    raise
                return web.Response()  # the client has left, which it may; nobody reads this

        app.router.add_route("*", "/{target:.*}", answer, expect_handler=_expect_nothing_yet)
        return app

    def _accounts(self) -> Accounts:
        """Those of BYOC's callers."""
        if self.till is None:
            return Free()
        from .paid.jobs import JobAccounts

        return JobAccounts(self.till.cashier)

    def _channel_closed(self, name: str) -> None:
        for tell in self.on_channel_closed:
            tell(name)

    # gRPC and protobuf are slow to load, and most callers need neither.

    def _capabilities(self) -> net.Capabilities:
        from .description import capabilities_of

        return capabilities_of(self.worker)

    async def _start_rpc(self) -> int:
        from .description import SelfDescription
        from .rpc import RPCServer

        cashier = self.till.cashier if self.till is not None else None
        description = SelfDescription(self.worker, self.tokens, self.capabilities.prices, self.url, cashier)
        server = RPCServer(description)
        self._stack.push_async_callback(server.aclose)
        return await server.start()

    async def _housekeeping(self) -> None:
        """Forget silent runners and keep the channels of the others warm."""
        seconds = 0
        while True:
            await asyncio.sleep(1)
            seconds += 1
            self.registry.keep_alive()
            if seconds % HEARTBEAT_INTERVAL == 0:
                self.registry.sweep()


async def _expect_nothing_yet(_: web.Request) -> None:
    """Say 100 Continue when the body is read, not before: a refusal spares the client the upload."""


async def _nothing(_request: web.Request, _values: Mapping[str, bytes]) -> web.StreamResponse:
    return answers.not_found()
