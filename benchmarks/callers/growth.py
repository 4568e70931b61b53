"""Many calls over one gateway, and what the process holds meanwhile.

Run as ``python -m callers.growth URL CALLS``; it prints what it found as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
import threading
from pathlib import Path

from sides.live import rss

from livepeer.client import Gateway

__all__: list[str] = []

_LOOKS = 20
_AT_ONCE = 64


async def _calls(gateway: Gateway, count: int) -> None:
    """Most are awaited, some come from threads, some are streams that are left early."""
    left = iter(range(count))

    async def worker() -> None:
        for number in left:
            if number % 10 == 0:
                await asyncio.to_thread(gateway.run, "bench", input={"a": number})
            elif number % 10 == 1:
                async with gateway.stream_async("bench", input={"a": number}, path="/stream") as stream:
                    await anext(stream)
            else:
                await gateway.run_async("bench", input={"a": number})

    await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))


def _look() -> dict[str, float]:
    gc.collect()
    sockets = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            sockets += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return {
        "rss": rss(),
        "sockets": sockets,
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "objects": len(gc.get_objects()),
    }


async def _main(base: str, count: int) -> None:
    gateway = Gateway(orch_url=base)
    found = []
    for _ in range(_LOOKS):
        await _calls(gateway, count // _LOOKS)
        found.append(_look())
    await gateway.aclose()
    found.append(_look())
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    assert Path("/proc/self/fd").is_dir(), "this looks into Linux's /proc"
    asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
