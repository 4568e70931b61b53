"""Live video through our server: H.264 frames with their number drawn in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from livepeer.trickle import (
    ChannelClosed,
    ChannelNotFound,
    ConfigurationError,
    LivepeerError,
    MediaError,
    Transport,
    TrickleConnectionError,
    TricklePublisher,
    TrickleServer,
    TrickleSubscriber,
)

av = pytest.importorskip("av")
np = pytest.importorskip("numpy")

from livepeer.trickle.media import MediaOutput, MediaPublish, VideoFrame  # noqa: E402
from livepeer.trickle.media.decoding import VideoDecoder  # noqa: E402
from livepeer.trickle.media.mpegts import Demuxer  # noqa: E402

WIDTH, HEIGHT, BITS = 128, 64, 8
Until = Callable[[Callable[[], object]], Awaitable[None]]


def draw(number: int, width: int = WIDTH, height: int = HEIGHT) -> Any:
    """A frame with its number in bright and dark blocks, 16 pixels each."""
    array = np.full((height, width, 3), 90, np.uint8)
    for bit in range(BITS):
        array[:16, bit * 16 : bit * 16 + 16] = 235 if number >> bit & 1 else 16
    array[20:, (number * 3) % (width - 20) :][:, :20] = (250, 120, 10)
    return array


def read(frame: VideoFrame) -> int:
    return sum(int(frame.array[8, bit * 16 + 8].mean() > 128) << bit for bit in range(BITS))


async def listening(server: TrickleServer, until: Until) -> None:
    await until(lambda: (s := server._channels["v"].segment(0)) is not None and s._watchers)


@pytest.fixture
def url(server: TrickleServer) -> str:
    server.create("v")
    return server.channel_url("v")


async def numbers(output: MediaOutput) -> list[tuple[int, float | None]]:
    return [(read(frame), frame.timestamp) async for frame in output.frames(drop=None)]


async def publish(url: str, count: int, **options: Any) -> MediaPublish:
    async with MediaPublish(url, **options) as publisher:
        for number in range(count):
            await publisher.write_frame(draw(number))
    return publisher


async def test_every_frame_arrives_with_its_time(server: TrickleServer, url: str, until: Until) -> None:
    times = [0.5 + n / 30 + (n % 3) / 1000 for n in range(100)]
    async with MediaOutput(url) as output:
        reading = asyncio.create_task(numbers(output))
        await listening(server, until)
        async with MediaPublish(url, fps=30) as publisher:
            for number, time in enumerate(times):
                await publisher.write_frame(draw(number), timestamp=time)
        got = await reading
        assert [number for number, _ in got] == list(range(100))
        assert [time for _, time in got] == pytest.approx(times, abs=1 / 90_000)
        assert (publisher.frames, publisher.dropped, publisher.lost) == (100, 0, 0)
        assert (output.frames_in, output.dropped, output.missed, output.ended) == (100, 0, 0, True)
        assert publisher.bytes == output.bytes_in > 0
        assert publisher.last_timestamp == output.last_timestamp == pytest.approx(times[-1], abs=1e-4)
        assert [frame async for frame in output.frames()] == []  # a reader after the end


async def test_a_segment_is_a_group_of_pictures_with_its_tables(url: str, server: TrickleServer) -> None:
    server.create("v")
    segments: list[bytes] = []

    async def collect() -> None:
        async for segment in TrickleSubscriber(url):
            segments.append(await segment.read())

    reading = asyncio.create_task(collect())
    await publish(url, 45, fps=30, gop=0.5)
    await reading
    assert len(segments) == 3
    for segment in segments:
        demuxer, decoder = Demuxer(), VideoDecoder()
        packets = demuxer.feed(segment)  # complete without a flush: there are lengths
        assert len(packets) == 15
        assert [packet.is_keyframe for packet in packets] == [True] + [False] * 14
        assert len(decoder.decode(packets)) == 15


async def test_frames_of_every_kind(server: TrickleServer, url: str, until: Until) -> None:
    image = pytest.importorskip("PIL.Image")
    raw = av.VideoFrame.from_ndarray(draw(3), "rgb24").reformat(format="yuv420p")
    raw.pts, raw.time_base = 9, Fraction(1, 30)
    array = draw(0)
    async with MediaOutput(url) as output:
        reading = asyncio.create_task(numbers(output))
        await listening(server, until)
        async with MediaPublish(url, fps=10) as publisher:
            await publisher.write_frame(array)
            array[:] = 0  # ours again
            await publisher.write_frame(image.fromarray(draw(1)))
            await publisher.write_frame(VideoFrame.from_array(draw(2), 0.2))
            await publisher.write_frame(raw)
            await publisher.write_frame(np.asfortranarray(draw(4)))
            await publisher.write_frame(VideoFrame(raw).replace(draw(5)))
        assert await reading == [
            (n, pytest.approx(t, abs=1e-4)) for n, t in enumerate((0, 0.1, 0.2, 0.3, 0.4, 0.5))
        ]
    assert raw.pts == 9  # the caller's frame is as it was


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (b"nope", "VideoFrame"),
        (np.zeros((64, 128), np.uint8), r"\(height, width, 3\)"),
        (np.zeros((64, 128, 4), np.uint8), r"\(height, width, 3\)"),
        (np.zeros((64, 128, 3), np.float32), "uint8"),
        (np.zeros((0, 128, 3), np.uint8), r"\(height, width, 3\)"),
    ],
)
async def test_what_is_no_frame(url: str, frame: Any, says: str) -> None:
    async with MediaPublish(url) as publisher:
        await publisher.write_frame(draw(0))
        with pytest.raises(MediaError, match=says):
            await publisher.write_frame(frame)
        with pytest.raises(MediaError, match=says):
            publisher.try_write_frame(frame)
        await publisher.write_frame(draw(1))
    assert publisher.frames == 2


async def test_times_must_grow(url: str) -> None:
    async with MediaPublish(url) as publisher:
        await publisher.write_frame(draw(0), timestamp=5.0)
        for bad in (5.0, 4.9, -1.0, float("nan"), float("inf")):
            with pytest.raises(MediaError, match="timestamp"):
                await publisher.write_frame(draw(1), timestamp=bad)
    with pytest.raises(MediaError, match="closed"):
        await publisher.write_frame(draw(2))


async def test_odd_sizes_are_made_even(server: TrickleServer, url: str, until: Until) -> None:
    async with MediaOutput(url) as output:
        reading = asyncio.create_task(anext(output.frames()))
        await listening(server, until)
        async with MediaPublish(url) as publisher:
            await publisher.write_frame(draw(7, WIDTH + 1, HEIGHT + 1))
        frame = await reading
        assert (frame.width, frame.height) == (WIDTH, HEIGHT)


async def test_arguments(url: str) -> None:
    for options in ({"fps": 0}, {"queue_size": 0}, {"gop": 0}, {"drop": "newest"}):
        with pytest.raises(ConfigurationError):
            MediaPublish(url, **options)
    with pytest.raises(MediaError, match="libnope"):
        MediaPublish(url, codec="libnope")
    with pytest.raises(ConfigurationError):
        MediaOutput(url).frames(queue_size=0)
    with pytest.raises(ConfigurationError):
        MediaOutput(url).frames(drop="newest")  # type: ignore[arg-type]


async def test_options_that_the_encoder_refuses(url: str) -> None:
    publisher = MediaPublish(url, options={"preset": "nope"})
    await publisher.write_frame(draw(0))
    with pytest.raises(MediaError):
        await publisher.close()


async def test_a_full_queue(url: str) -> None:
    async with MediaPublish(url, queue_size=2) as publisher:
        taken = [publisher.try_write_frame(draw(n)) for n in range(5)]
        assert taken == [True, True, False, False, False]
        assert (publisher.dropped, publisher.queued) == (3, 2)
        await publisher.write_frame(draw(5))  # waits
    assert publisher.frames == 3
    async with MediaPublish(url + "2", queue_size=2, drop="oldest") as publisher:
        for n in range(5):
            await publisher.write_frame(draw(n))
        assert publisher.dropped == 3
    assert publisher.frames == 2


async def test_several_readers_and_a_late_one(server: TrickleServer, url: str, until: Until) -> None:
    async with MediaOutput(url) as output:
        every = asyncio.create_task(numbers(output))
        packets = asyncio.create_task(_count(output.packets()))
        data = asyncio.create_task(_join(output.bytes()))
        await listening(server, until)
        late: asyncio.Task[list[Any]] | None = None
        async with MediaPublish(url, fps=30, gop=0.5) as publisher:
            for number in range(60):
                await publisher.write_frame(draw(number))
                if number == 40:
                    await until(lambda: output.frames_in >= 35)
                    late = asyncio.create_task(_collect(output.packets()))
        assert late is not None
        assert [number for number, _ in await every] == list(range(60))
        assert await packets == 60
        found = await late
        assert found[0].is_keyframe  # it began with the present segment
        assert found[-1].timestamp == pytest.approx(59 / 30, abs=1e-4)
        assert len(Demuxer().feed(await data)) == 60


async def test_frames_that_come_late_begin_with_a_key_frame(url: str, server: TrickleServer) -> None:
    async with MediaPublish(url, fps=30, gop=10) as publisher, MediaOutput(url) as output:
        for number in range(20):
            await publisher.write_frame(draw(number))
        packets = output.packets()
        for _ in range(10):
            await anext(packets)
        frames = output.frames(drop=None, queue_size=30)
        assert read(await anext(frames)) == 0


async def test_a_slow_reader_skips_to_the_newest(server: TrickleServer, url: str, until: Until) -> None:
    async with MediaOutput(url) as output:
        frames = output.frames(queue_size=2)
        first = asyncio.create_task(anext(frames))
        await listening(server, until)
        await publish(url, 50)
        await first
        await until(lambda: output.ended and output.dropped)
        await until(lambda: frames.dropped >= 40)
        rest = [read(frame) async for frame in frames]
        assert rest[-1] == 49
        assert 1 + len(rest) + output.dropped == 50


async def test_a_reader_that_lets_go_holds_nobody_up(server: TrickleServer, url: str, until: Until) -> None:
    async with MediaOutput(url) as output:
        every = asyncio.create_task(_count(output.packets()))
        await listening(server, until)
        writing = asyncio.create_task(publish(url, 60))
        async for _ in output.frames(drop=None, queue_size=1):
            break
        await writing
        assert await every == 60


@pytest.mark.parametrize(("suffix", "frames"), [("mp4", 45), ("mkv", 45), ("mov", 45), ("ts", 45)])
async def test_saved_files_are_playable(
    server: TrickleServer, url: str, until: Until, tmp_path: Path, suffix: str, frames: int
) -> None:
    async with MediaOutput(url) as output:
        saving = asyncio.create_task(output.save(tmp_path / f"out.{suffix}"))
        await listening(server, until)
        async with MediaPublish(url, fps=30) as publisher:
            for number in range(frames):
                await publisher.write_frame(draw(number), timestamp=100 + number / 30)
        path = await saving
    assert os.listdir(tmp_path) == [path.name]
    with av.open(str(path)) as file:
        duration = file.duration
        decoded = [read(VideoFrame(frame)) for frame in file.decode(video=0)]
    assert decoded == list(range(frames))
    if suffix != "ts":
        assert duration / 1_000_000 == pytest.approx(frames / 30, abs=0.02)


async def test_saving_what_cannot_be(server: TrickleServer, url: str, tmp_path: Path) -> None:
    async with MediaOutput(url) as output:
        with pytest.raises(MediaError, match="mp4"):
            await output.save(tmp_path / "out.avi")
        with pytest.raises(MediaError, match="nowhere"):
            await output.save(tmp_path / "nowhere" / "out.mp4")
        saving = asyncio.create_task(output.save(tmp_path / "out.mp4"))
        await asyncio.sleep(0)
        server.close_channel("v")
        with pytest.raises((MediaError, ChannelNotFound)):
            await saving
    assert os.listdir(tmp_path) == []


async def test_a_recording_that_is_cancelled_is_kept(url: str, tmp_path: Path, until: Until) -> None:
    async with MediaPublish(url, fps=30) as publisher, MediaOutput(url) as output:
        saving = asyncio.create_task(output.save(tmp_path / "out.mp4"))
        for number in range(20):
            await publisher.write_frame(draw(number))
        await until(lambda: output.frames_in >= 10)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert sum(1 for _ in file.decode(video=0)) >= 9


async def test_what_is_no_video(server: TrickleServer, url: str) -> None:
    for data in (b"this is not a video", b"\x47" * 500):
        server.publish("v", data)
    async with MediaOutput(url) as output:
        chunks = asyncio.create_task(_join(output.bytes()))
        frames = asyncio.create_task(_collect(output.frames()))
        packets = asyncio.create_task(_collect(output.packets()))
        while output.bytes_in < 519:
            await asyncio.sleep(0.001)
        server.close_channel("v")
        for reading in (frames, packets):
            with pytest.raises(MediaError, match="no MPEG-TS"):
                await reading
        assert len(await chunks) == 519


async def test_errors_reach_every_reader() -> None:
    async with TrickleServer.serve(autocreate=False) as server:
        output = MediaOutput(server.channel_url("nope"))
        for reader in (output.frames(), output.packets(), output.bytes(), output.frames()):
            with pytest.raises(ChannelNotFound):
                await anext(reader)
        publisher = MediaPublish(server.channel_url("nope"))
        await publisher.write_frame(draw(0))
        with pytest.raises(ChannelNotFound):
            await publisher.close()
        await output.aclose()


async def test_a_channel_that_closes_while_it_is_published() -> None:
    async with TrickleServer.serve(autocreate=False) as server:
        server.create("v")
        publisher = MediaPublish(server.channel_url("v"), gop=0.1)

        async def write() -> None:
            for number in range(1000):
                await publisher.write_frame(draw(number % 256))
                if number == 10:
                    server.close_channel("v")

        with pytest.raises((ChannelClosed, ChannelNotFound)):
            await write()
        await publisher.close()  # told already


async def test_a_cut_connection_costs_a_segment_and_not_the_stream(
    server: TrickleServer, url: str, wire: Any, until: Until
) -> None:
    async with MediaOutput(url) as output:
        reading = asyncio.create_task(numbers(output))
        await listening(server, until)
        async with MediaPublish(wire.url(url), fps=30, gop=0.5) as publisher:
            for number in range(90):
                await publisher.write_frame(draw(number))
                if number == 40:
                    await until(lambda: publisher.frames >= 32)
                    wire.cut()
        got = [number for number, _ in await reading]
        assert publisher.lost > 0
        assert got == sorted(set(got))
        assert got[-1] == 89
        assert len(got) >= 90 - publisher.lost


async def test_a_server_that_goes_away(server: TrickleServer, url: str, wire: Any) -> None:
    publisher = MediaPublish(wire.url(url))
    await publisher.write_frame(draw(0))
    await wire.refuse()

    async def write() -> None:
        for number in range(1, 1000):
            await publisher.write_frame(draw(number % 256))

    async with asyncio.timeout(20):
        with pytest.raises(TrickleConnectionError):
            await write()
        await publisher.close()


@pytest.mark.parametrize("what", ["publish", "frames", "save"])
async def test_cancelled_at_any_await(
    server: TrickleServer, left_over: Callable[[], set[str]], what: str, tmp_path: Path, until: Until
) -> None:
    async def work(url: str, transport: Transport) -> None:
        if what == "publish":
            async with MediaPublish(url, transport=transport, queue_size=1, gop=0.05) as publisher:
                for number in range(10):
                    await publisher.write_frame(draw(number))
            return
        async with MediaOutput(url, transport=transport) as output:
            if what == "save":
                await output.save(tmp_path / "out.ts")
            async for _ in output.frames(drop=None):
                pass

    async with Transport() as transport:
        for turns in (0, 1, 2, 3, 5, 8, 12, 20, 40):
            name = f"v{turns}"
            server.create(name)
            if what != "publish":
                publisher = MediaPublish(server.channel_url(name), transport=transport)
                await publisher.write_frame(draw(1))
                await publisher.close(delete=False)
            task = asyncio.create_task(work(server.channel_url(name), transport))
            for _ in range(turns):
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert not left_over()


async def test_the_raw_stream_can_be_written_too(server: TrickleServer, url: str, until: Until) -> None:
    """What one channel carries can be passed on unchanged to another."""
    server.create("w")
    async with MediaOutput(url) as first, MediaOutput(server.channel_url("w")) as second:
        passing = asyncio.create_task(_pass(first, server.channel_url("w")))
        reading = asyncio.create_task(numbers(second))
        await listening(server, until)
        await publish(url, 40)
        await passing
        assert [number for number, _ in await reading] == list(range(40))


async def _pass(output: MediaOutput, url: str) -> None:
    async with TricklePublisher(url) as publisher, publisher.segment() as segment:
        async for chunk in output.bytes():
            await segment.write(chunk)


async def _collect(reader: Any) -> list[Any]:
    return [item async for item in reader]


async def _count(reader: Any) -> int:
    return len(await _collect(reader))


async def _join(reader: Any) -> bytes:
    return b"".join(await _collect(reader))


async def test_a_writer_and_a_reader_fail_with_what_their_owner_knows(until: Until) -> None:
    async def explain(error: LivepeerError) -> LivepeerError:
        return MediaError(f"explained: {type(error).__name__}")

    async def write(publisher: MediaPublish) -> None:
        for number in range(256):
            await publisher.write_frame(draw(number))

    async with TrickleServer.serve(autocreate=False) as server:
        server.create("v")
        publisher = MediaPublish(server.channel_url("v"), gop=0.1, queue_size=1)
        publisher.explain = explain
        await publisher.write_frame(draw(0))
        await until(lambda: publisher.frames)
        server.close_channel("v")
        with pytest.raises(MediaError, match="explained: Channel"):
            await write(publisher)
        await publisher.close()
        output = MediaOutput(server.channel_url("v"))
        output.explain = explain
        with pytest.raises(MediaError, match="explained: ChannelNotFound"):
            await anext(output.frames())
        assert isinstance(output.error, MediaError)
        await output.aclose()


async def test_a_writer_can_be_ended_with_an_error(server: TrickleServer, url: str) -> None:
    publisher = MediaPublish(url, queue_size=1)
    await publisher.write_frame(draw(0))
    publisher.fail(MediaError("enough"))
    publisher.fail(MediaError("ignored"))
    with pytest.raises(MediaError, match="enough"):
        await publisher.write_frame(draw(1))
    await publisher.close()
