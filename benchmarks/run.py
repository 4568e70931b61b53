"""Runs the benchmarks; `run.py NAME …` runs some of them. Each figure stands beside the published peer's."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import calls
import growth
import import_time
import link
import live
import lost
import memory
import messages
import paying
import sessions
import throughput
from options import Options, Size
from peer import Unavailable
from rows import Row, table, write_json
from side import SideFailed

Benchmark = Callable[[Options], list[Row]]

BENCHMARKS: dict[str, Benchmark] = {
    "calls": calls.main,
    "growth": growth.main,
    "import_time": import_time.main,
    "json": messages.main,
    "throughput": throughput.main,
    "live": live.main,
    "lost": lost.main,
    "memory": memory.main,
    "sessions": sessions.main,
    "link": link.main,
    "paying": paying.main,
}


def main() -> int:
    """Run what the arguments name, or all; 1 when a figure is over its limit."""
    names, options, target = _arguments()
    results: dict[str, list[Row]] = {}
    failed = False
    for name in names:
        where = "go-livepeer" if options.go else "our own server, in a process of its own"
        print(f"# {name} ({where})", flush=True)
        began = time.monotonic()
        try:
            results[name] = BENCHMARKS[name](options)
        except Unavailable as error:
            print(f"{error} (--no-peer measures without it)", file=sys.stderr)
            return 2
        except SideFailed as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
            continue
        print(table(results[name]))
        print(f"({time.monotonic() - began:.0f} s)\n", flush=True)
    if target is not None:
        where = "go-livepeer" if options.go else "embedded"
        about = {"orchestrator": where, "python": platform.python_version(), "machine": platform.platform()}
        write_json(target, {"about": about, "rows": results})
    missed = [row for rows in results.values() for row in rows if row.verdict in ("over", "under")]
    return 1 if missed or failed else 0


def _arguments() -> tuple[list[str], Options, Path | None]:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    known = ", ".join(BENCHMARKS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which benchmarks; all of: {known}")
    parser.add_argument(
        "--go-livepeer",
        metavar="PATH",
        default=os.environ.get("LIVEPEER_GO_BIN"),
        help="a go-livepeer v0.9.1 binary to measure on, instead of our own server",
    )
    parser.add_argument("--seconds", type=float, default=Options.seconds, help="length of a live stream")
    parser.add_argument("--rounds", type=int, default=Options.rounds, help="measure each side so many times")
    parser.add_argument("--runs", type=int, default=Options.runs, help="short streams for `lost`")
    parser.add_argument("--minutes", type=float, default=Options.minutes, help="length of `memory`")
    parser.add_argument("--sessions", type=int, default=Options.sessions, help="how many at once")
    parser.add_argument("--calls", type=int, default=Options.calls, help="how many, for `growth`")
    parser.add_argument("--size", action="append", help="WIDTHxHEIGHT@FPS, may be repeated")
    parser.add_argument("--no-peer", action="store_true", help="measure only ours")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every row to a file")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {known}")
    go = Path(given.go_livepeer).expanduser().resolve() if given.go_livepeer else None
    if go is not None and not os.access(go, os.X_OK):
        parser.error(f"--go-livepeer={go} is no program that can be run")
    options = Options(
        go=go,
        seconds=given.seconds,
        rounds=given.rounds,
        runs=given.runs,
        minutes=given.minutes,
        sessions=given.sessions,
        calls=given.calls,
        sizes=tuple(Size.parse(text) for text in given.size) if given.size else Options.sizes,
        peer=not given.no_peer,
    )
    return given.names or list(BENCHMARKS), options, given.json


if __name__ == "__main__":
    sys.exit(main())
