"""`serve` in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from livepeer.runner import ConfigurationError, Pipeline, serve, serving

SCRIPT = """
import logging, sys, threading, time
from livepeer.runner import Pipeline, serve

class Reverse(Pipeline):
    def run(self, text: str) -> str:
        if text == "slow":
            print("running", flush=True)
            time.sleep(0.6)
        if text == "stuck":
            print("running", flush=True)
            threading.Event().wait()
        return text[::-1]

class Upper(Pipeline):
    def run(self, text: str) -> str:
        return text.upper()

logging.getLogger("asyncio").setLevel(logging.ERROR)  # a busy machine makes it tell of slow callbacks
serve(Reverse(), Upper(), port=0, grace=1)
print("bye", flush=True)
"""


class Served:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.urls: dict[str, str] = {}

    async def read_urls(self) -> None:
        assert self.process.stderr
        for _ in range(2):
            name, url, *_ = (await self.process.stderr.readline()).decode().replace(": ", " ").split()
            self.urls[name] = url


@contextlib.asynccontextmanager
async def started(tmp_path: Path, orchestrator: Any) -> AsyncIterator[Served]:
    script = tmp_path / "app.py"
    script.write_text(SCRIPT)
    environment = {
        **os.environ,
        "LIVEPEER_ORCH_URL": orchestrator.url,
        "LIVEPEER_ORCH_SECRET": orchestrator.secret,
    }
    environment.pop("LIVEPEER_RUNNER_URL", None)
    served = Served(
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-X",
            "dev",
            "-W",
            "error",
            str(script),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    )
    try:
        await served.read_urls()
        yield served
    finally:
        if served.process.returncode is None:
            served.process.kill()
            await served.process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_unregisters_and_lets_calls_finish(
    orchestrator: Any, http: aiohttp.ClientSession, tmp_path: Path, number: signal.Signals
) -> None:
    async with started(tmp_path, orchestrator) as served:
        process = served.process
        await orchestrator.until(lambda: len(orchestrator.runners) == 2)
        assert {body["app"]: body["runner_url"] for body in orchestrator.runners.values()} == served.urls
        async with http.post(served.urls["upper"] + "/run", json={"text": "ab"}) as response:
            assert await response.text() == "AB"
        call = asyncio.ensure_future(http.post(served.urls["reverse"] + "/run", json={"text": "slow"}))
        assert process.stdout
        assert await process.stdout.readline() == b"running\n"
        process.send_signal(number)
        async with await call as response:
            assert await response.text() == "wols"
        out, errors = await asyncio.wait_for(process.communicate(), 30)
        # asyncio's debug mode complains of a busy machine, which is not what is tested
        errors = re.sub(rb"(?m)^Executing <.*> took \d+\.\d+ seconds\n", b"", errors)
        assert (process.returncode, out, errors) == (0, b"bye\n", b"")
        assert len(orchestrator.unregistered) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
async def test_code_that_never_returns_does_not_keep_the_process(
    orchestrator: Any, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with started(tmp_path, orchestrator) as served:
        process = served.process
        call = asyncio.ensure_future(http.post(served.urls["reverse"] + "/run", json={"text": "stuck"}))
        assert process.stdout
        assert await process.stdout.readline() == b"running\n"
        process.terminate()
        await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0
        await asyncio.wait({call})
        if not call.exception():
            (await call).close()


class Reverse(Pipeline):
    def run(self, text: str) -> str:
        return text


def test_the_listener_gets_answers_out_at_once() -> None:
    """asyncio sets TCP_NODELAY on what is accepted only when the listener names its protocol."""
    with serving._listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_serve_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIVEPEER_ORCH_SECRET", raising=False)
    with pytest.raises(ConfigurationError, match="needs a pipeline"):
        serve()
    with pytest.raises(ConfigurationError, match="for one pipeline"):
        serve(Reverse(), Reverse(), name="x")
    with pytest.raises(ConfigurationError, match="LIVEPEER_ORCH_SECRET"):
        serve(Reverse(), port=0, orch_url="http://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="is no URL"):
        serve(Reverse(), port=0, orch_url="127.0.0.1:8935", secret="s")
    with pytest.raises(ConfigurationError, match="runner_url="):
        serve(Reverse(), port=0, host="0.0.0.0", orch_url="http://127.0.0.1:1", secret="s")


async def test_serve_in_a_loop_names_the_other_way() -> None:
    with pytest.raises(ConfigurationError, match="async with running"):
        serve(Reverse())
