"""Feeds the parsers with what no sender means: valid bytes, mutated and cut anywhere.

    ./dev run python scripts/fuzz_parsers.py [TARGET …] [--seconds 10] [--seed N]

Whatever comes, a parser must not raise, must bring back no more than it was given, and must read what is
valid after it. When one doesn't, the seed that shows it is printed, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import traceback
from collections.abc import Callable

from livepeer.trickle.media.mpegts import Demuxer, Muxer
from livepeer.trickle.media.mpegts.audio import AUDIO_CODECS, AudioFramer
from livepeer.trickle.media.mpegts.containers import container_of
from livepeer.trickle.media.mpegts.pes import PesAssembler
from livepeer.trickle.media.mpegts.tables import (
    SectionReader,
    build_pat,
    build_pmt,
    pack_section,
    parse_pat,
    parse_pmt,
)
from livepeer.trickle.media.mpegts.ts import TSSplitter, parse
from livepeer.trickle.media.mpegts.units import Framer
from livepeer.trickle.media.mpegts.video import VideoFramer
from livepeer.trickle.messages import MessageDecoder

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x47)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Some changes, small and large, of the kinds that wires and senders make."""
    mutated = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(mutated) + 1)
        size = rng.choice((1, 1, 2, 5, 188, rng.randrange(1, 400)))
        way = rng.randrange(7)
        if way == 0 and at < len(mutated):
            mutated[at] ^= 1 << rng.randrange(8)
        elif way == 1 and at < len(mutated):
            mutated[at] = rng.choice(_NUMBERS)
        elif way == 2:
            del mutated[at : at + size]
        elif way == 3:
            mutated[at:at] = rng.randbytes(size)
        elif way == 4:
            mutated[at : at + size] = rng.randbytes(size)
        elif way == 5:
            source = rng.randrange(len(mutated) + 1)
            mutated[at:at] = mutated[source : source + size]
        elif way == 6 and rng.randrange(4) == 0:
            del mutated[at:]
    return bytes(mutated)


def pieces(data: bytes, rng: random.Random) -> list[bytes]:
    """The data, cut anywhere."""
    size = rng.choice((1, 7, 188, 1000, 1 << 16))
    if size == 1 and len(data) > 2000:
        size = 187
    return [data[i : i + size] for i in range(0, len(data), size)]


def picture(number: int, rng: random.Random) -> bytes:
    """Something that looks like an access unit of H.264: a key frame at every fifth."""
    head = b"\x00\x00\x00\x01\x67\x64\x00\x0a\x00\x00\x00\x01\x68\xee\x3c\x00\x00\x01\x65\x88"
    return (b"\x00\x00\x00\x01\x41\x9a" if number % 5 else head) + rng.randbytes(rng.randrange(8, 900))


def sound(rng: random.Random) -> bytes:
    """Something that looks like a frame of AAC."""
    data = rng.randbytes(rng.randrange(8, 300))
    return (0xFFF14C80 << 24 | (len(data) + 7) << 13 | 0x1FFC).to_bytes(7, "big") + data


def stream(rng: random.Random, count: int = 12) -> tuple[bytes, list[bytes]]:
    """A transport stream, and what is in it."""
    muxer, units = Muxer(), []
    codecs = {muxer.add_stream("video", "h264"): "h264", muxer.add_stream("audio", "aac"): "aac"}
    codecs[muxer.add_stream("audio", "opus")] = "opus"
    data = muxer.tables()
    for number in range(count):
        for pid, codec in codecs.items():
            unit = picture(number, rng) if codec == "h264" else sound(rng)
            units.append(b"\x00\x00\x00\x01\x09\xf0" + unit if codec == "h264" else unit)
            data += muxer.write(pid, unit, pts=number * 3000, is_keyframe=codec != "h264" or number % 5 == 0)
    return data, units


def fuzz_ts(rng: random.Random) -> None:
    """The demuxer: after any damage the next whole stream is read to the last unit."""
    data, units = stream(rng)
    damaged = mutate(data, rng)
    demuxer = Demuxer()
    found = [packet for piece in pieces(damaged, rng) for packet in demuxer.feed(piece)]
    size = sum(len(packet.data) for packet in found)
    assert size <= len(damaged), f"{size} bytes out of {len(damaged)}"
    assert demuxer.skipped <= len(damaged)
    after = []
    for _ in range(2):  # the first one may lose its begin to what was damaged before
        demuxer.begin_segment()
        after = demuxer.feed(data)
    after += demuxer.flush()
    missing = len(set(units) - {packet.data for packet in after})
    assert missing <= 3, f"{missing} of {len(units)} units are missing in the stream after the damaged one"
    container_of(damaged)


def fuzz_tables(rng: random.Random) -> None:
    """Sections in packets, damaged; and contents that have a right checksum and are wrong."""
    streams = [
        (rng.randrange(8192), rng.choice((3, 6, 15, 27, 36, 0x81)), rng.randbytes(rng.randrange(20)))
        for _ in range(rng.randrange(20))
    ]
    section = build_pmt(streams, clock=rng.randrange(8192), version=rng.randrange(32))
    data = mutate(pack_section(0, build_pat(rng.randrange(8192))) + pack_section(0x1000, section), rng)
    for contents in (mutate(section, rng), rng.randbytes(rng.randrange(3, 200))):
        for table in (b"\x00", b"\x02"):
            assert all(0 <= pid < 8192 for pid in parse_pat(table + contents[1:]))
            assert all(0 <= pid < 8192 for pid in parse_pmt(table + contents[1:]))
    reader = SectionReader()
    for header, body in TSSplitter().feed(data):
        packet = parse(header, body)
        if packet is not None:
            for read in reader.feed(packet.payload, start=packet.start):
                parse_pat(read)
                parse_pmt(read)


def fuzz_pes(rng: random.Random) -> None:
    """PES packets and the units in them, without tables before them."""
    codec = rng.choice((*sorted(AUDIO_CODECS), "h264", "hevc"))
    framer: Framer = AudioFramer(codec) if codec in AUDIO_CODECS else VideoFramer(codec)
    muxer = Muxer()
    pid = muxer.add_stream("audio", "aac") if codec == "aac" else muxer.add_stream("video", "h264")
    units = [sound(rng) if codec == "aac" else picture(number, rng) for number in range(8)]
    data = mutate(b"".join(muxer.write(pid, unit, pts=n * 3000) for n, unit in enumerate(units)), rng)
    assembler = PesAssembler()
    size = 0
    for header, body in TSSplitter().feed(data):
        packet = parse(header, body)
        for pes in assembler.feed(packet) if packet is not None else ():
            found = framer.feed(
                pes.data, pes.pts, pes.dts, random_access=pes.random_access, discontinuity=pes.discontinuity
            )
            size += sum(len(unit.data) for unit in found)
    assembler.flush()
    size += sum(len(unit.data) for unit in framer.flush())
    assert size <= len(data), f"{size} bytes out of {len(data)}"


def fuzz_messages(rng: random.Random) -> None:
    """JSON in segments: the same messages, wherever it is cut."""
    values = [{"n": n, "text": "é\n" * rng.randrange(4), "list": [n / 3, None, True]} for n in range(6)]
    lines = [
        json.dumps(value, indent=rng.choice((None, 1)), ensure_ascii=rng.random() < 0.5) for value in values
    ]
    data = mutate("\n".join(lines).encode(), rng)
    whole, cut = MessageDecoder(), MessageDecoder()
    expected = whole.feed(data) + whole.finish()
    found = [message for piece in pieces(data, rng) for message in cut.feed(piece)] + cut.finish()
    assert repr(found) == repr(expected), "the messages depend on where they are cut"
    assert whole.malformed == cut.malformed


TARGETS: dict[str, Callable[[random.Random], None]] = {
    "messages": fuzz_messages,
    "pes": fuzz_pes,
    "tables": fuzz_tables,
    "ts": fuzz_ts,
}


def fuzz(name: str, seconds: float, seed: int) -> bool:
    """Run one target for so long; whether it held."""
    begin, runs = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        try:
            TARGETS[name](random.Random(f"{name} {seed + runs}"))
        except Exception:
            traceback.print_exc()
            print(
                f"{name} fails; to see it again: {name} --seed {seed + runs} --seconds 0.001", file=sys.stderr
            )
            return False
        runs += 1
    print(f"{name}: {runs} runs from seed {seed}")
    return True


def main() -> int:
    """Run the targets that are named, or all; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], help="all of them when none is named")
    parser.add_argument("--seconds", type=float, default=10.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=None, help="begin with this one, and not with any")
    arguments = parser.parse_args()
    targets = arguments.targets or sorted(TARGETS)
    seed = random.randrange(1 << 40) if arguments.seed is None else arguments.seed
    held = [fuzz(name, arguments.seconds / len(targets), seed) for name in targets]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
