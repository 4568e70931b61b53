"""What our muxer writes, libavformat and our own demuxer read to the byte."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

av = pytest.importorskip("av")
np = pytest.importorskip("numpy")

from livepeer.trickle import MediaError  # noqa: E402
from livepeer.trickle.media.bitstream import Normalizer  # noqa: E402
from livepeer.trickle.media.mpegts import Demuxer, Muxer  # noqa: E402
from livepeer.trickle.media.packets import CLOCK, WRAP, Packet  # noqa: E402

ENCODERS = {
    "h264": "libx264",
    "hevc": "libx265",
    "aac": "aac",
    "opus": "libopus",
    "mp3": "libmp3lame",
    "ac3": "ac3",
}


def encode(
    codec: str, count: int = 12, *, format: str = "matroska", size: int = 64, options: Any = None
) -> list[Packet]:
    """Packets of real media out of another container, in our form."""
    file = io.BytesIO()
    with av.open(file, "w", format=format) as container:
        rate = 30 if codec in ("h264", "hevc") else 48000
        stream: Any = container.add_stream(ENCODERS[codec], rate=rate)
        rng = np.random.default_rng(5)
        if stream.type == "video":
            stream.width, stream.height, stream.pix_fmt = 2 * size, size, "yuv420p"
            stream.options = {"preset": "ultrafast", "g": "6", "x265-params": "log-level=none"} | (
                options or {}
            )
        else:
            stream.layout = "stereo"
        for number in range(count):
            if stream.type == "video":
                frame: Any = av.VideoFrame.from_ndarray(
                    rng.integers(0, 255, (size, 2 * size, 3), dtype=np.uint8), "rgb24"
                )
                frame.pts, frame.time_base = number, Fraction(1, 30)
            else:
                samples = (rng.random((2, 960)) - 0.5).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(samples, "fltp", "stereo")
                frame.sample_rate, frame.pts, frame.time_base = 48000, number * 960, Fraction(1, 48000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        normalizer = Normalizer(container.streams[0])
        return [packet for raw in [*container.demux(0), None] for packet in normalizer.convert(raw)]


def mux(muxer: Muxer, pid: int, packets: list[Packet], *, offset: int = 0) -> bytes:
    return b"".join(
        muxer.write(
            pid, p.data, pts=(p.pts or 0) + offset, dts=(p.dts or 0) + offset, is_keyframe=p.is_keyframe
        )
        for p in packets
    )


def libavformat(data: bytes) -> dict[int, list[Any]]:
    """What libavformat reads: packets by PID."""
    found: dict[int, list[Any]] = {}
    with av.open(io.BytesIO(data), format="mpegts") as container:
        for packet in container.demux():
            if packet.size:
                found.setdefault(packet.stream.id, []).append(packet)
    return found


def ours(data: bytes) -> list[Packet]:
    demuxer = Demuxer()
    return demuxer.feed(data) + demuxer.flush()


def without_delimiter(data: bytes) -> bytes:
    for delimiter in (b"\x00\x00\x00\x01\x09\xf0", b"\x00\x00\x00\x01\x46\x01\x50"):
        data = data.removeprefix(delimiter)
    return data


@pytest.mark.parametrize("codec", [*ENCODERS])
@pytest.mark.parametrize("offset", [90_000, 123456789, WRAP - 9000])
def test_every_codec_is_read_to_the_byte(codec: str, offset: int) -> None:
    packets = encode(codec)
    assert len(packets) >= 8
    muxer = Muxer()
    kind = packets[0].kind
    pid = muxer.add_stream(kind, codec)
    data = muxer.tables() + mux(muxer, pid, packets, offset=offset)
    assert len(data) % 188 == 0

    found = ours(data)
    assert [without_delimiter(p.data) for p in found] == [without_delimiter(p.data) for p in packets]
    assert [p.pts for p in found] == [(p.pts or 0) + offset for p in packets]
    assert [p.dts for p in found] == [(p.dts or 0) + offset for p in packets]
    assert [p.is_keyframe for p in found] == [p.is_keyframe for p in packets]
    assert {(p.codec, p.kind, p.pid, p.discontinuity) for p in found} == {(codec, kind, pid, False)}

    raw = libavformat(data)[pid]
    assert [without_delimiter(bytes(p)) for p in raw] == [without_delimiter(p.data) for p in packets]
    assert [p.pts % WRAP for p in raw] == [((p.pts or 0) + offset) % WRAP for p in packets]
    decoder = av.CodecContext.create(codec, "r")
    frames = [frame for p in found for frame in decoder.decode(p.to_av())] + decoder.decode(None)
    assert len(frames) >= len(packets) - 1


def test_video_with_bframes_and_audio() -> None:
    later = 10 * CLOCK  # a stream's first times are not negative
    video = encode("h264", 20, format="mp4", options={"bf": "2", "b-adapt": "0", "preset": "veryfast"})
    video = [replace(p, pts=(p.pts or 0) + later, dts=(p.dts or 0) + later) for p in video]
    audio = [replace(p, pts=(p.pts or 0) + later, dts=(p.dts or 0) + later) for p in encode("aac", 30)]
    assert any(p.pts != p.dts for p in video)
    muxer = Muxer()
    pids = {"video": muxer.add_stream("video", "h264"), "audio": muxer.add_stream("audio", "aac")}
    both = sorted(video + audio, key=lambda p: p.dts or 0)
    data = muxer.tables() + b"".join(
        muxer.write(pids[p.kind], p.data, pts=p.pts or 0, dts=p.dts, is_keyframe=p.is_keyframe) for p in both
    )
    raw = libavformat(data)
    for kind, packets in (("video", video), ("audio", audio)):
        mine = [p for p in ours(data) if p.kind == kind]
        theirs = raw[pids[kind]]
        assert [(p.pts, p.dts) for p in mine] == [(p.pts, p.dts) for p in packets]
        assert [(p.pts, p.dts) for p in theirs] == [(p.pts, p.dts) for p in packets]
        assert [p.data for p in mine] == [bytes(p) for p in theirs]


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_what_a_file_kept_for_mp4_becomes_a_stream(codec: str) -> None:
    """Parameter sets are in the data at each key frame, and start codes instead of lengths."""
    packets = encode(codec, format="mp4")
    assert [p.is_keyframe for p in packets].count(True) == 2
    for packet in packets:
        assert packet.data.startswith((b"\x00\x00\x00\x01", b"\x00\x00\x01"))
        if packet.is_keyframe:
            decoder = av.CodecContext.create(codec, "r")
            assert len(decoder.decode(packet.to_av()) + decoder.decode(None)) == 1


def test_aac_of_a_file_gets_headers() -> None:
    for format in ("mp4", "matroska"):
        packets = encode("aac", format=format)
        for packet in packets:
            assert packet.data[:2] == b"\xff\xf1"
            assert (packet.data[3] & 3) << 11 | packet.data[4] << 3 | packet.data[5] >> 5 == len(packet.data)


def test_what_needs_a_configuration_keeps_it() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as container:
        stream: Any = container.add_stream("flac", rate=48000)
        stream.layout = "stereo"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 4608), np.int16), "s16", "stereo")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        normalizer = Normalizer(container.streams[0])
        packets = [packet for raw in container.demux(0) for packet in normalizer.convert(raw)]
    decoder: Any = av.CodecContext.create(packets[0].codec, "r")
    decoder.extradata = packets[0].extradata
    assert sum(frame.samples for p in packets for frame in decoder.decode(p.to_av())) == 4608


@pytest.mark.parametrize("size", [*range(1, 20), *range(150, 200), *range(340, 400), 65_521, 65_522, 70_000])
def test_every_size_of_a_picture(size: int) -> None:
    """The end of each is known with its last byte, also of those that are too large to say their length."""
    muxer, demuxer = Muxer(), Demuxer()
    pid = muxer.add_stream("video", "h264")
    demuxer.feed(muxer.tables())
    unit = b"\x00\x00\x01\x09\xf0\x00\x00\x01\x41" + random.Random(size).randbytes(size).replace(
        b"\x00", b"x"
    )
    for decode in (None, 80_000):
        for is_keyframe in (False, True):
            (packet,) = demuxer.feed(muxer.write(pid, unit, pts=90_000, dts=decode, is_keyframe=is_keyframe))
            assert packet.data == unit
            assert (packet.pts, packet.dts) == (90_000, decode or 90_000)


def test_large_pictures_end_with_stuffing_whatever_their_size() -> None:
    muxer, demuxer = Muxer(), Demuxer()
    pid = muxer.add_stream("video", "h264")
    demuxer.feed(muxer.tables())
    for size in range(80_000, 80_000 + 185):
        unit = b"\x00\x00\x00\x01\x09\xf0\x00\x00\x01\x41".ljust(size, b"x")
        (packet,) = demuxer.feed(muxer.write(pid, unit, pts=0))
        assert packet.data == unit
    assert demuxer.lost == 0


def test_the_clock_is_on_the_first_stream() -> None:
    muxer = Muxer()
    sound = muxer.add_stream("audio", "opus")
    video = muxer.add_stream("video", "h264")
    data = muxer.write(sound, b"sound", pts=WRAP + 4_000_000_007)
    adaptation = data[4:]
    assert adaptation[1] & 0x10
    assert int.from_bytes(adaptation[2:8], "big") >> 15 == 4_000_000_007
    assert not muxer.write(video, b"\x00\x00\x01\x41picture", pts=0)[5] & 0x10
    muxer.remove_stream(sound)
    assert muxer.write(video, b"\x00\x00\x01\x41picture", pts=0)[5] & 0x10
    with pytest.raises(MediaError, match="no stream 256"):
        muxer.write(sound, b"sound", pts=0)


def test_a_stream_that_is_added_and_removed_later() -> None:
    video, audio = encode("h264", 18), encode("opus", 18)
    muxer = Muxer()
    picture = muxer.add_stream("video", "h264")
    data = muxer.tables() + mux(muxer, picture, video[:6])
    sound = muxer.add_stream("audio", "opus")
    data += muxer.tables()
    for one, other in zip(video[6:12], audio, strict=False):
        data += mux(muxer, picture, [one]) + mux(muxer, sound, [other])
    muxer.remove_stream(sound)
    data += muxer.tables() + mux(muxer, picture, video[12:])
    found = ours(data)
    assert [without_delimiter(p.data) for p in found if p.pid == picture] == [
        without_delimiter(p.data) for p in video
    ]
    assert [p.data for p in found if p.pid == sound] == [p.data for p in audio[:6]]
    raw = libavformat(data)
    assert len(raw[picture]) == 18
    assert [bytes(p) for p in raw[sound]] == [p.data for p in audio[:6]]


def test_discontinuities_are_passed_on() -> None:
    muxer = Muxer()
    pid = muxer.add_stream("video", "h264")
    data = muxer.tables()
    for number in range(4):
        data += muxer.write(pid, b"\x00\x00\x01\x65picture", pts=number * 3000, discontinuity=number == 2)
    assert [p.discontinuity for p in ours(data)] == [False, False, True, False]


def test_what_cannot_be_written_says_why() -> None:
    muxer = Muxer()
    with pytest.raises(MediaError, match="h264, hevc"):
        muxer.add_stream("video", "vp9")
    with pytest.raises(MediaError, match="aac, mp3"):
        muxer.add_stream("audio", "h264")
    with pytest.raises(MediaError, match="9 channels"):
        muxer.add_stream("audio", "opus", channels=9)
    pid = muxer.add_stream("audio", "aac")
    with pytest.raises(MediaError, match="without a byte"):
        muxer.write(pid, b"", pts=0)
    with pytest.raises(MediaError, match="70000 bytes"):
        muxer.write(pid, bytes(70_000), pts=0)
    for _ in range(63):
        muxer.add_stream("audio", "opus")
    muxer.tables()
    with pytest.raises(MediaError, match="64 are there"):
        muxer.add_stream("audio", "opus")
