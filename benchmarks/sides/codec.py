"""The codec alone, with each side's settings: the floor of its CPU, and what comes of it."""

from __future__ import annotations

import asyncio
import math
import time
from fractions import Fraction
from typing import Any

import av
import numpy as np

from .adapters import Side
from .source import CLOCK, Source

__all__ = ["codec"]

# What the peer asks of x264.
_PEER = {"preset": "superfast", "tune": "zerolatency", "forced-idr": "1", "bf": "0"}


async def codec(side: Side, asked: dict[str, Any]) -> dict[str, Any]:
    """Encode and decode `seconds` of video in its own time, as `settings` says: ``"ours"`` or ``"peer"``.

    Returns:
        CPU seconds per second of stream to encode and to decode, bytes of a frame, and the luma plane's peak
        signal to noise in dB.
    """
    width, height, fps = asked["width"], asked["height"], asked["fps"]
    source, total = Source(width, height, fps), round(asked["seconds"] * fps)
    encode = _ours(fps) if asked["settings"] == "ours" else _peers(width, height, fps)
    decoder: Any = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    encoding, decoding, start = 0.0, 0.0, time.perf_counter()
    size, error, compared = 0, 0.0, 0
    for number in range(total):
        frame = source.frame(number)
        luma = frame.to_ndarray()[:height].astype(np.int16)
        await asyncio.sleep(max(0.0, start + number / fps - time.perf_counter()))
        began = time.process_time()
        packets = encode(frame)
        between = time.process_time()
        pictures = [picture for packet in packets for picture in decoder.decode(packet)]
        encoding += between - began
        decoding += time.process_time() - between
        size += sum(packet.size for packet in packets)
        for picture in pictures:  # neither side holds a frame back
            error += float(np.square(picture.to_ndarray()[:height] - luma).mean())
            compared += 1
    return {
        "encode": encoding * fps / total,
        "decode": decoding * fps / total,
        "bytes": size / total,
        "psnr": 10 * math.log10(255**2 / max(error / max(compared, 1), 1e-9)),
    }


def _peers(width: int, height: int, fps: int) -> Any:
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, CLOCK), Fraction(fps)
    encoder.gop_size, encoder.thread_count, encoder.options = fps, 1, dict(_PEER)
    return encoder.encode


def _ours(fps: int) -> Any:
    from livepeer.trickle.media.encoding import VideoEncoder

    encoder = VideoEncoder("libx264", fps=fps, gop=1, bitrate=None, options=None)
    return lambda frame: [packet.to_av() for packet in encoder.encode(frame, frame.pts)]
