"""What many calls over one gateway leave behind, which has to be nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from calls import server
from options import Options
from rows import Row
from side import SideFailed

__all__ = ["main"]

HERE = Path(__file__).resolve().parent
_MEMORY = 3.0  # MB by which it may differ; allocators keep a few pages now and then
_OWN = 4  # sockets: each of the two loops wakes itself through a pair
_OBJECTS = 1000  # by which their number may differ; a call that left one behind would leave far more


def main(options: Options) -> list[Row]:
    """Look at a process after each twentieth of its calls: the last look against the one after a quarter."""
    command = [sys.executable, "-m", "callers.growth"]
    with server() as base:
        done = subprocess.run(
            [*command, base, str(options.calls)], cwd=HERE, stdout=subprocess.PIPE, text=True, check=False
        )
    if done.returncode:
        raise SideFailed(f"the calls failed (exit code {done.returncode}); their words are above.")
    *looks, closed = json.loads(done.stdout)
    early, late = looks[len(looks) // 4], looks[-1]
    curve = "every few: " + ", ".join(f"{look['rss']:.0f}" for look in looks[::4])
    return [
        Row("memory has grown by", late["rss"] - early["rss"], "MB", most=_MEMORY, note=curve),
        Row("objects have grown by", late["objects"] - early["objects"], "", most=_OBJECTS),
        Row("threads have grown by", late["threads"] - early["threads"], "", most=0),
        Row("tasks between the calls", late["tasks"], "", most=1),
        Row("sockets after the last call", late["sockets"], "", note=f"after a quarter: {early['sockets']}"),
        Row("sockets after aclose", closed["sockets"], "", most=_OWN, note="the loops' own"),
    ]
