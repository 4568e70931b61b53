"""What `import livepeer.client` costs over a bare interpreter, and over what any asyncio client needs."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 15
CASES = {
    "bare interpreter": "pass",
    "asyncio, dataclasses, json, logging, ssl": "import asyncio, dataclasses, json, logging, ssl",
    "import livepeer.client": "import livepeer.client",
    "from livepeer.client import Gateway": "from livepeer.client import Gateway",
    "import livepeer.client; Gateway()": "import livepeer.client as c; c.Gateway(orch_url='http://127.0.0.1:9')",
    "import aiohttp": "import aiohttp",
}


def seconds(code: str) -> float:
    """How long one process takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure the cases in turn, so that all of them meet the machine's moods, and print medians."""
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for round_number in range(ROUNDS + 1):
        for name, code in CASES.items():
            took = seconds(code)
            if round_number:  # the first one warms the file cache
                times[name].append(took)
    bare = statistics.median(times["bare interpreter"])
    client = statistics.median(times["import livepeer.client"]) - bare
    peer = statistics.median(times["import aiohttp"]) - bare
    for name, taken in times.items():
        over = statistics.median(taken) - bare
        print(f"{name:45} {over * 1000:7.1f} ms over bare  ({over / peer:.2f}x of import aiohttp)")
    print(f"import livepeer.client: {client * 1000:.1f} ms over a bare interpreter (60 ms is the limit)")


if __name__ == "__main__":
    main()
