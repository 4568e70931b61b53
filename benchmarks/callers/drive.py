"""The process of one library: measures a short round for each line that it reads, and prints what it found.

Run as ``python -m callers.drive LIBRARY BASE_URL`` in the `benchmarks` folder. A line is the name of a round.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from .libraries import LIBRARIES, Library

__all__: list[str] = []

_ROUND = 0.05  # seconds
_AT_ONCE = 64


def _sync(library: Library) -> int:
    until, calls = time.perf_counter() + _ROUND, 0
    while time.perf_counter() < until:
        library.run()
        calls += 1
    return calls


async def _async(library: Library) -> int:
    until, calls = time.perf_counter() + _ROUND, 0
    while time.perf_counter() < until:
        await library.run_async()
        calls += 1
    return calls


async def _many(library: Library) -> int:
    async def turns() -> int:
        return await _async(library)

    return sum(await asyncio.gather(*(turns() for _ in range(_AT_ONCE))))


def _stream(library: Library) -> int:
    return library.stream()


def main() -> None:
    """Measure until there are no more lines."""
    logging.disable(logging.CRITICAL)  # of connections that nobody closes at the end
    library = LIBRARIES[sys.argv[1]](sys.argv[2])
    here: dict[str, Callable[[Library], int]] = {"sync": _sync, "stream": _stream}
    on_loop: dict[str, Callable[[Library], Coroutine[Any, Any, int]]] = {"async": _async, "async 64": _many}
    print("{}", flush=True)
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            name = line.strip()
            began, spent = time.perf_counter(), time.process_time()
            done = here[name](library) if name in here else runner.run(on_loop[name](library))
            took, spent = time.perf_counter() - began, time.process_time() - spent
            print(json.dumps({"rate": done / took, "cpu": 1e6 * spent / done}), flush=True)


if __name__ == "__main__":
    main()
