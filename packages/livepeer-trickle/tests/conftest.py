"""Fixtures: a server of our own, a wire that can be cut, a transport. Real sockets, all of them."""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from livepeer.trickle import Transport, TrickleServer, TrickleSubscriber


class Wire:
    """A TCP proxy before a server, which can be cut and refused, and remembers what went through."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.connections = 0
        self.sent = bytearray()  # from clients to the server
        self._target = target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    def url(self, url: str) -> str:
        return url.replace(f":{self._target}", f":{self.port}")

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Refuse new connections and cut the present ones, until `start`."""
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Cut every connection with a reset."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            await asyncio.gather(
                self._pump(reader, far_writer, self.sent), self._pump(far_reader, writer, None)
            )
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray | None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if record is not None:
                    record += data
                writer.write(data)
                await writer.drain()
        writer.transport.abort() if record is None else None

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        tasks = [t for t in asyncio.all_tasks() if getattr(t.get_coro(), "__qualname__", "") == "Wire._serve"]
        await asyncio.gather(*tasks, return_exceptions=True)


class Recording:
    """What is written to a channel, segment by segment, from its first one on."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.segments: list[bytes] = []
        self._task = asyncio.create_task(self._read(), name="recording")

    async def _read(self) -> None:
        async for segment in TrickleSubscriber(self.url):
            self.segments.append(b"")
            async for chunk in segment:
                self.segments[-1] += chunk

    async def whole(self) -> bytes:
        """All of it, when the channel has ended."""
        await self._task
        return b"".join(self.segments)

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
async def record(server: TrickleServer) -> AsyncIterator[Callable[..., Awaitable[Recording]]]:
    """Make a channel, and record it."""
    begun: list[Recording] = []

    async def begin(name: str = "v") -> Recording:
        server.create(name)
        recording = Recording(server.channel_url(name))
        begun.append(recording)
        async with asyncio.timeout(20):
            while (segment := server._channels[name].segment(0)) is None or not segment._watchers:
                await asyncio.sleep(0.001)
        return recording

    yield begin
    for recording in begun:
        await recording.aclose()


@pytest.fixture
async def server() -> AsyncIterator[TrickleServer]:
    async with TrickleServer.serve() as running:
        yield running


@pytest.fixture
async def wire(server: TrickleServer) -> AsyncIterator[Wire]:
    port = int(server.url.split(":")[2].split("/")[0])
    proxy = Wire(port)
    await proxy.start()
    yield proxy
    await proxy.aclose()


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport() as made:
        yield made


@pytest.fixture
def certificate() -> Callable[[str], Path]:
    """The path of one of two self-signed certificates, as orchestrators make them: ``a`` or ``b``."""
    return lambda name: Path(__file__).parent / "certs" / f"{name}.pem"


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Wait until something is so."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture
async def left_over() -> Callable[[], set[str]]:
    """The names of the tasks that were begun since the test began and are not done."""
    before = asyncio.all_tasks()
    return lambda: {
        task.get_name()
        for task in asyncio.all_tasks() - before
        if task.get_name().startswith(("trickle-post", "trickle-get", "livepeer"))
    }


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """Make an MPEG-TS of numbered pictures and of a tone, with libavformat's muxer."""
    av = pytest.importorskip("av")
    np = pytest.importorskip("numpy")

    def make(
        seconds: float = 2.0,
        *,
        video: str | None = "libx264",
        audio: str | None = "aac",
        size: tuple[int, int] = (128, 64),
        fps: int = 30,
        gop: int = 15,
        bframes: int = 0,
        start: float = 10.0,
        first: int = 0,
        options: dict[str, str] | None = None,
    ) -> bytes:
        """A tone of 440 Hz; pictures whose luma has their number (from `first`) in 8 blocks of 16 pixels."""
        sink = io.BytesIO()
        # One piece of sound to a PES, and each in its place: what our own muxer writes.
        muxing = {"mpegts_copyts": "1", "pes_payload_size": "0", "max_delay": "0", **(options or {})}
        with av.open(sink, "w", format="mpegts", options=muxing) as file:
            streams = []
            if video is not None:
                stream = file.add_stream(video, rate=fps)
                stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
                stream.time_base = Fraction(1, 90_000)
                stream.codec_context.time_base = Fraction(1, 90_000)
                stream.codec_context.gop_size = gop
                stream.codec_context.max_b_frames = bframes
                if video == "libx265":
                    keys = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={bframes}:open-gop=0"
                    stream.codec_context.options = {
                        "preset": "ultrafast",
                        "x265-params": f"{keys}:log-level=none",
                    }
                else:
                    stream.codec_context.options = {
                        "preset": "veryfast",
                        "sc_threshold": "0",
                        "x264-params": "open-gop=0:b-adapt=0",
                        "tune": "" if bframes else "zerolatency",
                    }
                streams.append(_pictures(av, np, stream, size, round(seconds * fps), fps, start, first))
            if audio is not None:
                stream = file.add_stream(audio, rate=48_000, layout="stereo")
                streams.append(_tone(av, np, stream, seconds, start))
            for packet in sorted(
                (packet for packets in streams for packet in packets), key=lambda p: p.dts * p.time_base
            ):
                file.mux(packet)
        return sink.getvalue()

    return make


def _pictures(
    av: Any, np: Any, stream: Any, size: tuple[int, int], count: int, fps: int, start: float, first: int
) -> list[Any]:
    packets = []
    for number in range(first, first + count):
        luma = np.full((size[1] * 3 // 2, size[0]), 128, np.uint8)
        luma[: size[1]] = 90
        for bit in range(8):
            luma[:16, bit * 16 : bit * 16 + 16] = 235 if number >> bit & 1 else 16
        frame = av.VideoFrame.from_ndarray(luma, "yuv420p")
        frame.pts, frame.time_base = round((start + (number - first) / fps) * 90_000), Fraction(1, 90_000)
        packets += stream.encode(frame)
    return [*packets, *stream.encode(None)]


def _tone(av: Any, np: Any, stream: Any, seconds: float, start: float) -> list[Any]:
    packets = []
    resampler = av.AudioResampler(
        stream.codec_context.format, "stereo", 48_000, stream.codec_context.frame_size
    )
    samples = round(seconds * 48_000)
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(samples) / 48_000)
    frame = av.AudioFrame.from_ndarray(np.stack((tone, tone)).astype(np.float32), "fltp", "stereo")
    frame.sample_rate, frame.pts, frame.time_base = 48_000, round(start * 48_000), Fraction(1, 48_000)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        packets += stream.encode(piece)
    return [*packets, *stream.encode(None)]


@pytest.fixture
def threads_left() -> Callable[[], set[str]]:
    """The names of the SDK's threads that were begun since the test began and have not ended."""
    before = set(threading.enumerate())
    return lambda: {
        thread.name
        for thread in threading.enumerate()
        if thread not in before and thread.name.startswith("livepeer-")
    }
