"""The client's memory over a long stream, which has to be flat."""

from __future__ import annotations

import statistics

from options import Options, Size
from rows import Row
from side import measure
from stage import APP, Stage

__all__ = ["main"]

_SIZE = Size(640, 360, 30)
_EVERY = 10.0  # seconds between two looks
_FLAT = 3.0  # MB by which it may differ; allocators keep a few pages now and then


def main(options: Options) -> list[Row]:
    """Watch the resident memory of our process: the last fifth against what it was after the warm-up."""
    seconds = 60 * options.minutes
    every = min(_EVERY, seconds / 30)
    with Stage(options.go) as stage:
        found = measure(
            "ours",
            {
                "task": "live",
                "orch": stage.orch,
                "app": APP,
                "width": _SIZE.width,
                "height": _SIZE.height,
                "fps": _SIZE.fps,
                "seconds": seconds,
                "sample": every,
            },
            timeout=seconds + 60,
        )
    sizes = [size for _, size in found["rss"]]
    fifth = max(len(sizes) // 5, 1)
    early, late = statistics.median(sizes[fifth : 2 * fifth]), statistics.median(sizes[-fifth:])
    curve = ", ".join(f"{size:.0f}" for size in sizes[:: max(len(sizes) // 12, 1)])
    return [
        Row(f"after the warm-up ({every * fifth:g} s)", early, "MB", note=f"over {options.minutes:g} min"),
        Row("in the last fifth", late, "MB", note=f"every few: {curve}"),
        Row("grown by", late - early, "MB", most=_FLAT),
        Row("frames lost", found["written"] - found["received"], "", most=0),
    ]
