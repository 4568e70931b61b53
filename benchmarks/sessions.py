"""Many sessions at once in one process, with already encoded packets: CPU and memory of each."""

from __future__ import annotations

from options import Options, Size
from rows import Row, percentile
from side import measure
from stage import APP, Stage

__all__ = ["main"]

_SIZE = Size(640, 360, 30)


def main(options: Options) -> list[Row]:
    """Run them through the worker; all frames come back."""
    with Stage(options.go) as stage:
        found = measure(
            "ours",
            {
                "task": "sessions",
                "orch": stage.orch,
                "app": APP,
                "width": _SIZE.width,
                "height": _SIZE.height,
                "fps": _SIZE.fps,
                "seconds": options.seconds,
                "count": options.sessions,
            },
            timeout=options.seconds + 120,
        )
    note = f"{options.sessions} sessions of {_SIZE}, {found['rate']:.1f} Mbit/s each, both ways"
    return [
        Row("CPU per second and session", found["cpu"], "s", note=note),
        Row("memory per session", found["memory"], "MB"),
        Row("packet write to read p50", percentile(found["latencies"], 50), "ms"),
        Row("packet write to read p95", percentile(found["latencies"], 95), "ms"),
        Row("packets lost", found["lost"], "", most=0),
    ]
