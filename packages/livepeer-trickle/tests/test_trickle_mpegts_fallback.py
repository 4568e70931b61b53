"""What our own demuxer doesn't know is read by libavformat, behind the same interface."""

from __future__ import annotations

import gc
import io
import itertools
import random
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest

av = pytest.importorskip("av")
np = pytest.importorskip("numpy")

from livepeer.trickle.media.mpegts import AutoDemuxer, Demuxer  # noqa: E402
from livepeer.trickle.media.mpegts.fallback import FallbackDemuxer  # noqa: E402
from livepeer.trickle.media.packets import CLOCK, WRAP, Packet  # noqa: E402

OPTIONS = {
    "libx264": {"preset": "ultrafast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:bframes=0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "livepeer-libavformat":
            thread.join(10)
            assert not thread.is_alive()


def make(
    format: str, *encoders: str, options: dict[str, str] | None = None, count: int = 40, start: float = 5.0
) -> bytes:
    """A stream of any container that libavformat makes."""
    file = _Unseekable()
    with av.open(file, "w", format=format, options=options or {}) as container:
        streams: list[Any] = []
        for encoder in encoders:
            is_video = av.codec.Codec(encoder, "w").type == "video"
            stream: Any = container.add_stream(encoder, rate=30 if is_video else 48000)
            if is_video:
                stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
                stream.options = {"g": "10"} | OPTIONS.get(encoder, {})
            else:
                stream.layout = "stereo"
            streams.append(stream)
        rng = np.random.default_rng(7)
        for number in range(count):
            for stream in streams:
                if stream.type == "video":
                    array = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
                    frame: Any = av.VideoFrame.from_ndarray(array, "rgb24")
                    frame.pts, frame.time_base = round(start * 30) + number, Fraction(1, 30)
                else:
                    samples = np.zeros((2, 1600), np.float32)
                    frame = av.AudioFrame.from_ndarray(samples, "fltp", "stereo")
                    frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
                    frame.pts = round(start * 48000) + number * 1600
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return file.getvalue()


class _Unseekable(io.BytesIO):
    """Muxers make streams for those who can't go back."""

    def seekable(self) -> bool:
        return False


def demux(demuxer: Any, data: bytes, size: int = 1316) -> list[Packet]:
    packets = [p for i in range(0, len(data), size) for p in demuxer.feed(data[i : i + size])]
    packets += demuxer.flush()
    return packets


def decode(packets: list[Packet]) -> int:
    """How many pictures or samples there are in them."""
    decoder: Any = av.CodecContext.create(packets[0].codec, "r")
    if packets[0].extradata:
        decoder.extradata = packets[0].extradata
    frames = [frame for packet in packets for frame in decoder.decode(packet.to_av())] + decoder.decode(None)
    return sum(getattr(frame, "samples", 1) for frame in frames)


def start_of(packets: list[Packet]) -> float:
    return min(packet.timestamp or 0 for packet in packets)


@pytest.mark.parametrize(
    ("format", "encoders", "codecs", "options"),
    [
        ("mp4", ("libx264", "aac"), ("h264", "aac"), FRAGMENTS),
        ("mp4", ("libx265", "libopus"), ("hevc", "opus"), FRAGMENTS),
        ("matroska", ("libx264", "flac"), ("h264", "flac"), {}),
        ("webm", ("libvpx-vp9", "libopus"), ("vp9", "opus"), {}),
        ("flv", ("libx264", "aac"), ("h264", "aac"), {}),
        ("ogg", ("libopus",), ("opus",), {}),
        ("mpegts", ("mpeg2video", "mp2"), ("mpeg2video", "mp2"), {}),
        ("mpegts", ("libx264", "aac"), ("h264", "aac"), {"mpegts_m2ts_mode": "1"}),
        ("mpegts", ("libx264", "aac"), ("h264", "aac_latm"), {"mpegts_flags": "latm"}),
        ("mpegts", ("libx264", "eac3"), ("h264", "eac3"), {}),
    ],
)
@pytest.mark.parametrize("size", [61, 100_000])
def test_any_container(
    format: str, encoders: tuple[str, ...], codecs: tuple[str, ...], options: dict[str, str], size: int
) -> None:
    data = make(format, *encoders, options=options)
    demuxer = AutoDemuxer()
    packets = [p for i in range(0, len(data), size) for p in demuxer.feed(data[i : i + size])]
    assert {pid: stream.kind for pid, stream in demuxer.streams.items()} == {p.pid: p.kind for p in packets}
    packets += demuxer.flush()
    assert {packet.codec for packet in packets} == set(codecs)
    for codec in codecs:
        found = [packet for packet in packets if packet.codec == codec]
        times = [packet.timestamp for packet in found]
        assert times == sorted(times, key=lambda time: time or 0)
        if found[0].kind == "video":
            assert decode(found) == 40
            assert [packet.is_keyframe for packet in found].count(True) >= 4
        else:
            assert decode(found) >= 40 * 1600 - 3 * 1152
    begins = [start_of([p for p in packets if p.codec == codec]) for codec in codecs]
    assert max(begins) - min(begins) < 0.1
    assert demuxer.lost == 0
    assert demuxer.error is None


def test_known_streams_of_mpeg_ts_don_t_wait_for_libavformat() -> None:
    data = make("mpegts", "libx264", "aac", options={"mpegts_flags": "latm", "omit_video_pes_length": "0"})
    demuxer, native = AutoDemuxer(), Demuxer()
    for position in range(0, len(data), 188):
        mine = [p for p in demuxer.feed(data[position : position + 188]) if p.kind == "video"]
        assert mine == native.feed(data[position : position + 188])
    demuxer.close()


def test_both_halves_of_one_stream_share_a_clock() -> None:
    options = {"mpegts_flags": "latm", "mpegts_copyts": "1"}
    data = make("mpegts", "libx264", "aac", options=options, start=WRAP / CLOCK - 0.6)
    packets = demux(AutoDemuxer(), data)
    for kind in ("video", "audio"):
        times = [packet.pts or 0 for packet in packets if packet.kind == kind]
        assert times[0] < WRAP < times[-1]
        assert times == sorted(times)


def test_each_segment_can_be_another_container() -> None:
    demuxer = AutoDemuxer()
    packets = []
    segments = [
        make("mpegts", "libx264", "aac", count=10),
        make("mp4", "libx264", "aac", count=10, options=FRAGMENTS, start=6.0),
        make("mp4", "libx264", "aac", count=10, options=FRAGMENTS, start=7.0),
        make("webm", "libvpx-vp9", "libopus", count=10, start=8.0),
        make("mpegts", "libx264", "aac", count=10, start=9.0),
    ]
    for segment in segments:
        demuxer.begin_segment()
        for position in range(0, len(segment), 1316):
            packets += demuxer.feed(segment[position : position + 1316])
    packets += demuxer.flush()
    video = [packet for packet in packets if packet.kind == "video"]
    assert [packet.codec for packet in video] == ["h264"] * 30 + ["vp9"] * 10 + ["h264"] * 10
    assert decode(video[:30]) == 30


def test_fragments_of_one_file_in_many_segments() -> None:
    data = make("mp4", "libx264", options=FRAGMENTS)
    cuts = [0, *(i - 4 for i in range(len(data)) if data[i : i + 4] == b"moof"), len(data)]
    demuxer = AutoDemuxer()
    packets = []
    for begin, end in itertools.pairwise(cuts):
        demuxer.begin_segment()
        packets += demuxer.feed(data[begin:end])
    packets += demuxer.flush()
    assert len(packets) == 40
    assert decode(packets) == 40


def test_rubbish_says_that_it_is_none_and_a_later_segment_is_read() -> None:
    demuxer = AutoDemuxer()
    rubbish = random.Random(4).randbytes(3_000_000)
    found = [p for i in range(0, len(rubbish), 65536) for p in demuxer.feed(rubbish[i : i + 65536])]
    assert found == []
    assert demuxer.error is not None
    assert "no media" in str(demuxer.error)
    demuxer.flush()
    assert demuxer.error is not None
    demuxer.begin_segment()
    assert len([p for p in demux(demuxer, make("mpegts", "libx264")) if p.kind == "video"]) == 40
    assert demuxer.error is None


def test_rubbish_before_and_between() -> None:
    demuxer = AutoDemuxer()
    data = make("mpegts", "libx264", "aac")
    packets = demuxer.feed(random.Random(5).randbytes(5000) + data)
    demuxer.begin_segment()
    packets += demuxer.feed(random.Random(6).randbytes(100_000))
    demuxer.begin_segment()
    packets += demux(demuxer, data)
    assert [packet.kind for packet in packets].count("video") == 80
    assert demuxer.skipped >= 100_000


def test_a_short_stream_is_read_at_its_end() -> None:
    data = make("mpegts", "libx264", count=1)
    for size in (1, 5, 11, 12, 187, 188, len(data)):
        assert len(demux(AutoDemuxer(), data, size)) == 1
    assert demux(AutoDemuxer(), b"") == []
    assert demux(AutoDemuxer(), b"G") == []


def test_mpeg_ts_without_tables_is_left_to_libavformat() -> None:
    data = make("mpegts", "libx264", count=1200)
    packets = [data[i : i + 188] for i in range(0, len(data), 188)]
    bare = b"".join(ts for ts in packets if ((ts[1] & 0x1F) << 8 | ts[2]) == 256)
    assert len(bare) > 1_000_000
    assert len(demux(AutoDemuxer(), bare, 65536)) >= 1150


def test_missing_segments_are_told() -> None:
    data = make("webm", "libvpx-vp9", "libopus")
    demuxer = FallbackDemuxer()
    half = len(data) // 2
    before = demuxer.feed(data[:half])
    demuxer.discontinuity()
    after = demuxer.feed(data[half:]) + demuxer.flush()
    assert not any(packet.discontinuity for packet in before)
    assert sorted(packet.kind for packet in after if packet.discontinuity) == ["audio", "video"]


def test_lost_packets_of_libavformat_are_counted() -> None:
    data = make("mpegts", "mpeg2video")
    packets = [data[i : i + 188] for i in range(0, len(data), 188)]
    del packets[len(packets) // 2]
    demuxer = AutoDemuxer()
    found = demux(demuxer, b"".join(packets))
    assert demuxer.lost >= 1
    assert len(found) + demuxer.lost >= 39
    assert any(packet.discontinuity for packet in found)


def test_a_table_that_changes_to_other_codecs_and_back() -> None:
    first, second = make("mpegts", "libx264", count=10), make("mpegts", "mpeg2video", count=10)
    demuxer = AutoDemuxer()
    packets = demuxer.feed(first) + demuxer.feed(second) + demux(demuxer, first)
    assert [packet.codec for packet in packets if packet.codec == "h264"] == ["h264"] * 20
    assert [packet.codec for packet in packets].count("mpeg2video") >= 9


def test_a_stream_of_another_codec_that_is_added_later() -> None:
    demuxer = AutoDemuxer()
    packets = demuxer.feed(make("mpegts", "libx264", "eac3"))
    packets += demux(demuxer, make("mpegts", "libx264", "eac3", "eac3", start=8.0))
    found = [packet.pid for packet in packets if packet.codec == "eac3"]
    assert found.count(257) >= 80
    assert found.count(258) >= 40


def test_a_demuxer_that_is_dropped_or_closed_leaves_no_thread() -> None:
    data = make("webm", "libvpx-vp9")
    for _ in range(3):
        AutoDemuxer().feed(data)
        closed = AutoDemuxer()
        closed.feed(data)
        closed.close()
        closed.close()
        assert closed.feed(data) == []
