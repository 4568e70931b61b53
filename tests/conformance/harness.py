"""A network to test on, and a bare HTTP worker behind it.

Neither uses `livepeer.runner` or the client: what both sides of the SDK got wrong in the same way would not
show otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
from ai_harness import DockerEngine, HeldPorts, Model, StandIn, port_of
from aiohttp import web
from multidict import CIMultiDict

from livepeer.devkit import LocalNetwork

UNVERIFIED = ssl.create_default_context()
UNVERIFIED.check_hostname, UNVERIFIED.verify_mode = False, ssl.CERT_NONE

__all__ = [
    "UNVERIFIED",
    "Embedded",
    "GoLivepeer",
    "Network",
    "Session",
    "Wire",
    "Worker",
    "dial",
    "free_port",
    "until",
]


class Network:
    """An orchestrator with live runners, offchain.

    Args:
        models: With any (`ai_harness.make_models`) it has an AI worker, too. Their containers are asked how
            they are while the node starts: those that no server plays yet are played for so long. A container
            in the test's own loop would block `start` and `restart`: call these in a thread then.
    """

    kind: str
    url: str
    secret: str

    def __init__(self, models: Sequence[Model] = ()) -> None:
        self.models = list(models)
        self.stand_in = StandIn()
        self._ports = HeldPorts()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def port_of(self, model_id: str) -> int:
        """Where the container of a model is looked for."""
        return port_of(self.models, model_id)

    @contextlib.contextmanager
    def _containers(self) -> Iterator[None]:
        """While a node starts, every model has a container."""
        self._ports.hold(self.models)
        with self.stand_in.playing(self.models):
            yield

    def start(self) -> None:
        raise AssertionError

    def stop(self) -> None:
        raise AssertionError

    def restart(self) -> None:
        """Kill it and start it on the same port: everything is forgotten, and the certificate is another."""
        raise AssertionError

    def kill(self) -> None:
        """Kill it, and nothing else."""
        raise AssertionError


class Embedded(Network):
    """`LocalNetwork`, without its samples."""

    kind = "embedded"

    def __init__(self, host: str = "127.0.0.1", models: Sequence[Model] = (), *, tls: bool = True) -> None:
        super().__init__(models)
        self._network = LocalNetwork(samples=False, host=host, lv2v=self.models, tls=tls)

    def start(self) -> None:
        with self._containers():
            self._network.start()
        self.url, self.secret = self._network.orch_url, self._network.orch_secret

    def stop(self) -> None:
        self._network.stop()
        self._ports.release()

    def restart(self) -> None:
        with self._containers():
            self._network.restart()

    def kill(self) -> None:
        os.kill(self._network.pid, signal.SIGKILL)


class GoLivepeer(Network):
    """A real go-livepeer node."""

    kind = "go-livepeer"

    def __init__(
        self, binary: Path, host: str = "127.0.0.1", models: Sequence[Model] = (), *, tls: bool = True
    ) -> None:
        super().__init__(models)
        self._binary = binary
        self._folder = tempfile.mkdtemp(prefix="go-livepeer-")
        self._process: subprocess.Popen[bytes] | None = None
        self._port, self._cli_port = self._ports.take(), self._ports.take()
        self._address = f"{'' if tls else 'http://'}{host}:{self._port}"
        self.url, self.secret = f"{'https' if tls else 'http'}://{host}:{self._port}", uuid.uuid4().hex
        self.log = Path(self._folder) / "node.log"
        self._engine: DockerEngine | None = None

    def start(self) -> None:
        with self._containers():
            self._start()

    def _start(self) -> None:
        command = [
            str(self._binary),
            "-orchestrator",
            "-useLiveRunners",
            "-network=offchain",
            f"-orchSecret={self.secret}",
            f"-serviceAddr={self._address}",
            f"-httpAddr={self._address}",
            f"-cliAddr=127.0.0.1:{self._cli_port}",
            f"-dataDir={self._folder}/data",
            "-v=4",
        ]
        environment = dict(os.environ)
        if self.models:
            self._engine = self._engine or DockerEngine()
            environment["DOCKER_HOST"] = self._engine.url
            file = Path(self._folder) / "models.json"
            file.write_text(json.dumps(self.models))
            command += ["-aiWorker", f"-aiModels={file}"]
        self.log.parent.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                preexec_fn=_die_with_parent,
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = self.log.read_text(errors="replace")[-3000:]
                self.stop()
                raise AssertionError(f"go-livepeer did not start:\n{text}")
            time.sleep(0.02)

    def stop(self) -> None:
        self._kill(signal.SIGTERM)
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.stop()
        self._ports.release()
        shutil.rmtree(self._folder, ignore_errors=True)

    def restart(self) -> None:
        self._kill(signal.SIGKILL)
        self.start()

    def kill(self) -> None:
        self._kill(signal.SIGKILL)

    def _kill(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/discovery", context=UNVERIFIED, timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False


@dataclass(frozen=True)
class Session:
    """A session of a persistent runner, and what its worker was told of it.

    `app_url` has no slash at its end. `callbacks` is where the worker asks for things, by `token`.
    """

    id: str
    app_url: str
    control_url: str
    callbacks: str
    token: str


class Worker:
    """A bare HTTP application that registers as a live runner by hand.

    Give it handlers by `worker.routes.add_post("/run", handler)` and so on before it is registered.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.app = web.Application(client_max_size=256 * 1024 * 1024)
        self.routes = self.app.router
        self.routes.add_get("/_who", _who)
        self.answers: list[dict[str, Any]] = []
        self._capabilities: set[str] = set()
        self._sockets: list[socket.socket] = []
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=self._socket),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Worker:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for answer in self.answers:
            await self.unregister(answer)
        for name in list(self._capabilities):
            with contextlib.suppress(aiohttp.ClientError):  # the network was stopped before
                await self.unregister_byoc(name)
        await self.http.close()
        await self.stop()
        # aiohttp does not wait for a TLS connection's goodbye when the server has ended it
        await until(lambda: all(one.fileno() == -1 for one in self._sockets))

    def _socket(self, address: Any) -> socket.socket:
        made = socket.socket(*address[:3])
        self._sockets.append(made)
        return made

    async def start(self) -> str:
        """Listen; the worker's own URL."""
        if self._runner is None:
            self._runner = web.AppRunner(
                self.app,
                access_log=None,
                handler_cancellation=True,
                shutdown_timeout=0.5,
                auto_decompress=False,
                max_line_size=1 << 20,
                max_field_size=1 << 20,
            )
            await self._runner.setup()
            await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        """Close the port and every connection."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def heartbeat(self, body: dict[str, Any], secret: str | None = None) -> tuple[int, Any]:
        """Send one heartbeat; the status, and the JSON or the text of the answer."""
        headers = {"Authorization": self.network.secret if secret is None else secret}
        url = f"{self.network.url}/runners/heartbeat"
        async with self.http.post(url, json=body, headers=headers, ssl=UNVERIFIED) as answer:
            if answer.content_type == "application/json":
                return answer.status, await answer.json()
            return answer.status, await answer.text()

    async def register(self, app: str | None = None, **fields: Any) -> dict[str, Any]:
        """Register the application; the orchestrator's first answer, with `app` and `url` beside it."""
        name = app or f"test-{uuid.uuid4().hex[:8]}"
        body = {
            "runner_url": await self.start(),
            "app": name,
            "mode": "single-shot",
            "status": "ready",
            "capacity": 4,
            "price_info": {"price": "1", "currency": "usd", "unit": "hour"},
            **fields,
        }
        status, answer = await self.heartbeat(body)
        assert status == 200, (status, answer)
        answer |= {"app": name, "body": body}
        answer["url"] = f"{self.network.url}/apps/{answer['runner_id']}"
        self.answers.append(answer)
        return dict(answer)

    async def unregister(self, answer: dict[str, Any]) -> int:
        """Unregister by hand; the status."""
        url = f"{self.network.url}/runners/{answer['runner_id']}/unregister"
        headers = {"Authorization": answer["heartbeat_secret"]}
        try:
            async with self.http.post(url, headers=headers, ssl=UNVERIFIED) as done:
                return done.status
        except aiohttp.ClientError:
            return 0  # the network was stopped before

    async def register_byoc(
        self, name: str | None = None, capacity: int = 1, url: str | None = None, **fields: Any
    ) -> str:
        """Register the application as a BYOC capability; its name.

        Do it before requests, never beside them: registrations in a fast loop have crashed go-livepeer.

        Args:
            name: The capability; one of the test's own when absent.
            capacity: What is advertised; direct calls are not held to it.
            url: Another address than the worker's own.
            fields: Further fields of the registration, `description`, `price_per_unit`, `token` and so on.
        """
        name = name or f"test-{uuid.uuid4().hex[:8]}"
        body = {
            "name": name,
            "url": await self.start() if url is None else url,
            "capacity": capacity,
            "price_per_unit": 0,
            "price_scaling": 1,
            "currency": "wei",
            **fields,
        }
        status, text = await self.capability("register", json.dumps(body))
        assert (status, text) == (200, "ok"), (status, text)
        self._capabilities.add(name)
        return name

    async def unregister_byoc(self, name: str) -> None:
        """Unregister a BYOC capability; one that is unknown, too."""
        self._capabilities.discard(name)
        status, text = await self.capability("unregister", name)
        assert (status, text) == (200, "ok"), (status, text)

    async def capability(self, verb: str, body: str | bytes, secret: str | None = None) -> tuple[int, str]:
        """``POST /capability/register`` or ``unregister`` as it is; the status and the text."""
        headers = {"Authorization": self.network.secret if secret is None else secret}
        return await self.ask("POST", f"{self.network.url}/capability/{verb}", data=body, headers=headers)

    async def reserve(self, runner: dict[str, Any]) -> Session:
        """Begin a session of a registered persistent runner, and ask the worker what it was told."""
        async with self.request("POST", f"{runner['url']}/session") as answer:
            assert answer.status == 200, await answer.text()
            given = await answer.json()
        async with self.request("GET", f"{given['app_url']}/_who") as answer:
            assert answer.status == 200, await answer.text()
            told = await answer.json()
        assert told["id"] == given["session_id"]
        return Session(app_url=given["app_url"], control_url=given["control_url"], **told)

    @contextlib.asynccontextmanager
    async def kept_session(self) -> AsyncIterator[Session]:
        """A session of a runner that sends heartbeats; else it and its channels are gone after 20 s."""
        runner = await self.register(mode="persistent")

        async def beat() -> None:
            body = {**runner["body"], "runner_id": runner["runner_id"]}
            while True:
                await asyncio.sleep(5)
                status, answer = await self.heartbeat(body, runner["heartbeat_secret"])
                assert status == 200, answer

        beating = asyncio.create_task(beat())
        try:
            yield await self.reserve(runner)
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def callback(
        self, session: Session, method: str, name: str, body: Any = None, *, token: str | None = None
    ) -> tuple[int, Any]:
        """Ask the orchestrator for something as the worker of a session; the status, and the JSON or text."""
        headers = {"Livepeer-Session-Token": session.token if token is None else token}
        kind = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self.request(method, f"{session.callbacks}/{name}", headers=headers, **kind) as answer:
            if answer.content_type == "application/json":
                return answer.status, await answer.json()
            return answer.status, await answer.text()

    def request(self, method: str, url: str, **options: Any) -> Any:
        """A bare request to the network, without redirects."""
        options.setdefault("allow_redirects", False)
        return self.http.request(method, url, ssl=UNVERIFIED, **options)

    async def ask(self, method: str, url: str, **options: Any) -> tuple[int, str]:
        """A bare request; its status and text."""
        async with self.request(method, url, **options) as answer:
            return answer.status, await answer.text()


class Wire:
    """An HTTP/1.1 connection to a network of which the test writes and sees every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self.reader = reader
        self.writer = writer
        self._host = host

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def ask(self, method: str, url: str, *headers: str) -> None:
        """Send a request's head; the URL is taken as it stands, with what it escapes and what not."""
        target = "/" + url.partition("://")[2].partition("/")[2] if "://" in url else url
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._host}", *headers]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def chunk(self, data: bytes) -> None:
        """Send one chunk of a chunked body; an empty one ends it."""
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def head(self) -> tuple[int, CIMultiDict[str]]:
        """An answer's status and headers."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 30)
        first, *lines = head.decode().split("\r\n")[:-2]
        headers = CIMultiDict(
            (name, value.strip()) for name, _, value in (one.partition(":") for one in lines)
        )
        return int(first.split(" ")[1]), headers

    async def read_chunk(self) -> bytes:
        """One chunk of a chunked answer, b"" at its end."""
        size = int(await asyncio.wait_for(self.reader.readuntil(b"\r\n"), 30), 16)
        return (await asyncio.wait_for(self.reader.readexactly(size + 2), 30))[:-2]

    async def body(self, headers: CIMultiDict[str]) -> bytes:
        """The whole body of an answer with these headers."""
        if headers.get("Transfer-Encoding") != "chunked":
            return await asyncio.wait_for(self.reader.readexactly(int(headers["Content-Length"])), 30)
        data = b""
        while chunk := await self.read_chunk():
            data += chunk
        return data

    async def answer(self) -> tuple[int, CIMultiDict[str], bytes]:
        """A whole answer."""
        status, headers = await self.head()
        return status, headers, await self.body(headers)

    async def closed(self) -> bool:
        """Wait for the connection's end; False when bytes come instead."""
        try:
            return not await asyncio.wait_for(self.reader.read(1), 30)
        except ConnectionError:
            return True

    async def silent(self, seconds: float = 0.15) -> bool:
        """Whether nothing comes for so long."""
        try:
            await asyncio.wait_for(self.reader.read(1), seconds)
        except TimeoutError:
            return True
        return False

    def abort(self) -> None:
        """Be gone without a word."""
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def dial(network: Network) -> AsyncIterator[Wire]:
    """A connection of the test's own."""
    parts = urlsplit(network.url)
    context = UNVERIFIED if parts.scheme == "https" else None
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context, limit=1 << 22)
    try:
        yield Wire(reader, writer, parts.netloc)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def until(condition: Any, patience: float = 30.0) -> None:
    """Wait until a condition (a callable, may be asynchronous) holds."""
    deadline = time.monotonic() + patience
    while True:
        held = condition()
        if asyncio.iscoroutine(held):
            held = await held
        if held:
            return
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.01)


async def _who(request: web.Request) -> web.Response:
    told = {name: request.headers[f"Livepeer-Session-{name}"] for name in ("Id", "Token", "Control")}
    return web.json_response({"id": told["Id"], "token": told["Token"], "callbacks": told["Control"]})


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    os.setpgid(0, 0)
