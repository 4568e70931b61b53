"""Serving pipelines: `serve` for a process of their own, `running` inside another one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Unpack

import uvicorn

from ._definition import Definition
from ._host import Host
from .app import app_of
from .errors import ConfigurationError
from .options import RunnerOptions, checked_orchestrator, tls_policy
from .registration.ways import Registration, registrations

__all__ = ["RunningServer", "running", "serve"]

_HEADER_LIMIT = 64 * 1024  # bytes; a payment of 94 tickets is 9 KB
_KEEP_ALIVE = 120  # seconds; longer than a Go proxy keeps an idle connection (90), which must close first


class RunningServer:
    """A pipeline that is being served.

    Attributes:
        url: Where it listens, without a slash at the end.
        app_name: The capability's name.
    """

    def __init__(self, host: Host, url: str) -> None:
        self._host = host
        self._registrations: list[Registration] = []
        self.url = url
        self.app_name: str = host.name

    @property
    def runner_id(self) -> str | None:
        """The id that the orchestrator gave; None while it doesn't know this runner, and for BYOC."""
        return next((one.runner_id for one in self._registrations if one.runner_id), None)

    def health(self) -> dict[str, Any]:
        """What ``GET /health`` answers."""
        return self._host.health()

    async def ready(self) -> None:
        """Wait until ``setup`` is done; raises `ConfigurationError` when it failed."""
        await self._host.until_ready()

    async def registered(self, timeout: float | None = 30.0) -> str:
        """Wait until the orchestrator knows this runner, in every way that was asked for.

        Returns:
            The runner id that it gave; for BYOC alone the capability's name.

        Args:
            timeout: For how many seconds to wait; None is for ever.

        Raises:
            RegistrationError: The orchestrator refuses the registration (the runner goes on trying).
            ConfigurationError: There is no orchestrator to register at, or ``setup`` failed.
            TimeoutError: It took longer; the orchestrator is down.
        """
        if not self._registrations:
            raise ConfigurationError(
                f"{self.app_name} has no orchestrator to register at; give orch_url and secret."
            )
        async with asyncio.timeout(timeout):
            known = [await registration.registered() for registration in self._registrations]
        return known[0]


@asynccontextmanager
async def running(
    pipeline: Definition, *, wait: bool = True, **options: Unpack[RunnerOptions]
) -> AsyncIterator[RunningServer]:
    """Serve a pipeline on the running event loop, for the time of a block; for tests and embedding.

    Nothing is read from the environment. At the block's end live streams are ended, the runner is
    unregistered, and calls may finish within ``grace`` seconds.

    Args:
        pipeline: An instance of a `Pipeline` or a `LivePipeline`.
        wait: Whether the block begins when ``setup`` is done, or as soon as the port answers.
        **options: See `RunnerOptions`.

    Raises:
        ConfigurationError: The options can't work, the port is taken, or ``setup`` failed.
    """
    where = checked_orchestrator(options)
    host = Host(pipeline, name=options.get("name"), capacity=options.get("capacity"))
    host.tls = tls_policy(options)
    host.orchestrator = where[0] if where else None
    host.gpu = options.get("gpu")
    app = app_of(host, idle_timeout=options.get("idle_timeout", 60.0))
    listener = _listen(options.get("host", "127.0.0.1"), options.get("port", 0))
    try:
        url = _url_of(listener)
        begin = registrations(host, url, where, options)
    except BaseException:
        listener.close()
        raise
    server = _Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=_HEADER_LIMIT,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=max(1, round(options.get("grace", 10.0))),
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listener]), name=f"server of {host.name}")
    try:
        await server.until_started(task)
        handle = RunningServer(host, url)
        handle._registrations = [start() for start in begin]
        try:
            if wait:
                await host.until_ready()
            yield handle
        finally:
            await asyncio.shield(_stop(host, handle._registrations))
    finally:
        server.stop()
        await asyncio.wait({task})
        listener.close()


async def _stop(host: Host, registrations: list[Registration]) -> None:
    # Streams first: once the runner is unregistered their channels are gone, with what is in them.
    await host.stop()
    await asyncio.gather(*(registration.aclose() for registration in registrations))


def serve(*pipelines: Definition, **options: Unpack[RunnerOptions]) -> None:
    """Serve pipelines until SIGINT or SIGTERM; returns when everything has ended.

    Options that are absent come from ``LIVEPEER_ORCH_URL``, ``LIVEPEER_ORCH_SECRET`` and
    ``LIVEPEER_RUNNER_URL``; with an orchestrator's URL each pipeline is registered there when its ``setup``
    is done, as a live runner or as ``register=`` says, registered again when the orchestrator restarts or
    forgets it, and unregistered at the end. A `LivePipeline` that is the container of an AI worker needs no
    registration: the orchestrator's ``-aiModels`` name its URL.

    Args:
        *pipelines: One or more pipelines; further ones listen at the ports after the first one's.
        **options: See `RunnerOptions`. The port is 8000 when absent; a second SIGINT ends without grace.

    Raises:
        ConfigurationError: The options can't work, or a port is taken.
    """
    if not pipelines:
        raise ConfigurationError("serve() needs a pipeline: serve(Sentiment()).")
    if len(pipelines) > 1 and any(options.get(key) for key in ("name", "runner_url", "runner_id")):
        raise ConfigurationError(
            "name=, runner_url= and runner_id= are for one pipeline. Set name on each class, and serve those "
            "that need a runner_url or a runner_id of their own in processes of their own."
        )
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        raise ConfigurationError(
            "An event loop is running here (a notebook, or async code); use: async with running(pipeline, …)."
        )
    merged: RunnerOptions = {"port": 8000, **options}
    environment = {"orch_url": "LIVEPEER_ORCH_URL", "secret": "LIVEPEER_ORCH_SECRET"}
    if len(pipelines) == 1:
        environment["runner_url"] = "LIVEPEER_RUNNER_URL"
    for key, variable in environment.items():
        if not merged.get(key) and os.environ.get(variable):
            merged[key] = os.environ[variable]  # type: ignore[literal-required]
    asyncio.run(_serve(pipelines, merged))


async def _serve(pipelines: tuple[Definition, ...], options: RunnerOptions) -> None:
    asked = asyncio.Event()
    port = options["port"]
    # One memory of certificates, so that a changed one is told of once.
    options = {**options, "tls": tls_policy(options)}
    with _signals(asked):
        async with contextlib.AsyncExitStack() as stack:
            for index, pipeline in enumerate(pipelines):
                own: RunnerOptions = {**options, "port": port + index if port else 0}
                server = await stack.enter_async_context(running(pipeline, wait=False, **own))
                print(f"{server.app_name}: {server.url} (see {server.url}/docs)", file=sys.stderr, flush=True)
            await asked.wait()


@contextlib.contextmanager
def _signals(asked: asyncio.Event) -> Iterator[None]:
    """Set the event at the first SIGINT or SIGTERM; the second one has its ordinary effect."""
    loop = asyncio.get_running_loop()
    previous: dict[int, Any] = {}

    def handler(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
        loop.call_soon_threadsafe(asked.set)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, handler)
    except ValueError:  # not in the main thread, where Python handles signals
        previous.clear()
    try:
        yield
    finally:
        for restored, old in previous.items():
            signal.signal(restored, old)


class _Server(uvicorn.Server):
    """uvicorn's server, without its signal handling, that says when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._up = asyncio.Event()
        self._down = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: `serve` handles them, and an embedding program its own."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets=sockets)
        self._up.set()

    async def main_loop(self) -> None:
        """Wait for `stop`, and keep the date of the answers."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._down.wait(), 1)

    def stop(self) -> None:
        """End the server, in its own time."""
        self.should_exit = True
        self._down.set()

    async def until_started(self, task: asyncio.Task[None]) -> None:
        """Wait for the start; raises what prevented it."""
        up = asyncio.ensure_future(self._up.wait())
        try:
            await asyncio.wait({up, task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
        if task.done():
            task.result()
            raise ConfigurationError("The server ended before it started.")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets that say TCP; without it each answer takes 40 ms more.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would let a second server take the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"Can't listen at {host}:{port}: {error.strerror or error}. Choose another; 0 takes a free one."
        ) from error
    listener.setblocking(False)
    return listener


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
