"""A trickle server: the store of `livepeer.trickle.ring` behind aiohttp's routes.

It answers as go-livepeer's does (v0.9.1, ``trickle/trickle_server.go``), for tests and for the embedded
network. Reading is free of copies and polling; writing has no back-pressure, as there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

from .errors import ChannelNotFound
from .protocol import CLOSED, EXPECT_CONTENT, LATEST, NEXT, NO_SUCH_SEGMENT, RESET, SEQ
from .ring import Channel, Segment

__all__ = ["TrickleServer"]

_KEEPALIVE = 10.0  # seconds between two provisional answers to a writer that waits with its first byte
_AGAIN = 0.1  # seconds until a place that cannot be read is looked at again
_TICK = 5.0  # seconds between two looks for readers that went away without a word
_WRITE_SIZE = 64 * 1024
_READ_SIZE = (
    1024 * 1024
)  # bytes of a body that wait; at aiohttp's 64 KiB a fast writer is paused at each turn


class TrickleServer:
    """Channels, and the HTTP routes to them.

    Args:
        autocreate: Whether a POST makes the channel that it names. An orchestrator doesn't.
        prefix: The path before the channel's name, without a trailing slash.
        idle_timeout: Seconds without a new segment after which a channel is closed.
        sweep_interval: Seconds between two looks for such channels.
        on_close: Called with the name of each channel that was closed, whoever closed it.
    """

    def __init__(
        self,
        *,
        autocreate: bool = False,
        prefix: str = "/ai/trickle",
        idle_timeout: float = 300.0,
        sweep_interval: float = 60.0,
        on_close: Callable[[str], None] | None = None,
    ) -> None:
        self.autocreate = autocreate
        self.prefix: str = prefix.rstrip("/")
        self.url = ""
        self._idle_timeout = idle_timeout
        self._sweep_interval = sweep_interval
        self._on_close = on_close
        self._channels: dict[str, Channel] = {}

    # The Python side

    def create(self, name: str, mime_type: str = "video/MP2T") -> None:
        """Make a channel; nothing happens when it exists."""
        if name not in self._channels:
            self._channels[name] = Channel(name, mime_type, time.monotonic())

    def close_channel(self, name: str) -> bool:
        """End a channel and forget it; False when there is none of this name."""
        channel = self._channels.pop(name, None)
        if channel is None:
            return False
        channel.close()
        if self._on_close is not None:
            self._on_close(name)
        return True

    def publish(self, name: str, data: bytes) -> int:
        """Write one whole segment, and return its number. Raises `ChannelNotFound`."""
        channel = self._channels.get(name)
        if channel is None:
            raise ChannelNotFound(f"There is no channel {name!r} to publish to; create() makes one.")
        segment = channel.for_write(channel.next_write)
        channel.begin(segment, time.monotonic())
        segment.append(data)
        segment.close()
        return segment.seq

    async def read_along(self, name: str, on_segment: Callable[[], None] = lambda: None) -> None:
        """Be a reader that waits for the next segment, each time, and ends with the channel.

        It takes one of the ring's places, as every reader at the head does.

        Args:
            name: The channel.
            on_segment: Called for each segment when the wait for it begins, at the end of the one before.
        """
        channel = self._channels.get(name)
        while channel is not None and not channel.closed:
            segment = channel.for_read(NEXT)
            assert segment is not None
            on_segment()
            if segment.closed:  # by its number, before it was begun: the next one is this one again
                await asyncio.sleep(_AGAIN)
                continue
            changed = asyncio.Event()
            segment.watch(changed.set)
            try:
                while not segment.closed:
                    changed.clear()
                    await changed.wait()
            finally:
                segment.unwatch(changed.set)

    def channel_names(self) -> list[str]:
        """The names of the open channels, oldest first."""
        return list(self._channels)

    def channel_url(self, name: str) -> str:
        """The URL of a channel of this server, when it was started by `serve`."""
        return f"{self.url}/{name}"

    def close(self) -> None:
        """End every channel, which releases every waiting reader."""
        for name in self.channel_names():
            self.close_channel(name)

    def add_routes(self, app: web.Application) -> None:
        """Mount the routes below `prefix`, and sweep idle channels while the application runs."""
        router, channel = app.router, f"{self.prefix}/{{channel}}"
        router.add_post(channel, self._create)
        router.add_delete(channel, self._delete)
        router.add_get(f"{channel}/next", self._next, allow_head=False)
        router.add_get(f"{channel}/{{seq}}", self._get, allow_head=False)
        router.add_post(f"{channel}/{{seq}}", self._post)
        router.add_delete(f"{channel}/{{seq}}", self._delete_segment)
        app.cleanup_ctx.append(self._sweeping)
        app.on_shutdown.append(self._shutdown)

    @classmethod
    @contextlib.asynccontextmanager
    async def serve(
        cls,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ssl_context: ssl.SSLContext | None = None,
        **options: Any,
    ) -> AsyncIterator[TrickleServer]:
        """Run a server of its own; `url` is where its channels are.

        Args:
            host: The address to listen on.
            port: The port; 0 for a free one.
            ssl_context: The certificate, for https.
            options: The arguments of `TrickleServer`; ``autocreate`` is True here by default.
        """
        server = cls(**{"autocreate": True, **options})
        app = web.Application()
        server.add_routes(app)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, read_bufsize=_READ_SIZE)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port, ssl_context=ssl_context)
            await site.start()
            bound = runner.addresses[0][1]
            server.url = f"{'https' if ssl_context else 'http'}://{host}:{bound}{server.prefix}"
            yield server
        finally:
            await runner.cleanup()

    # The HTTP side

    async def _create(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["channel"]
        if self._find(name, request.headers.get(EXPECT_CONTENT, "")) is None:
            return _text(404, "Stream not found")
        return web.Response()

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        if not self.close_channel(request.match_info["channel"]):
            return _text(400, "Invalid stream")
        return web.Response()

    async def _delete_segment(self, request: web.Request) -> web.StreamResponse:
        channel = self._channels.get(request.match_info["channel"])
        if channel is None:
            return _text(404, "Stream not found")
        seq = _seq(request)
        if seq is None:
            return _text(400, "Invalid idx")
        try:
            segment = channel.segment(seq)
        except IndexError:
            return _drop(request)
        if segment is None:
            return _text(400, "Nonexistent segment")
        segment.close()
        return web.Response()

    async def _next(self, request: web.Request) -> web.StreamResponse:
        channel = self._channels.get(request.match_info["channel"])
        if channel is None:
            return _text(404, "Stream not found")
        number = str(channel.next_write)
        return web.Response(text=number, headers={LATEST: number})

    async def _get(self, request: web.Request) -> web.StreamResponse:
        channel = self._channels.get(request.match_info["channel"])
        if channel is None:
            return _text(404, "Stream not found")
        seq = _seq(request)
        if seq is None:
            return _text(400, "Invalid idx")
        latest = channel.next_write
        try:
            segment = channel.for_read(seq)
        except IndexError:
            return _drop(request)
        if segment is None:
            headers = {LATEST: str(latest), SEQ: str(seq)}
            return web.Response(status=NO_SUCH_SEGMENT, text="Entry not found", headers=headers)
        return await _follow(request, channel, segment, latest)

    async def _post(self, request: web.Request) -> web.StreamResponse:
        channel = self._find(request.match_info["channel"], request.headers.get("Content-Type", ""))
        if channel is None:
            missing = _text(404, "Stream not found")
            missing.force_close()
            return missing
        seq = _seq(request)
        if seq is None:
            return _text(400, "Invalid idx")
        try:
            segment = channel.for_write(seq)
        except IndexError:
            return _drop(request)
        if request.headers.get(RESET):
            channel.reset(segment.seq)
        try:
            return await _receive(request, channel, segment)
        except (ConnectionError, web.RequestPayloadError):
            # The writer broke off: its segment stays open, until a reset.
            return web.Response(status=500)

    def _find(self, name: str, mime_type: str) -> Channel | None:
        if self.autocreate:
            self.create(name, mime_type)
        return self._channels.get(name)

    async def _shutdown(self, _app: web.Application) -> None:
        self.close()

    async def _sweeping(self, _app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._sweep(), name="trickle-sweep")
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _sweep(self) -> None:
        tick = min(_TICK, self._sweep_interval)
        swept = time.monotonic()
        while True:
            await asyncio.sleep(tick)
            now = time.monotonic()
            due = now - swept >= self._sweep_interval
            swept = now if due else swept
            for channel in list(self._channels.values()):
                idle = now - channel.write_time > self._idle_timeout
                if due and idle and not channel.name.startswith("_"):
                    self.close_channel(channel.name)
                for segment in channel:
                    segment.wake()


async def _follow(
    request: web.Request, channel: Channel, segment: Segment, latest: int
) -> web.StreamResponse:
    """Send a segment from its start as it is written. Nothing is sent, no header either, before a byte."""
    headers = {SEQ: str(segment.seq), "Content-Type": channel.mime_type or "application/octet-stream"}
    if segment.seq != latest:
        headers[LATEST] = str(latest)
    response = web.StreamResponse(headers=headers)
    changed = asyncio.Event()
    segment.watch(changed.set)
    try:
        position = 0
        while True:
            changed.clear()
            data, position = _gather(segment.chunks, position)
            if data:
                if not response.prepared:
                    await response.prepare(request)
                await response.write(data)
            elif segment.closed or request.transport is None:
                break
            else:
                await changed.wait()
        if response.prepared:
            await response.write_eof()
    except ConnectionError:
        return response  # the reader went away
    finally:
        segment.unwatch(changed.set)
    if response.prepared:
        return response
    headers = {SEQ: str(segment.seq), LATEST: str(channel.next_write)}
    if channel.closed:
        headers[CLOSED] = "terminated"
    return web.Response(headers=headers)


def _gather(chunks: list[bytes], position: int) -> tuple[bytes, int]:
    """The chunks from `position` on, about `_WRITE_SIZE` bytes of them, as one; and the new position."""
    end, size = position, 0
    while end < len(chunks) and size < _WRITE_SIZE:
        size += len(chunks[end])
        end += 1
    return (chunks[position] if end - position == 1 else b"".join(chunks[position:end])), end


async def _receive(request: web.Request, channel: Channel, segment: Segment) -> web.StreamResponse:
    """Take a segment's body."""
    content = request.content
    data = b"" if segment.closed else await _first(request, segment)
    if not data:
        # An empty body, or a segment that is closed already: what else the writer sends is swallowed.
        channel.begin(segment, time.monotonic())
        headers = {SEQ: str(segment.seq)}
        if channel.closed:
            headers[CLOSED] = "terminated"
        answer = web.Response(headers=headers)
        answer.force_close()
        segment.close()
        return answer
    channel.begin(segment, time.monotonic())
    while data:
        segment.append(data)
        data = await content.readany()
    segment.close()
    return web.Response(headers={SEQ: str(segment.seq)})


async def _first(request: web.Request, segment: Segment) -> bytes:
    """The first bytes of a body; none when it is empty, or the segment is closed while it is awaited."""
    content = request.content
    data = content.read_nowait()
    if data or content.is_eof():
        return data
    loop = asyncio.get_running_loop()
    keepalive_at = loop.time() + _KEEPALIVE
    changed = asyncio.Event()
    segment.watch(changed.set)
    reading = asyncio.ensure_future(content.readany())
    reading.add_done_callback(lambda _: changed.set())
    try:
        while not reading.done() and not segment.closed:
            try:
                async with asyncio.timeout_at(keepalive_at):
                    await changed.wait()
            except TimeoutError:
                keepalive_at = loop.time() + _KEEPALIVE
                if request.transport is not None:
                    request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            changed.clear()
        return reading.result() if reading.done() else b""
    finally:
        segment.unwatch(changed.set)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def _seq(request: web.Request) -> int | None:
    try:
        return int(request.match_info["seq"])
    except ValueError:
        return None


def _text(status: int, message: str) -> web.Response:
    return web.Response(status=status, text=message + "\n", headers={"X-Content-Type-Options": "nosniff"})


def _drop(request: web.Request) -> web.Response:
    """Drop the connection without an answer, as go-livepeer does for numbers that mean nothing."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
