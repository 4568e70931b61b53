"""Which networks these tests run on."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from anvil import find_anvil
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


def test_without_npm_the_paid_network_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("LIVEPEER_ANVIL", raising=False)
    with pytest.raises(RuntimeError, match="no npm on PATH"):
        find_anvil()
    monkeypatch.setenv("LIVEPEER_ANVIL", str(tmp_path / "anvil"))
    with pytest.raises(RuntimeError, match="no program that can be run"):
        find_anvil()
