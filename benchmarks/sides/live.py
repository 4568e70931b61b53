"""One live stream through the worker: every frame's way, and what it costs."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from .adapters import Side
from .source import Source, number_in

__all__ = ["lost", "rss", "stream"]


class _Run:
    """One stream under way. Times are those of one clock, in seconds.

    What grows with the stream is allocated before it: `memory` watches this process.
    """

    def __init__(self, source: Source, total: int, *, paced: bool) -> None:
        self.paced = paced
        self.source = source
        self.total = total
        self.sent = np.full(total, np.nan)
        self.seen = np.full(total, np.nan)
        self.newest = -1
        self.unordered = 0
        self.unreadable = 0
        self.own_cpu = 0.0  # seconds that this driver spent drawing and reading numbers
        self.first_at = 0.0  # of a frame that came out, whatever is on it

    async def write(self, live: Any) -> None:
        """Write every frame, in its time when paced, else as fast as `write` takes them."""
        start = time.perf_counter()
        for number in range(self.total):
            began = time.thread_time()
            frame = self.source.frame(number)
            self.own_cpu += time.thread_time() - began
            left = start + number / self.source.fps - time.perf_counter()
            if self.paced and left > 0:
                await asyncio.sleep(left)
            self.sent[number] = time.perf_counter()
            await live.write(frame)

    async def read(self, live: Any) -> None:
        """Take every frame, and note when it came."""
        async for frame in live.frames():
            now = time.perf_counter()
            self.first_at = self.first_at or now
            began = time.thread_time()
            number = number_in(frame)
            if number is None or number >= self.total:
                self.unreadable += 1
            elif np.isnan(self.seen[number]):
                self.unordered += number < self.newest
                self.seen[number], self.newest = now, max(number, self.newest)
            self.own_cpu += time.thread_time() - began

    def lost(self) -> dict[str, int]:
        """How many frames never came: before the first that did, after the last, in between."""
        came = np.flatnonzero(~np.isnan(self.seen))
        if not came.size:
            return {"start": self.total, "between": 0, "end": 0}
        first, last = int(came[0]), int(came[-1])
        return {"start": first, "between": last - first + 1 - came.size, "end": self.total - 1 - last}


async def stream(side: Side, asked: dict[str, Any]) -> dict[str, Any]:
    """Send `seconds` of video of a `width`, `height` and `fps` through `app` at `orch`.

    Returns times in milliseconds and CPU in seconds per second of stream, this driver's own share taken out.
    """
    fps, seconds = asked["fps"], asked["seconds"]
    source = Source(asked["width"], asked["height"], fps)
    run = _Run(source, round(seconds * fps), paced=asked.get("paced", True))
    meter = _Meter(run)
    side.prepare(asked["orch"])
    began = time.perf_counter()
    live = await side.open(asked["orch"], asked["app"], fps=fps, delay=asked.get("delay", 0.0))
    opened = time.perf_counter()
    reading = asyncio.create_task(run.read(live))
    metering = asyncio.create_task(meter.after(min(1.0, seconds / 3)))
    sampling = asyncio.create_task(meter.sample(asked.get("sample", 0.0)))
    await run.write(live)
    cost = meter.stop()
    metering.cancel()
    sampling.cancel()
    await live.finish(reading)
    latency = 1000 * (run.seen - run.sent)
    came = ~np.isnan(latency)
    steady = latency[fps:][came[fps:]]  # after the first second
    return {
        "open": 1000 * (opened - began),
        "first_frame": 1000 * (run.first_at - began) if run.first_at else None,
        "first_latency": float(latency[0]) if came[0] else None,
        "latencies": [round(float(one), 3) for one in steady],
        "max": float(np.nanmax(latency)) if came.any() else None,
        "received": int(came.sum()),
        "written": run.total,
        "unordered": run.unordered,
        "unreadable": run.unreadable,
        "lost": run.lost(),
        **cost,
    }


async def lost(side: Side, asked: dict[str, Any]) -> dict[str, Any]:
    """Send `runs` short streams one after the other; where each lost how many frames."""
    found: list[dict[str, int]] = []
    for _ in range(asked["runs"]):
        one = await stream(side, asked)
        found.append({**one["lost"], "unordered": one["unordered"], "unreadable": one["unreadable"]})
    return {"runs": found}


class _Meter:
    """What the process costs, from a moment after its start on."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._began: tuple[float, float, float] | None = None
        self._threads: dict[str, float] = {}
        self.samples: list[tuple[float, float]] = []

    async def after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._threads = _thread_times()
        self._began = time.perf_counter(), time.process_time(), self._run.own_cpu

    async def sample(self, every: float) -> None:
        """Note the resident memory each so many seconds."""
        began = time.perf_counter()
        while every:
            await asyncio.sleep(every)
            self.samples.append((round(time.perf_counter() - began, 1), rss()))

    def stop(self) -> dict[str, Any]:
        """The costs until now; nothing of a stream that was over before the measuring began."""
        if self._began is None:
            return {"cpu": None, "own_cpu": None, "threads": {}, "rss": self.samples}
        elapsed = time.perf_counter() - self._began[0]
        own = self._run.own_cpu - self._began[2]
        spent = time.process_time() - self._began[1] - own
        threads = {
            name: round((now - self._threads.get(name, 0.0)) / elapsed, 4)
            for name, now in _thread_times().items()
        }
        if "MainThread" in threads:
            threads["MainThread"] = round(threads["MainThread"] - own / elapsed, 4)
        return {"cpu": spent / elapsed, "own_cpu": own / elapsed, "threads": threads, "rss": self.samples}


def rss() -> float:
    """The resident memory of this process in MB; 0 where the system doesn't tell."""
    if sys.platform != "linux":
        return 0.0
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _thread_times() -> dict[str, float]:
    """The CPU seconds of each of Python's threads by its name, and of all others; empty off Linux."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    times: dict[str, float] = {}
    for path in Path("/proc/self/task").glob("*/schedstat") if os.path.isdir("/proc/self/task") else ():
        name = names.get(int(path.parent.name), "codec's own")
        times[name] = times.get(name, 0.0) + int(path.read_text().split()[0]) / 1e9
    return times
