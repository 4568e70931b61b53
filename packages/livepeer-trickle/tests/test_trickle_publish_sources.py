"""Files of many kinds and input devices are published at their own pace."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Awaitable, Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from livepeer.trickle import MediaError, TrickleServer

av = pytest.importorskip("av")
np = pytest.importorskip("numpy")

from livepeer.trickle.media import AudioFrame, MediaPublish  # noqa: E402

Record = Callable[..., Awaitable[Any]]
Until = Callable[[Callable[[], object]], Awaitable[None]]
RATE = 48_000


def make(path: Path, video: str | None, audio: str | None, *, seconds: float = 2.0, at: float = 1.0) -> Path:
    """A file whose picture becomes bright, and whose sound becomes loud, at `at` seconds."""
    with av.open(str(path), "w") as container:
        streams: list[Any] = []
        if video is not None:
            picture: Any = container.add_stream(video, rate=30)
            picture.width, picture.height = 128, 64
            picture.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
            picture.options = {"bf": "2", "g": "15"} if video in ("libx264", "mpeg4") else {}
            streams.append(picture)
        if audio is not None:
            sound: Any = container.add_stream(audio, rate=RATE)
            sound.layout = "stereo"
            streams.append(sound)
        for number in range(round(seconds * 30)):
            for stream in streams:
                if stream.type == "video":
                    value = 235 if number >= at * 30 else 16
                    frame: Any = av.VideoFrame.from_ndarray(np.full((64, 128, 3), value, np.uint8), "rgb24")
                    frame = frame.reformat(format=stream.pix_fmt)
                    frame.pts, frame.time_base = number, Fraction(1, 30)
                    container.mux(stream.encode(frame))
                    continue
                times = np.arange(number * 1600, number * 1600 + 1600) / RATE
                tone = ((times >= at) * 0.5 * np.sin(2 * np.pi * 1000 * times)).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(np.stack([tone, tone]), "fltp", "stereo")
                frame.sample_rate, frame.pts, frame.time_base = RATE, number * 1600, Fraction(1, RATE)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


def found(data: bytes | Path) -> dict[str, Any]:
    """What libavformat finds: codecs, times, and when it becomes bright and loud."""
    result: dict[str, Any] = {"video": [], "audio": [], "bright": None, "loud": None}
    file: Any = io.BytesIO(data) if isinstance(data, bytes) else str(data)
    with av.open(file, format="mpegts" if isinstance(data, bytes) else None) as container:
        result["codecs"] = [stream.codec_context.codec.canonical_name for stream in container.streams]
        for frame in container.decode():
            if isinstance(frame, av.VideoFrame):
                result["video"].append(frame.time)
                if result["bright"] is None and frame.to_ndarray(format="gray").mean() > 128:
                    result["bright"] = frame.time
            else:
                result["audio"].append(frame.time)
                samples = np.abs(AudioFrame(frame).array[:, 0])
                if result["loud"] is None and samples.max() > 0.25:
                    result["loud"] = frame.time + int(np.argmax(samples > 0.25)) / frame.sample_rate
    return result


@pytest.mark.parametrize(
    ("suffix", "video", "audio", "codecs", "encodes"),
    [
        ("mp4", "libx264", "aac", ["h264", "aac"], False),
        ("mkv", "libx265", "libopus", ["hevc", "opus"], False),
        ("ts", "libx264", "libmp3lame", ["h264", "mp3"], False),
        ("mp4", "libx264", None, ["h264"], False),
        ("m4a", None, "aac", ["aac"], False),
        ("flv", "libx264", "aac", ["h264", "aac"], False),
        ("avi", "mpeg4", "pcm_s16le", ["h264", "aac"], True),
        ("mov", "mjpeg", "aac", ["h264", "aac"], True),
        ("mkv", "libx264", "flac", ["h264", "aac"], True),
        ("wav", None, "pcm_s16le", ["aac"], True),
    ],
)
async def test_files_of_many_kinds(
    record: Record,
    tmp_path: Path,
    suffix: str,
    video: str | None,
    audio: str | None,
    codecs: list[str],
    encodes: bool,
) -> None:
    path = make(tmp_path / f"source.{suffix}", video, audio)
    recording = await record()
    publisher = MediaPublish(recording.url)
    await publisher.publish_file(path, realtime=False)
    written = publisher.bytes  # all of it, though nothing was closed
    await publisher.close()
    assert publisher.bytes == written
    result = found(await recording.whole())
    assert result["codecs"] == codecs
    assert publisher._production._worker.started == encodes
    source = found(path)
    if video is not None:
        assert len(result["video"]) == publisher.frames == 60
        assert result["video"] == pytest.approx(source["video"], abs=0.0011)
        assert result["bright"] == pytest.approx(source["bright"], abs=0.0011)
    if audio is not None:
        assert len(result["audio"]) == publisher.audio_frames >= 83
        assert result["loud"] == pytest.approx(source["loud"], abs=0.003)
    assert publisher.lost == 0


async def test_a_file_takes_its_time(record: Record, tmp_path: Path) -> None:
    path = make(tmp_path / "source.mp4", "libx264", "aac", seconds=1.0)
    recording = await record()
    async with MediaPublish(recording.url) as publisher:
        began = time.monotonic()
        await publisher.publish_file(path)
        assert time.monotonic() - began >= 0.9
        arrivals = [publisher.written_at(number * 3000) for number in range(30)]
        assert None not in arrivals
        for number, arrival in enumerate(arrivals):
            # Never early (but for the reordering of the decoder).
            assert arrival is not None
            assert arrival - began >= number / 30 - 0.11


async def test_files_go_on_one_from_the_other(record: Record, tmp_path: Path) -> None:
    path = make(tmp_path / "source.mp4", "libx264", "aac", seconds=0.5, at=0.25)
    other = make(tmp_path / "other.avi", "mpeg4", "pcm_s16le", seconds=0.5, at=0.25)
    recording = await record()
    async with MediaPublish(recording.url) as publisher:
        for file in (path, path, other, path):
            await publisher.publish_file(file, realtime=False)
    result = found(await recording.whole())
    assert len(result["video"]) == 60
    assert result["video"] == pytest.approx([n / 30 for n in range(60)], abs=0.06)
    assert result["codecs"] == ["h264", "aac"]


async def test_files_that_cannot_be_published(server: TrickleServer, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("no video")
    publisher = MediaPublish(server.channel_url("v"))
    with pytest.raises(MediaError, match=r"nowhere.mp4 can't be read: No such file"):
        await publisher.publish_file(tmp_path / "nowhere.mp4")
    with pytest.raises(MediaError, match=r"text.txt (can't be read|has neither)"):
        await publisher.publish_file(tmp_path / "text.txt")
    await publisher.close()
    with pytest.raises(MediaError, match="closed"):
        await publisher.publish_file(make(tmp_path / "source.mp4", "libx264", None))


async def test_a_file_that_breaks_off_is_published_to_there(record: Record, tmp_path: Path) -> None:
    path = make(tmp_path / "source.ts", "libx264", "aac")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(3000) + data[len(data) // 2 + 3000 :])
    recording = await record()
    async with MediaPublish(recording.url) as publisher:
        await publisher.publish_file(path, realtime=False)
    assert publisher.frames > 40


@pytest.mark.parametrize("turns", [0, 1, 3, 10, 30, 100])
async def test_a_file_that_is_cancelled(
    server: TrickleServer,
    tmp_path: Path,
    left_over: Callable[[], set[str]],
    until: Until,
    turns: int,
    threads_left: Callable[[], set[str]],
) -> None:
    path = make(tmp_path / "source.mp4", "libx264", "aac")

    async def work() -> None:
        async with MediaPublish(server.channel_url("v")) as publisher:
            await publisher.publish_file(path)

    task = asyncio.create_task(work())
    for _ in range(turns):
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not left_over()
    await until(lambda: not threads_left())


async def test_a_camera(record: Record, until: Until, threads_left: Callable[[], set[str]]) -> None:
    recording = await record()
    async with MediaPublish(recording.url) as publisher:
        await publisher.publish_camera(
            "testsrc=size=160x120:rate=30:duration=1,realtime", format="lavfi", options={}
        )
        assert publisher.frames + publisher.dropped == 30
        # Another one goes on from there.
        await publisher.publish_camera("smptebars=size=320x240:rate=30:duration=0.5,realtime", format="lavfi")
    await until(lambda: not threads_left())
    result = found(await recording.whole())
    assert len(result["video"]) == publisher.frames
    assert result["video"] == sorted(set(result["video"]))
    assert result["video"][0] == 0.0
    assert result["video"][-1] == pytest.approx(1.5 - 1 / 30, abs=0.1)


async def test_a_camera_with_a_microphone(record: Record) -> None:
    recording = await record()
    source = "testsrc=size=160x120:rate=30:duration=1,realtime[out0];sine=duration=1,arealtime[out1]"
    async with MediaPublish(recording.url) as publisher:
        await publisher.publish_camera(source, format="lavfi")
    result = found(await recording.whole())
    assert result["codecs"] == ["h264", "aac"]
    assert len(result["audio"]) > 40


async def test_a_camera_does_not_wait(
    server: TrickleServer, until: Until, threads_left: Callable[[], set[str]]
) -> None:
    """Far more frames than can be encoded: the newest are kept, the others counted; nothing piles up."""
    async with MediaPublish(server.channel_url("v"), queue_size=2) as publisher:
        task = asyncio.create_task(
            publisher.publish_camera("testsrc=size=1280x720:rate=1000,realtime=speed=50", format="lavfi")
        )
        await until(lambda: publisher.dropped > 20 or task.done())
        assert publisher.queued <= 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: not any("camera" in name for name in threads_left()))


async def test_cameras_that_cannot_be(server: TrickleServer) -> None:
    async with MediaPublish(server.channel_url("v")) as publisher:
        with pytest.raises(MediaError, match="no input 'nope'"):
            await publisher.publish_camera("x", format="nope")
        with pytest.raises(
            MediaError, match=r"The camera '/dev/nowhere' \(v4l2\) can't be opened: No such file"
        ) as e:
            await publisher.publish_camera("/dev/nowhere", format="v4l2")
        assert e.value.hint is not None
        assert "Cameras here: " in e.value.hint
        with pytest.raises(MediaError, match="can't be opened"):
            await publisher.publish_camera("nosuchfilter", format="lavfi")
    with pytest.raises(MediaError, match="closed"):
        await publisher.publish_camera("testsrc", format="lavfi")
