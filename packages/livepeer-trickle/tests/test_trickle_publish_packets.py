"""What is encoded already goes as it is: packets of ours, of any container, and finished MPEG-TS."""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
from collections.abc import Awaitable, Callable
from fractions import Fraction
from typing import Any

import pytest

from livepeer.trickle import MediaError, TrickleServer

av = pytest.importorskip("av")
np = pytest.importorskip("numpy")

from livepeer.trickle.media import MediaOutput, MediaPublish, Packet  # noqa: E402
from livepeer.trickle.media.mpegts import Demuxer  # noqa: E402
from livepeer.trickle.media.ts_segments import StreamCutter  # noqa: E402

Record = Callable[..., Awaitable[Any]]
RATE = 48_000


def make(
    format: str = "mp4",
    video: str | None = "libx264",
    audio: str | None = "aac",
    *,
    count: int = 60,
    begin: int = 0,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    size: tuple[int, int] = (128, 64),
) -> bytes:
    """A file of `count` pictures at 30 a second, from `begin` on, and the sound to them."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format, options=muxer or {}) as container:
        streams: list[Any] = []
        if video is not None:
            picture: Any = container.add_stream(video, rate=30)
            picture.width, picture.height, picture.pix_fmt = *size, "yuv420p"
            base = {
                "g": "15",
                "bf": "2",
                "x265-params": "log-level=none:keyint=15:bframes=2:open-gop=0:scenecut=0",
            }
            picture.options = base | (options or {})
            streams.append(picture)
        if audio is not None:
            sound: Any = container.add_stream(audio, rate=RATE)
            sound.layout = "stereo"
            streams.append(sound)
        for number in range(count):
            for stream in streams:
                if stream.type == "video":
                    frame: Any = av.VideoFrame.from_ndarray(
                        np.full((size[1], size[0], 3), 16 + 3 * (number % 75), np.uint8), "rgb24"
                    )
                    frame.pts, frame.time_base = begin + number, Fraction(1, 30)
                else:
                    times = np.arange(number * 1600, number * 1600 + 1600) / RATE
                    tone = (0.5 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
                    frame = av.AudioFrame.from_ndarray(np.stack([tone, tone]), "fltp", "stereo")
                    frame.sample_rate = RATE
                    frame.pts, frame.time_base = (begin * 1600) + number * 1600, Fraction(1, RATE)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return buffer.getvalue()


def decoded(data: bytes, format: str | None = None) -> dict[str, list[tuple[float, str]]]:
    """Time and content of every frame that libavformat finds, by kind."""
    found: dict[str, list[tuple[float, str]]] = {"video": [], "audio": []}
    with av.open(io.BytesIO(data), format=format) as container:
        for frame in container.decode():
            kind = "video" if isinstance(frame, av.VideoFrame) else "audio"
            content = hashlib.md5(frame.to_ndarray().tobytes(), usedforsecurity=False).hexdigest()
            found[kind].append((round(float(frame.time), 3), content))
    return found


def same(ours: list[tuple[float, str]], theirs: list[tuple[float, str]], within: float = 0.0011) -> None:
    assert [content for _, content in ours] == [content for _, content in theirs]
    assert [time for time, _ in ours] == pytest.approx([time for time, _ in theirs], abs=within)


async def write_packets(publisher: MediaPublish, data: bytes) -> None:
    with av.open(io.BytesIO(data)) as container:
        for packet in container.demux():
            await publisher.write_packet(packet)


@pytest.mark.parametrize("audio", ["aac", "libopus"])
@pytest.mark.parametrize("video", ["libx264", "libx265"])
@pytest.mark.parametrize("format", ["mp4", "matroska", "mpegts"])
async def test_packets_of_any_container_are_passed_on_as_they_are(
    record: Record, format: str, video: str, audio: str
) -> None:
    source = make(format, video, audio)
    recording = await record()
    output = MediaOutput(recording.url)
    ours: list[Packet] = []
    reading = asyncio.create_task(_collect(output.packets(), ours))
    async with MediaPublish(recording.url) as publisher:
        await write_packets(publisher, source)
    await reading
    await output.aclose()
    whole = await recording.whole()
    # libavformat's own muxer moves all times of a stream that begins before 0.
    expected, got = decoded(source), decoded(whole, "mpegts")
    same(got["video"], expected["video"])
    # The lead-in of the sound before the time 0 can't be said.
    times = [time for time, _ in expected["audio"]]
    assert [time for time, _ in got["audio"]][-len(times) + 1 :] == pytest.approx(times[1:], abs=0.0011)
    with av.open(io.BytesIO(source)) as container:
        encoded = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    header = 7 if audio == "aac" and format != "mpegts" else 0
    sound = [packet.data[header:] for packet in ours if packet.kind == "audio"]
    assert sound == encoded[-len(sound) :]
    assert len(sound) >= len(encoded) - 1
    assert not publisher._production._worker.started  # nothing was encoded
    assert (publisher.frames, publisher.lost) == (60, 0)
    assert sum(packet.kind == "video" for packet in ours) == 60
    assert any(packet.pts != packet.dts for packet in ours if packet.kind == "video")
    assert len(recording.segments) == 4
    for segment in recording.segments:
        assert len(decoded(segment, "mpegts")["video"]) == 15


async def _collect(reader: Any, into: list[Any]) -> None:
    async for item in reader:
        into.append(item)


async def test_what_was_read_can_be_written_again(record: Record) -> None:
    first, second = await record("a"), await record("b")
    output = MediaOutput(first.url)
    async with MediaPublish(second.url) as forward, MediaPublish(first.url, gop=0.5) as publisher:

        async def pass_on() -> None:
            async for packet in output.packets():
                await forward.write_packet(packet)

        passing = asyncio.create_task(pass_on())
        for number in range(45):
            await publisher.write_frame(np.full((64, 128, 3), 5 * number, np.uint8))
            await publisher.write_frame(np.zeros((1600, 2), np.float32))
        await publisher.close()
        await passing
        assert forward.written_at(0) is not None
    await output.aclose()
    one, two = decoded(await first.whole(), "mpegts"), decoded(await second.whole(), "mpegts")
    same(two["video"], one["video"], within=0.0)
    same(two["audio"], one["audio"], within=0.0)
    assert len(first.segments) == len(second.segments) == 3


async def test_encoded_sound_beside_frames(record: Record) -> None:
    """A filter that makes new pictures and passes the sound on."""
    recording = await record()
    with av.open(io.BytesIO(make(video=None))) as container:
        sound = list(container.demux())
        async with MediaPublish(recording.url) as publisher:
            for number in range(60):
                picture = np.full((64, 128, 3), 4 * number, np.uint8)
                await publisher.write_frame(picture, timestamp=number / 30)
                while sound and (sound[0].pts is None or sound[0].pts / RATE <= number / 30):
                    await publisher.write_packet(sound.pop(0))
    found = decoded(await recording.whole(), "mpegts")
    assert len(found["video"]) == 60
    assert len(found["audio"]) >= 90


async def test_what_begins_in_the_midst_begins_with_its_key_frame(record: Record) -> None:
    recording = await record()
    async with MediaPublish(recording.url) as publisher:
        with av.open(io.BytesIO(make(audio=None, options={"bf": "0"}))) as container:
            for packet in list(container.demux())[5:]:
                await publisher.write_packet(packet)
        assert publisher.lost == 0 or publisher.lost == 10
    assert (publisher.frames, publisher.lost) == (45, 10)
    assert len(decoded(await recording.whole(), "mpegts")["video"]) == 45


async def test_key_frames_in_a_row_share_a_segment(record: Record) -> None:
    recording = await record()
    async with MediaPublish(recording.url) as publisher:
        await write_packets(publisher, make(audio=None, count=30, options={"g": "1", "bf": "0"}))
    await recording.whole()
    assert len(recording.segments) == 4  # of a quarter of a second each


async def test_a_new_size_in_packets_begins_a_segment(record: Record) -> None:
    recording = await record()
    one = make(audio=None, count=5, options={"bf": "0"})
    other = make(audio=None, count=5, begin=5, size=(64, 128), options={"bf": "0"})
    async with MediaPublish(recording.url) as publisher:
        await write_packets(publisher, one)
        await write_packets(publisher, other)
    whole = await recording.whole()
    assert len(recording.segments) == 2
    assert len(decoded(whole, "mpegts")["video"]) == 10


async def test_one_file_after_the_other_goes_on_in_the_same_tracks(record: Record) -> None:
    recording = await record()
    async with MediaPublish(recording.url) as publisher:
        for number in range(3):
            await write_packets(publisher, make(count=15, begin=15 * number, options={"bf": "0"}))
    whole = await recording.whole()
    demuxer = Demuxer()
    packets = demuxer.feed(whole)
    assert sorted(stream.kind for stream in demuxer.streams.values()) == ["audio", "video"]
    assert sum(packet.kind == "video" for packet in packets) == 45


async def test_another_codec_in_mid_stream(record: Record) -> None:
    recording = await record()
    output = MediaOutput(recording.url)
    ours: list[Packet] = []
    reading = asyncio.create_task(_collect(output.packets(), ours))
    async with MediaPublish(recording.url) as publisher:
        await write_packets(publisher, make(audio=None, count=15))
        await write_packets(publisher, make(video="libx265", audio=None, count=15, begin=15))
    await reading
    await output.aclose()
    assert [packet.codec for packet in ours] == ["h264"] * 15 + ["hevc"] * 15
    assert len(decoded(recording.segments[1], "mpegts")["video"]) == 15


async def test_packets_that_cannot_be_written(server: TrickleServer) -> None:
    async with MediaPublish(server.channel_url("v")) as publisher:
        vp9 = Packet("video", "vp9", b"\x01", 0, 0, True)
        silent = Packet("audio", "aac", b"\xff\xf1", None, None, True)
        with av.open(io.BytesIO(make("avi", "mpeg4", None))) as container:
            foreign = next(container.demux())
            for packet, says in (
                (vp9, "vp9"),
                (silent, "without a time"),
                (foreign, "'mpeg4' can't be written"),
                (av.Packet(b"abc"), "belongs to no file"),
                (b"abc", "bytes is no packet"),
                (Packet("video", "h264", b"", 0, 0, True), "without a byte"),
            ):
                with pytest.raises(MediaError, match=says):
                    await publisher.write_packet(packet)
        with pytest.raises(MediaError, match="closed"):
            await publisher.write_packet(foreign)


@pytest.mark.parametrize("size", [1, 100, 188, 1316, 5000, 10_000_000])
@pytest.mark.parametrize(
    "muxer", [{}, {"mpegts_flags": "omit_rai"}, {"pat_period": "86400", "sdt_period": "86400"}]
)
async def test_finished_streams_are_cut_at_their_key_frames(
    record: Record, size: int, muxer: dict[str, str]
) -> None:
    count = 60 if size > 1 else 10
    source = make("mpegts", muxer={"mpegts_copyts": "1", **muxer}, begin=30, count=count)
    recording = await record()
    async with MediaPublish(recording.url) as publisher:
        for begin in range(0, len(source), size):
            await publisher.write_bytes(source[begin : begin + size])
    whole = await recording.whole()
    expected, got = decoded(source, "mpegts"), decoded(whole, "mpegts")
    same(got["video"], expected["video"], within=0.0)
    same(got["audio"], expected["audio"], within=0.0)
    assert publisher.frames == len(expected["video"])
    assert publisher.lost == 0
    assert publisher.audio_frames > 0
    if size > 1:
        assert publisher.last_timestamp == pytest.approx(3 - 1 / 30, abs=0.1)
        assert publisher.written_at(90_000) is not None
        assert len(recording.segments) == 4
        for segment in recording.segments:
            assert len(decoded(segment, "mpegts")["video"]) == 15
    if not muxer and size == 10_000_000:
        # Tables are before each key frame here, so not a byte is put in; what came before them is left out.
        assert source.endswith(whole)


async def test_a_finished_stream_of_sound(record: Record) -> None:
    source = make("mpegts", video=None, muxer={"mpegts_copyts": "1"}, begin=30, count=85)
    recording = await record()
    async with MediaPublish(recording.url, gop=1.0) as publisher:
        for begin in range(0, len(source), 1316):
            await publisher.write_bytes(source[begin : begin + 1316])
    whole = await recording.whole()
    same(decoded(whole, "mpegts")["audio"], decoded(source, "mpegts")["audio"], within=0.0)
    assert len(recording.segments) == 3
    assert publisher.last_timestamp == pytest.approx(4.0, abs=0.2)
    for segment in recording.segments:
        assert len(decoded(segment, "mpegts")["audio"]) > 35


async def test_a_finished_stream_that_begins_in_the_midst_and_is_damaged(record: Record) -> None:
    source = make("mpegts", audio=None, muxer={"mpegts_copyts": "1", "pat_period": "0.1"})
    cut = source[188 * 3 + 50 :]
    middle = len(cut) // 2
    damaged = cut[:middle] + bytes(333) + cut[middle:]
    recording = await record()
    async with MediaPublish(recording.url) as publisher:
        await publisher.write_bytes(damaged)
    assert publisher.frames + publisher.lost >= 55
    assert publisher._stream_cutter.skipped > 0
    whole = await recording.whole()
    assert Demuxer().feed(whole)
    for segment in recording.segments:
        assert decoded(segment, "mpegts")["video"]


def test_damage_of_every_kind_breaks_nothing() -> None:
    source = make("mpegts", muxer={"mpegts_copyts": "1"}, begin=30)
    for seed in range(300):
        rng = random.Random(seed)
        data = bytearray(source[: rng.randrange(188 * 5, 188 * 200)])
        for _ in range(rng.randrange(1, 60)):
            at, kind = rng.randrange(len(data) - 300), rng.randrange(4)
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1 and len(data) > 1000:
                del data[at : at + rng.randrange(1, 300)]
            elif kind == 2:
                data[at:at] = rng.randbytes(rng.randrange(1, 50))
            else:
                data[at : at + 3] = b"\x47\x40\x00"
        cutter, position, size = StreamCutter(1.0), 0, 0
        while position < len(data):
            step = rng.randrange(1, 3000)
            pieces = cutter.feed(bytes(data[position : position + step]))
            size += sum(len(piece.data) for piece in pieces)
            assert all(len(piece.data) % 188 == 0 for piece in pieces)
            position += step
        assert size <= len(data) + 188 * 10 * 60  # the tables that were put in


async def _write_bytes(publisher: MediaPublish, data: bytes) -> None:
    for begin in range(0, len(data), 1316):
        await publisher.write_bytes(data[begin : begin + 1316])


async def test_bytes_that_are_no_stream(server: TrickleServer) -> None:
    data = make("mpegts", count=150)
    async with MediaPublish(server.channel_url("v")) as publisher:
        with pytest.raises(MediaError, match="no MPEG-TS"):
            await publisher.write_bytes(bytes(100_000))
    with_times = b"".join(bytes(4) + data[n : n + 188] for n in range(0, len(data), 188))  # as Blu-rays have
    async with MediaPublish(server.channel_url("v")) as publisher:
        with pytest.raises(MediaError, match="no MPEG-TS"):
            await _write_bytes(publisher, with_times)
    async with MediaPublish(server.channel_url("v")) as publisher:
        await publisher.write_bytes(make("mpegts"))
        for write in (
            publisher.write_frame(np.zeros((64, 64, 3), np.uint8)),
            publisher.publish_file("nowhere"),
        ):
            with pytest.raises(MediaError, match=r"as bytes, or as frames|nowhere"):
                await write
    async with MediaPublish(server.channel_url("w")) as publisher:
        await publisher.write_frame(np.zeros((64, 64, 3), np.uint8))
        with pytest.raises(MediaError, match="as bytes, or as frames"):
            await publisher.write_bytes(b"")
