"""How many calls and events a second: this SDK beside bare HTTP libraries and the well-known SDKs."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from options import Options
from peer import callers_python
from rows import Row, percentile
from side import SideFailed

__all__ = ["main", "server"]

HERE = Path(__file__).resolve().parent
OURS = "livepeer-client"
SDKS = ("openai", "anthropic", "replicate", "fal-client")
_ROUNDS = 40
_STARTS = 8
_KINDS = {
    "sync": "calls/s",
    "async": "calls/s",
    "async 64": "calls/s",
    "stream": "events/s",
}
# How much of a library's rate ours has to have, at least.
_LEAST = {
    "sync": {"aiohttp": 0.75, **dict.fromkeys(SDKS, 1.0)},
    "async": {"aiohttp": 0.8},
    "async 64": {"aiohttp": 0.6},
    "stream": dict.fromkeys(SDKS, 1.0),
}
_STARTED = {
    OURS: "from livepeer.client import Gateway; Gateway(orch_url={base!r}).run('bench', input={{'a': 1}})",
    "httpx": "import httpx; httpx.Client().post({base!r} + '/apps/bench/run', json={{'a': 1}}).json()",
    "aiohttp": (
        "import aiohttp, asyncio\n"
        "async def main():\n"
        "    async with aiohttp.ClientSession() as session:\n"
        "        async with session.post({base!r} + '/apps/bench/run', json={{'a': 1}}) as answer:\n"
        "            await answer.json()\n"
        "asyncio.run(main())"
    ),
}


class Caller:
    """One library's process."""

    def __init__(self, name: str, base: str) -> None:
        self.name = name
        command = [_python(name), "-m", "callers.drive", name, base]
        self._process = subprocess.Popen(
            command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read()

    def measure(self, kind: str) -> dict[str, float]:
        """A short round."""
        _pipe(self._process.stdin).write(f"{kind}\n")
        _pipe(self._process.stdin).flush()
        return self._read()

    def close(self) -> None:
        """End it."""
        _pipe(self._process.stdin).close()
        self._process.wait(10)

    def _read(self) -> dict[str, float]:
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise SideFailed(f"{self.name} failed (exit code {self._process.wait(10)}); its words are above.")
        found: dict[str, float] = json.loads(line)
        return found


def main(options: Options) -> list[Row]:
    """Let each library have a short round in turn, so that all of them meet the machine's moods."""
    names = [OURS, "aiohttp", *(("httpx", *SDKS) if options.peer else ())]
    rows: list[Row] = []
    with ExitStack() as stack:
        base = stack.enter_context(server())
        callers = [Caller(name, base) for name in names]
        for caller in callers:
            stack.callback(caller.close)
        for kind in _KINDS:
            rows += _rates(kind, callers, _ROUNDS * options.rounds)
        rows += _starts([name for name in _STARTED if name in names], base, _STARTS * options.rounds)
    return rows


def _rates(kind: str, callers: list[Caller], rounds: int) -> Iterator[Row]:
    rates: dict[str, list[float]] = {caller.name: [] for caller in callers}
    cpu: dict[str, list[float]] = {caller.name: [] for caller in callers}
    for number in range(rounds + 1):
        for caller in callers:
            found = caller.measure(kind)
            if number:  # the first one opens the connections
                rates[caller.name].append(found["rate"])
                cpu[caller.name].append(found["cpu"])
    # What else the machine does makes a round slower, and never faster.
    best = {name: percentile(found, 75) for name, found in rates.items()}
    spent = {name: statistics.median(found) for name, found in cpu.items()}
    for caller in callers[1:]:
        name = caller.name
        yield Row(
            f"{kind}: {name}", best[OURS], _KINDS[kind], best[name],
            limit=_LEAST[kind].get(name), at_least=True,
            note=f"CPU {spent[OURS]:.0f} and {spent[name]:.0f} µs each",
        )  # fmt: skip


def _starts(names: list[str], base: str, rounds: int) -> Iterator[Row]:
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names:
            began = time.perf_counter()
            subprocess.run([_python(name), "-c", _STARTED[name].format(base=base)], check=True)
            if number:  # the first one compiles
                times[name].append(1000 * (time.perf_counter() - began))
    quick = {name: percentile(found, 25) for name, found in times.items()}
    for name in names[1:]:
        limit = 1.0 if name == "httpx" else None
        yield Row(f"import, first call, exit: {name}", quick[OURS], "ms", quick[name], limit=limit)


def _python(name: str) -> str:
    """The interpreter with a library: the project's own for ours, and for the aiohttp that it uses."""
    return sys.executable if name in (OURS, "aiohttp") else str(callers_python())


@contextmanager
def server() -> Iterator[str]:
    """The URL of the server, in a process of its own."""
    command = [sys.executable, "-m", "callers.server"]
    process = subprocess.Popen(command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        port = _pipe(process.stdout).readline().strip()
        if not port:
            raise SideFailed("the server did not start; its words are above.")
        yield f"http://127.0.0.1:{port}"
    finally:
        _pipe(process.stdin).close()
        process.wait(10)


def _pipe(end: IO[str] | None) -> IO[str]:
    assert end is not None
    return end
