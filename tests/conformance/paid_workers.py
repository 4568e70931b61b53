"""Runners with prices, behind which bare HTTP applications are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web
from harness import Worker
from paid_harness import PaidNetwork

__all__ = ["KINDS", "MODES", "PRICES", "PaidApps", "PaidWorker", "Received", "Runner"]

PRICES: Mapping[str, Mapping[str, Any]] = {
    "seconds": {"price": "0.36", "currency": "usd", "unit": "hour"},
    "720p-pixel-seconds": {"price": "0.05", "currency": "usd", "unit": "720p"},
    "fixed": {"price": "0.0005", "currency": "usd", "unit": "fixed"},
}
"""What runners ask for by the unit that the orchestrator makes of it: 5e10 wei a second, and so on."""

KINDS = {"seconds": "live", "720p-pixel-seconds": "lv2v", "fixed": "fixed"}
"""The payment's `type` by the price's unit."""

MODES = ("single-shot", "persistent")
_BEAT = 4.0  # seconds from heartbeat to heartbeat; runners without one are forgotten after fifteen


@dataclass(frozen=True)
class Received:
    """A request that reached the worker."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Runner:
    """A registered runner.

    `entry` is where a call is to be paid: the session's creation of a persistent runner, ``…/app/run`` else.
    """

    id: str
    app: str
    url: str
    mode: str
    unit: str
    told: Mapping[str, Any]

    @property
    def entry(self) -> str:
        return f"{self.url}/session" if self.mode == "persistent" else f"{self.url}/app/run"

    @property
    def kind(self) -> str:
        """The payment's type."""
        return KINDS[self.unit]


class PaidWorker(Worker):
    """A worker with ``/run`` and whatever else (echoes), ``/sse``, ``/slow`` and ``/ws``.

    `got` has what reached it.
    """

    def __init__(self, network: PaidNetwork) -> None:
        super().__init__(network)
        self.got: list[Received] = []
        self._beats: list[asyncio.Task[None]] = []
        self.routes.add_route("*", "/sse", self._sse)
        self.routes.add_route("*", "/slow", self._slow)
        self.routes.add_get("/ws", self._ws)
        self.routes.add_route("*", "/{path:.*}", self._echo)

    async def __aexit__(self, *exc_info: object) -> None:
        for beat in self._beats:
            beat.cancel()
        await asyncio.gather(*self._beats, return_exceptions=True)
        await super().__aexit__(*exc_info)

    async def price(
        self,
        unit: str,
        mode: str = "persistent",
        *,
        app: str | None = None,
        capacity: int = 4,
        price: str | None = None,
        runner_url: str | None = None,
    ) -> Runner:
        """Register a runner, and keep it registered.

        Args:
            unit: Of `PRICES`.
            mode: "persistent" or "single-shot".
            app: Its name.
            capacity: Its sessions, or calls, at a time.
            price: In US dollars an hour or a call, instead of that in `PRICES`.
            runner_url: Another place than this worker.
        """
        info = dict(PRICES[unit]) | ({"price": price} if price is not None else {})
        other = {"runner_url": runner_url} if runner_url is not None else {}
        told = await self.register(app, mode=mode, capacity=capacity, price_info=info, **other)
        self._beats.append(asyncio.create_task(self._keep(told)))
        return Runner(told["runner_id"], told["app"], told["url"], mode, unit, told)

    async def _keep(self, told: Mapping[str, Any]) -> None:
        body = {**told["body"], "runner_id": told["runner_id"]}
        while True:
            await asyncio.sleep(_BEAT)
            await self.heartbeat(body, told["heartbeat_secret"])

    async def _read(self, request: web.Request) -> Received:
        got = Received(request.method, request.path_qs, request.headers.copy(), await request.read())
        self.got.append(got)
        return got

    async def _echo(self, request: web.Request) -> web.Response:
        got = await self._read(request)
        return web.json_response({"path": got.path, "size": len(got.body)})

    async def _slow(self, request: web.Request) -> web.Response:
        await self._read(request)
        await asyncio.sleep(float(request.query.get("seconds", "3600")))
        return web.json_response({"slept": True})

    async def _sse(self, request: web.Request) -> web.StreamResponse:
        await self._read(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(int(request.query.get("events", "1000000"))):
            await response.write(b"data: %d\n\n" % number)
            await asyncio.sleep(float(request.query.get("pause", "0.2")))
        return response

    async def _ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"echo {message.data}")
        return socket


class PaidApps:
    """A `PaidWorker` in a thread and a loop of its own, for tests that block theirs.

    `runners` are by unit and mode; their apps are named ``paid/UNIT/MODE``.
    """

    def __init__(self, network: PaidNetwork) -> None:
        self._network = network
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.worker: PaidWorker
        self.runners: dict[tuple[str, str], Runner] = {}

    @property
    def got(self) -> list[Received]:
        """What reached it."""
        return self.worker.got

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start()).result()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._run(self.worker.__aexit__(None, None, None)).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _start(self) -> None:
        self.worker = PaidWorker(self._network)
        for unit in PRICES:
            for mode in MODES:
                runner = await self.worker.price(unit, mode, app=f"paid/{unit}/{mode}", capacity=64)
                self.runners[unit, mode] = runner
