"""Streams of many makers: our demuxer brings the same packets as libavformat's, and brings them at once."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

av = pytest.importorskip("av")
np = pytest.importorskip("numpy")

from livepeer.trickle.media.mpegts import Demuxer  # noqa: E402
from livepeer.trickle.media.packets import WRAP, Packet  # noqa: E402

ENCODERS = {
    "h264": "libx264",
    "hevc": "libx265",
    "aac": "aac",
    "opus": "libopus",
    "mp2": "mp2",
    "mp3": "libmp3lame",
    "ac3": "ac3",
}
MAKERS: dict[str, dict[str, str]] = {
    "usual": {},
    "lengths": {"omit_video_pes_length": "0"},
    "no lengths": {"omit_video_pes_length": "1"},
    "a frame of sound per pes": {"pes_payload_size": "0"},
    "much sound per pes": {"pes_payload_size": "16000"},
    "constant rate": {"muxrate": "6000000"},
    "constant rate, clock often": {"muxrate": "6000000", "pcr_period": "5"},
    "tables often": {"pat_period": "0.01", "sdt_period": "0.01"},
    "tables at frames": {"mpegts_flags": "pat_pmt_at_frames"},
    "headers again": {"mpegts_flags": "resend_headers"},
    "dvb": {"mpegts_flags": "system_b+nit"},
    "discontinuity at first": {"mpegts_flags": "initial_discontinuity"},
    "no random access": {"mpegts_flags": "omit_rai"},
    "other pids": {"mpegts_start_pid": "2000", "mpegts_pmt_start_pid": "48"},
    "other ids": {"mpegts_service_id": "700", "mpegts_transport_stream_id": "9", "tables_version": "31"},
    "times kept": {"mpegts_copyts": "1"},
    "low delay": {"flush_packets": "1", "max_delay": "0"},
    "as we do": {"flush_packets": "1", "max_delay": "0", "omit_video_pes_length": "0", "pat_period": "86400"},
}


def make(
    *codecs: str,
    muxer: dict[str, str] | None = None,
    encoder: dict[str, str] | None = None,
    count: int = 24,
    start: float = 10.0,
    file: Any = None,
    format: str = "mpegts",
    size: tuple[int, int] = (128, 64),
) -> bytes:
    """A stream that libavformat makes: `count` pictures, and the sound to them."""
    buffer = io.BytesIO()
    with av.open(file or buffer, "w", format=format, options=muxer or {}) as container:
        streams: list[Any] = []
        for codec in codecs:
            stream: Any = container.add_stream(
                ENCODERS[codec], rate=30 if codec in ("h264", "hevc") else 48000
            )
            if stream.type == "video":
                stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
                preset = {
                    "preset": "veryfast",
                    "g": "8",
                    "bf": "0",
                    "x265-params": "log-level=none:bframes=0",
                }
                stream.options = preset | (encoder or {})
            else:
                stream.layout = "stereo"
            streams.append(stream)
        rng = np.random.default_rng(7)
        for number in range(count):
            for stream in streams:
                if stream.type == "video":
                    # Some pictures are of a few bytes, some of many packets.
                    whole = (size[1], size[0], 3)
                    array = rng.integers(0, 255, whole if number % 3 else 3, dtype=np.uint8)
                    array = np.broadcast_to(array, whole).copy()
                    frame: Any = av.VideoFrame.from_ndarray(array, "rgb24")
                    frame.pts, frame.time_base = round(start * 30) + number, Fraction(1, 30)
                else:
                    samples = (rng.random((2, 1600)) - 0.5).astype(np.float32)
                    frame = av.AudioFrame.from_ndarray(samples, "fltp", "stereo")
                    frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
                    frame.pts = round(start * 48000) + number * 1600
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return buffer.getvalue()


def reference(data: bytes) -> dict[int, list[Any]]:
    """What libavformat reads: packets by PID."""
    found: dict[int, list[Any]] = {}
    with av.open(io.BytesIO(data), format="mpegts") as container:
        for packet in container.demux():
            if packet.size and packet.dts is not None:
                found.setdefault(packet.stream.id, []).append(packet)
    return found


def demux(*parts: bytes) -> list[Packet]:
    demuxer = Demuxer()
    packets = [packet for part in parts for packet in demuxer.feed(part)] + demuxer.flush()
    assert demuxer.lost == demuxer.skipped == 0
    return packets


def compare(data: bytes, *codecs: str, mine: list[Packet] | None = None) -> None:
    """Every packet of every stream: times, key, bytes."""
    packets = demux(data) if mine is None else mine
    theirs = reference(data)
    assert {p.pid for p in packets} == set(theirs)
    assert sorted({p.codec for p in packets}) == sorted(codecs)
    for pid, raw in theirs.items():
        found = [p for p in packets if p.pid == pid]
        assert [p.data for p in found] == [bytes(p) for p in raw]
        for one, other in zip(found, raw, strict=True):
            assert one.pts is not None
            assert one.dts is not None
            # libavformat adds up rounded durations where several frames share a PES.
            slack = 1 if one.kind == "audio" else 0
            assert abs((one.pts - other.pts + WRAP // 2) % WRAP - WRAP // 2) <= slack
            assert abs((one.dts - other.dts + WRAP // 2) % WRAP - WRAP // 2) <= slack
            assert one.is_keyframe == (other.is_keyframe or one.kind == "audio")


@pytest.mark.parametrize("maker", [*MAKERS])
def test_the_same_packets_of_every_maker(maker: str) -> None:
    data = make("h264", "aac", muxer=MAKERS[maker])
    compare(data, "h264", "aac")
    for size in (1, 187, 1316, 65536):
        parts = [data[i : i + size] for i in range(0, len(data), size)]
        assert demux(*parts) == demux(data)


@pytest.mark.parametrize("maker", ["usual", "lengths", "much sound per pes", "constant rate"])
@pytest.mark.parametrize("codecs", [("hevc", "opus"), ("mp3",), ("opus",), ("mp2", "h264"), ("ac3", "h264")])
def test_the_same_packets_of_every_codec(codecs: tuple[str, ...], maker: str) -> None:
    compare(make(*codecs, muxer=MAKERS[maker]), *codecs)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize(
    "options",
    [
        {"bf": "3", "b-pyramid": "none", "x265-params": "log-level=none:bframes=3"},
        {"bf": "2", "x264-params": "open-gop=1:keyint=8", "x265-params": "log-level=none:open-gop=1"},
        {"slices": "4", "x265-params": "log-level=none:slices=2"},
        {"x264-params": "aud=1:repeat-headers=1", "x265-params": "log-level=none:aud=1:repeat-headers=1"},
        {"intra-refresh": "1"},
        {"tune": "zerolatency", "preset": "ultrafast"},
        {"x264-params": "tff=1:bframes=2", "x265-params": "log-level=none:field=1"},
        {"x264-params": "cabac=0:slice-max-size=300", "x265-params": "log-level=none:temporal-layers=3"},
        {"x264-params": "nal-hrd=cbr:vbv-maxrate=3000:vbv-bufsize=3000:bitrate=3000:filler=1"},
    ],
)
def test_the_same_packets_of_every_encoder(codec: str, options: dict[str, str]) -> None:
    for maker in ("no lengths", "lengths"):
        compare(make(codec, "aac", muxer=MAKERS[maker], encoder=options), codec, "aac")


@pytest.mark.parametrize("maker", ["usual", "lengths", "constant rate"])
def test_pictures_that_are_too_large_to_say_their_length(maker: str) -> None:
    data = make("h264", "aac", muxer=MAKERS[maker], encoder={"crf": "1"}, count=9, size=(960, 540))
    assert max(packet.size for packet in reference(data)[256]) > 65_536
    compare(data, "h264", "aac")


def test_several_programmes_and_streams() -> None:
    compare(make("h264", "hevc", "aac", "opus", "mp3"), "h264", "hevc", "aac", "opus", "mp3")


def test_over_the_wrap_of_the_times() -> None:
    data = make(
        "h264", "aac", start=WRAP / 90000 - 0.4, muxer={"mpegts_copyts": "1", "pes_payload_size": "0"}
    )
    compare(data, "h264", "aac")
    for kind in ("video", "audio"):
        times = [p.pts or 0 for p in demux(data) if p.kind == kind]
        assert times == sorted(times)
        assert times[0] < WRAP < times[-1]


def test_segments_that_hls_cut(tmp_path: Path) -> None:
    options = {"hls_time": "0.25", "hls_list_size": "0", "hls_segment_type": "mpegts"}
    make("h264", "aac", muxer=options, file=str(tmp_path / "list.m3u8"), format="hls")
    parts = [path.read_bytes() for path in sorted(tmp_path.glob("*.ts"))]
    assert len(parts) >= 3
    demuxer = Demuxer()
    packets = []
    for part in parts:
        demuxer.begin_segment()
        packets += demuxer.feed(part)
    packets += demuxer.flush()
    assert demuxer.lost == 0
    compare(b"".join(parts), "h264", "aac", mine=packets)


@pytest.mark.parametrize("maker", [*MAKERS])
def test_a_packet_is_out_with_its_last_byte(maker: str) -> None:
    """By its length, or by the stuffing in its last packet; only a full one without a length has to wait."""
    data = make("h264", "aac", muxer=MAKERS[maker])
    demuxer = Demuxer()
    pieces: dict[int, int] = {}  # PES begun
    out: dict[int, int] = {}  # PES that were out
    lengths: dict[int, bool] = {}
    ends: dict[int, bool] = {}  # whether the last packet said that it is the PES' last
    told = waited = 0
    for position in range(0, len(data), 188):
        ts = data[position : position + 188]
        pid, start = (ts[1] & 0x1F) << 8 | ts[2], bool(ts[1] & 0x40)
        if pid not in demuxer.streams or not ts[3] & 0x10:
            demuxer.feed(ts)
            continue
        if start and pid in pieces:
            knowable = lengths[pid] or ends[pid]
            told, waited = told + knowable, waited + (not knowable)
            assert out.get(pid, 0) == pieces[pid] - (not knowable)
        if start:
            payload = 4 + (1 + ts[4] if ts[3] & 0x20 else 0)
            lengths[pid] = ts[payload + 4 : payload + 6] != b"\x00\x00"
            pieces[pid] = pieces.get(pid, 0) + 1
        # Of 188 bytes, an adaptation field needs its flags and six for a clock: what it has more is stuffing.
        ends[pid] = bool(ts[3] & 0x20) and (not ts[4] or not ts[5] or ts[4] > (7 if ts[5] & 0x10 else 1))
        if demuxer.feed(ts):
            out[pid] = pieces[pid] - (start and not lengths[pid] and not ends[pid])
    assert told > 20
    assert waited <= 3
