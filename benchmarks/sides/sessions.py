"""Many sessions at once in one process, with video that is encoded already: what one of them costs.

Ours only; the peer takes no packets.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from fractions import Fraction
from typing import Any

import av

from .adapters import Side
from .live import rss
from .source import CLOCK, Source

__all__ = ["sessions"]

_GOP = 1  # seconds
_SETTLE = 2.0  # seconds in which every session has begun, before the measuring begins


class _One:
    """One session: packets in, packets out, and when."""

    def __init__(self) -> None:
        self.sent: dict[int, float] = {}  # by timestamp in ticks
        self.latencies: list[float] = []
        self.received = 0

    async def run(self, gateway: Any, app: str, packets: list[Any], fps: int, offset: float) -> None:
        async with gateway.live(app, params={"delay": 0}) as session:
            reading = asyncio.create_task(self._read(session))
            publish = session.publish(fps=fps)
            start = time.perf_counter() + offset
            for number, packet in enumerate(packets):
                await asyncio.sleep(max(0.0, start + number / fps - time.perf_counter()))
                self.sent[packet.pts] = time.perf_counter()
                await publish.write_packet(packet)
        await reading

    async def _read(self, session: Any) -> None:
        async for packet in session.subscribe().packets():
            self.received += 1
            self.latencies.append(1000 * (time.perf_counter() - self.sent[packet.pts]))


async def sessions(side: Side, asked: dict[str, Any]) -> dict[str, Any]:
    """Run `count` sessions for `seconds`; CPU seconds per second and session, memory in MB per session."""
    client: Any = importlib.import_module("livepeer.client")
    fps, count, seconds = asked["fps"], asked["count"], asked["seconds"]
    packets = _packets(asked["width"], asked["height"], fps, seconds)
    gateway = client.Gateway(orch_url=asked["orch"])
    await _One().run(gateway, asked["app"], packets[:fps], fps, 0.0)  # loads and warms everything
    before = rss()
    ones = [_One() for _ in range(count)]
    runs = [
        asyncio.create_task(one.run(gateway, asked["app"], packets, fps, number / count / fps))
        for number, one in enumerate(ones)
    ]
    await asyncio.sleep(_SETTLE)
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(max(seconds - 2 * _SETTLE, 0.5))
    spent, elapsed = time.process_time() - cpu, time.perf_counter() - began
    during = rss()
    await asyncio.gather(*runs)
    await gateway.aclose()
    return {
        "cpu": spent / elapsed / count,
        "memory": (during - before) / count,
        "latencies": [round(one, 3) for each in ones for one in each.latencies[fps:]],
        "lost": sum(len(packets) - one.received for one in ones),
        "rate": sum(len(packet.data) for packet in packets) * 8 / seconds / 1e6,
    }


def _packets(width: int, height: int, fps: int, seconds: float) -> list[Any]:
    """A video as packets of ours, encoded as `write_frame` would."""
    media: Any = importlib.import_module("livepeer.trickle.media")
    source = Source(width, height, fps)
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, CLOCK), Fraction(fps)
    encoder.gop_size = fps * _GOP
    encoder.options = {"preset": "superfast", "tune": "zerolatency"}
    packets = []
    for number in range(round(seconds * fps)):
        for packet in encoder.encode(source.frame(number)):
            packets.append(
                media.Packet(
                    kind="video",
                    codec="h264",
                    data=bytes(packet),
                    pts=packet.pts,
                    dts=packet.dts,
                    is_keyframe=packet.is_keyframe,
                )
            )
    return packets
