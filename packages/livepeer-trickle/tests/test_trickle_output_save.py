"""Recordings: of both tracks in sync, in every container, of streams that jump, change and are cut."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from livepeer.trickle import MediaError, TrickleServer

av = pytest.importorskip("av")
np = pytest.importorskip("numpy")

from livepeer.trickle.media import MediaOutput, Packet  # noqa: E402
from livepeer.trickle.media.decoding import AudioDecoder, VideoDecoder, decode_all  # noqa: E402
from livepeer.trickle.media.mpegts import Demuxer  # noqa: E402
from livepeer.trickle.media.saving import Recording  # noqa: E402

Encoded = Callable[..., bytes]


def demux(data: bytes) -> list[Packet]:
    demuxer = Demuxer()
    return [*demuxer.feed(data), *demuxer.flush()]


def record(path: Path, *batches: Iterable[Packet]) -> Path:
    recording = Recording(path)
    complete = False
    try:
        for batch in batches:
            recording.write(batch)
        complete = True
    finally:
        recording.finish(complete)
    assert os.listdir(path.parent) == [path.name]
    return path


class File:
    """What players find in a file."""

    def __init__(self, path: Path) -> None:
        with av.open(str(path)) as file:
            self.tracks = [stream.type for stream in file.streams]
            self.codecs = [stream.codec_context.name for stream in file.streams]
            self.duration = file.duration / 1_000_000
            self.lengths = [
                float(stream.duration * stream.time_base) if stream.duration else None
                for stream in file.streams
            ]
        self.pictures: list[tuple[int, float]] = []
        self.sizes: list[tuple[int, int]] = []
        self.sound: list[tuple[float, float]] = []
        self.samples: list[Any] = []
        for kind in dict.fromkeys(self.tracks):
            with av.open(str(path)) as file:
                for frame in file.decode(**{kind: 0}):
                    if kind == "video":
                        self.pictures.append((_number(frame), frame.time))
                        self.sizes.append((frame.width, frame.height))
                    else:
                        self.sound.append((frame.time, frame.samples / frame.sample_rate))
                        self.samples.append(frame.to_ndarray()[0])

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.pictures]


def _number(frame: Any) -> int:
    luma = frame.to_ndarray(format="gray")
    return sum(int(luma[8, bit * 16 + 8] > 128) << bit for bit in range(8))


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize("bframes", [0, 2])
async def test_pictures_and_sound_are_saved_in_sync(
    server: TrickleServer, encoded: Encoded, tmp_path: Path, suffix: str, bframes: int
) -> None:
    server.create("v")
    data = encoded(3.0, bframes=bframes, start=1000.0)
    packets = demux(data)
    async with MediaOutput(server.channel_url("v")) as output:
        saving = asyncio.create_task(output.save(tmp_path / f"out.{suffix}"))
        await asyncio.sleep(0)
        server.publish("v", data)
        while output.bytes_in < len(data):
            await asyncio.sleep(0.001)
        server.close_channel("v")
        file = File(await saving)
    assert os.listdir(tmp_path) == [f"out.{suffix}"]
    assert sorted(file.tracks) == ["audio", "video"]
    assert file.numbers == list(range(90))
    assert len(file.sound) == sum(packet.kind == "audio" for packet in packets)
    # The first picture and the first sound are as far from each other as in the stream.
    first = {kind: next(p.timestamp for p in packets if p.kind == kind) for kind in ("video", "audio")}
    assert file.pictures[0][1] - file.sound[0][0] == pytest.approx(first["video"] - first["audio"], abs=0.002)
    times = [time for _, time in file.pictures]
    assert np.diff(times) == pytest.approx(1 / 30, abs=0.0011)
    assert file.sound[-1][0] - file.sound[0][0] == pytest.approx(
        (len(file.sound) - 1) * 1024 / 48_000, abs=0.003
    )
    assert file.duration == pytest.approx(3.03, abs=0.06)
    assert min(times[0], file.sound[0][0]) < 0.1 or suffix == "ts"


@pytest.mark.parametrize(
    ("suffix", "video", "audio"),
    [
        ("mp4", "libx264", "libopus"),
        ("mkv", "libx264", "libopus"),
        ("ts", "libx264", "libopus"),
        ("mp4", "libx265", "libmp3lame"),
        ("mkv", "libx265", "libmp3lame"),
        ("mov", "libx265", "aac"),
        ("mov", "libx264", "libmp3lame"),
        ("mp4", None, "aac"),
        ("mkv", None, "libopus"),
        ("mp4", "libx264", None),
    ],
)
def test_codecs(encoded: Encoded, tmp_path: Path, suffix: str, video: str | None, audio: str | None) -> None:
    packets = demux(encoded(1.0, video=video, audio=audio))
    file = File(record(tmp_path / f"out.{suffix}", packets))
    assert file.numbers == (list(range(30)) if video else [])
    assert len(file.sound) == sum(packet.kind == "audio" for packet in packets)
    assert file.duration == pytest.approx(1.02, abs=0.06)
    if audio:
        sound = np.concatenate(file.samples).astype(np.float64)[: 2 * 24_000]
        spectrum = np.abs(np.fft.rfft(sound))
        assert np.argmax(spectrum[100:]) + 100 == pytest.approx(440 * len(sound) / 48_000, rel=0.01)


@pytest.mark.parametrize(("suffix", "codec"), [("mov", "opus"), ("mp4", "truespeech")])
def test_a_codec_that_cannot_be_saved_is_said_at_once(
    encoded: Encoded, tmp_path: Path, suffix: str, codec: str
) -> None:
    odd = [dataclasses.replace(p, codec=codec) for p in demux(encoded(0.5, video=None))]
    recording = Recording(tmp_path / f"out.{suffix}")
    with pytest.raises(MediaError, match=codec):
        recording.write(odd)
    recording.finish(complete=False)
    assert os.listdir(tmp_path) == []


def test_damage_costs_what_it_hits(encoded: Encoded, tmp_path: Path) -> None:
    """The muxer refuses packets; and of one track nothing is whole."""
    packets = demux(encoded(2.0))
    extra = [dataclasses.replace(p, pid=999) for p in packets if p.kind == "audio"]
    spoilt = [
        dataclasses.replace(p, data=b"\xff\xf1" + bytes(48))
        if p.pid == 999 or (p.kind == "audio" and n % 5 == 0)
        else p
        for n, p in enumerate(packets + extra)
    ]
    file = File(record(tmp_path / "out.mp4", sorted(spoilt, key=lambda p: p.dts or 0)))
    assert sorted(file.tracks) == ["audio", "video"]
    assert file.numbers == list(range(60))
    assert len(file.sound) > 60


@pytest.mark.parametrize("jump", [-8.0, -0.9, 500.0])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_times_that_jump_leave_no_gap(encoded: Encoded, tmp_path: Path, jump: float, suffix: str) -> None:
    before = demux(encoded(1.0))
    after = demux(encoded(1.0, start=11.0 + jump, first=30))
    file = File(record(tmp_path / f"out.{suffix}", before, after))
    assert file.numbers == list(range(60))
    assert np.diff([time for _, time in file.pictures]).max() < 0.1
    assert np.diff([time for _, time in file.pictures]).min() > 0.0
    assert file.duration == pytest.approx(2.05, abs=0.1)
    # At the end, the last sound is as far from the last picture as at the begin of the jump's other side.
    ahead = (
        after[-1].kind,
        max(p.timestamp for p in after if p.kind == "audio")
        - max(p.timestamp for p in after if p.kind == "video"),
    )
    assert file.sound[-1][0] - file.pictures[-1][1] == pytest.approx(ahead[1], abs=0.05)


def test_what_was_lost_stays_a_gap(encoded: Encoded, tmp_path: Path) -> None:
    packets = [p for p in demux(encoded(4.0)) if not 11.0 <= (p.timestamp or 0) < 12.5]
    file = File(record(tmp_path / "out.mp4", packets))
    assert file.numbers == [*range(30), *range(75, 120)]
    assert file.duration == pytest.approx(4.03, abs=0.05)
    shown = dict(file.pictures)
    assert shown[75] - shown[29] == pytest.approx(46 / 30, abs=0.002)


def test_the_clock_wraps(encoded: Encoded, tmp_path: Path) -> None:
    packets = demux(encoded(2.0, start=(1 << 33) / 90_000 - 1))
    file = File(record(tmp_path / "out.mp4", packets))
    assert file.numbers == list(range(60))
    assert file.duration == pytest.approx(2.03, abs=0.05)


def test_another_size(encoded: Encoded, tmp_path: Path) -> None:
    parts = [demux(encoded(0.5)), demux(encoded(0.5, size=(320, 180), start=10.5, first=15))]
    file = File(record(tmp_path / "out.mp4", *parts))
    assert file.numbers == list(range(30))
    assert file.sizes == [(128, 64)] * 15 + [(320, 180)] * 15


def test_another_codec_is_another_track(encoded: Encoded, tmp_path: Path) -> None:
    parts = [demux(encoded(0.5)), demux(encoded(0.5, video="libx265", start=10.5, first=15))]
    path = record(tmp_path / "out.mkv", *parts)
    with av.open(str(path)) as file:
        assert sorted(stream.codec_context.name for stream in file.streams) == ["aac", "h264", "hevc"]
        packets = [p for p in file.demux() if p.size]
        first = {p.stream.index: p.pts * p.time_base for p in reversed(packets)}
        hevc = next(s.index for s in file.streams if s.codec_context.name == "hevc")
    assert float(first[hevc]) == pytest.approx(0.5, abs=0.05)


def test_a_track_under_another_number_goes_on(encoded: Encoded, tmp_path: Path) -> None:
    after = [dataclasses.replace(p, pid=p.pid + 50) for p in demux(encoded(1.0, start=11.0, first=30))]
    file = File(record(tmp_path / "out.mp4", demux(encoded(1.0)), after))
    assert sorted(file.tracks) == ["audio", "video"]
    assert file.numbers == list(range(60))


def test_sound_that_begins_late(encoded: Encoded, tmp_path: Path) -> None:
    packets = [p for p in demux(encoded(3.0)) if p.kind == "video" or (p.timestamp or 0) >= 12.0]
    file = File(record(tmp_path / "out.mp4", packets))
    assert file.numbers == list(range(90))
    assert file.sound[0][0] - file.pictures[0][1] == pytest.approx(2.0, abs=0.03)


def test_it_begins_with_a_key_frame(encoded: Encoded, tmp_path: Path) -> None:
    packets = [p for p in demux(encoded(2.0)) if (p.timestamp or 0) >= 10.2]
    file = File(record(tmp_path / "out.mp4", packets))
    assert file.numbers == list(range(15, 60))


def test_packets_without_times(encoded: Encoded, tmp_path: Path) -> None:
    packets = demux(encoded(1.0, audio=None))
    bare = [p if n % 2 == 0 else dataclasses.replace(p, pts=None, dts=None) for n, p in enumerate(packets)]
    file = File(record(tmp_path / "out.mp4", bare))
    assert file.numbers == list(range(30))


def test_what_was_there_before_stays_when_nothing_came(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"before")
    with pytest.raises(MediaError, match="Nothing came"):
        Recording(path).finish()
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_damage_errors_are_typed(encoded: Encoded, tmp_path: Path, seed: int) -> None:
    """Decoding, and saving in each container."""
    noise = random.Random(seed)
    data = bytearray(encoded(0.5, audio=("aac", "libopus", "libmp3lame")[seed % 3], bframes=seed % 2))
    for _ in range(noise.choice((3, 30, 200))):
        position, size = noise.randrange(len(data)), noise.randrange(400)
        data[position : position + noise.choice((0, 1, size))] = noise.randbytes(noise.choice((0, 1, size)))
    packets = demux(bytes(data))
    decoders = {"video": VideoDecoder(), "audio": AudioDecoder()}
    frames = [*decode_all(decoders, packets), *decoders["video"].flush(), *decoders["audio"].flush()]
    assert len(frames) <= len(packets) + 2
    for suffix in ("mp4", "mov", "mkv", "ts"):
        path = tmp_path / suffix / f"out.{suffix}"
        path.parent.mkdir()
        with contextlib.suppress(MediaError):
            record(path, packets)
