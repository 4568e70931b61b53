"""The demuxer: cut at every byte, against libavformat, and fed with rubbish."""

from __future__ import annotations

import io
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

av = pytest.importorskip("av")
np = pytest.importorskip("numpy")

from livepeer.trickle.media.decoding import VideoDecoder  # noqa: E402
from livepeer.trickle.media.encoding import VideoEncoder  # noqa: E402
from livepeer.trickle.media.mpegts import AutoDemuxer, Demuxer, Muxer  # noqa: E402
from livepeer.trickle.media.mpegts.tables import SectionReader, parse_pat, parse_pmt  # noqa: E402
from livepeer.trickle.media.mpegts.ts import TSSplitter  # noqa: E402
from livepeer.trickle.media.packets import WRAP, Packet  # noqa: E402


def make(
    count: int, *, lengths: bool = True, bframes: int = 0, audio: bool = False, noisy: bool = False
) -> bytes:
    """A transport stream by libavformat: `count` frames at 30 fps, with a key frame at every tenth."""
    file = io.BytesIO()
    options = {"omit_video_pes_length": "0" if lengths else "1"}
    with av.open(file, "w", format="mpegts", options=options) as container:
        video: Any = container.add_stream("libx264", rate=30)
        video.width, video.height, video.pix_fmt = 128, 64, "yuv420p"
        video.options = {"preset": "ultrafast", "g": "10", "bf": str(bframes), "crf": "5" if noisy else "30"}
        sound: Any = container.add_stream("aac", rate=48000) if audio else None
        rng = np.random.default_rng(3)
        for number in range(count):
            array = rng.integers(0, 255, (64, 128, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(array, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(video.encode(frame))
            if sound is not None:
                samples = av.AudioFrame.from_ndarray(np.zeros((2, 1600), np.float32), "fltp", "stereo")
                samples.rate, samples.pts = 48000, number * 1600
                container.mux(sound.encode(samples))
        container.mux(video.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))
    return file.getvalue()


def demux(*parts: bytes) -> list[Packet]:
    demuxer = Demuxer()
    return [packet for part in parts for packet in demuxer.feed(part)] + demuxer.flush()


def reference(data: bytes) -> list[tuple[int, int]]:
    with av.open(io.BytesIO(data), format="mpegts") as container:
        return [(p.pts, p.dts) for p in container.demux(video=0) if p.dts is not None]


@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("bframes", [0, 2])
@pytest.mark.parametrize("audio", [False, True])
def test_the_same_packets_as_libavformat(lengths: bool, bframes: int, audio: bool) -> None:
    data = make(25, lengths=lengths, bframes=bframes, audio=audio)
    packets = demux(data)
    video = [packet for packet in packets if packet.kind == "video"]
    assert [(packet.pts, packet.dts) for packet in video] == reference(data)
    assert [packet.is_keyframe for packet in video].count(True) == 3
    assert {packet.codec for packet in video} == {"h264"}
    assert {packet.codec for packet in packets if packet.kind == "audio"} == ({"aac"} if audio else set())
    decoder = VideoDecoder()
    frames = decoder.decode(video) + decoder.flush()
    times = [frame.timestamp or 0.0 for frame in frames]
    assert len(frames) == 25
    assert times == sorted(times)


def test_cut_at_every_byte() -> None:
    data = make(2)
    expected = demux(data)
    assert len(expected) == 2
    for cut in range(len(data) + 1):
        assert demux(data[:cut], data[cut:]) == expected
    assert demux(*(data[i : i + 1] for i in range(len(data)))) == expected


@pytest.mark.parametrize("lengths", [True, False])
def test_a_frame_is_out_as_soon_as_its_bytes_are(lengths: bool) -> None:
    """Without a length too: its last packet is stuffed, except where it happens to be full."""
    data = make(20, lengths=lengths)
    demuxer = Demuxer()
    out = 0
    for position in range(0, len(data), 188):
        ts = data[position : position + 188]
        pid, start = (ts[1] & 0x1F) << 8 | ts[2], ts[1] & 0x40
        begun = getattr(demuxer, "begun", 0) + bool(pid == 256 and start)
        demuxer.begun = begun  # type: ignore[attr-defined]
        out += len(demuxer.feed(ts))
        if pid == 256 and start:
            assert out >= begun - 2
    if lengths:
        assert out == 20
    assert out + len(demuxer.flush()) == 20


def test_our_encoder_brings_every_frame_at_once_and_keeps_times() -> None:
    encoder = VideoEncoder("libx264", fps=30, gop=0.2, bitrate=None, options=None)
    muxer, demuxer = Muxer(), Demuxer()
    pid = muxer.add_stream("video", "h264")
    demuxer.feed(muxer.tables())
    ticks = [WRAP - 9000 + n * 3001 for n in range(20)]  # over the wrap of the 33 bits
    got = []
    for tick in ticks:
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), tick % 251, np.uint8), "rgb24")
        (made,) = encoder.encode(frame, tick)
        assert made.pts is not None
        (packet,) = demuxer.feed(muxer.write(pid, made.data, pts=made.pts, is_keyframe=made.is_keyframe))
        assert packet.is_keyframe == made.is_keyframe
        got.append(packet.pts)
    assert encoder.finish() == []
    assert got == ticks


def test_a_lost_packet_costs_its_frame_and_the_next_one_says_so() -> None:
    data = make(10, noisy=True)
    packets = [data[i : i + 188] for i in range(0, len(data), 188)]
    video = [i for i, ts in enumerate(packets) if ((ts[1] & 0x1F) << 8 | ts[2]) == 256]
    lost = next(i for i in video[len(video) // 2 :] if not packets[i][1] & 0x40)
    found = demux(b"".join(packets[:lost] + packets[lost + 1 :]))
    assert len(found) == 9
    assert [packet.discontinuity for packet in found].count(True) == 1


def test_rubbish_between_packets_is_skipped() -> None:
    data = make(6)
    middle = len(data) // 188 // 2 * 188
    demuxer = Demuxer()
    found = demuxer.feed(data[:middle] + b"rubbish" * 40 + data[middle:]) + demuxer.flush()
    assert demuxer.skipped == 280
    assert len(found) == 6


def test_a_packet_that_is_sent_twice_counts_once() -> None:
    data = make(6)
    twice = b"".join(data[i : i + 188] * 2 for i in range(0, len(data), 188))
    assert demux(twice) == demux(data)


def test_a_new_muxer_in_the_next_segment_loses_nothing() -> None:
    demuxer = Demuxer()
    found = demuxer.feed(make(10, lengths=False))
    demuxer.begin_segment()
    found += demuxer.feed(make(10, lengths=False)) + demuxer.flush()
    assert len(found) == 20
    assert not any(packet.discontinuity for packet in found)


def test_missing_segments_are_marked_and_decoding_waits_for_a_key_frame() -> None:
    data = make(20)
    demuxer, decoder = Demuxer(), VideoDecoder()
    before = demuxer.feed(data)
    demuxer.discontinuity()
    after = demuxer.feed(data)
    assert len(before) == len(after) == 20
    assert after[0].discontinuity
    assert len(decoder.decode(before)) == 20
    assert len(decoder.decode([Packet("video", "h264", b"", 1, 1, False, True), *after[5:]])) == 10


def test_packets_that_cannot_be_decoded_are_counted() -> None:
    decoder = VideoDecoder()
    packets = demux(make(20))
    bad = Packet("video", "h264", b"\x00\x00\x01\x65rubbish", 1, 1, True)
    assert decoder.decode([bad]) == []
    assert decoder.errors <= 1
    assert len(decoder.decode(packets)) + len(decoder.flush()) >= 19


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=1000), at=st.integers(0, 5000))
def test_any_bytes_anywhere(data: bytes, at: int) -> None:
    at %= len(_SAMPLE)
    demux(_SAMPLE[:at] + data + _SAMPLE[at:])
    demux(data)
    # Damage inside of packets: the sync bytes stay.
    damaged = bytearray(_SAMPLE)
    damaged[at : at + len(data)] = data[: max(len(damaged) - at, 0)]
    demux(bytes(damaged))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=187, max_size=187), max_size=8))
def test_any_packets(packets: list[bytes]) -> None:
    assert len(TSSplitter().feed(b"".join(b"\x47" + packet for packet in packets))) <= len(packets)
    demux(_SAMPLE[: 188 * 3], *(b"\x47" + b"\x41\x00" + packet[2:] for packet in packets))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_tables(data: bytes, start: bool) -> None:
    reader = SectionReader()
    for section in reader.feed(data, start=start) + reader.feed(data, start=True):
        parse_pat(section)
        parse_pmt(section)
    if len(data) >= 3:
        parse_pat(b"\x00" + data)
        parse_pmt(b"\x02" + data)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10_000_000), max_size=40))
def test_any_cuts(cuts: list[int]) -> None:
    places = [0, *sorted(cut % len(_SAMPLE) for cut in cuts), len(_SAMPLE)]
    assert demux(*(_SAMPLE[begin:end] for begin, end in pairwise(places))) == demux(_SAMPLE)


@settings(max_examples=100, deadline=None)
@given(
    lost=st.sets(st.integers(0, 10_000_000), max_size=5),
    flips=st.sets(st.integers(0, 10_000_000), max_size=5),
    cut=st.integers(1, 2000),
)
def test_any_lost_packets_and_flipped_bits(lost: set[int], flips: set[int], cut: int) -> None:
    """It is counted, and what comes after is read to the last packet."""
    packets = [_SAMPLE[i : i + 188] for i in range(0, len(_SAMPLE), 188)]
    gone = {at % len(packets) for at in lost}
    damaged = bytearray(b"".join(ts for at, ts in enumerate(packets) if at not in gone))
    for at in flips:
        damaged[at % len(damaged)] ^= 1 << at % 8
    demuxer = Demuxer()
    found = [p for i in range(0, len(damaged), cut) for p in demuxer.feed(bytes(damaged[i : i + cut]))]
    found += demuxer.flush()
    expected = demux(_SAMPLE)
    media_only = all(packets[at][1] & 0x1F == 1 for at in gone)  # the PIDs 256 and 257, and no tables
    if not flips and media_only and len(found) < len(expected) - 1:  # of the last one nothing may have come
        assert demuxer.lost
    after = []
    for _ in range(2):
        demuxer.begin_segment()
        after = demuxer.feed(_SAMPLE)
    after += demuxer.flush()
    assert {packet.data for packet in expected} <= {packet.data for packet in after}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=400), max_size=5), st.booleans())
def test_any_bytes_of_any_container(parts: list[bytes], segments: bool) -> None:
    demuxer = AutoDemuxer()
    for part in parts:
        demuxer.feed(part)
        if segments:
            demuxer.begin_segment()
    demuxer.flush()
    demuxer.begin_segment()
    assert len(demuxer.feed(_SAMPLE) + demuxer.flush()) >= 3
    demuxer.close()


_SAMPLE = make(3, audio=True)
