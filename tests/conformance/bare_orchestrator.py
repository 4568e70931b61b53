"""A server that answers as it is told, keeps count, and is no orchestrator beyond that."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

__all__ = ["HANG_UP", "HOLD", "Answer", "BareOrchestrator", "always"]

HANG_UP, HOLD = 0, 1  # in place of a status: break the connection off; don't answer
Answer = Callable[[int], tuple[int, Any]]
"""The status and the body (text, or what becomes JSON) of the nth answer, from 0."""


def always(status: int, body: Any = "no") -> Answer:
    """The same answer each time."""
    return lambda _: (status, body)


class BareOrchestrator:
    """The server. Kinds of requests: ``register``, ``heartbeat``, or the last word of the path.

    Args:
        interval: What it says of heartbeats, as a Go duration.
        answers: By kind; the others get what an orchestrator says that has the runner "r", its session "s"
            and all channels, on which nothing comes.
    """

    def __init__(self, *, interval: str = "100ms", **answers: Answer) -> None:
        self.times: dict[str, list[float]] = {}
        self.url = ""
        self.answers = answers
        self._known = {"runner_id": "r", "heartbeat_interval": interval, "session_ids": ["s"]}
        self._held: set[Any] = set()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> BareOrchestrator:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def count(self, kind: str) -> int:
        """How many requests of a kind came."""
        return len(self.times.get(kind, ()))

    def gaps(self, kind: str) -> list[float]:
        """The seconds between them."""
        times = self.times.get(kind, [])
        return [later - earlier for earlier, later in itertools.pairwise(times)]

    def hang_up(self) -> None:
        """Break off every request that is held."""
        for transport in self._held:
            transport.abort()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        parts = [
            part for part in request.path.split("/") if not part.lstrip("-").isdigit() and part != "next"
        ]
        kind = parts[-1]
        if kind == "heartbeat" and request.headers["Authorization"] == "secret":
            kind = "register"
        number = self.count(kind)
        self.times.setdefault(kind, []).append(time.monotonic())
        await request.read()
        status, body = (self.answers.get(kind) or self.usual(kind))(number)
        if status == HOLD:
            self._held.add(request.transport)
            await asyncio.sleep(3600)
        if status == HANG_UP:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(body, str):
            return web.Response(
                status=status, text=f"{body}\n", headers={"X-Content-Type-Options": "nosniff"}
            )
        return web.Response(status=status, text=json.dumps(body), content_type="application/json")

    def usual(self, kind: str) -> Answer:
        """What an orchestrator would say."""
        session = f"{self.url}/apps/r/session/s"
        channels = {name: f"{self.url}/{name}" for name in ("control", "events")}
        runner = {"url": f"{self.url}/apps/r/session", "app": "talking", "mode": "persistent"}
        usual: dict[str, Any] = {
            "register": {**self._known, "heartbeat_secret": "later", "o2r": {"url": f"{self.url}/o2r"}},
            "heartbeat": self._known,
            "channels": {"channels": [{"name": name, "url": url} for name, url in channels.items()]},
            "discovery": [
                {"address": self.url, "runners": [{**runner, "capacity": 9, "capacity_available": 9}]}
            ],
            "session": {"session_id": "s", "app_url": f"{session}/app", "control_url": session},
            "live": {"manifest_id": "s"} | {f"{name}_url": url for name, url in channels.items()},
            "stop": {},
            "unregister": {},
            "token": {},
        }
        return always(200, usual[kind]) if kind in usual else always(HOLD)
