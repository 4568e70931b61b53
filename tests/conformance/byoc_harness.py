"""BYOC by hand: the headers of a job, and a bare worker that keeps what it was asked."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from harness import Network, Worker
from multidict import CIMultiDict

__all__ = ["Asked", "ByocWorker", "Reply", "job", "job_header"]


def job_header(capability: str, *, timeout: Any = 10, **fields: Any) -> str:
    """The ``Livepeer`` header of a job; a field that is None is left out."""
    wanted = {
        "id": uuid.uuid4().hex,
        "request": "{}",
        "parameters": "{}",
        "capability": capability,
        "timeout_seconds": timeout,
        **fields,
    }
    text = json.dumps({name: value for name, value in wanted.items() if value is not None})
    return base64.b64encode(text.encode()).decode()


def job(capability: str, *, timeout: Any = 10, **fields: Any) -> dict[str, str]:
    """The same as a request's headers."""
    return {"Livepeer": job_header(capability, timeout=timeout, **fields)}


@dataclass(frozen=True)
class Asked:
    """A request as the worker got it."""

    method: str
    path: str
    headers: CIMultiDict[str]
    body: bytes

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """An answer as the client got it."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    @property
    def text(self) -> str:
        """The body."""
        return self.body.decode()


@dataclass
class ByocWorker:
    """A bare worker whose every route is one handler, registered as one capability.

    Attributes:
        answer: What it answers with; replace it.
        asked: What it was asked, newest last.
        gone: Set when a caller left before its answer was complete.
    """

    worker: Worker
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
    capability: str = ""
    asked: list[Asked] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    async def make(cls, worker: Worker, **registration: Any) -> ByocWorker:
        """Serve and register it."""
        made = cls(worker, _nothing)
        worker.routes.add_route("*", "/{path:.*}", made._handle)
        made.capability = await worker.register_byoc(**registration)
        return made

    @property
    def network(self) -> Network:
        """Where it is registered."""
        return self.worker.network

    async def call(self, route: str = "run", *, timeout: int = 10, **options: Any) -> Reply:
        """``POST /process/request/{route}``; options are aiohttp's, and `method`."""
        url = f"{self.network.url}/process/request/{route}"
        headers = {**job(self.capability, timeout=timeout), **options.pop("headers", {})}
        method = options.pop("method", "POST")
        async with self.worker.request(method, url, headers=headers, **options) as answer:
            return Reply(answer.status, CIMultiDict(answer.headers), await answer.read())

    async def token(self) -> dict[str, Any]:
        """``GET /process/token`` for its capability."""
        return await token(self.worker, self.capability)

    async def free(self) -> int:
        """The capacity that the token tells; 0 when it tells none."""
        return int((await self.token()).get("available_capacity", 0))

    async def known(self) -> bool:
        """Whether the orchestrator knows the capability, without a call to the worker that counts."""
        before = len(self.asked)
        reply = await self.call("known")
        if len(self.asked) > before:
            del self.asked[before:]
            return True
        assert (reply.status, reply.text) == (503, "No capacity available for capability\n"), reply
        return False

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked.append(Asked(request.method, request.raw_path, CIMultiDict(request.headers), body))
        if request.path == "/known":
            return web.Response()
        try:
            return await self.answer(request)
        except (asyncio.CancelledError, ConnectionError):
            self.gone.set()
            raise


async def token(worker: Worker, capability: str, address: dict[str, str] | None = None) -> dict[str, Any]:
    """``GET /process/token``."""
    who = base64.b64encode(json.dumps(address or {"addr": "", "sig": ""}).encode()).decode()
    headers = {"Livepeer-Eth-Address": who, "Livepeer-Capability": capability}
    async with worker.request("GET", f"{worker.network.url}/process/token", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        told: dict[str, Any] = await answer.json()
        return told


async def _nothing(_: web.Request) -> web.Response:
    return web.json_response({})
