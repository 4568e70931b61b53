"""A remote signer as a service, with the faults that a test may want of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from .. import answers
from ..mux import Mux
from ..orchestrator import listen
from .chain import Chain
from .remote_signer import RemoteSigner
from .signer_discovery import SignerDiscovery
from .signer_request import SigningRefused
from .webhook import Webhook

__all__ = ["SignerService"]


class SignerService:
    """One signer: its port, its wallet, and whether it is well.

    Args:
        address: Of its wallet.
        chain: The wallets and the blocks.
        settings: ``webhook``, ``webhook_headers``, ``byoc`` and ``discovery_interval``, as in `PaidMode`.
    """

    def __init__(self, address: bytes, chain: Chain, settings: Mapping[str, Any]) -> None:
        self._address = address
        self._chain = chain
        self._settings = settings
        self._listener = listen()
        self.port: int = self._listener.getsockname()[1]
        self.discovery: SignerDiscovery = SignerDiscovery(settings["discovery_interval"])
        self._webhook = Webhook(settings["webhook"], settings["webhook_headers"])
        self._runner: web.AppRunner | None = None
        self._awake = asyncio.Event()
        self._awake.set()
        self._scripted: list[dict[str, Any]] = []
        self.signed: int = 0

    # ------------------------------------------------------------------ its life

    async def start(self) -> None:
        """Listen, as at first: whatever was asked of it is forgotten."""
        if self._runner is not None:
            return
        if self._listener.fileno() < 0:
            self._listener = listen(port=self.port)
        self._signer = RemoteSigner(self._address, self._chain)
        self._awake.set()
        app = web.Application(client_max_size=64 << 20)
        app.on_response_prepare.append(answers.prepare_headers)
        app.router.add_route("*", "/{target:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        await runner.setup()
        await web.SockSite(runner, self._listener).start()
        self._runner = runner

    async def kill(self) -> None:
        """End at once: connections break, and the port refuses."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        self._listener.close()

    def hang(self, hanging: bool) -> None:
        """Answer nothing until told otherwise; connections are accepted, and wait."""
        if hanging:
            self._awake.clear()
        else:
            self._awake.set()

    def script(self, answer: Mapping[str, Any]) -> None:
        """What the next ``times`` requests for a payment get: ``status``, ``text`` and ``headers``."""
        self._scripted += [dict(answer)] * answer["times"]

    # ------------------------------------------------------------------ its calls

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        mux = Mux()
        mux.handle("POST /sign-orchestrator-info", self._payer)
        mux.handle("POST /generate-live-payment", self._pay)
        mux.handle("GET /discover-orchestrators", self._discover)
        if self._settings["byoc"]:
            mux.handle("POST /sign-byoc-job", self._sign_job)
        await self._awake.wait()
        with contextlib.suppress(ConnectionResetError):
            return await mux.dispatch(request)
        return web.Response()

    async def _payer(self, _request: web.Request, _values: Mapping[str, bytes]) -> web.StreamResponse:
        return _line(self._signer.payer())

    async def _pay(self, request: web.Request, _values: Mapping[str, bytes]) -> web.StreamResponse:
        body = await request.read()
        if self._scripted:
            told = self._scripted.pop(0)
            if told["status"] == 0:
                return answers.dropped(request)
            answer = answers.json_error(told["text"], told["status"])
            answer.headers.update(told["headers"])
            return answer
        try:
            draft = await self._signer.draft(body)
            await self._webhook.allow(request, draft)
        except SigningRefused as refused:
            answer = answers.json_error(str(refused), refused.status)
            answer.headers.update(refused.headers)
            return answer
        self.signed += 1
        return _line(draft.answer(self._signer.wallet))

    async def _sign_job(self, request: web.Request, _values: Mapping[str, bytes]) -> web.StreamResponse:
        try:
            return _line(self._signer.sign_job(await request.read()))
        except SigningRefused as refused:
            return answers.json_error(str(refused), refused.status)

    async def _discover(self, request: web.Request, _values: Mapping[str, bytes]) -> web.StreamResponse:
        found = await self.discovery.orchestrators(request.query.getall("caps", []))
        if found is None:
            return answers.json_error("cache empty", 503)
        return _line(found)


def _line(value: Any) -> web.Response:
    """JSON with a newline behind it, as Go's encoder writes it."""
    answer = answers.json_answer(value)
    assert isinstance(answer.body, bytes)
    answer.body += b"\n"
    return answer
