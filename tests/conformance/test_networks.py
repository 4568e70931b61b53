"""Which networks these tests run on."""

from __future__ import annotations

import aiohttp
import pytest
from harness import UNVERIFIED, Network


def test_a_real_orchestrator_is_among_them(request: pytest.FixtureRequest) -> None:
    """Skipped, with the one line that says what to do, when there is none."""
    if not request.config.getoption("--go-livepeer"):
        pytest.skip(
            "every test here ran on the embedded network only: for a real one give --go-livepeer PATH "
            "(binaries are among the releases of github.com/livepeer/go-livepeer)"
        )


async def test_the_network_answers(network: Network) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{network.url}/discovery", ssl=UNVERIFIED) as answer,
    ):
        assert answer.status == 200
        assert (await answer.json())[0]["address"] == network.url
