"""A gateway node by hand, in front of orchestrators on a chain (PROTOCOL sections 3 and 7)."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from byoc_harness import ByocWorker, job, job_header
from harness import Worker
from node_harness import PRICE, NodeNetwork, Through, answer, events

NOBODY = "No orchestrators found for capability {}\n"


@pytest.fixture
async def through(node_network: NodeNetwork, node_worker: Worker) -> Through:
    """A bare worker with a price, and the way to it through the node."""
    return Through(await ByocWorker.make(node_worker, capacity=8, price_per_unit=PRICE), node_network)


class TestAnswers:
    async def test_a_result_loses_its_type(self, through: Through) -> None:
        through.byoc.answer = answer(body=b'{"a": 1}', kind="application/json")
        reply = await through.call("some/route", data=b"\x00body", kind="audio/x-thing")
        assert (reply.status, reply.body) == (200, b'{"a": 1}')
        assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert reply.headers["X-Orchestrator-Url"] == through.network.url
        assert reply.headers["X-Metadata"] == "told"
        assert int(reply.headers["Livepeer-Balance"]) > 0
        [asked] = through.byoc.asked
        assert (asked.path, asked.body) == ("/some/route", b"\x00body")
        assert asked.headers["Content-Type"] == "audio/x-thing"
        assert not any(name.lower().startswith("livepeer") for name in asked.headers)

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            (b"\x89PNG\r\n\x1a\n" + bytes(20), "image/png"),
            (bytes(range(200, 256)), "text/plain; charset=utf-8"),
            (b"<!DOCTYPE HTML><p>", "text/html; charset=utf-8"),
            (b"\x00\x01", "application/octet-stream"),
        ],
    )
    async def test_a_type_is_guessed(self, through: Through, body: bytes, kind: str) -> None:
        through.byoc.answer = answer(body=body, kind="application/x-thing")
        reply = await through.call()
        assert (reply.body, reply.headers["Content-Type"]) == (body, kind)

    async def test_an_empty_result(self, through: Through) -> None:
        through.byoc.answer = answer()
        reply = await through.call()
        assert (reply.status, reply.body, "Content-Type" in reply.headers) == (200, b"", False)
        assert reply.headers["X-Orchestrator-Url"] == through.network.url

    @pytest.mark.parametrize("status", [400, 404, 405, 422, 429])
    async def test_a_workers_refusal_gets_two_newlines(self, through: Through, status: int) -> None:
        through.byoc.answer = answer(status, b"why not", kind="application/json")
        reply = await through.call()
        assert (reply.status, reply.body) == (status, b"why not\n\n")
        assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert not {"X-Orchestrator-Url", "X-Metadata", "Livepeer-Balance"} & set(reply.headers)

    @pytest.mark.parametrize("status", [401, 500, 503])
    async def test_a_workers_failure_is_an_empty_200(self, through: Through, status: int) -> None:
        through.byoc.answer = answer(status, b"why not")
        await self._nothing(through)

    async def test_a_workers_death_is_one_too(self, through: Through) -> None:
        async def die(request: web.Request) -> web.Response:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        through.byoc.answer = die
        await self._nothing(through)

    async def test_a_worker_that_takes_too_long_is_one_too(self, through: Through) -> None:
        async def wait(_: web.Request) -> web.Response:
            await asyncio.sleep(60)
            return web.Response()

        through.byoc.answer = wait
        await self._nothing(through, timeout=1)

    async def _nothing(self, through: Through, **options: Any) -> None:
        reply = await through.call(**options)
        assert (reply.status, reply.body) == (200, b"")
        assert "X-Orchestrator-Url" not in reply.headers
        assert len(through.byoc.asked) == 1


class TestTheNextOrchestrator:
    @pytest.fixture
    async def twice(self, through: Through) -> Any:
        """The worker, registered at both."""
        name, network = through.byoc.capability, through.network
        await network.register_at_other(through.byoc.worker, name, price_per_unit=PRICE)
        yield through
        await network.unregister_at_other(through.byoc.worker, name)

    @pytest.mark.parametrize("everybody", [True, False])
    async def test_a_job_that_fails_is_made_again(self, twice: Through, everybody: bool) -> None:
        twice.byoc.answer = answer(500)
        both = [] if everybody else [twice.network.url, twice.network.other]
        assert (await twice.call(include=both)).body == b""
        assert len(twice.byoc.asked) == 2

    async def test_a_refused_one_is_not(self, twice: Through) -> None:
        twice.byoc.answer = answer(400)
        assert (await twice.call(include=[])).status == 400
        assert len(twice.byoc.asked) == 1

    async def test_behind_done_comes_the_next_stream(self, twice: Through) -> None:
        twice.byoc.answer = events(b"data: a\n\n", b"data: [DONE]\n\n", b"data: behind\n\n")
        reply = await twice.call(include=[])
        assert (reply.status, reply.headers["Content-Type"]) == (200, "text/event-stream")
        first, second, rest = reply.text.split("data: [DONE]\n")
        for part in (first, second):
            lines = part.split("\n")
            assert lines[:2] == ["data: a", ""]
            assert lines[2].startswith('data: {"balance": ')
        assert (rest, len(twice.byoc.asked)) == ("", 2)

    async def test_one_alone_is_the_end(self, twice: Through) -> None:
        twice.byoc.answer = events(b"data: a\n\n", b"data: [DONE]\n\n")
        reply = await twice.call()
        assert (reply.text.count("[DONE]"), len(twice.byoc.asked)) == (1, 1)
        assert reply.headers["X-Orchestrator-Url"] == twice.network.url
        assert (reply.headers["X-Metadata"], reply.headers["Livepeer-Balance"]) == ("told", "")


class TestStreams:
    async def test_one_without_done_never_ends(self, through: Through) -> None:
        through.byoc.answer = events(b"data: a\n\n")
        reply = await through.call(most=2000)
        assert reply.body == b"data: a\n\n" + b"\n" * (2000 - 9)

    async def test_done_anywhere_in_a_line_is_the_end(self, through: Through) -> None:
        through.byoc.answer = events(b'data: {"text": "[DONE]"}\n\n', b"data: lost\n\n")
        reply = await through.call()
        assert reply.text.endswith('data: {"text": "[DONE]"}\n')


class TestRefusals:
    async def test_an_unknown_capability(self, through: Through) -> None:
        reply = await through.call(capability="never-was")
        assert (reply.status, reply.text) == (400, NOBODY.format("never-was"))

    @pytest.mark.parametrize("change", [lambda url: url + "/", lambda _: "https://nobody.invalid:1"])
    async def test_an_orchestrator_that_is_spelt_otherwise(
        self, through: Through, change: Callable[[str], str]
    ) -> None:
        reply = await through.call(include=[change(through.network.url)])
        assert (reply.status, reply.text) == (400, NOBODY.format(through.byoc.capability))
        assert through.byoc.asked == []

    async def test_a_capability_without_a_free_place(
        self, node_network: NodeNetwork, node_worker: Worker
    ) -> None:
        full = Through(await ByocWorker.make(node_worker, capacity=0), node_network)
        reply = await full.call()
        assert (reply.status, reply.text) == (400, NOBODY.format(full.byoc.capability))

    @pytest.mark.parametrize(
        ("fields", "complaint"),
        [
            (
                {"timeout_seconds": 0},
                "Unable to parse job request, err=no timeout_seconds set with request, "
                "timeout_seconds is required\n",
            ),
            (
                {"request": "x"},
                "Unable to unmarshal job request err=invalid character 'x' looking for beginning of value\n",
            ),
            (
                {"parameters": ""},
                "Unable to unmarshal job parameters err=unexpected end of JSON input\n",
            ),
        ],
    )
    async def test_jobs_that_are_none(self, through: Through, fields: dict[str, Any], complaint: str) -> None:
        reply = await through.call(**fields)
        assert (reply.status, reply.text) == (400, complaint)

    async def test_a_header_that_is_no_job(self, through: Through) -> None:
        reply = await through.call(headers={"Livepeer": "no base64!"})
        assert (reply.status, reply.text) == (400, "Unable to parse job request, err=ErrorSegEncoding\n")

    async def test_other_methods(self, through: Through) -> None:
        reply = await through.call(method="PUT")
        assert (reply.status, reply.text) == (405, "Method not allowed\n")

    async def test_it_tells_nobody_what_it_knows(self, through: Through) -> None:
        for path in ("/", "/status", "/discovery", "/getNetworkCapabilities"):
            url = through.network.gateway + path
            assert await through.byoc.worker.ask("GET", url) == (404, "404 page not found\n")


class TestMoney:
    async def test_a_job_is_paid_for_its_timeout_and_needs_a_minute(
        self, node_network: NodeNetwork, node_worker: Worker
    ) -> None:
        """Ten seconds at a ticket's worth in eight are two tickets, and the minute costs eight."""
        dear = Through(await ByocWorker.make(node_worker, capacity=4, price_per_unit=10**9), node_network)
        reply = await dear.call(timeout=10)
        assert (reply.status, reply.text) == (400, "Insufficient balance for request\n\n")
        assert dear.byoc.asked == []
        reply = await dear.call(timeout=60)
        assert reply.status == 200
        # What was refused is on the account, too, and the work is off it, in whole seconds.
        charged = (2 + 8) * 8 * 10**9 - int(reply.headers["Livepeer-Balance"])
        assert charged >= 10**9
        assert charged % 10**9 == 0

    async def test_nothing_is_paid_while_two_minutes_are_left(self, through: Through) -> None:
        balances = [8 * 10**9]
        for _ in range(3):
            balances.append(int((await through.call()).headers["Livepeer-Balance"]))
        charged = [before - after for before, after in pairwise(balances)]
        assert all(wei >= PRICE and wei % PRICE == 0 for wei in charged), charged

    async def test_what_is_free_costs_nothing(self, node_network: NodeNetwork, node_worker: Worker) -> None:
        free = Through(await ByocWorker.make(node_worker), node_network)
        assert (await free.call(timeout=1)).headers["Livepeer-Balance"] == "0"


class TestDirectly:
    """The same orchestrators, asked by a caller without a wallet, and by one whose signer has one."""

    async def test_a_job_without_a_signature(self, through: Through) -> None:
        reply = await through.byoc.call()
        assert (reply.status, reply.text) == (400, "Could not verify job creds\n")

    async def test_a_job_with_a_wrong_one(self, through: Through) -> None:
        identity = await _identity(through)
        signed = {"sender": identity["addr"], "sig": "0x" + "ab" * 65}
        reply = await through.byoc.call(headers={"Livepeer": job_header(through.byoc.capability, **signed)})
        assert (reply.status, reply.text) == (400, "Could not verify job creds\n")

    async def test_even_what_is_free_wants_one(self, node_network: NodeNetwork, node_worker: Worker) -> None:
        free = await ByocWorker.make(node_worker)
        reply = await free.call(headers=job(free.capability))
        assert (reply.status, reply.text) == (400, "Could not verify job creds\n")

    @pytest.mark.parametrize(
        "sender", [{"addr": "", "sig": ""}, {"addr": "0x" + "00" * 20, "sig": "0x" + "00" * 65}]
    )
    async def test_a_token_is_for_a_signed_wallet(self, through: Through, sender: dict[str, str]) -> None:
        status, text = await _token(through, through.byoc.capability, sender)
        assert (status, text) == (400, "Invalid eth address header \n")

    async def test_a_token_tells_a_wallet_what_there_is(self, through: Through) -> None:
        identity = await _identity(through)
        status, text = await _token(through, through.byoc.capability, identity)
        told = json.loads(text)
        assert (status, told["sender_address"]) == (200, identity)
        assert told["price"] == {"pricePerUnit": PRICE, "pixelsPerUnit": 1}
        assert (told["available_capacity"], told["service_addr"]) == (8, through.network.url)
        assert set(told["ticket_params"]) == {
            "recipient", "face_value", "win_prob", "recipient_rand_hash", "seed", "expiration_block",
            "expiration_params",
        }  # fmt: skip
        assert "balance" not in told

    async def test_an_unknown_capability_is_free_and_has_no_place(self, through: Through) -> None:
        _, text = await _token(through, "never-was", await _identity(through))
        told = json.loads(text)
        assert told["price"] == {"pixelsPerUnit": 1}
        assert not {"available_capacity", "balance"} & set(told)
        assert not {"face_value", "win_prob"} & set(told["ticket_params"])


async def _identity(through: Through) -> dict[str, str]:
    """The signer's address, signed."""
    url = f"{through.network.signer}/sign-orchestrator-info"
    status, text = await through.byoc.worker.ask("POST", url, data="{}")
    assert status == 200
    told = json.loads(text)
    return {"addr": told["address"], "sig": told["signature"]}


async def _token(through: Through, capability: str, sender: dict[str, str]) -> tuple[int, str]:
    headers = {
        "Livepeer-Eth-Address": base64.b64encode(json.dumps(sender).encode()).decode(),
        "Livepeer-Capability": capability,
    }
    url = f"{through.network.url}/process/token"
    return await through.byoc.worker.ask("GET", url, headers=headers)
