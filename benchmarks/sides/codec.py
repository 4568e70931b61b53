"""The codec alone: the floor below which no client's CPU can be."""

from __future__ import annotations

import asyncio
import time
from fractions import Fraction
from typing import Any

import av

from .adapters import Side
from .source import CLOCK, Source

__all__ = ["codec"]

# What both sides ask of x264.
_OPTIONS = {"preset": "superfast", "tune": "zerolatency", "forced-idr": "1", "bf": "0"}


async def codec(side: Side, asked: dict[str, Any]) -> dict[str, Any]:
    """Encode and decode `seconds` of video in its own time; CPU seconds per second of stream."""
    width, height, fps = asked["width"], asked["height"], asked["fps"]
    source, total = Source(width, height, fps), round(asked["seconds"] * fps)
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, CLOCK), Fraction(fps)
    encoder.gop_size, encoder.thread_count, encoder.options = fps, 1, dict(_OPTIONS)
    decoder: Any = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    encoding, decoding, start = 0.0, 0.0, time.perf_counter()
    for number in range(total):
        frame = source.frame(number)
        await asyncio.sleep(max(0.0, start + number / fps - time.perf_counter()))
        began = time.process_time()
        packets = encoder.encode(frame)
        between = time.process_time()
        for packet in packets:
            decoder.decode(packet)
        encoding += between - began
        decoding += time.process_time() - between
    return {"encode": encoding * fps / total, "decode": decoding * fps / total}
