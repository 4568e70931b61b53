"""Runners to be lost and found again, here or in a process of their own: `python restart_worker.py JSON`.

The argument is a JSON object: the arguments of `runners`. A line of JSON with the runners' own URLs follows
when all of them are registered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from livepeer.runner import LivePipeline, Pipeline, RunningServer, running
from livepeer.runner.options import RunnerOptions, Way
from livepeer.trickle import TLSPolicy
from livepeer.trickle.media import VideoFrame


class Waiting(Pipeline):
    """Doubles a number, after so many seconds."""

    capacity = 4

    async def run(self, number: int, seconds: float = 0.0) -> int:
        await asyncio.sleep(seconds)
        return 2 * number


class Ticking(Pipeline):
    """Counts, 20 times a second."""

    capacity = 4

    async def run(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number
            await asyncio.sleep(0.05)


class Passing(LivePipeline):
    """Gives frames back as they are."""

    def process_video(self, frame: VideoFrame) -> VideoFrame:
        return frame


class Talking(LivePipeline):
    """Says what becomes of its sessions; no media."""

    capacity = 4

    def on_stream_start(self, params: dict[str, Any]) -> None:
        self.emit_event({"type": "begun"})

    def on_params_update(self, params: dict[str, Any]) -> None:
        self.emit_event({"type": "params", **params})


KINDS: dict[str, tuple[type[Pipeline] | type[LivePipeline], Way]] = {
    "waiting": (Waiting, "live-runner"),
    "ticking": (Ticking, "live-runner"),
    "talking": (Talking, "live-runner"),
    "passing": (Passing, "live-runner"),
    "byoc-waiting": (Waiting, "byoc"),
    "byoc-ticking": (Ticking, "byoc"),
    "byoc-talking": (Talking, "byoc"),
    "byoc-passing": (Passing, "byoc"),
}


@asynccontextmanager
async def runners(
    orch_url: str, secret: str, names: dict[str, str], ids: dict[str, str] | None = None
) -> AsyncIterator[dict[str, RunningServer]]:
    """One runner of each kind that has a name; they have one memory of certificates."""
    tls = TLSPolicy("pin", repin_after=1.0)  # 10 s: too long for a test
    async with contextlib.AsyncExitStack() as stack:
        servers = {}
        for kind, name in names.items():
            pipeline, how = KINDS[kind]
            options: RunnerOptions = {"name": name, "orch_url": orch_url, "secret": secret, "tls": tls}
            options |= {"register": how, "runner_id": (ids or {}).get(kind)}
            servers[kind] = await stack.enter_async_context(running(pipeline(), **options))
        yield servers


class RunnerProcess:
    """The same in a process of its own; a context manager."""

    def __init__(
        self, orch_url: str, secret: str, names: dict[str, str], ids: dict[str, str] | None = None
    ) -> None:
        settings = {"orch_url": orch_url, "secret": secret, "names": names, "ids": ids or {}}
        self.process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.urls: dict[str, str] = {}

    def __enter__(self) -> RunnerProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.communicate()

    def registered(self) -> None:
        """Wait until all runners are."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the runners did not register"
        self.urls = json.loads(line)

    async def in_use(self, kind: str) -> int:
        """How many places of a runner are taken."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.urls[kind]}/health") as answer:
            taken: int = (await answer.json())["in_use"]
            return taken


async def main(settings: dict[str, Any]) -> None:
    async with runners(**settings) as servers:
        for server in servers.values():
            await server.registered(60)
        print(json.dumps({kind: server.url for kind, server in servers.items()}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
