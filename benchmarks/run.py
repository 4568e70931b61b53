"""Runs the benchmarks; `run.py NAME …` runs some of them."""

from __future__ import annotations

import sys

import import_time

BENCHMARKS = {"import_time": import_time.main}


def main() -> int:
    """Run what the arguments name, or all; the exit status."""
    chosen = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in chosen if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    for name in chosen:
        print(f"# {name}")
        BENCHMARKS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
