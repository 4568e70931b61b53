from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from livepeer.devkit.network.orchestrator import Orchestrator, listen

Register = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
async def orchestrator() -> AsyncIterator[Orchestrator]:
    async with Orchestrator(listen(), secret="secret") as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=False, limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@pytest.fixture
async def serve_worker() -> AsyncIterator[Callable[[web.Application], Awaitable[str]]]:
    runners = []

    async def serve(app: web.Application) -> str:
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield serve
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
def register(orchestrator: Orchestrator, http: aiohttp.ClientSession) -> Register:
    async def beat(runner_url: str, *, authorization: str = "secret", **fields: Any) -> dict[str, Any]:
        body = {"runner_url": runner_url, "app": "test", "mode": "single-shot", "capacity": 4} | fields
        async with http.post(
            f"{orchestrator.url}/runners/heartbeat", json=body, headers={"Authorization": authorization}
        ) as answer:
            assert answer.status == 200, await answer.text()
            return dict(await answer.json())

    return beat


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Whether a process is gone; one that nobody has waited for yet is."""

    def is_gone(pid: int) -> bool:
        status = Path(f"/proc/{pid}/status")
        if Path("/proc/self/status").exists():
            return not status.exists() or "State:\tZ" in status.read_text()
        try:
            os.kill(pid, 0)
        except OSError:
            return True
        return False

    return is_gone
