from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from livepeer.runner import LivePipeline, RunningServer, _host, _stream, running
from livepeer.trickle import TrickleServer

SECRET = "orchestrator-secret"


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback needs no such patience, and tests have none."""
    monkeypatch.setattr(_stream, "_LINGER", 0.25)
    monkeypatch.setattr(_host, "_PATIENCE", 0.05)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def orchestrator() -> AsyncIterator[Orchestrator]:
    made = Orchestrator()
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


Live = Callable[..., contextlib.AbstractAsyncContextManager[tuple[RunningServer, dict[str, Any]]]]


@pytest.fixture
def live(orchestrator: Orchestrator, http: aiohttp.ClientSession) -> Live:
    """A pipeline that is served, and a session of it: ``async with live(pipeline, **params)``."""

    @contextlib.asynccontextmanager
    async def start(
        pipeline: LivePipeline, *, idle_timeout: float | None = 60, **params: Any
    ) -> AsyncIterator[tuple[RunningServer, dict[str, Any]]]:
        async with running(
            pipeline, orch_url=orchestrator.url, secret=orchestrator.secret, idle_timeout=idle_timeout
        ) as server:
            runner_id = await server.registered()
            async with http.post(f"{orchestrator.url}/apps/{runner_id}/session") as response:
                session = await response.json()
            async with http.post(f"{session['app_url']}/live", json={"params": params}) as response:
                assert response.status == 200, await response.text()
                yield server, session | await response.json()

    return start


class Orchestrator:
    """As much of an orchestrator as a live runner meets: registration, sessions, callbacks, trickle."""

    def __init__(self, *, certificate: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.secret = SECRET
        self.interval = "5s"
        self.heartbeats: list[dict[str, Any]] = []
        self.authorizations: list[str] = []
        self.answers: list[int] = []
        self.unregistered: list[str] = []
        self.stopped: list[str] = []
        self.offers: list[tuple[float, dict[str, Any]]] = []
        self.looks = 0
        self.certificate = certificate
        self.changed = asyncio.Condition()
        self.held = 0
        self.stop_failures = 0
        self._writers_may_go = asyncio.Event()
        self._writers_may_go.set()
        self._runner: web.AppRunner | None = None
        self._forget()

    def _forget(self) -> None:
        self.runners: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, str] = {}
        self.sessions: dict[str, str] = {}
        self.capabilities: dict[str, dict[str, Any]] = {}
        self.trickle = TrickleServer()

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    async def start(self, port: int = 0) -> None:
        app = web.Application(middlewares=[self._gate])
        app.router.add_post("/runners/heartbeat", self._heartbeat)
        app.router.add_post("/runners/{id}/unregister", self._unregister)
        app.router.add_post("/capability/register", self._register_capability)
        app.router.add_post("/capability/unregister", self._unregister_capability)
        app.router.add_get("/process/token", self._token_for)
        app.router.add_post("/apps/{id}/session", self._open)
        session = "/apps/{id}/session/{session}"
        app.router.add_post(session + "/channels", self._channels)
        app.router.add_post(session + "/stop", self._stop_session)
        app.router.add_route("*", session + "/app/{path:.*}", self._proxy)
        self.trickle.add_routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.setblocking(False)
        await web.SockSite(self._runner, self._listener, ssl_context=self.certificate).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            self.trickle.close()
            with contextlib.suppress(NotImplementedError):  # Windows' event loop accepts in another way
                # asyncio loses a connection that it accepts in the very turns in which the server closes.
                asyncio.get_running_loop().remove_reader(self._listener)
                for _ in range(5):
                    await asyncio.sleep(0)
            await self._runner.cleanup()
            self._runner = None

    async def restart(self, *, certificate: ssl.SSLContext | None = None) -> None:
        await self.stop()
        self._forget()
        self.certificate = certificate or self.certificate
        await self.start(self.port)

    def hold_writers(self) -> None:
        """Take what is written to channels from now on without an answer; `held` counts it."""
        self._writers_may_go.clear()

    def release_writers(self) -> None:
        """Answer it."""
        self._writers_may_go.set()

    @web.middleware
    async def _gate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.method == "POST" and request.path.startswith("/ai/trickle/"):
            if not self._writers_may_go.is_set():
                self.held += 1
                await self._notify()
            await self._writers_may_go.wait()
        return await handler(request)

    async def until(self, condition: Any) -> None:
        async with self.changed, asyncio.timeout(30):
            await self.changed.wait_for(condition)

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def _heartbeat(self, request: web.Request) -> web.Response:
        body = await request.json()
        authorization = request.headers["Authorization"]
        self.heartbeats.append(body)
        self.authorizations.append(authorization)
        status, answer = self._answer(body, authorization)
        self.answers.append(status)
        await self._notify()
        return web.json_response(answer) if status == 200 else web.Response(status=status, text=f"{answer}\n")

    def _answer(self, body: dict[str, Any], authorization: str) -> tuple[int, Any]:
        runner_id = body.get("runner_id") or f"runner_{secrets.token_hex(4)}"
        if runner_id not in self.runners:
            if authorization != self.secret:
                return 401, "invalid registration authorization"
            self.secrets[runner_id] = secrets.token_hex(8)
            self.trickle.create(f"{runner_id}-o2r", "application/json")
            first = {
                "heartbeat_secret": self.secrets[runner_id],
                "o2r": {"name": "o2r", "url": f"{self.url}/ai/trickle/{runner_id}-o2r"},
            }
        elif authorization != self.secrets[runner_id]:
            return 401, "invalid heartbeat authorization"
        else:
            first = {}
        self.runners[runner_id] = body
        return 200, first | {
            "runner_id": runner_id,
            "orchestrator": self.url,
            "heartbeat_interval": self.interval,
            "heartbeat_ttl": "20s",
            "session_ids": [key for key, owner in self.sessions.items() if owner == runner_id],
        }

    async def _register_capability(self, request: web.Request) -> web.Response:
        if request.headers["Authorization"] != self.secret:
            return web.Response(status=400, text="invalid authorization\n")
        offer = await request.json()
        self.offers.append((time.monotonic(), offer))
        self.capabilities[offer["name"]] = offer
        await self._notify()
        return web.Response(text="ok")

    async def _unregister_capability(self, request: web.Request) -> web.Response:
        self.capabilities.pop(await request.text(), None)
        return web.Response(text="ok")

    async def _token_for(self, request: web.Request) -> web.Response:
        self.looks += 1
        offer = self.capabilities.get(request.headers["Livepeer-Capability"])
        await self._notify()
        return web.json_response({"available_capacity": offer["capacity"]} if offer else {})

    async def _unregister(self, request: web.Request) -> web.Response:
        runner_id = request.match_info["id"]
        if self.secrets.get(runner_id) != request.headers["Authorization"]:
            return web.Response(status=401)
        self.unregistered.append(runner_id)
        self.forget(runner_id)
        await self._notify()
        return web.Response(status=204)

    def forget(self, runner_id: str) -> None:
        self.runners.pop(runner_id, None)
        self.trickle.close_channel(f"{runner_id}-o2r")

    def reserve(self, runner_id: str) -> str:
        session = f"session_{secrets.token_hex(4)}"
        self.sessions[session] = runner_id
        self._tell(runner_id, "reserved", session)
        return session

    def release(self, session: str) -> None:
        runner_id = self.sessions.pop(session, None)
        if runner_id is not None:
            self._tell(runner_id, "released", session)
            for name in self.trickle.channel_names():
                if name.startswith(f"{session}-"):
                    self.trickle.close_channel(name)

    def _tell(self, runner_id: str, event: str, session: str) -> None:
        message = {"event": event, "session": session, "timestamp": "2026-08-01T00:00:00Z"}
        self.trickle.publish(f"{runner_id}-o2r", json.dumps(message).encode())

    async def _open(self, request: web.Request) -> web.Response:
        session = self.reserve(request.match_info["id"])
        base = f"{self.url}/apps/{request.match_info['id']}/session/{session}"
        return web.json_response({"session_id": session, "app_url": f"{base}/app", "control_url": base})

    def _token(self, request: web.Request) -> str:
        return f"token-{request.match_info['session']}"

    async def _proxy(self, request: web.Request) -> web.Response:
        session, runner_id = request.match_info["session"], request.match_info["id"]
        if session not in self.sessions:
            return web.Response(status=404, text="runner session not found\n")
        headers = {
            "Livepeer-Runner-Route": runner_id,
            "Livepeer-Session-Id": session,
            "Livepeer-Session-Token": self._token(request),
            "Livepeer-Session-Control": f"{self.url}/apps/{runner_id}/session/{session}",
        }
        target = f"{self.runners[runner_id]['runner_url']}/{request.match_info['path']}"
        async with (
            aiohttp.ClientSession() as client,
            client.request(request.method, target, data=await request.read(), headers=headers) as answer,
        ):
            return web.Response(
                status=answer.status, body=await answer.read(), content_type=answer.content_type
            )

    async def _channels(self, request: web.Request) -> web.Response:
        if request.headers.get("Livepeer-Session-Token") != self._token(request):
            return web.Response(status=401)
        session = request.match_info["session"]
        made = []
        for channel in (await request.json())["channels"]:
            name = f"{session}-{channel['name']}"
            self.trickle.create(name, channel["mime_type"])
            url = f"{self.url}/ai/trickle/{name}"
            made.append({**channel, "channel_name": name, "url": url, "internal_url": url})
        return web.json_response({"channels": made})

    async def _stop_session(self, request: web.Request) -> web.Response:
        session = request.match_info["session"]
        if self.stop_failures:
            self.stop_failures -= 1
            return web.Response(status=500)
        if session not in self.sessions:
            return web.Response(status=404)
        self.release(session)
        self.stopped.append(session)
        await self._notify()
        return web.Response(status=204)
