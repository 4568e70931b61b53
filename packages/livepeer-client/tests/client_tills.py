"""A signer and orchestrators that want to be paid, on real sockets in a thread of their own.

They speak as go-livepeer v0.9.1 does, with real protobufs, and count tickets as it does; signatures are left
out. The tests of `livepeer.devkit` and those on both networks look at the rest.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import math
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from fractions import Fraction
from typing import Any

from aiohttp import web

from livepeer.client._grpc.lp_rpc_pb2 import OrchestratorInfo, Payment, SegData

ADDRESS = "0x" + "a1" * 20
FACE, WIN_PROB = 10**15, (2**256 - 1) // 10**15 * 8 * 10**9  # each ticket is worth 8e9 wei
EV = Fraction(FACE * WIN_PROB, 2**256 - 1)
GO = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
UNITS = {"live": 10, "lv2v": 60 * 1280 * 720 * 30, "fixed": 1}

Failing = Callable[["Till", web.Request, bool], Awaitable[web.StreamResponse | None]]
Refusing = Callable[[dict[str, Any]], Awaitable[web.StreamResponse | None]]


def refused(status: int, text: str) -> web.Response:
    """What an orchestrator answers by Go's `http.Error`."""
    return web.Response(status=status, text=text + "\n", headers=GO)


def said(status: int, text: str) -> web.Response:
    """What a signer answers when it doesn't sign."""
    return web.json_response({"error": {"message": text}}, status=status)


def tickets_for(units: int, price: int) -> int:
    """How many tickets a first payment has."""
    return math.ceil(max(Fraction(units * price), EV) / EV)


class Served:
    """An application on a loop that others share."""

    def __init__(self) -> None:
        self.app = web.Application(client_max_size=1 << 26)
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        server = self._runner.server if self._runner is not None else None
        return len(server.connections) if server is not None else 0

    @property
    def running(self) -> bool:
        return self._runner is not None

    async def start(self) -> None:
        self._runner = web.AppRunner(self.app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


class Signer(Served):
    """Signs; `refusing` may answer instead."""

    def __init__(self, address: str = ADDRESS) -> None:
        super().__init__()
        self.address = address
        self.refusing: Refusing | None = None
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.payers = 0
        self.more = 0  # tickets more than are due
        self.app.router.add_post("/sign-orchestrator-info", self._payer)
        self.app.router.add_post("/generate-live-payment", self._sign)

    async def _payer(self, request: web.Request) -> web.StreamResponse:
        self.payers += 1
        self.headers.append(dict(request.headers))
        return web.json_response({"address": self.address, "signature": "0x" + "51" * 65})

    async def _sign(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        if self.refusing is not None and (answer := await self.refusing(body)) is not None:
            return answer
        info = OrchestratorInfo.FromString(base64.b64decode(body["orchestrator"]))
        count = tickets_for(UNITS[body["type"]], info.price_info.pricePerUnit) + self.more
        payment = Payment(
            ticket_params=info.ticket_params,
            sender=bytes.fromhex(self.address[2:]),
            expected_price=info.price_info,
        )
        for nonce in range(1, count + 1):
            payment.ticket_sender_params.add(sender_nonce=nonce, sig=b"\x07" * 65)
        segment = SegData(manifestId=body["ManifestID"].encode(), auth_token=info.auth_token)
        state = base64.b64encode(f"st4te-{len(self.asked)}".encode()).decode()
        return web.json_response(
            {
                "payment": base64.b64encode(payment.SerializeToString()).decode(),
                "segCreds": base64.b64encode(segment.SerializeToString()).decode(),
                "state": {"State": state, "Sig": "c2ln"},
            }
        )


class Till(Served):
    """An orchestrator with a runner that has a price; `failing` may answer a request for it instead.

    Attributes:
        credited: The tickets that it took, in wei, by session.
        seen: What it was asked for: ``"ask"`` without a payment, ``"pay"`` with one.
        worked: How often its worker was reached.
    """

    def __init__(self, price: int = 25 * 10**9, unit: str = "fixed", mode: str = "single-shot") -> None:
        super().__init__()
        self.price, self.unit, self.mode = price, unit, mode
        self.asks: int | None = None  # what it asks for, where that isn't what it lists
        self.failing: Failing | None = None
        self.credited: dict[str, Fraction] = collections.defaultdict(Fraction)
        self.seen: list[str] = []
        self.bodies: list[bytes] = []
        self.payments: list[str] = []
        self.payers: list[str] = []
        self.worked = 0
        self.stopped = 0
        self._nonces: set[tuple[bytes, int]] = set()
        self.app.router.add_get("/discovery", self._discovery)
        self.app.router.add_route("*", "/apps/one/app/{path:.*}", self._single)
        self.app.router.add_post("/apps/many/session", self._session)
        self.app.router.add_route("*", "/apps/many/session/{id}/app/{path:.*}", self._work)
        self.app.router.add_post("/apps/many/session/{id}/stop", self._stop)

    @property
    def total(self) -> Fraction:
        """What it was paid, in wei."""
        return sum(self.credited.values(), Fraction(0))

    async def _discovery(self, _: web.Request) -> web.Response:
        path = "/apps/one/app" if self.mode == "single-shot" else "/apps/many/session"
        price = {"price": self.price, "currency": "wei", "unit": self.unit}
        runner = {"url": f"{self.url}{path}", "app": "it", "mode": self.mode, "price_info": price}
        return web.json_response([{"address": self.url, "runners": [runner]}])

    async def _single(self, request: web.Request) -> web.StreamResponse:
        return await self._paid(request) or await self._work(request)

    async def _session(self, request: web.Request) -> web.StreamResponse:
        answer = await self._paid(request)
        if answer is not None:
            return answer
        session = next(reversed(self.credited))
        base = f"{self.url}/apps/many/session/{session}"
        return web.json_response({"session_id": session, "app_url": f"{base}/app", "control_url": base})

    async def _stop(self, _: web.Request) -> web.Response:
        self.stopped += 1
        return web.Response(status=204)

    async def _paid(self, request: web.Request) -> web.StreamResponse | None:
        """None when it is paid."""
        payment = request.headers.get("Livepeer-Payment", "")
        self.seen.append("pay" if payment else "ask")
        if (
            self.failing is not None
            and (answer := await self.failing(self, request, bool(payment))) is not None
        ):
            return answer
        if not payment:
            self.payers.append(request.headers.get("Livepeer-Payer-Address", ""))
            return self.challenge()
        self.payments.append(payment)
        return self.credit(payment, request.headers["Livepeer-Segment"])

    def challenge(self) -> web.Response:
        manifest = uuid.uuid4().hex
        info = OrchestratorInfo(transcoder=self.url, address=b"\x0c" * 20)
        info.price_info.pricePerUnit, info.price_info.pixelsPerUnit = self.asks or self.price, 1
        info.ticket_params.recipient = b"\x0c" * 20
        info.ticket_params.face_value = FACE.to_bytes(32)
        info.ticket_params.win_prob = WIN_PROB.to_bytes(32)
        info.ticket_params.recipient_rand_hash = uuid.uuid4().bytes * 2
        info.auth_token.token, info.auth_token.session_id = b"token", manifest
        params = base64.b64encode(info.SerializeToString()).decode()
        return web.json_response(
            {
                "payment_params": params,
                "orchestrator": self.url,
                "manifest_id": manifest,
                "payment_url": f"{self.url}/apps/one/session/{manifest}/payment",
            },
            status=402,
        )

    def credit(self, text: str, segment: str) -> web.Response | None:
        """Take a payment; what is wrong with it, if it isn't taken."""
        payment = Payment.FromString(base64.b64decode(text))
        data = SegData.FromString(base64.b64decode(segment))
        session = data.manifestId.decode()
        if session != data.auth_token.session_id:
            return refused(403, "mismatched manifest and auth token")
        params = payment.ticket_params
        for one in payment.ticket_sender_params:
            if (params.recipient_rand_hash, one.sender_nonce) in self._nonces:
                return refused(400, "invalid ticket senderNonce: already seen sender=0x nonce=1")
            self._nonces.add((params.recipient_rand_hash, one.sender_nonce))
            value = int.from_bytes(params.face_value) * int.from_bytes(params.win_prob)
            self.credited[session] += Fraction(value, 2**256 - 1)
        return None

    async def _work(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.bodies.append(body)
        self.worked += 1
        if request.path.endswith("/events"):
            answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await answer.prepare(request)
            for number in range(3):
                await answer.write(f"data: {number}\n\n".encode())
            return answer
        return web.json_response({"got": len(body)})


class Tills:
    """The loop that they live on, in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._served: list[Served] = []

    def start(self, *servers: Served) -> None:
        for server in servers:
            self.run(server.start())
            self._served.append(server)

    def stop(self, server: Served) -> None:
        self.run(server.stop())

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        for server in self._served:
            self.run(server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


@contextlib.contextmanager
def tills() -> Iterator[Tills]:
    """Where signers and orchestrators are started; all are stopped at the end."""
    loop = Tills()
    try:
        yield loop
    finally:
        loop.close()


def listed(text: str) -> list[list[str]]:
    """The lines of a table with four columns in a docstring."""
    lines = [line for line in text.splitlines() if line.count("|") == 3]
    return [[cell.strip() for cell in line.split("|")] for line in lines[1:]]
