"""A gateway node as a service on a port of its own."""

from __future__ import annotations

import contextlib

from aiohttp import web

from .. import answers
from ..gateway_node import GatewayNode
from ..mux import Mux
from ..orchestrator import listen
from ..validation import Refused
from .chain import Chain
from .job_payer import JobPayer

__all__ = ["GatewayService"]

_MAX_HEADER = 1 << 20  # bytes, Go's default


class GatewayService:
    """One node: its port and its wallet.

    Args:
        address: Of its wallet.
        chain: The wallets and the blocks.
    """

    def __init__(self, address: bytes, chain: Chain) -> None:
        self.node: GatewayNode = GatewayNode(JobPayer(address, chain))
        self._listener = listen()
        self.port: int = self._listener.getsockname()[1]
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=64 << 20)
        app.on_response_prepare.append(answers.prepare_headers)
        app.router.add_route("*", "/{target:.*}", self._answer)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=0,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
        )
        await self._runner.setup()
        await web.SockSite(self._runner, self._listener).start()

    async def kill(self) -> None:
        """End at once."""
        if self._runner is not None:
            await self._runner.cleanup()
        await self.node.aclose()
        self._listener.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        mux = Mux()
        self.node.add_routes(mux)
        with contextlib.suppress(ConnectionResetError):
            try:
                return await mux.dispatch(request)
            except Refused as refused:
                return answers.error(refused.text, refused.status)
        return web.Response()
