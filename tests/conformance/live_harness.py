"""What breaks live sessions in tests, and what shows whether a frame came through."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import types
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import av
import numpy as np
from aiohttp import web
from harness import UNVERIFIED, Network, Session, Worker

from livepeer.client import Gateway
from livepeer.devkit.demo import numbers
from livepeer.trickle import TLSPolicy, Transport, TricklePublisher, TrickleServer, TrickleSubscriber
from livepeer.trickle.media import MediaPublish

WIDTH, HEIGHT, FPS = 320, 64, 30


def picture(number: int) -> av.VideoFrame:
    """A small frame with its number drawn into it."""
    array = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
    array[:HEIGHT] = np.linspace(40, 200, WIDTH, dtype=np.uint8)
    numbers.draw(array[:HEIGHT], number)
    return av.VideoFrame.from_ndarray(array, format="yuv420p")


def number_of(frame: Any) -> int | None:
    """The number in a frame that came back."""
    return numbers.read(frame.raw.reformat(format="yuv420p").to_ndarray()[:HEIGHT])


class WorkerProcess:
    """`live_worker.py` in a process of its own, registered under a name of its own; a context manager.

    Args:
        network: Where to register.
        options: More options of `running`.
        container: The port of an AI worker's container to be instead, registered nowhere.
    """

    def __init__(self, network: Network, container: int | None = None, **options: Any) -> None:
        self.app = f"passing-{uuid.uuid4().hex[:6]}"
        settings: dict[str, Any] = {"name": self.app, **options}
        if container is None:
            settings |= {"orch_url": network.url, "secret": network.secret}
        else:
            settings |= {"port": container}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("live_worker.py")), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> WorkerProcess:
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "the worker did not start"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self._process.communicate()

    def stop(self) -> None:
        """End it in order: it unregisters."""
        self._process.communicate(timeout=60)

    def kill(self) -> None:
        """SIGKILL: no goodbye to anybody."""
        self._process.kill()

    def pause(self) -> None:
        """SIGSTOP: its connections stay, and nothing moves."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)


class BareWorker:
    """The bare worker of a session, which opens its channels and leaves every byte to the test."""

    def __init__(self, worker: Worker) -> None:
        self.app = ""
        self.session: Session | None = None
        self.inner: dict[str, str] = {}
        self._worker = worker
        self.transport: Transport | None = None
        worker.routes.add_post("/live", self._live)

    async def register(self) -> BareWorker:
        """Be callable."""
        self.app = (await self._worker.register(mode="persistent"))["app"]
        return self

    async def _live(self, request: web.Request) -> web.Response:
        told = {name: request.headers[f"Livepeer-Session-{name}"] for name in ("Id", "Token", "Control")}
        session = Session(told["Id"], "", "", told["Control"], told["Token"])
        kinds = {"in": "video/MP2T", "out": "video/MP2T", "control": "application/json"}
        wanted = [{"name": n, "mime_type": k} for n, k in {**kinds, "events": "application/json"}.items()]
        status, answer = await self._worker.callback(session, "POST", "channels", {"channels": wanted})
        assert status == 200, answer
        self.session = session
        self.inner = {one["name"]: one["url"] for one in answer["channels"]}
        roles = {"in": "publish", "out": "subscribe", "control": "control", "events": "events"}
        return web.json_response({f"{roles[name]}_url": url for name, url in self.inner.items()})

    async def stop(self) -> None:
        """End the session as a worker does."""
        assert self.session is not None
        await self._worker.callback(self.session, "POST", "stop")

    @contextlib.asynccontextmanager
    async def writing(self, name: str = "out", start: int | None = 0) -> AsyncIterator[TricklePublisher]:
        """A writer of one of the session's channels."""
        async with Transport(tls=TLSPolicy("insecure")) as transport:
            self.transport = transport
            publisher = TricklePublisher(self.inner[name], transport=transport, start=start)
            try:
                yield publisher
            finally:
                await publisher.abort()


class Relay:
    """The media and messages of a bare worker that changes nothing: every byte and every segment goes back.

    Args:
        told: What the orchestrator told the worker, whose ``subscribe_url`` is where the client publishes.
        hold: Seconds after which a segment is given back as a whole; None gives bytes as they come.
    """

    def __init__(self, told: dict[str, Any], hold: float | None = None) -> None:
        self.told = told
        self._hold = hold
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=UNVERIFIED, limit=0))
        pairs = [("subscribe_url", "publish_url"), ("control_url", "events_url"), ("control_url", "data_url")]
        self._tasks = [
            asyncio.create_task(self._carry(told[source], told[sink]))
            for source, sink in pairs
            if source in told and sink in told
        ]

    async def aclose(self) -> None:
        """Be gone, as a process that is killed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()

    async def _carry(self, source: str, sink: str) -> None:
        number = 0
        while True:
            async with self._http.get(f"{source}/{number}") as segment:
                if segment.status == 470:
                    number = max(number, int(segment.headers.get("Lp-Trickle-Latest", number)) - 1)
                    await asyncio.sleep(0.01)
                    continue
                if segment.status != 200 or "Lp-Trickle-Closed" in segment.headers:
                    return
                body: Any = segment.content.iter_any()
                if self._hold is not None:
                    body = await segment.read()
                    await asyncio.sleep(self._hold)
                async with self._http.post(f"{sink}/{number}", data=body) as written:
                    await written.read()
            number += 1


class Link:
    """A TCP connection to a network that the test can cut and hold, in a place of its own."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = parts.hostname or "", parts.port or 443
        self._server: asyncio.Server | None = None
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.carried = 0
        """Bytes that went through towards the network."""

    async def __aenter__(self) -> Link:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        self._flowing.set()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def through(self, url: str) -> str:
        """The URL by way of this link."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return urlsplit(url)._replace(netloc=f"127.0.0.1:{port}").geturl()

    def cut(self) -> None:
        """Break every connection, without a goodbye."""
        for pair in list(self._pairs):
            for writer in pair:
                writer.transport.abort()

    def hold(self) -> None:
        """Let nothing through any more, connections stay."""
        self._flowing.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_reader, to_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, to_writer)
        self._pairs.add(pair)
        for source, sink, counted in ((reader, to_writer, True), (to_reader, writer, False)):
            task = asyncio.ensure_future(self._carry(source, sink, counted=counted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, counted: bool
    ) -> None:
        try:
            while data := await source.read(65536):
                await self._flowing.wait()
                self.carried += len(data) if counted else 0
                sink.write(data)
                await sink.drain()
        except OSError:
            sink.transport.abort()
        else:
            await self._flowing.wait()
            sink.close()


async def encoded(seconds: int) -> list[bytes]:
    """Segments of a second each, with 30 numbered frames each."""
    async with TrickleServer.serve() as server:
        server.create("v")
        url, segments = server.channel_url("v"), []

        async def read() -> None:
            async with TrickleSubscriber(url) as subscriber:
                async for segment in subscriber:
                    segments.append(await segment.read())

        reading = asyncio.create_task(read())
        async with MediaPublish(url, fps=FPS, start=0) as publisher:
            for number in range(seconds * FPS):
                await publisher.write_frame(picture(number))
                while len(segments) < number // FPS:
                    await asyncio.sleep(0.001)
            await publisher.close(delete=False)
            while len(segments) < seconds:
                await asyncio.sleep(0.001)
            server.close_channel("v")
        await reading
    return segments


async def through(session: Any, count: int) -> asyncio.Task[list[int | None]]:
    """Write so many frames; the task that reads what comes back, to the end."""

    async def read() -> list[int | None]:
        return [number_of(frame) async for frame in session.subscribe().frames(drop=None)]

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    publish = session.publish(fps=FPS)
    for number in range(count):
        await publish.write_frame(picture(number))
    return reading


async def used(session: Any, *, after: int, then: Any) -> None:
    """Use a session until it raises; when some frames are back, something happens to it."""
    output, publish = session.subscribe(), session.publish(fps=FPS)

    async def write() -> None:
        for number in range(100_000):
            await publish.write_frame(picture(number))
            await asyncio.sleep(1 / FPS)

    writing = asyncio.create_task(write())
    try:
        count = 0
        async for _ in output.frames(drop=None):
            count += 1
            if count == after:
                result = then()
                if asyncio.iscoroutine(result):
                    await result
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def exists(url: str) -> bool:
    """Whether there is such a channel."""
    async with aiohttp.ClientSession() as http, http.get(f"{url}/next", ssl=UNVERIFIED) as answer:
        assert answer.status in (200, 404)
        return answer.status == 200


@types.coroutine
def cancelled_at(number: int, late: bool, work: Coroutine[Any, Any, Any]) -> Generator[Any, Any, bool]:
    """Run a coroutine and cancel its task at one of its suspensions; whether it came so far.

    `late` cancels when what it waits for has just happened: the result is there, and gets lost.
    """
    task = asyncio.current_task()
    assert task is not None
    thrown: BaseException | None = None
    suspensions = 0
    while True:
        try:
            waiting_for = work.send(None) if thrown is None else work.throw(thrown)
        except StopIteration:
            return suspensions > number
        except asyncio.CancelledError:
            return True
        finally:
            thrown = None
        if suspensions == number:
            if late and waiting_for is not None:
                waiting_for.add_done_callback(lambda _: task.cancel())
            else:
                task.cancel()
        suspensions += 1
        try:
            yield waiting_for
        except BaseException as error:
            thrown = error


async def cancelled_everywhere(url: str, work: Callable[[Gateway], Coroutine[Any, Any, None]]) -> None:
    """Cancel some work at each of its awaits, several at once, each with a gateway of its own."""

    async def one(number: int, late: bool) -> bool:
        reached = False
        async with Gateway(orch_url=url) as gateway:

            async def stepped() -> None:
                nonlocal reached
                reached = True
                reached = await cancelled_at(number, late, work(gateway))

            await asyncio.wait_for(asyncio.wait({task := asyncio.create_task(stepped())}), 30)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
        return reached

    for late in (False, True):
        first, reached = 0, True
        while reached:
            reached = all(await asyncio.gather(*(one(number, late) for number in range(first, first + 8))))
            first += 8
