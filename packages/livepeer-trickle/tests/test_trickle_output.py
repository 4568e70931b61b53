"""Reading pictures and sound: in sync, by several readers, across changes, losses and damage."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import random
import threading
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from livepeer.trickle import ConfigurationError, MediaError, Transport, TricklePublisher, TrickleServer

av = pytest.importorskip("av")
np = pytest.importorskip("numpy")

from livepeer.trickle.media import AudioFrame, MediaOutput, Packet, VideoFrame  # noqa: E402
from livepeer.trickle.media import intake as intake_module  # noqa: E402
from livepeer.trickle.media.mpegts import Demuxer, Muxer  # noqa: E402
from livepeer.trickle.media.saving import Recording  # noqa: E402

Encoded = Callable[..., bytes]
FILLER = b"\x00\x00\x00\x01\x0c" + b"\xff" * 10_000 + b"\x80"  # what decoders of H.264 skip
Until = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
def url(server: TrickleServer) -> str:
    server.create("v")
    return server.channel_url("v")


def demux(data: bytes) -> list[Packet]:
    demuxer = Demuxer()
    return [*demuxer.feed(data), *demuxer.flush()]


def mux(packets: Iterable[Packet], muxer: Muxer | None = None, pids: dict[Any, int] | None = None) -> bytes:
    """A segment of these packets."""
    muxer, pids, parts = muxer or Muxer(), {} if pids is None else pids, []
    packets = list(packets)
    for packet in packets:
        if (packet.pid, packet.codec) not in pids:
            pids[packet.pid, packet.codec] = muxer.add_stream(packet.kind, packet.codec)
    for packet in packets:
        pid = pids[packet.pid, packet.codec]
        assert packet.pts is not None
        parts.append(
            muxer.write(pid, packet.data, pts=packet.pts, dts=packet.dts, is_keyframe=packet.is_keyframe)
        )
    return muxer.tables() + b"".join(parts)


def cut(packets: Iterable[Packet]) -> list[bytes]:
    """Segments, each of which begins with a key frame, by one muxer."""
    groups: list[list[Packet]] = [[]]
    for packet in packets:
        if packet.kind == "video" and packet.is_keyframe and any(p.kind == "video" for p in groups[-1]):
            groups.append([])
        groups[-1].append(packet)
    muxer, pids = Muxer(), {}  # type: ignore[var-annotated]
    return [mux(group, muxer, pids) for group in groups]


def ordered(packets: Iterable[Packet]) -> list[Packet]:
    return sorted(packets, key=lambda packet: packet.dts or 0)


class Sender:
    """Writes segments so that nobody misses one: each when the one before is read."""

    def __init__(self, url: str, output: MediaOutput, until: Until) -> None:
        self._publisher = TricklePublisher(url, mime_type="video/MP2T", start=0)
        self._output, self._until, self._sent = output, until, 0

    async def send(self, *segments: bytes) -> None:
        for segment in segments:
            async with self._publisher.segment() as writer:
                await writer.write(segment)
            self._sent += len(segment)
            await self._until(lambda: self._output.bytes_in >= self._sent or self._output.ended)

    async def close(self) -> None:
        await self._publisher.close()


async def send(url: str, output: MediaOutput, until: Until, *segments: bytes) -> None:
    sender = Sender(url, output, until)
    await sender.send(*segments)
    await sender.close()


async def collect(reader: Any) -> list[Any]:
    return [item async for item in reader]


def number(frame: VideoFrame) -> int:
    luma = frame.raw.to_ndarray(format="gray")
    return sum(int(luma[8, bit * 16 + 8] > 128) << bit for bit in range(8))


def numbers(frames: Iterable[Any]) -> list[int]:
    return [number(frame) for frame in frames if isinstance(frame, VideoFrame)]


# Pictures and sound


@pytest.mark.parametrize("codec", ["aac", "libopus", "libmp3lame"])
async def test_sound(url: str, encoded: Encoded, until: Until, codec: str) -> None:
    packets = demux(encoded(video=None, audio=codec))
    async with MediaOutput(url) as output:
        reading = asyncio.create_task(collect(output.frames("audio", drop=None)))
        await asyncio.sleep(0)
        await send(url, output, until, mux(packets))
        frames = await reading
    assert output.audio_in == len(packets) == len(frames)
    assert output.last_timestamp == packets[-1].timestamp
    assert [frame.timestamp for frame in frames] == [packet.timestamp for packet in packets]
    assert all(isinstance(frame, AudioFrame) for frame in frames)
    assert {(frame.sample_rate, frame.channels) for frame in frames} == {(48_000, 2)}
    for frame, following in itertools.pairwise(frames):
        assert frame.timestamp + frame.duration == pytest.approx(following.timestamp, abs=2 / 90_000)
    sound = np.concatenate([frame.array[:, 0] for frame in frames])[9_600:57_600]  # a second of it
    assert np.argmax(np.abs(np.fft.rfft(sound))) == 440
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(0.5 / 2**0.5, rel=0.1)
    assert not output.losses


@pytest.mark.parametrize("bframes", [0, 2])
async def test_pictures_and_sound_in_one_iterator(
    url: str, encoded: Encoded, until: Until, bframes: int
) -> None:
    packets = demux(encoded(bframes=bframes))
    async with MediaOutput(url) as output:
        reading = asyncio.create_task(collect(output.frames("all", drop=None)))
        await asyncio.sleep(0)
        await send(url, output, until, *cut(packets))
        frames = await reading
    times = [frame.timestamp for frame in frames]
    assert times == sorted(times)
    assert numbers(frames) == list(range(60))
    sound = [packet.timestamp for packet in packets if packet.kind == "audio"]
    assert [frame.timestamp for frame in frames if isinstance(frame, AudioFrame)] == sound
    assert (output.frames_in, output.audio_in, output.dropped) == (60, len(sound), 0)
    assert output.last_timestamp == max(p.timestamp for p in packets if p.kind == "video")
    assert not output.losses


async def test_sound_that_comes_late_and_in_lumps_is_brought_into_order(
    url: str, encoded: Encoded, until: Until
) -> None:
    """As libavformat's muxer does by default: many frames of sound in one PES, 0.3 s behind the pictures."""
    late = [
        dataclasses.replace(packet, dts=packet.dts + 27_000) if packet.kind == "audio" else packet
        for packet in demux(encoded())
    ]
    late = [dataclasses.replace(packet, dts=packet.pts) for packet in ordered(late)]
    async with MediaOutput(url) as output:
        reading = asyncio.create_task(collect(output.frames("all", drop=None)))
        await asyncio.sleep(0)
        await send(url, output, until, *cut(late))
        frames = await reading
    times = [frame.timestamp for frame in frames]
    assert times == sorted(times)
    assert numbers(frames) == list(range(60))


async def test_the_stream_of_libavformats_muxer_is_in_order_too(url: str, encoded: Encoded) -> None:
    """In real time: sound in lumps of 0.2 s, pictures without lengths and with B-frames."""
    lumps = {"pes_payload_size": "2930", "max_delay": "700000"}
    data = encoded(1.5, bframes=2, options=lumps)
    async with MediaOutput(url) as output:
        reading = asyncio.create_task(collect(output.frames("all", drop=None)))
        async with TricklePublisher(url, start=0) as publisher, publisher.segment() as segment:
            size = len(data) // 45
            for start in range(0, len(data), size):
                await segment.write(data[start : start + size])
                await asyncio.sleep(1 / 30)
        frames = await reading
    times = [frame.timestamp for frame in frames]
    assert times == sorted(times)
    assert numbers(frames) == list(range(45))
    assert len(frames) == output.frames_in + output.audio_in
    assert not output.losses


async def test_sound_that_falls_silent_holds_no_picture_up(url: str, encoded: Encoded, until: Until) -> None:
    packets = demux(encoded(4.0))
    packets = [p for p in packets if p.kind == "video" or (p.timestamp or 0) < 11.0]
    first, *rest = cut(packets)
    async with MediaOutput(url) as output:
        frames = output.frames("all", drop=None)
        got = asyncio.create_task(anext(frames))
        await asyncio.sleep(0)
        sender = Sender(url, output, until)
        await sender.send(first)
        await got
        waited: list[float] = []
        loop = asyncio.get_running_loop()
        for segment in rest:
            last = max(p.timestamp for p in demux(segment) if p.kind == "video")
            began = loop.time()
            await sender.send(segment)
            while (await anext(frames)).timestamp < last:
                pass
            waited.append(loop.time() - began)
        await sender.close()
        assert sorted(waited)[-2] < 0.4  # once it waits, for half a second at most
        assert max(waited) < 1.5


async def test_every_kind_of_reader_at_once(url: str, encoded: Encoded, until: Until) -> None:
    segments = cut(demux(encoded()))
    async with MediaOutput(url) as output:
        readers = [
            output.frames(drop=None),
            output.frames("audio", drop=None),
            output.frames("all", drop=None),
            output.frames(drop=None, queue_size=1),
            output.packets(),
            output.bytes(),
        ]
        reading = [asyncio.create_task(collect(reader)) for reader in readers]
        await asyncio.sleep(0)
        await send(url, output, until, *segments)
        video, audio, both, slow, packets, data = await asyncio.gather(*reading)
    assert numbers(video) == numbers(slow) == numbers(both) == list(range(60))
    assert len(both) == len(video) + len(audio) == len(packets)
    assert b"".join(data) == b"".join(segments)


async def test_hooks_see_packets_and_frames(url: str, encoded: Encoded, until: Until) -> None:
    packets: list[Packet] = []
    frames: list[Any] = []
    async with MediaOutput(url) as output:
        output.on_packet, output.on_frame = packets.append, frames.append
        assert output.last_arrival_at is None
        reading = [asyncio.create_task(collect(output.frames(kind, drop=None))) for kind in ("all", "video")]
        await asyncio.sleep(0)
        before = asyncio.get_running_loop().time()
        await send(url, output, until, *cut(demux(encoded())))
        await asyncio.gather(*reading)
    assert output.last_arrival_at is not None
    assert before <= output.last_arrival_at <= asyncio.get_running_loop().time()
    assert len(packets) == len(frames) == output.frames_in + output.audio_in
    assert output.on_packet == packets.append


async def test_a_hook_that_raises_ends_the_readers(server: TrickleServer, url: str, encoded: Encoded) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    for hook in ("on_packet", "on_frame"):
        async with MediaOutput(url) as output:
            setattr(output, hook, broken)
            reading = asyncio.create_task(collect(output.frames()))
            await asyncio.sleep(0)
            server.publish("v", mux(demux(encoded(0.5))))
            with pytest.raises(MediaError, match="ZeroDivisionError"):
                await reading


def test_arguments() -> None:
    for options in ({"kind": "sound"}, {"queue_size": 0}, {"drop": "newest"}):
        with pytest.raises(ConfigurationError):
            MediaOutput("http://127.0.0.1:1/v").frames(**options)  # type: ignore[call-overload]


async def test_nothing_is_decoded_that_nobody_reads(
    url: str, encoded: Encoded, until: Until, threads_left: Callable[[], set[str]]
) -> None:
    segments = cut(demux(encoded()))
    async with MediaOutput(url) as output:
        decoded: list[Any] = []
        output.on_frame = decoded.append
        every = asyncio.create_task(collect(output.packets()))
        await asyncio.sleep(0)
        sender = Sender(url, output, until)
        await sender.send(segments[0])
        assert "livepeer-decode" not in threads_left()
        frames = output.frames("audio", drop=None)
        await anext(frames)
        await sender.send(segments[1])
        await frames.aclose()
        await asyncio.sleep(0.05)
        before = len(decoded)
        await sender.send(segments[2])
        video = output.frames(drop=None)
        assert number(await anext(video)) == 30
        assert {type(frame) for frame in decoded[:before]} == {AudioFrame}
        assert {type(frame) for frame in decoded[before:]} == {VideoFrame}
        await sender.close()
        await every


# Readers that come late


@pytest.mark.parametrize("bframes", [0, 2])
async def test_a_late_reader_of_frames_begins_with_the_segment(
    url: str, encoded: Encoded, until: Until, bframes: int
) -> None:
    """Although another one reads frames already, whose decoder is in the middle of it."""
    first, second = cut(demux(encoded(gop=30, bframes=bframes)))
    half = len(second) // 2 // 188 * 188
    async with MediaOutput(url) as output:
        every = asyncio.create_task(collect(output.frames("all", drop=None)))
        await asyncio.sleep(0)
        async with TricklePublisher(url, start=0) as publisher:
            async with publisher.segment() as segment:
                await segment.write(first)
            async with publisher.segment() as segment:
                await segment.write(second[:half])
                await until(lambda: output.bytes_in == len(first) + half)
                late = output.frames(drop=None)
                both = output.frames("all", drop=None)
                newest = output.frames(queue_size=100)
                assert number(await anext(late)) == 30
                reading = [asyncio.create_task(collect(reader)) for reader in (late, both, newest)]
                await asyncio.sleep(0.05)
                await segment.write(second[half:])
        frames, mixed, latest = await asyncio.gather(*reading)
        assert numbers(frames) == list(range(31, 60))
        assert numbers(mixed) == list(range(30, 60))
        assert numbers(latest) == list(range(numbers(latest)[0], 60))
        assert numbers(latest)[0] > 30
        assert numbers(await every) == list(range(60))


async def test_a_late_reader_of_a_segment_that_is_too_long_to_keep(
    url: str, encoded: Encoded, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = mux(demux(encoded(gop=15, audio=None)))
    half = len(data) // 2
    monkeypatch.setattr(intake_module, "_CACHE", len(data) // 4)
    following = mux(demux(encoded(0.5, start=12.0, first=60, audio=None)))
    async with MediaOutput(url) as output:
        output.start()
        async with TricklePublisher(url, start=0) as publisher:
            async with publisher.segment() as segment:
                await segment.write(data[:half])
                await until(lambda: output.bytes_in == half)
                readers = output.packets(), output.frames(drop=None), output.bytes()
                reading = [asyncio.create_task(collect(reader)) for reader in readers]
                await asyncio.sleep(0.01)
                await segment.write(data[half:])
            async with publisher.segment() as segment:
                await segment.write(following)
        packets, frames, pieces = await asyncio.gather(*reading)
    assert packets[0].is_keyframe
    assert numbers(frames)[0] in (15, 30, 45)
    assert numbers(frames) == list(range(numbers(frames)[0], 75))
    assert len(packets) == len(frames)
    assert b"".join(pieces) == following


# Streams that change


async def test_the_size_changes(url: str, encoded: Encoded, until: Until) -> None:
    parts = [encoded(0.5, audio=None, size=(128, 64)), encoded(0.5, audio=None, size=(320, 180), start=10.5)]
    async with MediaOutput(url) as output:
        reading = asyncio.create_task(collect(output.frames(drop=None)))
        await asyncio.sleep(0)
        await send(url, output, until, *parts)
        frames = await reading
    assert [(frame.width, frame.height) for frame in frames] == [(128, 64)] * 15 + [(320, 180)] * 15


async def test_the_codecs_change(url: str, encoded: Encoded, until: Until) -> None:
    parts = [
        encoded(0.5, audio="aac", bframes=2),
        encoded(0.5, video="libx265", audio="libmp3lame", start=10.5, first=15, bframes=2),
        encoded(0.5, audio="aac", start=11.0, first=30),
        encoded(0.5, audio="aac", start=11.5, first=45, bframes=2),
    ]
    async with MediaOutput(url) as output:
        video = asyncio.create_task(collect(output.frames(drop=None)))
        audio = asyncio.create_task(collect(output.frames("audio", drop=None)))
        await asyncio.sleep(0)
        await send(url, output, until, *parts)
        assert numbers(await video) == list(range(60))
        assert len(await audio) == output.audio_in
    assert not output.losses


async def test_tracks_that_come_and_go(url: str, encoded: Encoded, until: Until) -> None:
    """Each under a number that no track had before, as a muxer gives them."""
    groups = [demux(encoded(0.5, start=10 + n / 2, first=15 * n)) for n in range(4)]
    groups[0] = [p for p in groups[0] if p.kind == "video"]
    muxer = Muxer()
    segments = []
    for group in groups:
        pids: dict[Any, int] = {}
        segments.append(mux(group, muxer, pids))
        for pid in pids.values():
            muxer.remove_stream(pid)
    async with MediaOutput(url) as output:
        reading = asyncio.create_task(collect(output.frames("all", drop=None)))
        await asyncio.sleep(0)
        await send(url, output, until, *segments)
        frames = await reading
    assert numbers(frames) == list(range(60))
    assert len(frames) - 60 == output.audio_in == sum(p.kind == "audio" for g in groups for p in g)


async def test_of_two_tracks_of_a_kind_one_is_decoded(url: str, encoded: Encoded, until: Until) -> None:
    first, second = demux(encoded(audio=None)), demux(encoded(audio=None, first=100))
    both = ordered([*first, *(dataclasses.replace(p, pid=p.pid + 7) for p in second)])
    async with MediaOutput(url) as output:
        frames = asyncio.create_task(collect(output.frames(drop=None)))
        packets = asyncio.create_task(collect(output.packets()))
        await asyncio.sleep(0)
        await send(url, output, until, mux(both))
        assert numbers(await frames) == list(range(60))
        assert len(await packets) == 120


@pytest.mark.parametrize("jump", [-8.0, 3000.0])
async def test_times_that_jump(url: str, encoded: Encoded, until: Until, jump: float) -> None:
    parts = [encoded(1.0), encoded(1.0, start=11 + jump, first=30)]
    async with MediaOutput(url) as output:
        reading = asyncio.create_task(collect(output.frames("all", drop=None)))
        await asyncio.sleep(0)
        await send(url, output, until, *(s for part in parts for s in cut(demux(part))))
        async with asyncio.timeout(20):
            frames = await reading
    assert numbers(frames) == list(range(60))
    assert len(frames) == output.frames_in + output.audio_in
    second = [f.timestamp for f in frames[frames.index(next(f for f in frames if number_is(f, 30))) :]]
    assert second[-1] - second[0] < 1.1


def number_is(frame: Any, wanted: int) -> bool:
    return isinstance(frame, VideoFrame) and number(frame) == wanted


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
async def test_other_containers(
    url: str,
    encoded: Encoded,
    until: Until,
    tmp_path: Path,
    suffix: str,
    threads_left: Callable[[], set[str]],
) -> None:
    """What our demuxer doesn't know is read by libavformat; readers notice nothing."""
    recording = Recording(tmp_path / f"out.{suffix}")
    recording.write(demux(encoded()))
    recording.finish()
    data = recording.path.read_bytes()
    async with MediaOutput(url) as output:
        frames = asyncio.create_task(collect(output.frames("all", drop=None)))
        packets = asyncio.create_task(collect(output.packets()))
        await asyncio.sleep(0)
        await send(url, output, until, data)
        assert numbers(await frames) == list(range(60))
        assert len(await packets) == output.frames_in + output.audio_in > 140
    await until(lambda: not threads_left())


# Losses and damage


async def test_a_paused_reader_of_frames_skips_and_it_is_counted(
    url: str, encoded: Encoded, until: Until
) -> None:
    segments = cut(demux(encoded(4.0)))
    async with MediaOutput(url) as output:
        frames, every = output.frames("all", queue_size=4), output.packets()
        first = asyncio.create_task(anext(frames))
        packets = asyncio.create_task(collect(every))
        await asyncio.sleep(0)
        await send(url, output, until, *segments)
        await first
        await until(lambda: output.finished)
        rest = await collect(frames)
        assert numbers(rest)[-1] == 119
        assert 1 + len(rest) + output.dropped == len(await packets)
        assert output.dropped == output.losses.frames >= frames.dropped > 100


@pytest.mark.parametrize("kind", ["video", "all"])
async def test_a_reader_that_only_waits_drops_nothing(
    url: str, encoded: Encoded, until: Until, kind: Any
) -> None:
    """However much comes at once."""
    async with MediaOutput(url) as output:
        reading = asyncio.create_task(collect(output.frames(kind, queue_size=1)))
        await asyncio.sleep(0)
        await send(url, output, until, mux(demux(encoded(4.0, gop=120))))
        assert numbers(await reading) == list(range(120))
        assert output.dropped == 0


async def test_a_reader_that_comes_late_and_only_waits_drops_nothing(
    server: TrickleServer, url: str, encoded: Encoded, until: Until
) -> None:
    server.publish("v", mux(demux(encoded(2.0, gop=120))))
    async with MediaOutput(url) as output:
        output.start()
        await until(lambda: output.frames_in >= 60)
        reading = asyncio.create_task(collect(output.frames(queue_size=1)))
        await asyncio.sleep(0)
        server.close_channel("v")
        assert numbers(await reading) == list(range(60))


async def test_a_paused_reader_of_packets_makes_it_wait_and_what_is_missed_is_counted(
    server: TrickleServer, url: str, encoded: Encoded, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 s without a look: its queue fills, then the server's ring."""
    monkeypatch.setattr("livepeer.trickle.media.output._BACKLOG", 20_000)
    monkeypatch.setattr("livepeer.trickle.media.decode_task._BACKLOG", 20_000)
    segments = cut(dataclasses.replace(p, data=p.data + FILLER) for p in demux(encoded(20.0, audio=None)))
    async with MediaOutput(url) as output:
        packets, frames = output.packets(), output.frames(drop=None, queue_size=2)
        first = asyncio.create_task(anext(packets))
        pictures = asyncio.create_task(anext(frames))
        await asyncio.sleep(0)
        for segment in segments:
            server.publish("v", segment)
            await asyncio.sleep(0.005)
        await asyncio.gather(first, pictures)
        waiting = output.bytes_in
        assert waiting < len(b"".join(segments)) / 2  # the rest is not here, but where it came from
        got, seen = asyncio.create_task(collect(packets)), asyncio.create_task(collect(frames))
        await until(lambda: output.missed)
        server.publish("v", mux(demux(encoded(0.5, start=100.0, first=200, audio=None))))
        await until(lambda: output.last_timestamp and output.last_timestamp > 100.4)
        server.close_channel("v")
        found, shown = await got, await seen
        assert 0 < output.losses.segments < 40
        assert 600 + 15 - 1 - len(found) == output.losses.segments * 15 + output.losses.packets
        assert numbers(shown)[-15:] == list(range(200, 215))


async def test_damaged_bytes_cost_what_they_hit(url: str, encoded: Encoded, until: Until) -> None:
    noise = random.Random(1)
    segments = cut(demux(encoded(4.0)))
    hurt = bytearray(segments[2])
    hurt[3000:3400] = noise.randbytes(400)
    segments[2] = bytes(hurt)
    segments[4] = segments[4][: len(segments[4]) // 2]  # truncated
    segments.insert(6, noise.randbytes(300_000))
    async with MediaOutput(url) as output:
        frames = asyncio.create_task(collect(output.frames(drop=None)))
        both = asyncio.create_task(collect(output.frames("all", drop=None)))
        data = asyncio.create_task(collect(output.bytes()))
        await asyncio.sleep(0)
        await send(url, output, until, *segments)
        async with asyncio.timeout(20):
            got = numbers(await frames)
            assert numbers(await both) == got
        assert b"".join(await data) == b"".join(segments)
    whole = set(range(120)) - set(range(30, 45)) - set(range(60, 75))
    assert whole <= set(got)
    assert got == sorted(set(got))
    assert output.losses
    assert output.losses.packets > 0
    assert output.losses.bytes > 290_000


async def test_random_bytes_end_readers_of_media_only(url: str, until: Until) -> None:
    data = random.Random(2).randbytes(1_500_000)
    async with MediaOutput(url) as output:
        chunks = asyncio.create_task(collect(output.bytes()))
        readers = [output.frames(), output.packets(), output.frames("all"), output.frames("audio")]
        reading = [asyncio.create_task(collect(reader)) for reader in readers]
        await asyncio.sleep(0)
        await send(url, output, until, data)
        for task in reading:
            with pytest.raises(MediaError, match="no MPEG-TS"):
                await task
        assert b"".join(await chunks) == data


async def test_a_segment_of_50_megabytes(url: str, encoded: Encoded, until: Until) -> None:
    """A quiet recording that never begins a new segment: it is read on the fly, and not gathered."""
    group = demux(encoded(1.0, gop=30, audio=None))
    muxer = Muxer()
    pid = muxer.add_stream("video", "h264")
    async with MediaOutput(url) as output:
        count = asyncio.create_task(_count(output.frames(drop=None)))
        await asyncio.sleep(0)
        written = packets = 0
        async with TricklePublisher(url, start=0) as publisher, publisher.segment() as segment:
            await segment.write(muxer.tables())
            while written < 50_000_000:
                assert group[packets % 30].pts is not None
                data = muxer.write(
                    pid,
                    group[packets % 30].data + FILLER * 6,
                    pts=packets * 3000,
                    is_keyframe=packets % 30 == 0,
                )
                await segment.write(data)
                written += len(data)
                packets += 1
                while output.bytes_in < written - 8_000_000:
                    await asyncio.sleep(0.001)
                held = (
                    sum(map(len, output._intake._chunks)),
                    sum(len(p.data) for p in output._intake._packets),
                )
                assert sum(held) < 70_000_000
            await until(lambda: output.frames_in == packets)
            assert output._intake._chunks == []
        assert await count == packets
        assert not output.losses


async def _count(reader: Any) -> int:
    count = 0
    async for _ in reader:
        count += 1
    return count


async def test_a_decoder_that_is_too_slow_goes_on_with_a_key_frame(
    url: str, encoded: Encoded, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    from livepeer.trickle.media import decode_task

    def slow(*args: Any) -> Any:
        gate.wait(5)
        return decoded(*args)

    decoded = decode_task.decode_all
    monkeypatch.setattr(decode_task, "decode_all", slow)
    monkeypatch.setattr(decode_task, "_BUSY", 0.0)
    async with MediaOutput(url) as output:
        reading = asyncio.create_task(collect(output.frames(queue_size=100)))
        await asyncio.sleep(0)
        sender = Sender(url, output, until)
        await sender.send(*cut(demux(encoded(4.0, audio=None))))
        gate.set()
        await sender.close()
        frames = await reading
        assert output.losses.undecoded == 0
        assert 0 < output.dropped == output.losses.frames
        assert len(frames) + output.dropped == 120
        assert numbers(frames)[-15:] == list(range(105, 120))
        assert numbers(frames) == sorted(numbers(frames))


# Ends


@pytest.mark.parametrize("running", [True, False])
async def test_fail_ends_every_reader_with_its_error(
    server: TrickleServer, url: str, encoded: Encoded, until: Until, running: bool
) -> None:
    class Stalled(MediaError):
        pass

    async with MediaOutput(url) as output:
        readers = [output.packets(), output.bytes(), *(output.frames(k) for k in ("video", "audio", "all"))]
        reading = [asyncio.create_task(collect(reader)) for reader in readers]
        await asyncio.sleep(0)
        if running:
            server.publish("v", mux(demux(encoded(0.5))))
            await until(lambda: output.frames_in)
        output.fail(Stalled("nothing comes"))
        output.fail(Stalled("again"))
        for task in reading:
            with pytest.raises(Stalled, match="nothing comes"):
                await task
        with pytest.raises(Stalled, match="nothing comes"):
            await anext(output.frames())
        assert output.ended
        assert output.finished
        assert str(output.error) == "nothing comes"


async def test_what_has_ended_cannot_fail(url: str, encoded: Encoded, until: Until) -> None:
    async with MediaOutput(url) as output:
        reader = output.packets()
        reading = asyncio.create_task(collect(reader))
        await asyncio.sleep(0)
        await send(url, output, until, mux(demux(encoded(0.5))))
        await reading
        output.fail(MediaError("too late"))
        assert await collect(output.packets()) == []
        assert output.error is None


@pytest.mark.parametrize("what", ["all", "audio", "mp4", "packets", "aclose"])
async def test_cancelled_at_any_await(
    server: TrickleServer,
    encoded: Encoded,
    left_over: Callable[[], set[str]],
    what: Any,
    tmp_path: Path,
    until: Until,
    threads_left: Callable[[], set[str]],
) -> None:
    segments = cut(demux(encoded(1.0)))

    async def work(url: str, transport: Transport) -> None:
        async with MediaOutput(url, transport=transport) as output:
            if what == "mp4":
                await output.save(tmp_path / "out.mp4")
            elif what == "packets":
                await collect(output.packets())
            elif what == "aclose":
                await anext(output.frames("all"))
                await output.aclose()
            else:
                await collect(output.frames(what, drop=None))

    async with Transport() as transport:
        for turns in (0, 1, 2, 3, 5, 8, 12, 20, 40):
            name = f"v{turns}"
            server.create(name)
            for segment in segments:
                server.publish(name, segment)
            task = asyncio.create_task(work(server.channel_url(name), transport))
            for _ in range(turns):
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert not left_over()
            await until(lambda: not threads_left())
    assert set(os.listdir(tmp_path)) <= {"out.mp4"}
