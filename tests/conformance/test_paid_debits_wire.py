"""What an orchestrator charges every five seconds, on the wire, and what becomes of who has too little.

One wait serves all: each session of the test is in another state when the first charges come.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from harness import UNVERIFIED, until
from paid_harness import PaidNetwork
from paid_workers import PaidWorker, Runner
from payer import Payer

pytestmark = pytest.mark.slow

SECOND = 50_000_000_000
FRAMES = 1280 * 720 * 30


async def reserve(payer: Payer, runner: Runner, kind: str) -> dict[str, Any]:
    """A session that is paid as if its price were of another kind."""
    challenge = await payer.challenge(runner.entry)
    headers, _ = await payer.sign(challenge, kind)
    answer = await payer.post(runner.entry, headers=headers)
    assert answer.status == 200, answer
    return {**challenge, **answer.json()}


async def released(worker: PaidWorker, runner: Runner, session: str) -> None:
    """Wait until the orchestrator has told the runner of a session's end."""
    url, number = runner.told["o2r"]["url"], 0
    while True:
        async with worker.request("GET", f"{url}/{number}") as answer:
            text = (await answer.text()).strip()
            assert answer.status == 200, (answer.status, text)
            assert "Lp-Trickle-Closed" not in answer.headers, "the channel is over"
        told = json.loads(text)
        if (told.get("event"), told.get("session")) == ("released", session):
            return
        number += 1


async def test_who_pays_too_little_is_dropped_and_who_pays_is_not(
    paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    seconds, pixels = await paid_worker.price("seconds"), await paid_worker.price("720p-pixel-seconds")
    fixed = await paid_worker.price("fixed")
    call = await paid_worker.price("seconds", "single-shot")
    fixed_call = await paid_worker.price("fixed", "single-shot")
    short = await reserve(payer, seconds, "fixed")  # one second of it
    wrong = await reserve(payer, pixels, "live")  # ten pixels of it
    settled = await reserve(payer, fixed, "fixed")
    challenge, _, _, kept = await payer.session(seconds)

    async def post_slow(runner: Runner, kind: str, seconds: int) -> tuple[int, str]:
        headers, _ = await payer.sign(await payer.challenge(runner.entry), kind)
        return (await payer.post(f"{runner.url}/app/slow?seconds={seconds}", headers=headers)).said

    hearing = asyncio.create_task(released(paid_worker, pixels, wrong["manifest_id"]))
    async with aiohttp.ClientSession() as http:
        stream = await http.get(f"{short['app_url']}/sse", ssl=UNVERIFIED)
        socket = await http.ws_connect(f"{short['app_url']}/ws".replace("https", "wss"), ssl=UNVERIFIED)
        cut = asyncio.create_task(post_slow(call, "fixed", 3600))
        whole = asyncio.create_task(post_slow(fixed_call, "fixed", 8))
        assert (await payer.post(f"{short['app_url']}/run")).status == 200

        async def gone() -> bool:
            statuses = [(await payer.post(f"{one['app_url']}/run")).status for one in (short, wrong)]
            assert set(statuses) <= {200, 404}
            return statuses == [404, 404]

        await until(gone, 90)
        await hearing
        # top-ups would come too late
        more, _ = await payer.sign(short, "live")
        for one in (short, wrong):
            answer = await payer.post(one["payment_url"], headers=more)
            assert answer.said == (404, "runner session not found\n")
        # what was under way in a session goes on, a call of its own doesn't
        assert (await cut) == (502, "context canceled\n")
        await stream.content.readuntil(b"\n\n")
        await socket.send_str("still")
        assert (await socket.receive_str()) == "echo still"
        await socket.close()
        stream.close()
        assert await whole == (200, '{"slept": true}')  # a fixed price is that of the whole call
    assert (await payer.post(f"{settled['app_url']}/run")).status == 200
    assert paid_network.debited(settled["manifest_id"]) == 5 * SECOND
    for one in (short, wrong):
        assert paid_network.debited(one["manifest_id"]) == 0  # nobody is charged in part

    async def charged() -> bool:
        return paid_network.debited(challenge["manifest_id"]) > 0

    await until(charged)
    manifest_id = challenge["manifest_id"]
    assert paid_network.debited(manifest_id) % SECOND == 0
    assert (await payer.post(f"{kept['app_url']}/run")).status == 200
    await asyncio.gather(*(payer.post(f"{one['control_url']}/stop") for one in (kept, settled)))
    assert paid_network.balance(manifest_id) < paid_network.credited(manifest_id)
