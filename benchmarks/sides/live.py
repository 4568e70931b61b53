"""One live stream through the worker: every frame's way, and what it costs."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

from .adapters import Side
from .source import Source, number_in

__all__ = ["rss", "stream"]


class _Run:
    """One stream under way. Times are those of one clock, in seconds."""

    def __init__(self, source: Source, total: int) -> None:
        self.source = source
        self.total = total
        self.sent: dict[int, float] = {}
        self.seen: dict[int, float] = {}
        self.order: list[int] = []
        self.unreadable = 0
        self.own_cpu = 0.0  # seconds that this driver spent drawing and reading numbers
        self.first_at = 0.0  # of a frame that came out, whatever is on it

    async def write(self, live: Any) -> None:
        """Write every frame in its time."""
        start = time.perf_counter()
        for number in range(self.total):
            began = time.thread_time()
            frame = self.source.frame(number)
            self.own_cpu += time.thread_time() - began
            left = start + number / self.source.fps - time.perf_counter()
            if left > 0:
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
            if number is None:
                self.unreadable += 1
            else:
                self.seen.setdefault(number, now)
                self.order.append(number)
            self.own_cpu += time.thread_time() - began

    def lost(self) -> dict[str, int]:
        """How many frames never came: before the first that did, after the last, in between."""
        if not self.seen:
            return {"start": self.total, "between": 0, "end": 0}
        first, last = min(self.seen), max(self.seen)
        missing = [number for number in range(self.total) if number not in self.seen]
        return {
            "start": sum(number < first for number in missing),
            "between": sum(first < number < last for number in missing),
            "end": sum(number > last for number in missing),
        }


async def stream(side: Side, asked: dict[str, Any]) -> dict[str, Any]:
    """Send `seconds` of video of a `width`, `height` and `fps` through `app` at `orch`.

    Returns times in milliseconds and CPU in seconds per second of stream, this driver's own share taken out.
    """
    fps, seconds = asked["fps"], asked["seconds"]
    run = _Run(Source(asked["width"], asked["height"], fps), round(seconds * fps))
    meter = _Meter(run)
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
    latency = {n: 1000 * (run.seen[n] - run.sent[n]) for n in run.seen}
    return {
        "open": 1000 * (opened - began),
        "first_frame": 1000 * (run.first_at - began) if run.first_at else None,
        "first_latency": latency.get(0),
        "latencies": [round(latency[n], 3) for n in sorted(latency) if n >= fps],
        "max": max(latency.values(), default=None),
        "received": len(run.seen),
        "written": run.total,
        "unordered": run.order != sorted(run.order),
        "unreadable": run.unreadable,
        "lost": run.lost(),
        **cost,
    }


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
        assert self._began is not None
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
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _thread_times() -> dict[str, float]:
    """The CPU seconds of each of Python's threads by its name, and of all others; empty off Linux."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    times: dict[str, float] = {}
    for path in Path("/proc/self/task").glob("*/schedstat") if os.path.isdir("/proc/self/task") else ():
        name = names.get(int(path.parent.name), "codec's own")
        times[name] = times.get(name, 0.0) + int(path.read_text().split()[0]) / 1e9
    return times
