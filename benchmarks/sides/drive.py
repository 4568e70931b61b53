"""The process of one side: reads what to measure as a line of JSON, prints what it found as one.

Run as ``python -m sides.drive ours|peer`` in the `benchmarks` folder, by the Python of that side.
"""

from __future__ import annotations

import asyncio
import json
import logging
import platform
import sys
from typing import Any

from .adapters import side_named

__all__: list[str] = []


async def _measure(name: str, asked: dict[str, Any]) -> Any:
    from . import channels, codec, live, sessions

    tasks = {
        "live": live.stream,
        "lost": live.lost,
        "codec": codec.codec,
        "json": channels.json_messages,
        "throughput": channels.throughput,
        "read": channels.read_bytes,
        "sessions": sessions.sessions,
    }
    side = side_named(name)
    try:
        return await tasks[asked["task"]](side, asked)
    finally:
        await side.aclose()


def main() -> None:
    """Measure once."""
    asked = json.loads(sys.stdin.readline())
    # The peer logs an ordinary end as an error; a reader of the figures has no use for either side's log.
    logging.disable(logging.CRITICAL if not asked.get("log") else logging.NOTSET)
    found = asyncio.run(_measure(sys.argv[1], asked))
    print(json.dumps({"python": platform.python_version(), "found": found}), flush=True)


if __name__ == "__main__":
    main()
