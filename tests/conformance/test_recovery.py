"""An orchestrator that restarts: runners come back by themselves, and the client accepts its certificate."""

from __future__ import annotations

import asyncio

import pytest
from harness import Network, until

from livepeer.client import ConnectionFailed, Gateway, LivepeerError
from livepeer.runner import Pipeline, running


class Double(Pipeline):
    """Doubles a number."""

    def run(self, number: int) -> int:
        return 2 * number


@pytest.mark.timeout(60)
async def test_runner_and_client_survive_a_restart(fresh_network: Network) -> None:
    async with (
        running(Double(), name="double", orch_url=fresh_network.url, secret=fresh_network.secret) as server,
        Gateway(orch_url=fresh_network.url) as gateway,
    ):
        await server.registered()
        assert await gateway.run_async("double", input={"number": 4}) == 8
        await asyncio.to_thread(fresh_network.restart)
        with pytest.raises(ConnectionFailed, match="certificate"):
            await gateway.run_async("double", input={"number": 5})

        async def works() -> bool:
            try:
                return bool(await gateway.run_async("double", input={"number": 6}) == 12)
            except LivepeerError:
                await asyncio.sleep(0.2)
                return False

        await until(works, patience=30)


@pytest.mark.timeout(60)
async def test_a_runner_that_starts_first_waits_for_its_orchestrator(fresh_network: Network) -> None:
    url, secret = fresh_network.url, fresh_network.secret
    fresh_network.stop()
    async with running(Double(), name="double", orch_url=url, secret=secret) as server:
        registering = asyncio.create_task(server.registered())
        await asyncio.sleep(0)
        assert not registering.done()
        await asyncio.to_thread(fresh_network.start)
        assert await registering
        async with Gateway(orch_url=url) as gateway:
            assert await gateway.run_async("double", input={"number": 4}) == 8
