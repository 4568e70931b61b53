"""Pictures and sound are published as they are written; libavformat and our reader find the same."""

from __future__ import annotations

import asyncio
import io
import itertools
import threading
from collections.abc import Awaitable, Callable
from fractions import Fraction
from typing import Any

import pytest

from livepeer.trickle import ConfigurationError, MediaError, Transport, TrickleServer

av = pytest.importorskip("av")
np = pytest.importorskip("numpy")

from livepeer.trickle.media import AudioFrame, MediaOutput, MediaPublish, VideoFrame  # noqa: E402
from livepeer.trickle.media.mpegts import Demuxer  # noqa: E402

RATE = 48_000
Record = Callable[..., Awaitable[Any]]
Until = Callable[[Callable[[], object]], Awaitable[None]]


def picture(value: int, width: int = 128, height: int = 64) -> Any:
    return np.full((height, width, 3), value, np.uint8)


def beep(begin: int, samples: int, at: float, rate: int = RATE) -> Any:
    """Stereo sound that is silent but for 0.2 s of a tone, which begins at `at` seconds."""
    times = np.arange(begin, begin + samples) / rate
    on = (times >= at) & (times < at + 0.2)
    return np.repeat((on * 0.5 * np.sin(2 * np.pi * 1000 * times))[:, None], 2, axis=1).astype(np.float32)


def decode(data: bytes) -> tuple[list[Any], list[Any]]:
    """Pictures and sound as libavformat and libavcodec find them."""
    video, audio = [], []
    with av.open(io.BytesIO(data), format="mpegts") as container:
        for frame in container.decode():
            (video if isinstance(frame, av.VideoFrame) else audio).append(frame)
    return video, audio


def heard_at(audio: list[Any]) -> float:
    """When the beep begins."""
    for frame in audio:
        loud = np.flatnonzero(np.abs(AudioFrame(frame).array[:, 0]) > 0.25)
        if len(loud):
            return float(frame.time + loud[0] / frame.sample_rate)
    raise AssertionError("there is no beep")


def seen_at(video: list[Any]) -> float:
    """When the picture becomes bright."""
    return float(next(frame.time for frame in video if frame.to_ndarray(format="gray").mean() > 128))


@pytest.mark.parametrize("begin", [0.0, 5.0, 100_000.0])
@pytest.mark.parametrize("codec", ["aac", "libopus"])
async def test_sound_comes_out_beside_its_picture(record: Record, codec: str, begin: float) -> None:
    recording = await record()
    async with (
        MediaOutput(recording.url) as output,
        MediaPublish(recording.url, audio_codec=codec) as publisher,
    ):
        frames: list[Any] = []
        reading = asyncio.create_task(_collect(output.frames("all", drop=None), frames))
        for number in range(60):
            time = begin + number / 30
            await publisher.write_frame(picture(235 if number >= 30 else 16), timestamp=time)
            await publisher.write_frame(beep(number * 1600, 1600, 1.0), timestamp=time)
        await publisher.close()
        await reading
    video, audio = decode(await recording.whole())
    assert len(video) == publisher.frames == 60
    assert seen_at(video) == pytest.approx((begin + 1) % 95443.7176888888, abs=0.001)
    assert heard_at(audio) == pytest.approx((begin + 1) % 95443.7176888888, abs=0.002)
    assert (
        audio[-1].time + audio[-1].samples / RATE >= (begin + 2) % 95443.7176888888 - 0.001
    )  # to the last sample
    assert publisher.last_timestamp == pytest.approx((begin + 59 / 30) % 95443.7176888888, abs=1e-4)
    ours = [frame.raw for frame in frames if isinstance(frame, AudioFrame)]
    assert len(ours) == len(audio) == publisher.audio_frames
    bright = next(f.timestamp for f in frames if isinstance(f, VideoFrame) and f.array.mean() > 128)
    sound = next(f for f in frames if isinstance(f, AudioFrame) and np.abs(f.array).max() > 0.25)
    assert sound.timestamp is not None
    onset = sound.timestamp + np.flatnonzero(np.abs(sound.array[:, 0]) > 0.25)[0] / RATE
    assert onset == pytest.approx(bright, abs=0.002)


async def _collect(reader: Any, into: list[Any]) -> None:
    async for item in reader:
        into.append(item)


async def test_each_segment_can_be_read_alone(record: Record) -> None:
    recording = await record()
    async with MediaPublish(recording.url, gop=0.5) as publisher:
        for number in range(45):
            await publisher.write_frame(picture(100))
            await publisher.write_frame(beep(number * 1600, 1600, 0.0))
    whole = await recording.whole()
    assert len(recording.segments) == 3
    for segment in recording.segments:
        video, audio = decode(segment)
        assert len(video) == 15
        assert video[0].key_frame
        assert len(audio) > 15
        packets = Demuxer().feed(segment)  # complete without a flush: there are lengths
        assert [p.is_keyframe for p in packets if p.kind == "video"] == [True] + [False] * 14
    assert len(whole) == publisher.bytes


async def test_sound_alone_has_segments_by_time_and_is_on_its_way_at_once(
    record: Record, until: Until
) -> None:
    recording = await record()
    publisher = MediaPublish(recording.url, audio_codec="libopus", gop=0.5)
    for number in range(60):
        await publisher.write_frame(beep(number * 960, 960, 0.4))
        # One frame of the encoder, no more, is held back by it.
        await until(lambda written=number: publisher.audio_frames >= written)
    assert publisher.last_timestamp == pytest.approx(59 * 0.02, abs=0.027)
    assert publisher.last_written_at is not None
    await publisher.close()
    whole = await recording.whole()
    assert len(recording.segments) == 3
    assert [round(len(decode(segment)[1]) * 0.02, 1) for segment in recording.segments[:2]] == [0.5, 0.5]
    video, audio = decode(whole)
    assert not video
    assert heard_at(audio) == pytest.approx(0.4, abs=0.002)
    assert publisher.frames == 0
    assert publisher.audio_frames == len(audio)


@pytest.mark.parametrize("source", ["array", "int16", "mono", "AudioFrame", "av", "44100"])
async def test_sound_of_every_kind(record: Record, source: str) -> None:
    recording = await record()
    rate = 44_100 if source == "44100" else RATE
    async with MediaPublish(recording.url) as publisher:
        for number in range(30):
            begin, samples = number * rate // 30, rate // 30
            array = beep(begin, samples, 0.5, rate)
            frame: Any = array
            if source == "int16":
                frame = (array * 32767).astype(np.int16)
            elif source == "mono":
                frame = array[:, 0]
            elif source in ("AudioFrame", "44100"):
                frame = AudioFrame.from_array(array, rate)
            elif source == "av":
                frame = AudioFrame.from_array(array, rate).raw
                frame.pts, frame.time_base = begin, Fraction(1, rate)
            await publisher.write_frame(frame)
            array[:] = 0  # ours again
            if source == "av":
                assert frame.pts == begin  # the caller's frame is as it was
    _, audio = decode(await recording.whole())
    assert {frame.sample_rate for frame in audio} == {RATE}
    assert len(audio[0].layout.channels) == (1 if source == "mono" else 2)
    assert heard_at(audio) == pytest.approx(0.5, abs=0.002)
    assert audio[-1].time + audio[-1].samples / RATE == pytest.approx(1.0, abs=0.03)


async def test_gaps_in_the_sound_stay_gaps_and_jitter_is_none(record: Record) -> None:
    recording = await record()
    async with MediaPublish(recording.url) as publisher:
        at = 0.0
        for number in range(120):
            if number == 30:
                at += 0.5  # filled with silence
            if number == 60:
                at += 3.0  # too long for that
            jitter = (-0.002, 0.0, 0.002)[number % 3] if at else 0.0
            tone = beep(0, 960, 0.0) if number in (30, 60) else np.zeros((960, 2), np.float32)
            await publisher.write_frame(tone, timestamp=at + jitter)
            at += 0.02
        with pytest.raises(MediaError, match="lasts until"):
            await publisher.write_frame(np.zeros(960, np.float32), timestamp=at - 0.5)
    _, audio = decode(await recording.whole())
    times = [float(frame.time) for frame in audio]
    gaps = [b - a for a, b in itertools.pairwise(times) if abs(b - a - 1024 / RATE) > 0.001]
    assert gaps == [pytest.approx(3.0, abs=0.08)]
    loud = [f.time for f in audio if np.abs(AudioFrame(f).array).max() > 0.25]
    assert loud[0] == pytest.approx(1.1, abs=0.022)
    assert next(time for time in loud if time > 3) == pytest.approx(4.7, abs=0.022)


async def test_sound_that_begins_later_changes_the_tables_at_once(record: Record) -> None:
    recording = await record()
    async with MediaPublish(recording.url, gop=10) as publisher:
        for number in range(20):
            await publisher.write_frame(picture(90))
            if number >= 10:
                await publisher.write_frame(np.zeros((1600, 2), np.float32), timestamp=number / 30)
    whole = await recording.whole()
    assert len(recording.segments) == 1
    demuxer = Demuxer()
    kinds = [packet.kind for packet in demuxer.feed(whole)]
    assert kinds[:10] == ["video"] * 10
    assert kinds.count("audio") >= 15
    assert [stream.kind for stream in demuxer.streams.values()] == ["video", "audio"]
    assert len(decode(whole)[1]) >= 15


async def test_frames_without_times_belong_together(record: Record) -> None:
    recording = await record()
    async with MediaPublish(recording.url, fps=10) as publisher:
        for number in range(3):
            await publisher.write_frame(picture(90), timestamp=50 + number / 10)
        for _ in range(6):
            await publisher.write_frame(np.zeros((4800, 2), np.float32))  # begins with the picture
        for _ in range(3):
            await publisher.write_frame(picture(90))
    video, audio = decode(await recording.whole())
    assert [frame.time for frame in video] == pytest.approx([50 + n / 10 for n in range(6)], abs=1e-4)
    assert audio[1].time == pytest.approx(50.0, abs=1e-3)


async def test_a_change_of_size_begins_a_segment(record: Record) -> None:
    recording = await record()
    sizes = [(128, 64)] * 5 + [(64, 128)] * 5 + [(128, 64)] * 5
    async with MediaOutput(recording.url) as output, MediaPublish(recording.url, gop=10) as publisher:
        frames: list[Any] = []
        reading = asyncio.create_task(_collect(output.frames(drop=None), frames))
        for number, (width, height) in enumerate(sizes):
            await publisher.write_frame(picture(10 * number, width, height))
        await publisher.close()
        await reading
    video, _ = decode(await recording.whole())
    assert [(frame.width, frame.height) for frame in video] == sizes
    assert [(frame.width, frame.height) for frame in frames] == sizes
    assert len(recording.segments) == 3
    for segment, size in zip(recording.segments, sizes[::5], strict=True):
        assert {(frame.width, frame.height) for frame in decode(segment)[0]} == {size}


async def test_a_rate_that_changes(record: Record) -> None:
    recording = await record()
    times = [0.0, 0.033, 0.05, 0.4, 0.41, 1.7, 1.71, 1.72, 3.0]
    async with MediaPublish(recording.url, gop=1.0) as publisher:
        for time in times:
            await publisher.write_frame(picture(90), timestamp=time)
    video, _ = decode(await recording.whole())
    assert [frame.time for frame in video] == pytest.approx(times, abs=1e-4)
    assert len(recording.segments) == 3


async def test_hevc(record: Record) -> None:
    recording = await record()
    async with MediaPublish(recording.url, codec="libx265", gop=0.5) as publisher:
        for number in range(30):
            await publisher.write_frame(picture(235 if number >= 20 else 16))
    whole = await recording.whole()
    with av.open(io.BytesIO(whole)) as container:
        assert container.streams.video[0].codec_context.name == "hevc"
    video, _ = decode(whole)
    assert len(video) == 30
    assert seen_at(video) == pytest.approx(20 / 30, abs=1e-4)
    assert len(recording.segments) == 2
    assert len(decode(recording.segments[1])[0]) == 15


async def test_an_encoder_that_reorders(record: Record) -> None:
    """B-frames when they are asked for: the times are right, and decoding times grow from 0 on."""
    recording = await record()
    options = {"bf": "2", "tune": "animation", "preset": "medium", "rc-lookahead": "4"}
    async with MediaPublish(recording.url, options=options) as publisher:
        for number in range(20):
            await publisher.write_frame(picture(16 + 10 * number))
    whole = await recording.whole()
    packets = Demuxer().feed(whole)
    assert any(packet.pts != packet.dts for packet in packets)
    decoding = [packet.dts for packet in packets]
    assert decoding == sorted(set(decoding))
    assert all(packet.pts >= packet.dts >= 0 for packet in packets)
    video, _ = decode(whole)
    assert [frame.time for frame in video] == pytest.approx([n / 30 for n in range(20)], abs=1e-4)
    assert publisher.last_timestamp == pytest.approx(19 / 30, abs=1e-4)


async def test_bitrates_are_kept(record: Record) -> None:
    recording = await record()
    rng = np.random.default_rng(1)
    async with MediaPublish(recording.url, bitrate=400_000, audio_bitrate=32_000) as publisher:
        for _ in range(60):
            noise = rng.integers(0, 255, (90, 160, 3), dtype=np.uint8)
            await publisher.write_frame(noise)
            await publisher.write_frame(rng.uniform(-0.3, 0.3, (1600, 2)).astype(np.float32))
    packets = Demuxer().feed(await recording.whole())
    rates = {
        kind: 8 * sum(len(packet.data) for packet in packets if packet.kind == kind) / 2
        for kind in ("video", "audio")
    }
    assert rates["video"] == pytest.approx(400_000, rel=0.3)
    assert rates["audio"] == pytest.approx(32_000, rel=0.3)


async def test_encoders_that_cannot_be(server: TrickleServer) -> None:
    url = server.channel_url("v")
    for options, says in (
        ({"codec": "libnope"}, "no encoder 'libnope'"),
        ({"codec": "mpeg2video"}, "h264 or hevc"),
        ({"audio_codec": "libmp3lame"}, "aac or opus"),
        ({"codec": "aac"}, "h264 or hevc"),
    ):
        with pytest.raises(MediaError, match=says):
            MediaPublish(url, **options)
    with pytest.raises(ConfigurationError, match="sample_rate"):
        MediaPublish(url, sample_rate=0)
    for options, says in (
        ({"codec": "h264_nvenc"}, "h264_nvenc.*can't be opened: .*(libcuda|driver|device)"),
        ({"options": {"nope": "1"}}, "no option 'nope'"),
        ({"options": {"preset": "nope"}}, "'libx264' can't be opened"),
    ):
        publisher = MediaPublish(url, **options)
        await publisher.write_frame(picture(1))
        with pytest.raises(MediaError, match=says):
            await publisher.close()


async def test_a_full_queue_drops_pictures_before_sound(server: TrickleServer) -> None:
    async with MediaPublish(server.channel_url("v"), queue_size=4, drop="oldest") as publisher:
        for number in range(8):
            await publisher.write_frame(picture(number))
            await publisher.write_frame(np.zeros((1600, 2), np.float32))
        assert publisher.queued == 4
        assert publisher.dropped == 12
        assert [job.rank for job in publisher._queue._jobs] == [1, 1, 1, 1]
    async with MediaPublish(server.channel_url("w"), queue_size=4, drop="oldest") as publisher:
        for _ in range(8):
            await publisher.write_frame(np.zeros((1600, 2), np.float32))
        assert publisher.dropped == 4


async def test_when_a_frame_was_written_is_known(server: TrickleServer) -> None:
    loop = asyncio.get_running_loop()
    async with MediaPublish(server.channel_url("v")) as publisher:
        before = loop.time()
        await publisher.write_frame(picture(0), timestamp=2.0)
        written = publisher.written_at(180_000)
        assert written is not None
        assert before <= written <= loop.time()
        assert publisher.written_at(1) is None
        for number in range(600):
            await publisher.write_frame(picture(0, 16, 16), timestamp=3 + number / 30)
        assert publisher.written_at(180_000) is None
        assert len(publisher._production._written_at) == 512


async def test_a_write_that_was_cancelled_was_none(server: TrickleServer, until: Until) -> None:
    publisher = MediaPublish(server.channel_url("v"), queue_size=1)
    release = threading.Event()
    publisher._production._worker.submit(release.wait)  # the encoder is busy
    await publisher.write_frame(picture(0), timestamp=0.0)
    await until(lambda: not publisher.queued)
    await publisher.write_frame(picture(1), timestamp=0.5)
    waiting = asyncio.create_task(publisher.write_frame(picture(2), timestamp=2.0))
    behind = asyncio.create_task(publisher.write_frame(picture(3), timestamp=1.0))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not publisher.try_write_frame(picture(4), timestamp=3.0)
    assert publisher.dropped == 1
    release.set()
    await behind  # 1.0 comes after 0.5: 2.0 was never written
    await publisher.close()
    assert publisher.frames == 3


@pytest.mark.parametrize("what", ["pictures", "sound", "both"])
async def test_cancelled_at_any_await(
    server: TrickleServer, left_over: Callable[[], set[str]], what: str
) -> None:
    async def work(url: str, transport: Transport) -> None:
        async with MediaPublish(url, transport=transport, queue_size=1, gop=0.05) as publisher:
            for number in range(10):
                if what != "sound":
                    await publisher.write_frame(picture(number))
                if what != "pictures":
                    await publisher.write_frame(np.zeros((1600, 2), np.float32))

    async with Transport() as transport:
        for turns in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55):
            server.create(f"v{turns}")
            task = asyncio.create_task(work(server.channel_url(f"v{turns}"), transport))
            for _ in range(turns):
                await asyncio.sleep(0.0005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert not left_over()
    async with asyncio.timeout(20):
        while any(thread.name.startswith("livepeer-encode") for thread in threading.enumerate()):
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("turns", [0, 1, 2, 4, 8, 16])
async def test_a_close_that_is_cancelled(
    server: TrickleServer, left_over: Callable[[], set[str]], turns: int
) -> None:
    async with Transport() as transport:
        publisher = MediaPublish(server.channel_url("v"), transport=transport)
        for number in range(5):
            await publisher.write_frame(picture(number))
        closing = asyncio.create_task(publisher.close(linger=60))
        for _ in range(turns):
            await asyncio.sleep(0.002)
        closing.cancel()
        async with asyncio.timeout(20):
            await asyncio.gather(closing, return_exceptions=True)
        if turns == 0:
            await publisher.abort()  # it had not begun
        assert not left_over()


async def test_a_cut_connection_costs_sound_a_segment_too(record: Record, wire: Any, until: Until) -> None:
    recording = await record()
    async with MediaPublish(wire.url(recording.url), audio_codec="libopus", gop=0.2) as publisher:
        for number in range(100):
            await publisher.write_frame(beep(number * 960, 960, 1.9))
            if number == 45:
                await until(lambda: publisher.audio_frames >= 44)
                wire.cut()
    _, audio = decode(await recording.whole())
    assert publisher.lost > 0
    assert publisher.lost + len(audio) >= 100
    assert heard_at(audio) == pytest.approx(1.9, abs=0.002)
