"""`Gateway.check`, and what ``livepeer doctor`` shows of it."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import os
import subprocess
import sys
from typing import Any

from byoc_harness import ByocWorker
from harness import Network, Worker, free_port
from node_harness import PRICE, NodeNetwork

from livepeer.client import Diagnosis, Gateway


def told(diagnosis: Diagnosis) -> list[tuple[str, str, bool | None]]:
    return [(one.subject, one.where, one.ok) for one in diagnosis.findings]


def doctor(*arguments: str, **environment: str) -> Any:
    """Run the command; its result has `returncode`, `stdout` and `stderr`."""
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("LIVEPEER_")}
    return subprocess.run(
        [sys.executable, "-c", "from livepeer.devkit.cli import main; main()", "doctor", *arguments],
        capture_output=True,
        env=quiet | {"COLUMNS": "200"} | environment,
        check=False,
        timeout=100,
    )


async def test_a_free_network(network: Network, worker: Worker) -> None:
    runner, name = await worker.register(), await worker.register_byoc()
    async with Gateway(orch_url=network.url) as gw:
        found = await gw.check_async()
    assert found.ok
    assert told(found) == [
        ("configuration", "", True), ("orchestrator", network.url, True), ("capabilities", "", True),
    ]  # fmt: skip
    assert "offchain" in found.findings[1].detail
    assert {one.name for one in found.capabilities} >= {runner["app"], name}
    assert f"{name}" in str(found)
    assert "free" in str(found)


async def test_a_signer_and_what_things_cost(node_network: NodeNetwork, node_worker: Worker) -> None:
    byoc = await ByocWorker.make(node_worker, capacity=2, price_per_unit=PRICE)
    hourly = await node_worker.register(price_info={"price": "0.36", "currency": "usd", "unit": "hour"})
    called = await node_worker.register(price_info={"price": "0.001", "currency": "usd", "unit": "fixed"})
    async with Gateway(orch_url=node_network.url, signer_url=node_network.signer) as gw:
        found = await gw.check_async()
        signed = await gw.check_async(sign=True)
    address = next(one.where for one in found.findings if one.subject == "funds")
    assert told(found) == [
        ("configuration", "", True), ("signer", node_network.signer, True),
        ("orchestrator", node_network.url, True), ("funds", address, None), ("capabilities", "", True),
    ]  # fmt: skip
    assert ("funds", address, True) in told(signed)
    assert found.ok
    assert signed.ok
    assert address in found.findings[1].detail
    assert "runs on a chain" in found.findings[2].detail
    lines = str(found).splitlines()
    # At 2000 US dollars for one ETH.
    assert next(line for line in lines if hourly["app"] in line).endswith("0.00018 ETH an hour")
    assert next(line for line in lines if called["app"] in line).endswith("500 gwei a call")
    assert next(line for line in lines if byoc.capability in line).endswith("0.0036 gwei an hour")
    assert byoc.asked == []


async def test_a_signer_alone_lists_orchestrators(node_network: NodeNetwork, node_worker: Worker) -> None:
    await node_worker.register(price_info={"price": "0.36", "currency": "usd", "unit": "hour"})
    async with Gateway(signer_url=node_network.signer) as gw:
        deadline = asyncio.get_running_loop().time() + 60
        found = await gw.check_async()
        while ("discovery", node_network.signer, True) not in told(found):
            assert asyncio.get_running_loop().time() < deadline, str(found)  # it looks around every 3 s
            await asyncio.sleep(0.2)
            found = await gw.check_async()
    assert ("orchestrator", node_network.url, True) in told(found)


async def test_wallets_without_funds(node_network: NodeNetwork) -> None:
    for name, words in (("poor", "max faceValue"), ("bare", "reserve is too low")):
        async with Gateway(orch_url=node_network.url, signer_url=node_network.signers[name]) as gw:
            found = await gw.check_async(sign=True)
        [funds] = [one for one in found.findings if one.subject == "funds"]
        assert (found.ok, funds.ok) == (False, False)
        assert words in funds.detail
        assert funds.where in (funds.hint or "")  # the address to fund


async def test_a_gateway_node(node_network: NodeNetwork, node_worker: Worker) -> None:
    byoc = await ByocWorker.make(node_worker, capacity=2, price_per_unit=PRICE)
    places = {"gateway_url": node_network.gateway, "orch_url": node_network.url}
    async with Gateway(**places) as gw:
        found = await gw.check_async()
    assert found.ok
    assert told(found) == [
        ("configuration", "", True), ("gateway node", node_network.gateway, True),
        ("orchestrator", node_network.url, True), ("capabilities", "", None),
    ]  # fmt: skip
    async with Gateway(**places, signer_url=node_network.signer) as gw:
        found = await gw.check_async()
    assert byoc.capability in {one.name for one in found.capabilities}
    assert byoc.asked == []


async def test_what_does_not_work(node_network: NodeNetwork) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    async with Gateway(gateway_url=node_network.signer, orch_url=nowhere, signer_url=nowhere) as gw:
        found = await gw.check_async()
    assert not found.ok
    assert told(found)[:3] == [
        ("configuration", "", True), ("gateway node", node_network.signer, False), ("signer", nowhere, False),
    ]  # fmt: skip
    async with Gateway(orch_url=nowhere) as gw:
        found = await gw.check_async()
    assert ("orchestrator", nowhere, False) in told(found)
    async with Gateway(discovery_url=f"{node_network.url}/nothing") as gw:
        found = await gw.check_async()
    assert ("discovery", f"{node_network.url}/nothing", False) in told(found)


async def test_the_command(node_network: NodeNetwork, node_worker: Worker) -> None:
    await node_worker.register(price_info={"price": "0.36", "currency": "usd", "unit": "hour"})
    token = {
        "orchestrators": [node_network.url],
        "signer": node_network.signer,
        "signer_headers": {"Authorization": "Bearer hush-hush"},
    }
    text = base64.b64encode(json.dumps(token).encode()).decode()
    done = await asyncio.to_thread(doctor, LIVEPEER_TOKEN=text)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode()
    for words in ("signer", node_network.signer, "takes its headers", "0.00018 ETH an hour"):
        assert words in shown
    assert "hush" not in shown + done.stderr.decode()
    assert text not in shown

    done = await asyncio.to_thread(doctor, "--json", "--sign", LIVEPEER_TOKEN=text)
    found = json.loads(done.stdout)
    assert (done.returncode, found["ok"]) == (0, True)
    assert [one["ok"] for one in found["findings"] if one["subject"] == "funds"] == [True]

    bare = ["--orch-url", node_network.url, "--signer-url", node_network.signers["bare"]]
    done = await asyncio.to_thread(doctor, *bare)
    assert (done.returncode, b"FAILED" in done.stdout) == (1, True)
    done = await asyncio.to_thread(doctor)
    assert (done.returncode, b"livepeer dev" in done.stdout) == (1, True)
    assert b"Traceback" not in done.stderr


async def test_no_secret_is_shown(node_network: NodeNetwork) -> None:
    signer = node_network.signer.replace("http://", "http://user:hush@") + "?key=hush"
    headers = {"Authorization": "hush"}
    async with Gateway(orch_url=node_network.url, signer_url=signer, signer_headers=headers) as gw:
        found = await gw.check_async(sign=True)
    assert found.ok, str(found)
    assert "hush" not in str(found) + repr(found) + json.dumps(dataclasses.asdict(found))
