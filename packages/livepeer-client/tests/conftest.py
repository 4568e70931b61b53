"""An orchestrator with live runners, in a thread of its own, and what the tests of the client share.

It answers as go-livepeer v0.9.1 does (`server/ai_http.go`): Go's `http.Error` texts with `nosniff`, the 307
of a missing slash, sessions that stay until somebody stops them. Workers are coroutines inside it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis  # noqa: F401 (it looks at the garbage collector when it is imported, which is frozen later)
import pytest
from aiohttp import web
from multidict import CIMultiDict

from livepeer.client import Gateway
from livepeer.trickle import ChannelReader, TrickleServer

PATIENCE = 30.0  # seconds to wait for something that ought to happen soon

Handler = Callable[["Orchestrator", web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Seen:
    """A request as it reached the orchestrator."""

    method: str
    path: str
    headers: CIMultiDict[str]
    raw_path: str
    peer: Any = None
    body: bytes = b""


@dataclass
class App:
    """A runner behind the orchestrator."""

    name: str
    handler: Handler
    mode: str = "single-shot"
    capacity: int = 1000
    metadata: str | None = None
    price: dict[str, Any] | None = None
    id: str = field(default_factory=lambda: f"r-{uuid.uuid4().hex[:8]}")
    calls: int = 0


class Gate:
    """Closed until the test opens it; the server waits before it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = asyncio.Event()

    def open(self) -> None:
        self._loop.call_soon_threadsafe(self._event.set)

    async def passed(self) -> None:
        await self._event.wait()


class Orchestrator:
    """See the module. Everything that tests look at is written by the server's thread only."""

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self.apps: dict[str, App] = {}
        self.sessions: dict[str, App] = {}
        self.seen: list[Seen] = []
        self.notes: list[str] = []
        self.reserved = self.stopped = 0
        self.discovery: Handler | None = None
        self.byoc: Handler | None = None
        self.reserving: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self.stopping: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self.before_reserve: Gate | None = None
        self.after_reserve: Gate | None = None
        self.before_stop: Gate | None = None
        self.trickle = TrickleServer()
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._gates: dict[str, Gate] = {}
        self._ssl = ssl_context
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._runner: web.AppRunner | None = None

    # for tests

    @property
    def url(self) -> str:
        return f"{'https' if self._ssl else 'http'}://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        assert self._runner is not None
        assert self._runner.server is not None
        return len(self._runner.server.connections)

    def add(self, name: str, handler: Handler, **options: Any) -> App:
        self.apps[name] = app = App(name, handler, **options)
        return app

    def gate(self, name: str) -> Gate:
        return self._gates.setdefault(name, Gate(self._loop))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def wait(self, condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout} s: {what}; notes {self.notes}")
            time.sleep(0.002)

    def wait_until_left(self) -> None:
        """Wait until no client is there, and nothing of one: what it said last may still be on its way in."""
        self.wait(lambda: self.connections == 0, "no connection is left")
        self.wait(lambda: not self.sessions and self.stopped == self.reserved, "no session is left")

    def wait_note(self, text: str, count: int = 1, timeout: float = PATIENCE) -> None:
        self.wait(lambda: self.notes.count(text) >= count, f"{text!r} noted {count} times", timeout)

    async def wait_async(self, condition: Callable[[], object], what: str) -> None:
        await asyncio.to_thread(self.wait, condition, what)

    def calls(self, name: str) -> list[Seen]:
        prefix = f"/apps/{self.apps[name].id}/"
        return [seen for seen in self.seen if seen.path.startswith(prefix)]

    def last(self, name: str) -> Seen:
        return self.calls(name)[-1]

    def drop_connections(self) -> None:
        """Close every connection that is open now."""

        async def drop() -> None:
            assert self._runner is not None
            assert self._runner.server is not None
            for connection in self._runner.server.connections:
                if connection.transport is not None:
                    connection.transport.abort()

        asyncio.run_coroutine_threadsafe(drop(), self._loop).result(PATIENCE)

    def start(self) -> Orchestrator:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    # for workers

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end_channels(self, sid: str) -> None:
        for name in self.trickle.channel_names():
            if name.startswith(f"{sid}-"):
                self.trickle.close_channel(name)

    # inside

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._setup())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._cleanup())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _setup(self) -> None:
        app = web.Application(client_max_size=1 << 30, middlewares=[self._record])
        route = app.router
        route.add_get("/discovery", self._discovery)
        route.add_route("*", r"/{where:(\d+/)?}process/{tail:.*}", self._process)
        route.add_route("*", "/apps/{id}/app", self._slash)
        route.add_route("*", "/apps/{id}/app/{tail:.*}", self._single_shot)
        route.add_post("/apps/{id}/session", self._reserve)
        route.add_route("*", "/apps/{id}/session/{sid}/app/{tail:.*}", self._in_session)
        route.add_post("/apps/{id}/session/{sid}/stop", self._stop)
        self.trickle.add_routes(app)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._ssl, backlog=512)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _cleanup(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @web.middleware
    async def _record(self, request: web.Request, handler: Any) -> web.StreamResponse:
        peer = request.transport.get_extra_info("peername") if request.transport else None
        self.seen.append(Seen(request.method, request.path, request.headers.copy(), request.raw_path, peer))
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _discovery(self, request: web.Request) -> web.StreamResponse:
        if self.discovery is not None:
            return await self.discovery(self, request)
        return web.json_response(self.listing(f"{request.scheme}://{request.host}"))

    async def _process(self, request: web.Request) -> web.StreamResponse:
        return (
            await self.byoc(self, request) if self.byoc is not None else go_error(404, "404 page not found")
        )

    def listing(self, base: str) -> list[dict[str, Any]]:
        used = collections.Counter(app.id for app in self.sessions.values())
        runners: list[dict[str, Any]] = []
        for app in list(self.apps.values()):
            end = "session" if app.mode == "persistent" else "app"
            entry = {
                "url": f"{base}/apps/{app.id}/{end}",
                "app": app.name,
                "mode": app.mode,
                "capacity": app.capacity,
                "capacity_used": used[app.id],
                "capacity_available": app.capacity - used[app.id],
            }
            if app.metadata is not None:
                entry["metadata"] = app.metadata
            if app.price is not None:
                entry["price_info"] = app.price
            runners.append(entry)
        return [{"address": base, "runners": runners}] if runners else [{"address": base}]

    async def _slash(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": request.path + "/"})

    def _find(self, request: web.Request, mode: str) -> App | web.Response:
        wanted = request.match_info["id"]
        app = next((app for app in self.apps.values() if app.id == wanted), None)
        if app is None:
            return go_error(404, "runner not found")
        if app.mode != mode:
            single = mode == "single-shot"
            return go_error(
                400, "runner is not single-shot" if single else "only persistent runners have sessions"
            )
        return app

    async def _single_shot(self, request: web.Request) -> web.StreamResponse:
        app = self._find(request, "single-shot")
        if isinstance(app, web.Response):
            return app
        if app.calls >= app.capacity:
            return go_error(503, "no capacity available for runner")
        return await self._work(app, request)

    async def _reserve(self, request: web.Request) -> web.StreamResponse:
        if self.reserving is not None:
            return await self.reserving(request)
        app = self._find(request, "persistent")
        if isinstance(app, web.Response):
            return app
        if sum(1 for held in self.sessions.values() if held is app) >= app.capacity:
            return go_error(503, "no capacity available for runner")
        if self.before_reserve is not None:
            self.note("reserving")
            await asyncio.shield(asyncio.ensure_future(self.before_reserve.passed()))
        sid = uuid.uuid4().hex[:8]
        self.sessions[sid] = app
        self.reserved += 1
        if self.after_reserve is not None:
            self.note("reserved")
            await self.after_reserve.passed()
        base = f"{request.scheme}://{request.host}/apps/{app.id}/session/{sid}"
        return web.json_response({"session_id": sid, "app_url": f"{base}/app", "control_url": base})

    async def _in_session(self, request: web.Request) -> web.StreamResponse:
        app = self.sessions.get(request.match_info["sid"])
        if app is None:
            return go_error(404, "runner session not found")
        return await self._work(app, request)

    async def _work(self, app: App, request: web.Request) -> web.StreamResponse:
        app.calls += 1
        try:
            return await app.handler(self, request)
        except asyncio.CancelledError:
            self.note(f"{app.name} gone")
            raise
        finally:
            app.calls -= 1

    async def _stop(self, request: web.Request) -> web.StreamResponse:
        if self.stopping is not None:
            return await self.stopping(request)
        return await self.stop_session(request)

    async def stop_session(self, request: web.Request) -> web.StreamResponse:
        if self.before_stop is not None:
            self.note("stopping")
            await self.before_stop.passed()
        if self.sessions.pop(request.match_info["sid"], None) is not None:
            self.stopped += 1
            self.end_channels(request.match_info["sid"])
        return web.Response(status=204)


def go_error(status: int, text: str) -> web.Response:
    """What Go's `http.Error` answers."""
    return web.Response(
        status=status,
        text=text + "\n",
        headers={"X-Content-Type-Options": "nosniff", "Content-Type": "text/plain; charset=utf-8"},
    )


# Workers


async def echo(orch: Orchestrator, request: web.Request) -> web.StreamResponse:
    body = await request.read()
    orch.seen[-1].body = body
    kind = request.headers.get("Content-Type", "")
    return web.Response(body=body, headers={"Content-Type": kind} if kind else {})


async def inspect(orch: Orchestrator, request: web.Request) -> web.StreamResponse:
    """What reached the worker."""
    body = await request.read()
    return web.json_response(
        {
            "method": request.method,
            "path": request.match_info["tail"],
            "query": request.rel_url.raw_query_string,
            "headers": dict(request.headers),
            "size": len(body),
            "json": json.loads(body) if request.content_type == "application/json" and body else None,
        }
    )


async def answer(_orch: Orchestrator, request: web.Request) -> web.StreamResponse:
    """Answers as its input says: `status`, `text`, `type`, `headers`."""
    wanted = json.loads(await request.read())
    headers = {"Content-Type": wanted.get("type", "application/json"), **wanted.get("headers", {})}
    return web.Response(
        status=wanted.get("status", 200), body=wanted.get("text", "").encode(), headers=headers
    )


async def tokens(orch: Orchestrator, request: web.Request) -> web.StreamResponse:
    """As many events as the input's `count` says; notes it when it was left early."""
    wanted = json.loads(await request.read())
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await stream.prepare(request)
    for number in range(wanted.get("count", 3)):
        await stream.write(f"data: {number}\n\n".encode())
    if wanted.get("endless"):
        orch.note("tokens written")
        await asyncio.Event().wait()
    if wanted.get("gate"):
        await orch.gate(wanted["gate"]).passed()
        await stream.write(b"data: later\n\n")
    with contextlib.suppress(ConnectionResetError):
        await stream.write(b"data: [DONE]\n\n")
    return stream


async def slow(orch: Orchestrator, request: web.Request) -> web.StreamResponse:
    """Begins, and answers when its gate is opened."""
    await request.read()
    orch.note("slow begun")
    await orch.gate("slow").passed()
    return web.json_response({"slow": True})


async def open_gate(orch: Orchestrator, request: web.Request) -> web.StreamResponse:
    """Opens the gate that its input names."""
    orch.gate(await request.json()).open()
    return web.json_response(None)


async def live(orch: Orchestrator, request: web.Request) -> web.StreamResponse:
    """A worker with channels: it sends each control message back as an event.

    `params` of the start: `lacks` names channels to leave out, `gate` one to wait for, `status` an error.
    """
    tail, sid = request.match_info["tail"], request.match_info["sid"]
    if tail == "ws":
        socket_ = web.WebSocketResponse()
        await socket_.prepare(request)
        async for message in socket_:
            await socket_.send_str(message.data[::-1])
        return socket_
    if tail != "live":
        return await inspect(orch, request)
    wanted = await request.json()
    params = wanted.get("params", {})
    if "gate" in params:
        orch.note("live starting")
        await asyncio.shield(asyncio.ensure_future(orch.gate(params["gate"]).passed()))
    if "status" in params:
        return web.json_response({"error": "refused"}, status=params["status"])
    names = [
        name for name in ("in", "out", "control", "events", "data") if name not in params.get("lacks", [])
    ]
    base = f"{request.scheme}://{request.host}{orch.trickle.prefix}/{sid}"
    for name in names:
        orch.trickle.create(f"{sid}-{name}", "application/json")
    roles = {"in": "publish", "out": "subscribe"}
    answer = {f"{roles.get(name, name)}_url": f"{base}-{name}" for name in names}
    if "control" in names:
        orch.spawn(_relay(orch, sid, answer["control_url"]))
    return web.json_response(
        {"manifest_id": f"m-{sid}", **answer, **params.get("answer", {}), "asked": wanted}
    )


async def _relay(orch: Orchestrator, sid: str, control_url: str) -> None:
    async with ChannelReader(control_url) as control:
        async for message in control:
            if f"{sid}-events" in orch.trickle.channel_names():
                orch.trickle.publish(f"{sid}-events", json.dumps({"got": message}).encode())
            if message == "end":
                orch.end_channels(sid)
    orch.note("relay over")


def populate(orch: Orchestrator) -> Orchestrator:
    """The workers that most tests use, each as single-shot and, with a `p-` before, as persistent runner."""
    for handler in (echo, inspect, answer, tokens, slow, open_gate):
        orch.add(handler.__name__, handler)
        orch.add(f"p-{handler.__name__}", handler, mode="persistent")
    orch.add("live", live, mode="persistent")
    return orch


# Fixtures


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("LIVEPEER_") or name.lower() in (
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "no_proxy",
        ):
            monkeypatch.delenv(name)
    yield
    gc.collect()  # what was left open complains in the test that left it
    gc.freeze()  # what remains is the libraries, which needn't be searched again after each test


@pytest.fixture
def orch() -> Iterator[Orchestrator]:
    """An orchestrator on plain http."""
    server = populate(Orchestrator().start())
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes certificates like an orchestrator's: self-signed, an empty subject, an IP as a DNS name."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command to make certificates with")
    folder = tmp_path_factory.mktemp("certificates")

    def make() -> Path:
        path = folder / f"{uuid.uuid4().hex}.pem"
        key = path.with_suffix(".key")
        subprocess.run(
            [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-subj", "/", "-addext", "subjectAltName=DNS:127.0.0.1",
             "-keyout", str(key), "-out", str(path)],
            check=True,
            capture_output=True,
        )  # fmt: skip
        path.write_text(path.read_text() + key.read_text())
        return path

    return make


@pytest.fixture(scope="session")
def certificate(certificates: Callable[[], Path]) -> Path:
    return certificates()


@pytest.fixture
def tls_orch(certificate: Path) -> Iterator[Orchestrator]:
    """An orchestrator on https."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = Orchestrator(context)
    server.tls_context = context  # type: ignore[attr-defined]
    populate(server.start())
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def gateway(orch: Orchestrator) -> Iterator[Gateway]:
    with Gateway(orch_url=orch.url) as opened:
        yield opened


class SyncVerbs:
    """The synchronous verbs of a gateway."""

    name = "sync"

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.run = gateway.run
        self.call = gateway.call
        self.stream = gateway.stream
        self.capabilities = gateway.capabilities

    def disconnect(self) -> None:
        """Close the connections; the next call opens others."""
        self.gateway.close()

    def close(self) -> None:
        self.disconnect()


class AsyncVerbs:
    """The asynchronous verbs behind the same face, each run to its end on one loop."""

    name = "async"

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.runner = asyncio.Runner()

    def run(self, *args: Any, **options: Any) -> Any:
        return self.runner.run(self.gateway.run_async(*args, **options))

    def call(self, *args: Any, **options: Any) -> Any:
        return self.runner.run(self.gateway.call_async(*args, **options))

    def capabilities(self) -> Any:
        return self.runner.run(self.gateway.capabilities_async())

    def stream(self, *args: Any, **options: Any) -> Any:
        async def opened() -> Any:
            return await self.gateway.stream_async(*args, **options)

        return _Driven(self.runner.run(opened()), self.runner)

    def disconnect(self) -> None:
        self.runner.run(self.gateway.aclose())

    def close(self) -> None:
        self.disconnect()
        self.runner.close()


class _Driven:
    """An asynchronous stream, read synchronously."""

    def __init__(self, stream: Any, runner: asyncio.Runner) -> None:
        self._stream = stream
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> _Driven:
        return self

    def __next__(self) -> Any:
        async def step() -> Any:
            return await anext(self._stream, None)

        event = self._runner.run(step())
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        self._runner.run(self._stream.aclose())

    def __enter__(self) -> _Driven:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@pytest.fixture(params=[SyncVerbs, AsyncVerbs], ids=["sync", "async"])
def make_verbs(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """The verbs of a gateway that the test describes, once synchronous and once asynchronous."""
    made: list[Any] = []

    def make(**options: Any) -> Any:
        made.append(request.param(Gateway(**options)))
        return made[-1]

    yield make
    for verbs in made:
        verbs.close()


@pytest.fixture
def verbs(make_verbs: Callable[..., Any], orch: Orchestrator) -> Any:
    """The verbs of a gateway on `orch`."""
    return make_verbs(orch_url=orch.url)


@dataclass
class Finished:
    code: int
    out: str
    err: str
    seconds: float


# Starting Python and loading aiohttp takes a second under `-X dev`, and there are dozens of scripts here. So
# a process that has loaded them makes each script's by `fork`, twice: the one between notes how it ended.
ZYGOTE = """
import json, os, sys, warnings
import livepeer.client, livepeer.client._calls
def note(path, number):
    with open(path, "w") as file:
        file.write(str(number) + "\\n")
while job := sys.stdin.readline():
    job = json.loads(job)
    if pid := os.fork():
        os.waitpid(pid, 0)
        continue
    if os.fork():
        os._exit(0)
    if pid := os.fork():
        note(job["path"] + ".pid", pid)
        note(job["path"] + ".code", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os._exit(0)
    for number, name in enumerate((None, ".out", ".err")):
        os.dup2(os.open(job["path"] + name if name else os.devnull, os.O_RDWR | os.O_CREAT), number)
    os.setpgid(0, 0)
    sys.argv = ["-c", *job["arguments"]]
    source = compile(job["source"], "<script>", "exec")
    del pid, number, name, job
    break
else:
    sys.exit(0)
exec(source)
"""
DEVELOPMENT = ("-X", "dev", "-W", "error")


class Zygote:
    """See `ZYGOTE`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, *DEVELOPMENT, "-c", ZYGOTE], stdin=subprocess.PIPE, text=True, env=_environment()
        )
        self._count = 0

    def start(self, source: str, arguments: tuple[str, ...]) -> Path:
        self._count += 1
        path = self._folder / str(self._count)
        assert self._process.stdin is not None
        job = {"source": source, "arguments": arguments, "path": str(path)}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return path

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(PATIENCE) == 0


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote | None]:
    if not hasattr(os, "fork"):
        yield None
        return
    started = Zygote(tmp_path_factory.mktemp("scripts"))
    yield started
    started.stop()


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("LIVEPEER_")}


class Script:
    """A Python script in a process of its own, under `-X dev -W error`."""

    def __init__(self, source: str, arguments: tuple[str, ...], zygote: Zygote | None, folder: Path) -> None:
        self._began = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        source = textwrap.dedent(source)
        if zygote is not None:
            self._path = zygote.start(source, arguments)
            self.pid = int(self._when_written(".pid", PATIENCE))
            return
        self._path = folder / uuid.uuid4().hex
        with self._file(".out").open("wb") as out, self._file(".err").open("wb") as err:
            command = [sys.executable, *DEVELOPMENT, "-c", source, *arguments]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=_environment(),
                process_group=0 if hasattr(os, "fork") else None,
            )
        self.pid = self._process.pid

    def interrupt(self) -> None:
        os.kill(self.pid, signal.SIGINT)

    def wait_line(self, line: str) -> None:
        """Wait until the script has printed a line."""
        deadline = time.monotonic() + PATIENCE
        while line not in self._text(".out").splitlines():
            if time.monotonic() > deadline:
                raise AssertionError(f"no {line!r}:\n{self._text('.out')}{self._errors()}")
            time.sleep(0.005)

    def finish(self, timeout: float = 60.0) -> Finished:
        if self._process is not None:
            code = self._process.wait(timeout)
        else:
            code = int(self._when_written(".code", timeout))
        seconds = time.monotonic() - self._began
        return Finished(code, self._text(".out"), self._errors(), seconds)

    def kill(self) -> None:
        """End it and every process that it left."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _file(self, suffix: str) -> Path:
        return self._path.with_suffix(suffix)

    def _text(self, suffix: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self._file(suffix).read_text()
        return ""

    def _errors(self) -> str:
        # asyncio's debug mode complains of a busy machine, which is not what is tested.
        return re.sub(r"(?m)^Executing <.*> took \d+\.\d+ seconds\n", "", self._text(".err"))

    def _when_written(self, suffix: str, timeout: float) -> str:
        deadline = time.monotonic() + timeout
        while True:
            if (text := self._text(suffix)).endswith("\n"):
                return text
            if time.monotonic() > deadline:
                shown = self._text(".out"), self._text(".err")
                self.kill()
                raise AssertionError(f"the script did not come to its {suffix} in {timeout} s: {shown}")
            time.sleep(0.002)


@pytest.fixture
def script(zygote: Zygote | None, tmp_path: Path) -> Iterator[Callable[..., Script]]:
    """Starts scripts (with `fresh`, in an interpreter of their own), and kills what a failed test left."""
    started: list[Script] = []

    def start(source: str, *arguments: str, fresh: bool = False) -> Script:
        started.append(Script(source, arguments, None if fresh else zygote, tmp_path))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def silent(script: Callable[..., Script]) -> Callable[..., str]:
    """Runs a script to its end, which has to come soon, with code 0, and without a word on stderr."""

    def run(source: str, *arguments: str, **options: Any) -> str:
        done = script(source, *arguments, **options).finish()
        assert (done.code, done.err) == (0, ""), f"exit {done.code}\n{done.out}\n{done.err}"
        return done.out

    return run


@pytest.fixture
def raw_server() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Servers below HTTP: each accepted connection is given to a function, in a thread."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(handle: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(PATIENCE)
                    handle(connection)

        threads.append(threading.Thread(target=accept, daemon=True))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for listener in listeners:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(PATIENCE)


@pytest.fixture
def reset() -> Callable[[web.Request], None]:
    """Breaks a request's connection off with a TCP reset."""

    def break_off(request: web.Request) -> None:
        assert request.transport is not None
        opened = request.transport.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()

    return break_off
