"""What `import livepeer.client` costs over a bare interpreter, and over what any asyncio client needs."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from options import Options
from rows import Row

__all__ = ["main"]

ROUNDS = 15
CASES = {
    "bare interpreter": "pass",
    "asyncio, dataclasses, json, logging, ssl": "import asyncio, dataclasses, json, logging, ssl",
    "import livepeer.client": "import livepeer.client",
    "from livepeer.client import Gateway": "from livepeer.client import Gateway",
    "import livepeer.client; Gateway()": "import livepeer.client as c; c.Gateway(orch_url='http://127.0.0.1:9')",
    "import aiohttp": "import aiohttp",
}
_MOST = {"import livepeer.client": 60.0}  # ms


def seconds(code: str) -> float:
    """How long one process takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main(options: Options) -> list[Row]:
    """Measure the cases in turn, so that all of them meet the machine's moods; medians over a bare one."""
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for round_number in range(ROUNDS * options.rounds + 1):
        for name, code in CASES.items():
            took = seconds(code)
            if round_number:  # the first one warms the file cache
                times[name].append(took)
    bare = statistics.median(times["bare interpreter"])
    return [
        Row(name, 1000 * (statistics.median(taken) - bare), "ms over bare", most=_MOST.get(name))
        for name, taken in times.items()
        if name != "bare interpreter"
    ]
