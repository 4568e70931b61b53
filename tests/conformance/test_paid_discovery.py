"""Calls of a gateway that knows its signer alone: `/discover-orchestrators` leads to the orchestrators."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from paid_harness import PaidNetwork
from paid_workers import PaidApps

from livepeer.client import CapabilityNotFound, Gateway, LivepeerError

APP = "paid/fixed/single-shot"
PATIENCE = 60.0  # seconds; the signer looks at the orchestrators every few


async def listed(gateway: Gateway, app: str) -> Any:
    """The result of a call, once the signer knows the app."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await gateway.call_async(app, input={"a": 1}, path="/x")
            except LivepeerError as error:
                if not error.retryable and not isinstance(error, CapabilityNotFound):
                    raise
            await asyncio.sleep(0.2)


async def test_a_signer_is_enough(paid_network: PaidNetwork, paid_apps: PaidApps) -> None:
    async with Gateway(signer_url=paid_network.signer_url, signer_headers={"X-Of": "mine"}) as gateway:
        response = await listed(gateway, APP)
        assert response.data == {"path": "/x", "size": 7}
        assert response.orchestrator == paid_network.url
        assert gateway.spent == response.cost > 0
        told = await gateway.explain_async(APP)
        assert [one.where for one in told.candidates if one.usable] != []
        with pytest.raises(CapabilityNotFound, match=f"mean '{APP}'"):
            await gateway.run_async(APP[:-1])
    assert all("X-Of" not in one.headers for one in paid_apps.got), "its headers go to the signer alone"


async def test_signers_fail_over(paid_network: PaidNetwork, paid_apps: PaidApps) -> None:
    async with Gateway(signer_url=["http://127.0.0.1:1", paid_network.signer_url]) as gateway:
        assert (await listed(gateway, APP)).data == {"path": "/x", "size": 7}
