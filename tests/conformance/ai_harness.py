"""What an orchestrator with an AI worker stands between: a Docker engine, and the containers of its models.

The engine here has no container; the models are external ones, with HTTP servers of the tests for containers.
go-livepeer asks a container how it is once, when the node starts, and then never again: so any test may play
the container on the model's port later on, and while nobody does it is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import grpc
from aiohttp import web

from livepeer.client._grpc import lp_rpc_pb2 as net

__all__ = ["Caller", "Container", "DockerEngine", "HeldPorts", "StandIn", "make_models", "port_of"]

PIPELINE = "live-video-to-video"
_HOLDING = sys.platform == "linux"

Model = dict[str, Any]


def make_models(*names: str, capacity: int = 2, warm: bool = True) -> list[Model]:
    """What `-aiModels` reads, for external containers on ports that nobody has."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return [
        {
            "pipeline": PIPELINE,
            "model_id": name,
            "url": f"http://127.0.0.1:{port}",
            "capacity": capacity,
            "warm": warm,
        }
        for name, port in zip(names, ports, strict=True)
    ]


def port_of(models: list[Model], model_id: str) -> int:
    """The port on which a model's container is looked for."""
    (port,) = [urlsplit(model["url"]).port for model in models if model["model_id"] == model_id]
    assert port
    return port


class HeldPorts:
    """Ports that are bound and on which nobody listens: no connection gets one by chance, a server may.

    So it is on Linux; elsewhere a bound port is nobody else's, and none is held.
    """

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}

    def take(self) -> int:
        """Hold a port that nobody has; which."""
        held = self._bound(0)
        port: int = held.getsockname()[1]
        if _HOLDING:
            self._sockets[port] = held
        else:
            held.close()
        return port

    def hold(self, models: list[Model]) -> None:
        """Hold the ports of containers, those which no server has yet."""
        ports = {urlsplit(model["url"]).port or 0 for model in models} if _HOLDING else set()
        for port in ports - self._sockets.keys():
            with contextlib.suppress(OSError):
                self._sockets[port] = self._bound(port)

    @staticmethod
    def _bound(port: int) -> socket.socket:
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind(("127.0.0.1", port))
        except OSError:
            held.close()
            raise
        return held

    def release(self) -> None:
        """Let them go."""
        while self._sockets:
            self._sockets.popitem()[1].close()


class _Server:
    """A small HTTP server on a thread of its own."""

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def answer(self, status: int, value: Any, **headers: str) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class DockerEngine:
    """An engine with no image and no container: the AI worker insists on one when it starts."""

    def __init__(self) -> None:
        class Engine(_Handler):
            def do_HEAD(self) -> None:
                self.answer(200, "OK", API_Version="1.44")

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/_ping":
                    self.answer(200, "OK", API_Version="1.44")
                elif path == "/v1.44/containers/json":
                    self.answer(200, [])
                else:
                    self.answer(404, {"message": f"nothing at {path}"})

            do_POST = do_GET

        self._server = _Server(0, Engine)
        self.url = f"tcp://127.0.0.1:{self._server.port}"

    def stop(self) -> None:
        """End it."""
        self._server.stop()


class StandIn:
    """Answers for the containers of models that no server plays yet, while a node starts.

    `asked` tells what came: the model's id and the path.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    @contextlib.contextmanager
    def playing(self, models: list[Model]) -> Iterator[None]:
        """Answer for as long as the block takes."""
        servers = []
        try:
            for model in models:
                port = port_of(models, model["model_id"])
                with contextlib.suppress(OSError):  # a container is there already
                    servers.append(_Server(port, self._handler(model["model_id"])))
            yield
        finally:
            for server in servers:
                server.stop()

    def _handler(self, model_id: str) -> type[BaseHTTPRequestHandler]:
        asked = self.asked

        class Understudy(_Handler):
            def do_GET(self) -> None:
                asked.append((model_id, self.path))
                answers = container_answers(model_id)
                status = 200 if self.path in answers else 404
                self.answer(status, answers.get(self.path, {"detail": {"msg": "nothing here"}}))

        return Understudy


def container_answers(model_id: str) -> dict[str, Any]:
    """What a container says of itself, by path."""
    gpu = {"id": "gpu-0", "name": "None", "memory_total": 2, "memory_free": 1, "major": 8, "minor": 9}
    about = {"pipeline": PIPELINE, "model_id": model_id}
    return {
        "/health": {"status": "OK"},
        "/hardware/info": {**about, "gpu_info": {"0": gpu}},
        "/version": {**about, "version": "1.2.3"},
    }


class Container:
    """A bare HTTP application in the place of a model's container, in the test's own loop.

    `started` has the bodies of the jobs. Replace `start` to answer them in another way.

    Args:
        models: Those of the network (`network.models`).
        model_id: Which of them it plays.
    """

    def __init__(self, models: list[Model], model_id: str = "noop") -> None:
        self.model_id = model_id
        self._port = port_of(models, model_id)
        self.started: list[dict[str, Any]] = []
        self.start: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.accept
        self.app = web.Application()
        self.app.router.add_post(f"/{PIPELINE}", self._started)
        self.app.router.add_get("/{path:.*}", self._about)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Container:
        self._runner = web.AppRunner(
            self.app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Be down: the port is closed, and every connection."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
            await asyncio.sleep(0)

    async def accept(self, _request: web.Request) -> web.StreamResponse:
        """Take the job."""
        return web.json_response({})

    async def _started(self, request: web.Request) -> web.StreamResponse:
        self.started.append(await request.json())
        return await self.start(request)

    async def _about(self, request: web.Request) -> web.StreamResponse:
        answers = container_answers(self.model_id)
        if request.path not in answers:
            return web.json_response({"detail": {"msg": "nothing here"}}, status=404)
        return web.json_response(answers[request.path])


class Caller:
    """A bare gRPC client of an orchestrator, whose certificate it takes for the only one to be trusted."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        if address.scheme == "https":
            certificate = ssl.get_server_certificate((address.hostname or "", address.port or 0))
            trusted = grpc.ssl_channel_credentials(certificate.encode())
            self.channel = grpc.aio.secure_channel(address.netloc, trusted)
        else:
            self.channel = grpc.aio.insecure_channel(address.netloc)
        self._call = self.channel.unary_unary(
            "/net.Orchestrator/GetOrchestrator",
            request_serializer=net.OrchestratorRequest.SerializeToString,
            response_deserializer=net.OrchestratorInfo.FromString,
        )

    async def ask(self, request: net.OrchestratorRequest | None = None) -> net.OrchestratorInfo:
        """Ask what there is."""
        info: net.OrchestratorInfo = await self._call(request or net.OrchestratorRequest(), timeout=10)
        return info

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.channel.close()
