"""Many calls at once over one gateway, through an orchestrator."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import Any

from aiohttp import web
from harness import Network, Worker

from livepeer.client import Gateway, Timeout

AT_ONCE = 250  # a thousand outlast the registration when the machine is busy
PATIENCE = 100.0  # seconds for what takes a few on an idle machine


async def echo(request: web.Request) -> web.Response:
    """The body, as it came, with its type."""
    return web.Response(body=await request.read(), headers={"Content-Type": request.content_type})


async def test_hundreds_of_calls_at_once(network: Network, worker: Worker) -> None:
    """They share one look at what there is, and each has its own answer; so have threads and other loops."""
    worker.routes.add_post("/run", echo)
    app = (await worker.register(capacity=AT_ONCE))["app"]
    gateway = Gateway(orch_url=network.url)
    try:
        limits = Timeout(connect=PATIENCE, total=PATIENCE)
        calls = (gateway.run_async(app, input={"n": n}, timeout=limits) for n in range(AT_ONCE))
        assert await asyncio.gather(*calls) == [{"n": n} for n in range(AT_ONCE)]

        def elsewhere(number: int) -> Any:
            if number % 4:
                return gateway.run(app, input=number, timeout=limits)
            return asyncio.run(gateway.run_async(app, input=number, timeout=limits))

        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            loop = asyncio.get_running_loop()
            threads = (loop.run_in_executor(pool, elsewhere, number) for number in range(64))
            assert await asyncio.gather(*threads) == list(range(64))
    finally:
        await gateway.aclose()
