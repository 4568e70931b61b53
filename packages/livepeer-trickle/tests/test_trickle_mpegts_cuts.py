"""Senders that cut otherwise: several units to a PES or one over two, changing tables, lost bytes."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest

av = pytest.importorskip("av")
np = pytest.importorskip("numpy")

from livepeer.trickle.media.mpegts import Demuxer, Muxer  # noqa: E402
from livepeer.trickle.media.mpegts.tables import build_pat, build_pmt, pack_section  # noqa: E402
from livepeer.trickle.media.packets import WRAP, Packet  # noqa: E402

CODECS = {
    "h264": ("libx264", 0x1B, b""),
    "hevc": ("libx265", 0x24, b""),
    "aac": ("aac", 0x0F, b""),
    "mp2": ("mp2", 0x03, b""),
    "ac3": ("ac3", 0x06, b"\x6a\x01\x00"),
    "opus": ("libopus", 0x06, b"\x05\x04Opus\x7f\x02\x80\x02"),
}
VIDEO, AUDIO, PMT = 0x100, 0x101, 0x1000
START = 900_000


class Sender:
    """Writes transport packets as it is told: any piece of data as a PES, with the times that it is given."""

    def __init__(self) -> None:
        self._counters: dict[int, int] = {}

    def tables(self, codecs: dict[int, str], *, version: int = 0) -> bytes:
        streams = [(pid, *CODECS[codec][1:]) for pid, codec in codecs.items()]
        pat, pmt = build_pat(PMT), build_pmt(streams, clock=VIDEO, version=version)
        return pack_section(0, pat) + pack_section(PMT, pmt)

    def pes(self, pid: int, data: bytes, pts: int | None = None, *, length: bool = True) -> bytes:
        times = b"" if pts is None else self._time(pts)
        size = 3 + len(times) + len(data) if length else 0
        head = bytes((0, 0, 1, 0xE0, size >> 8, size & 255, 0x80, 0x80 if times else 0, len(times)))
        return self._packets(pid, head + times + data)

    def _packets(self, pid: int, data: bytes) -> bytes:
        out = b""
        for begin in range(0, len(data), 184):
            piece = data[begin : begin + 184]
            counter = self._counters[pid] = (self._counters.get(pid, -1) + 1) % 16
            stuffing = 184 - len(piece)
            field = b"" if not stuffing else b"\x00" if stuffing == 1 else bytes((stuffing - 1, 0))
            head = (
                0x47,
                (0 if begin else 0x40) | pid >> 8,
                pid & 255,
                (0x30 if stuffing else 0x10) | counter,
            )
            out += bytes(head) + field.ljust(stuffing, b"\xff") + piece
        return out

    def _time(self, time: int) -> bytes:
        bits = 2 << 36 | (time >> 30 & 7) << 33 | 1 << 32 | (time >> 15 & 0x7FFF) << 17 | 1 << 16
        return (bits | (time & 0x7FFF) << 1 | 1).to_bytes(5, "big")


def encode(codec: str, count: int = 16, *, options: dict[str, str] | None = None) -> list[Packet]:
    """What an encoder makes, in the form in which streams carry it."""
    context: Any = av.CodecContext.create(CODECS[codec][0], "w")
    rng = np.random.default_rng(5)
    if context.type == "video":
        context.width, context.height, context.pix_fmt, context.framerate = 128, 64, "yuv420p", 30
        context.gop_size = 6
        usual = {"preset": "veryfast", "bf": "0", "x265-params": "log-level=none:bframes=0"}
        context.options = usual | (options or {})
    else:
        context.sample_rate, context.layout = 48000, "stereo"
        context.format = context.codec.audio_formats[0]
    context.time_base, context.thread_count = Fraction(1, 90_000), 1
    context.open()
    packets: list[Any] = []
    for number in range(count):
        if context.type == "video":
            array = rng.integers(0, 255, (64, 128, 3), dtype=np.uint8)
            frame: Any = av.VideoFrame.from_ndarray(array, "rgb24").reformat(format="yuv420p")
            frame.pts = START + number * 3000
        else:
            shape = (2, context.frame_size or 960)
            samples = (rng.random(shape) - 0.5).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, "fltp", "stereo")
            frame.sample_rate = 48000
            if context.format.name != "fltp":
                (frame,) = av.AudioResampler(context.format, "stereo", 48000).resample(frame)
            frame.pts = START + number * shape[1] * 90_000 // 48000
        frame.time_base = Fraction(1, 90_000)
        packets += context.encode(frame)
    packets += context.encode(None)
    made = []
    for packet in packets:
        data = bytes(packet)
        if codec == "aac":
            size = len(data) + 7
            data = (0xFFF14C80 << 24 | size << 13 | 0x1FFC).to_bytes(7, "big") + data
        made.append(Packet(context.type, codec, data, packet.pts, packet.dts, packet.is_keyframe))
    return made


def opus_header(data: bytes, extra: bytes = b"", flags: int = 0) -> bytes:
    size = b"\xff" * (len(data) // 255) + bytes((len(data) % 255,))
    return bytes((0x7F, 0xE0 | flags)) + size + extra


def demux(data: bytes) -> tuple[list[Packet], Demuxer]:
    demuxer = Demuxer()
    return demuxer.feed(data) + demuxer.flush(), demuxer


def contents(packets: list[Packet]) -> list[tuple[bytes, int | None]]:
    return [(packet.data, packet.pts) for packet in packets]


@pytest.mark.parametrize("codec", ["aac", "mp2", "ac3", "opus"])
def test_several_frames_of_sound_to_a_pes(codec: str) -> None:
    frames = encode(codec, 13)
    sender = Sender()
    data = sender.tables({AUDIO: codec})
    for begin in range(0, len(frames), 4):
        part = frames[begin : begin + 4]
        raw = b"".join((opus_header(f.data) if codec == "opus" else b"") + f.data for f in part)
        data += sender.pes(AUDIO, raw, part[0].pts)
    found, demuxer = demux(data)
    assert [p.data for p in found] == [f.data for f in frames]
    step = (frames[1].pts or 0) - (frames[0].pts or 0)
    assert [p.pts for p in found] == [(frames[0].pts or 0) + n * step for n in range(len(frames))]
    assert {p.codec for p in found} == {codec}
    assert demuxer.lost == 0


@pytest.mark.parametrize("codec", ["aac", "mp2", "ac3", "opus"])
@pytest.mark.parametrize("size", [100, 333, 1000, 2001])
def test_frames_of_sound_over_any_number_of_pes(codec: str, size: int) -> None:
    """The time of a PES is that of the first frame that begins in it; where none begins it has none."""
    frames = encode(codec, 20)
    raw, begins = b"", []
    for frame in frames:
        begins.append((len(raw), frame.pts))
        raw += (opus_header(frame.data) if codec == "opus" else b"") + frame.data
    sender = Sender()
    data = sender.tables({AUDIO: codec})
    for begin in range(0, len(raw), size):
        time = next((pts for at, pts in begins if begin <= at < begin + size), None)
        data += sender.pes(AUDIO, raw[begin : begin + size], time)
    found, demuxer = demux(data)
    assert contents(found) == contents(frames)
    assert demuxer.lost == 0


def test_what_opus_can_have_before_a_packet() -> None:
    frames = encode("opus", 4)
    sender = Sender()
    data = sender.tables({AUDIO: "opus"})
    for frame, extra, flags in zip(
        frames,
        (b"", b"\x01\x38", b"\x00\x10\x03abc", b"\x01\x38\x00\x10"),
        (0, 0x10, 0x0C, 0x18),
        strict=False,
    ):
        data += sender.pes(AUDIO, opus_header(frame.data, extra, flags) + frame.data, frame.pts)
    found, demuxer = demux(data)
    assert contents(found) == contents(frames[:4])
    assert demuxer.lost == 0


@pytest.mark.parametrize("toc", range(0, 256, 4))
def test_opus_packets_of_every_duration(toc: int) -> None:
    """The second packet of a PES begins when the first one ends."""
    for code in (0, 1, 2, 3):
        packet = bytes((toc | code, 2)) + b"soundsound"
        raw = opus_header(packet) + packet
        sender = Sender()
        found, _ = demux(sender.tables({AUDIO: "opus"}) + sender.pes(AUDIO, raw + raw, START))
        assert len(found) == 2
        step = (found[1].pts or 0) - (found[0].pts or 0)
        kind = toc >> 3
        single = (10, 20, 40, 60)[kind % 4] if kind < 12 else (10, 20)[kind % 2] if kind < 16 else 0
        single = single * 90 if kind < 16 else (225, 450, 900, 1800)[kind % 4]
        assert step == single * (1, 2, 2, 2)[code]


def test_sound_that_is_joined_in_the_midst_of_a_frame() -> None:
    frames = encode("aac", 12)
    raw = b"".join(frame.data for frame in frames[1:])
    sender = Sender()
    data = sender.tables({AUDIO: "aac"}) + sender.pes(AUDIO, frames[0].data[20:] + raw, START)
    found, demuxer = demux(data)
    assert [p.data for p in found] == [f.data for f in frames[1:]]
    assert demuxer.lost == 1
    assert found[0].discontinuity


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize(
    "options", [{}, {"x264-params": "aud=1:slices=3", "x265-params": "log-level=none:aud=1"}]
)
def test_several_pictures_to_a_pes(codec: str, options: dict[str, str]) -> None:
    pictures = encode(codec, 18, options=options)
    sender = Sender()
    data = sender.tables({VIDEO: codec})
    for begin in range(0, 18, 3):
        part = pictures[begin : begin + 3]
        data += sender.pes(VIDEO, b"".join(p.data for p in part), part[0].pts)
    found, demuxer = demux(data)
    assert [p.data for p in found] == [p.data for p in pictures]
    assert [p.is_keyframe for p in found] == [p.is_keyframe for p in pictures]
    # How far they are apart is known with the second PES.
    assert [p.pts for p in found][3:] == [p.pts for p in pictures][3:]
    assert [p.pts for p in found][:3] == [pictures[0].pts, None, None]
    assert demuxer.lost == 0


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("size", [500, 4000, 20_000])
def test_pictures_that_are_cut_anywhere(codec: str, size: int) -> None:
    """The first picture that was cut is lost, and said to be; from then on each is put together."""
    pictures = encode(codec, 18)
    raw, begins = b"", []
    for picture in pictures:
        begins.append((len(raw), picture.pts))
        raw += picture.data
    sender = Sender()
    data = sender.tables({VIDEO: codec})
    for begin in range(0, len(raw), size):
        time = next((pts for at, pts in begins if begin <= at < begin + size), None)
        data += sender.pes(VIDEO, raw[begin : begin + size], time)
    found, demuxer = demux(data)
    times = {p.data: p.pts for p in pictures}
    whole = [p for p in found if p.data in times]
    assert len(whole) >= 16
    assert all(p.pts in (times[p.data], None) for p in whole)
    assert [p.pts for p in whole].count(None) <= (3 if size < 20_000 else 12)  # until two PES gave a time
    assert demuxer.lost == [p.discontinuity for p in found].count(True) <= 1


def test_pictures_whose_slices_are_pes_of_their_own() -> None:
    pictures = encode("h264", 12, options={"x264-params": "slices=3:aud=1"})
    sender = Sender()
    data = sender.tables({VIDEO: "h264"})
    for picture in pictures:
        cuts = [0, *_slices(picture.data)[1:], len(picture.data)]
        for number, (begin, end) in enumerate(pairwise(cuts)):
            data += sender.pes(VIDEO, picture.data[begin:end], None if number else picture.pts)
    found, demuxer = demux(data)
    assert contents(found[1:]) == contents(pictures[1:])
    assert found[1].discontinuity
    assert demuxer.lost == 1


def _slices(data: bytes) -> list[int]:
    found = [
        i for i in range(len(data) - 4) if data[i : i + 3] == b"\x00\x00\x01" and data[i + 3] & 31 in (1, 5)
    ]
    return [i - (data[i - 1] == 0) for i in found]


def test_parameter_sets_in_a_pes_of_their_own() -> None:
    pictures = encode("h264", 6)
    first = pictures[0].data
    cut = _slices(first)[0]
    sender = Sender()
    data = sender.tables({VIDEO: "h264"})
    data += sender.pes(VIDEO, first[:cut], START) + sender.pes(VIDEO, first[cut:], START)
    for picture in pictures[1:]:
        data += sender.pes(VIDEO, picture.data, picture.pts)
    found, demuxer = demux(data)
    assert [p.data for p in found] == [p.data for p in pictures]
    assert found[0].is_keyframe
    assert demuxer.lost == 0


def test_a_pes_without_length_that_stuffs_in_its_midst() -> None:
    """One picture is cut before that is known; no other."""
    pictures = encode("h264", 8)
    sender = Sender()
    data = sender.tables({VIDEO: "h264"})
    for picture in pictures:
        half = len(picture.data) // 2
        whole = sender.pes(VIDEO, picture.data[:half], picture.pts, length=False)
        rest = sender._packets(VIDEO, picture.data[half:])
        data += whole + rest[:1] + bytes((rest[1] & 0x1F,)) + rest[2:]
    found, demuxer = demux(data)
    assert demuxer.lost == 1
    assert [p.data for p in found[1:]] == [p.data for p in pictures[1:]]


def test_tables_that_change() -> None:
    """Versions, new streams, streams that go, another codec on the same PID, another PMT."""
    video, hevc, sound = encode("h264", 12), encode("hevc", 4), encode("aac", 4)
    sender = Sender()
    data = sender.tables({VIDEO: "h264"})
    data += b"".join(sender.pes(VIDEO, p.data, p.pts, length=False) for p in video[:4])
    data += sender.tables({VIDEO: "h264", AUDIO: "aac"}, version=1)
    for one, other in zip(video[4:8], sound, strict=False):
        data += sender.pes(VIDEO, one.data, one.pts, length=False) + sender.pes(AUDIO, other.data, other.pts)
    data += sender.tables({VIDEO: "hevc"}, version=2)
    data += b"".join(sender.pes(VIDEO, p.data, p.pts) for p in hevc)
    pat, pmt = build_pat(0x300), build_pmt([(0x200, 0x1B, b"")], clock=0x200, version=0)
    data += pack_section(0, pat) + pack_section(0x300, pmt)
    data += b"".join(sender.pes(0x200, p.data, p.pts) for p in video[8:])
    found, demuxer = demux(data)
    pictures = [p for p in found if p.kind == "video"]
    assert contents(pictures) == contents(video[:8] + hevc + video[8:])
    assert [p.codec for p in pictures] == ["h264"] * 8 + ["hevc"] * 4 + ["h264"] * 4
    assert contents([p for p in found if p.kind == "audio"]) == contents(sound[:4])
    assert set(demuxer.streams) == {0x200}
    assert demuxer.lost == 0


def test_two_programmes() -> None:
    one, other = encode("h264", 4), encode("hevc", 4)
    sender = Sender()
    data = pack_section(0, bytes.fromhex("00b0110001c100000001e3000002e400ea0f00ff"))
    data += pack_section(0x300, build_pmt([(VIDEO, 0x1B, b"")], clock=VIDEO, version=0))
    data += pack_section(0x400, build_pmt([(AUDIO, 0x24, b"")], clock=AUDIO, version=0))
    for left, right in zip(one, other, strict=True):
        data += sender.pes(VIDEO, left.data, left.pts) + sender.pes(AUDIO, right.data, right.pts)
    found, _ = demux(data)
    assert contents([p for p in found if p.pid == VIDEO]) == contents(one)
    assert contents([p for p in found if p.pid == AUDIO]) == contents(other)


def test_tables_that_are_not_yet_true_or_damaged_change_nothing() -> None:
    pictures = encode("h264", 4)
    sender = Sender()
    later = bytearray(build_pmt([(AUDIO, 0x0F, b"")], clock=AUDIO, version=3))
    later[5] &= 0xFE
    damaged = bytearray(build_pmt([(AUDIO, 0x0F, b"")], clock=AUDIO, version=3))
    damaged[-1] ^= 1
    data = sender.tables({VIDEO: "h264"}) + sender.pes(VIDEO, pictures[0].data, pictures[0].pts)
    for section in (later, damaged):
        data += pack_section(PMT, bytes(section))
    data += b"".join(sender.pes(VIDEO, p.data, p.pts) for p in pictures[1:])
    found, demuxer = demux(data)
    assert contents(found) == contents(pictures)
    assert set(demuxer.streams) == {VIDEO}


def test_a_wrong_time_harms_no_other() -> None:
    pictures = encode("h264", 8)
    sender = Sender()
    for wrong in (WRAP // 2 + START, WRAP - 1, WRAP // 4 * 3, 1, START + WRAP // 2 - 1500):
        data = sender.tables({VIDEO: "h264"})
        for number, picture in enumerate(pictures):
            data += sender.pes(VIDEO, picture.data, wrong if number == 3 else picture.pts)
        found, _ = demux(data)
        assert [p.pts for p in found[4:]] == [p.pts for p in pictures[4:]]


@pytest.mark.parametrize("seed", range(8))
def test_lost_packets_cost_no_more_than_their_pictures(seed: int) -> None:
    """Whatever is lost: what comes out is whole, what is missing is counted, and the next one says so."""
    pictures = encode("h264", 30)
    muxer = Muxer()
    pid = muxer.add_stream("video", "h264")
    pieces = [muxer.tables()]
    pieces += [muxer.write(pid, p.data, pts=p.pts or 0, is_keyframe=p.is_keyframe) for p in pictures]
    packets = [data[i : i + 188] for data in pieces for i in range(0, len(data), 188)]
    rng = random.Random(seed)
    hit = sorted(rng.sample(range(2, len(packets)), 3))
    found, demuxer = demux(b"".join(ts for i, ts in enumerate(packets) if i not in hit))
    sizes = [len(data) // 188 for data in pieces]
    touched = {sum(1 for n in range(len(sizes)) if sum(sizes[: n + 1]) <= i) - 1 for i in hit}
    assert [p.pts for p in found] == [p.pts for n, p in enumerate(pictures) if n not in touched]
    assert 1 <= demuxer.lost <= 3
    assert sum(p.discontinuity for p in found) >= 1 or max(touched) == 29


@pytest.mark.parametrize("cut", [188, 188 * 40, -188, -100])
def test_the_rest_of_a_segment_that_is_missing_is_told(cut: int) -> None:
    """By counters that go on from one segment to the next; those of a muxer that begins anew can't tell."""
    pictures = encode("h264", 18)
    muxer = Muxer()
    pid = muxer.add_stream("video", "h264")
    segments = []
    for begin in range(0, 18, 6):
        part = pictures[begin : begin + 6]
        data = b"".join(muxer.write(pid, p.data, pts=p.pts or 0, is_keyframe=p.is_keyframe) for p in part)
        segments.append(muxer.tables() + data)
    demuxer = Demuxer()
    found = []
    for number, segment in enumerate(segments):
        demuxer.begin_segment()
        found += demuxer.feed(segment[:cut] if number == 1 else segment)
    found += demuxer.flush()
    assert [p.pts for p in found if p.discontinuity] == [pictures[12].pts]
    assert demuxer.lost == 1
    assert [p.pts for p in found[-6:]] == [p.pts for p in pictures[12:]]


@pytest.mark.parametrize("count", [1, 5, 100, 187, 189, 400])
@pytest.mark.parametrize("way", ["missing", "more", "changed"])
def test_bytes_that_are_missing_too_many_or_changed(count: int, way: str) -> None:
    pictures = encode("h264", 30)
    muxer = Muxer()
    pid = muxer.add_stream("video", "h264")
    data = muxer.tables()
    data += b"".join(muxer.write(pid, p.data, pts=p.pts or 0, is_keyframe=p.is_keyframe) for p in pictures)
    at = len(data) // 188 // 2 * 188 + 50
    rubbish = random.Random(count).randbytes(count).replace(b"G", b"g")
    changed = {
        "missing": data[:at] + data[at + count :],
        "more": data[:at] + rubbish + data[at:],
        "changed": data[:at] + rubbish + data[at + count :],
    }[way]
    found, demuxer = demux(changed)
    assert len(found) >= 28
    assert demuxer.lost + demuxer.skipped >= 1 or way == "changed"
    right = {p.pts: p.data for p in pictures}
    wrong = [p for p in found if p.data[6:] != right.get(p.pts) and p.data != right.get(p.pts)]
    assert len(wrong) <= (way != "missing")  # nothing tells that a packet was stretched or changed
