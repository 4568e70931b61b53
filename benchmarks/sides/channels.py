"""Channels without media: JSON messages, and bytes as fast as they go."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import aiohttp

from .adapters import Side, message

__all__ = ["json_messages", "read_bytes", "throughput"]

_WARM_UP = 50
_MTU = 1316  # seven MPEG-TS packets
_MIB = 1024 * 1024


async def json_messages(side: Side, asked: dict[str, Any]) -> dict[str, Any]:
    """Write `count` messages one after the other, each when the one before was read.

    Returns times in milliseconds, from just before the write until the reader yields; CPU in microseconds
    per message, writing and reading together; and the same of a bare POST of the same bytes by aiohttp.
    """
    writer, count = side.json_writer(asked["url"]), asked["count"]
    arrived: asyncio.Queue[float] = asyncio.Queue()

    async def read() -> None:
        async for _ in side.json_messages(asked["url"]):
            arrived.put_nowait(time.perf_counter())

    reading = asyncio.create_task(read())
    taken, spent = [], 0.0
    for number in range(count + _WARM_UP):
        if number == _WARM_UP:
            spent = time.process_time()
        began = time.perf_counter()
        await writer.write(message(number))
        taken.append(1000 * (await asyncio.wait_for(arrived.get(), 10) - began))
    spent = time.process_time() - spent
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await writer.close()
    return {
        "latencies": [round(one, 4) for one in taken[_WARM_UP:]],
        "cpu": spent / count * 1e6,
        "bare": await _bare_posts(asked["bare_url"], count) if asked.get("bare_url") else None,
    }


async def _bare_posts(url: str, count: int) -> dict[str, float]:
    """POST as many segments with nothing around aiohttp."""
    body, taken, spent = b'{"type": "params", "prompt": "a cat on a roof", "strength": 0.5}', [], 0.0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as http:
        for number in range(count + _WARM_UP):
            if number == _WARM_UP:
                spent = time.process_time()
            began = time.perf_counter()
            async with http.post(f"{url}/{number}", data=body) as answer:
                await answer.read()
            taken.append(1000 * (time.perf_counter() - began))
        spent = time.process_time() - spent
    return {"p50": statistics.median(taken[_WARM_UP:]), "cpu": spent / count * 1e6}


async def throughput(side: Side, asked: dict[str, Any]) -> dict[str, Any]:
    """Write `count` segments of 1 MiB in writes of 1316 bytes until all are answered; MB/s and CPU."""
    body = bytes(range(256)) * (_MIB // 256)
    pieces = [body[start : start + _MTU] for start in range(0, _MIB, _MTU)]
    began, cpu = time.perf_counter(), time.process_time()
    await side.write_segments(asked["url"], pieces, asked["count"])
    elapsed, spent = time.perf_counter() - began, time.process_time() - cpu
    size = asked["count"] * _MIB / 1e6
    return {"rate": size / elapsed, "seconds": elapsed, "cpu": spent / size * 1000}


async def read_bytes(side: Side, asked: dict[str, Any]) -> dict[str, Any]:
    """Read `count` segments with bare aiohttp, the same for both sides; how many bytes came."""
    size = 0
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False), timeout=timeout) as http:
        number = 0
        while number < asked["count"]:
            async with http.get(f"{asked['url']}/{number}") as answer:
                if answer.status == 470:  # it begins soon, or has left the ring
                    latest = int(answer.headers.get("Lp-Trickle-Latest", number))
                    number = max(number, latest - 1)
                    await asyncio.sleep(0.002)
                    continue
                if answer.status != 200 or "Lp-Trickle-Closed" in answer.headers:
                    break
                async for chunk in answer.content.iter_any():
                    size += len(chunk)
            number += 1
    return {"bytes": size}
