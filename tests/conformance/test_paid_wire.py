"""Runners with a price, on the wire: the challenge, and the call that is paid.

A bare HTTP caller, a signer, and a bare HTTP worker. What a session pays later is in test_paid_topup_wire.py,
what goes wrong at the signer in test_signer_wire.py.
"""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from harness import dial, free_port, until
from paid_harness import PaidNetwork
from paid_workers import KINDS, MODES, PRICES, PaidWorker
from payer import Payer, message, payment_in, value_of

from livepeer.client._grpc import lp_rpc_pb2 as net

EV = 8_000_000_000  # of a ticket, in wei
FRAMES = 1280 * 720 * 30  # pixels of a second, as every orchestrator counts them
WEI = {"seconds": 50_000_000_000, "720p-pixel-seconds": 251, "fixed": 250_000_000_000}
FIRST = {"seconds": 10, "720p-pixel-seconds": 60 * FRAMES, "fixed": 1}  # units of the first payment
UNITS = pytest.mark.parametrize("unit", PRICES)


@UNITS
@pytest.mark.parametrize("mode", MODES)
async def test_a_challenge_says_all_that_a_signer_needs(
    unit: str, mode: str, paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    runner = await paid_worker.price(unit, mode)
    answer = await payer.post(runner.entry, headers=payer.known, data=b"a body")
    assert (answer.status, answer.headers["Content-Type"]) == (402, "application/json")
    challenge = answer.json()
    manifest_id = challenge["manifest_id"]
    assert challenge == {
        "payment_params": challenge["payment_params"],
        "orchestrator": paid_network.url,
        "manifest_id": manifest_id,
        "payment_url": f"{runner.url}/session/{manifest_id}/payment",
    }
    info = net.OrchestratorInfo.FromString(base64.b64decode(challenge["payment_params"]))
    assert info.transcoder == paid_network.url
    assert (info.price_info.pricePerUnit, info.price_info.pixelsPerUnit) == (WEI[unit], 1)
    assert info.auth_token.session_id == manifest_id
    assert abs(info.auth_token.expiration - time.time() - 30 * 60) < 120
    assert info.ticket_params.recipient == info.address
    face_value = int.from_bytes(info.ticket_params.face_value, "big")
    win_prob = int.from_bytes(info.ticket_params.win_prob, "big")
    assert abs(face_value * win_prob / 2**256 - EV) < 1
    assert int.from_bytes(info.ticket_params.expiration_block, "big") > 0
    assert not paid_worker.got
    assert paid_network.credited(manifest_id) == 0


async def test_a_challenge_comes_before_the_body_and_each_is_another(
    paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    runner = await paid_worker.price("seconds", "single-shot")
    async with dial(paid_network) as wire:
        known = [f"{name}: {value}" for name, value in payer.known.items()]
        await wire.ask("POST", f"{runner.url}/app/run", "Content-Length: 1000000", *known)
        status, _, body = await wire.answer()
    assert status == 402
    assert b"payment_params" in body
    one, other = await payer.challenge(runner.entry), await payer.challenge(runner.entry)
    assert one["manifest_id"] != other["manifest_id"]
    assert one["payment_params"] != other["payment_params"]


@pytest.mark.parametrize("known", [{}, {"Livepeer-Payer-Address": ""}, {"Livepeer-Payer-Address": "0x12"}])
@pytest.mark.parametrize("mode", MODES)
async def test_who_does_not_say_who_pays_gets_no_challenge(
    known: dict[str, str], mode: str, paid_worker: PaidWorker, payer: Payer
) -> None:
    runner = await paid_worker.price("seconds", mode)
    answer = await payer.post(runner.entry, headers=known)
    assert answer.status == 402
    assert answer.json() == {"error": {"message": "invalid live runner payment signer address"}}


@UNITS
@pytest.mark.parametrize("mode", MODES)
async def test_the_first_payment_covers_its_units_rounded_up_to_tickets(
    unit: str, mode: str, paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    runner = await paid_worker.price(unit, mode)
    challenge = await payer.challenge(runner.entry)
    headers, _ = await payer.sign(challenge, KINDS[unit])
    manifest_id, fee = challenge["manifest_id"], FIRST[unit] * WEI[unit]
    assert paid_network.credited(manifest_id) == 0  # nothing is paid by signing
    answer = await payer.post(runner.entry, headers=headers, data=b"abc")
    assert answer.status == 200, answer
    value = value_of(headers)
    assert fee <= value < fee + EV + 1
    assert abs(paid_network.credited(manifest_id) - value) < 0.01
    assert paid_network.debited(manifest_id) == (fee if unit == "fixed" else 0)
    payment = payment_in(headers)
    assert [one.sender_nonce for one in payment.ticket_sender_params] == list(
        range(1, len(payment.ticket_sender_params) + 1)
    )
    if mode == "persistent":
        control = f"{runner.url}/session/{manifest_id}"
        assert answer.json() == {
            "session_id": manifest_id,
            "app_url": f"{control}/app",
            "control_url": control,
        }
        assert not paid_worker.got
        assert (await payer.post(f"{control}/app/run", data=b"abc")).status == 200  # without a payment
    else:
        assert answer.json() == {"path": "/run", "size": 3}
    (got,) = paid_worker.got
    assert got.headers["Livepeer-Session-Id"] == manifest_id


async def test_a_payment_reaches_the_worker_of_a_call(paid_worker: PaidWorker, payer: Payer) -> None:
    runner = await paid_worker.price("seconds", "single-shot", price="0.54")
    headers, _ = await payer.sign(await payer.challenge(runner.entry), "live")
    assert len(payment_in(headers).ticket_sender_params) == 94
    assert (await payer.post(runner.entry, headers=headers)).status == 200
    (got,) = paid_worker.got
    assert got.headers["Livepeer-Payment"] == headers["Livepeer-Payment"]
    assert got.headers["Livepeer-Segment"] == headers["Livepeer-Segment"]
    assert len(headers["Livepeer-Payment"]) > 8190  # the limit of many servers


# ---------------------------------------------------------------------- what is wrong with a payment


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_no_payment_is_refused(mode: str, paid_worker: PaidWorker, payer: Payer) -> None:
    runner = await paid_worker.price("seconds", mode)
    headers, _ = await payer.sign(await payer.challenge(runner.entry), "live")
    payment, segment = ({name: value} for name, value in headers.items())

    async def said(**changed: str) -> tuple[int, str]:
        named = {name.replace("_", "-"): value for name, value in changed.items()}
        return (await payer.post(runner.entry, headers=payer.known | headers | named)).said

    assert await said(Livepeer_Payment="!") == (
        402,
        "base64 decode error: illegal base64 data at input byte 0\n",
    )
    status, text = await said(Livepeer_Payment="AAAA")
    assert (status, text.startswith("protobuf unmarshal error: ")) == (402, True)
    assert await said(Livepeer_Segment="!") == (403, "ErrorSegEncoding\n")
    known = payer.known
    assert (await payer.post(runner.entry, headers=known | payment)).said == (403, "ErrSegSig\n")
    assert (await payer.post(runner.entry, headers=known | segment)).said == (403, "ErrSegSig\n")
    assert not paid_worker.got
    assert (await payer.post(runner.entry, headers=headers)).status == 200  # and it is good after all that


@pytest.mark.parametrize("mode", MODES)
async def test_a_payment_is_for_its_challenge_only(
    mode: str, paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    runner = await paid_worker.price("seconds", mode)
    one, other = await payer.challenge(runner.entry), await payer.challenge(runner.entry)
    for wrong in ({"manifest_id": other["manifest_id"]}, {"manifest_id": ""}):
        headers, _ = await payer.sign(one | wrong, "live")
        assert (await payer.post(runner.entry, headers=headers)).said == (
            403,
            "mismatched manifest and auth token\n",
        )
    assert paid_network.credited(one["manifest_id"]) == paid_network.credited(other["manifest_id"]) == 0
    assert not paid_worker.got


async def test_a_fixed_price_has_to_be_that_of_the_runner(paid_worker: PaidWorker, payer: Payer) -> None:
    runner = await paid_worker.price("fixed", "single-shot")
    cheap = await paid_worker.price("fixed", "single-shot", price="0.0001")
    headers, _ = await payer.sign(await payer.challenge(cheap.entry), "fixed")
    assert (await payer.post(runner.entry, headers=headers)).said == (
        400,
        "payment price does not match live runner price\n",
    )
    assert not paid_worker.got


@pytest.mark.parametrize("mode", MODES)
async def test_spoilt_tickets_are_refused_and_those_before_them_kept(
    mode: str, paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    runner = await paid_worker.price("seconds", mode)
    challenge = await payer.challenge(runner.entry)
    headers, _ = await payer.sign(challenge, "live")
    payment = payment_in(headers)
    payment.ticket_sender_params[1].sig = bytes(65)
    spoilt = base64.b64encode(payment.SerializeToString()).decode()
    answer = await payer.post(runner.entry, headers=headers | {"Livepeer-Payment": spoilt})
    assert answer.said == (400, "invalid ticket signature\n")
    assert abs(paid_network.credited(challenge["manifest_id"]) - EV) < 1
    assert not paid_worker.got


async def test_the_same_payment_twice_is_refused(paid_worker: PaidWorker, payer: Payer) -> None:
    for unit in PRICES:
        session = await paid_worker.price(unit, "persistent")
        _, headers, _, _ = await payer.session(session)
        assert (await payer.post(session.entry, headers=headers)).said == (409, "session already exists\n")
        call = await paid_worker.price(unit, "single-shot")
        headers, _ = await payer.sign(await payer.challenge(call.entry), KINDS[unit])
        assert (await payer.post(call.entry, headers=headers)).status == 200
        again = await payer.post(call.entry, headers=headers)
        assert (again.status, "already seen" in again.text) == (400, True), again
    assert len(paid_worker.got) == len(PRICES)


async def test_a_wrong_type_overpays_or_is_refused(
    paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    """Or underpays, which shows later: test_paid_debits_wire.py."""
    seconds = await payer.challenge((await paid_worker.price("seconds")).entry)
    fixed = await payer.challenge((await paid_worker.price("fixed")).entry)
    for challenge, kind in ((seconds, "lv2v"), (fixed, "live")):
        answer = await payer.try_to_sign(challenge, kind)
        assert (answer.status, "exceeds maximum of 100" in message(answer)) == (400, True), answer
    for kind, words in (("seconds", "invalid job type"), ("", "missing billable unit or job type")):
        answer = await payer.try_to_sign(seconds, kind)
        assert (answer.status, message(answer)) == (400, words)
    cheap = await paid_worker.price("fixed", "single-shot", price="0.0001")
    challenge = await payer.challenge(cheap.entry)
    headers, _ = await payer.sign(challenge, "live")
    assert (await payer.post(cheap.entry, headers=headers)).status == 200
    manifest_id = challenge["manifest_id"]
    assert paid_network.credited(manifest_id) >= 10 * paid_network.debited(manifest_id) > 0


# ---------------------------------------------------------------------- what is wrong with the runner


@pytest.mark.parametrize("mode", MODES)
async def test_a_full_runner_says_so_to_who_pays_and_the_payment_stays_good(
    mode: str, paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    runner = await paid_worker.price("seconds", mode, capacity=1)
    challenge = await payer.challenge(runner.entry)
    headers, _ = await payer.sign(challenge, "live")
    first, _ = await payer.sign(await payer.challenge(runner.entry), "live")
    manifest_id = challenge["manifest_id"]
    if mode == "persistent":
        told: Any = (await payer.post(runner.entry, headers=first)).json()
        assert (await payer.post(runner.entry, headers=payer.known)).status == 402
        full = await payer.post(runner.entry, headers=headers)
        assert (await payer.post(f"{told['control_url']}/stop")).status == 204
    else:
        async with dial(paid_network) as wire:
            lines = [f"{name}: {value}" for name, value in first.items()]
            await wire.ask("POST", f"{runner.url}/app/slow", "Content-Length: 0", *lines)
            await until(lambda: paid_worker.got)
            assert (await payer.post(runner.entry, headers=payer.known)).status == 402
            full = await payer.post(runner.entry, headers=headers)
    assert full.said == (503, "no capacity available for runner\n")
    assert paid_network.credited(manifest_id) == 0

    async def taken() -> bool:
        return (await payer.post(runner.entry, headers=headers)).status == 200

    await until(taken)
    assert abs(paid_network.credited(manifest_id) - value_of(headers)) < 0.01


async def test_a_runner_that_is_down_costs_the_payment(
    paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    runner = await paid_worker.price("fixed", "single-shot", runner_url=nobody)
    challenge = await payer.challenge(runner.entry)
    headers, _ = await payer.sign(challenge, "fixed")
    answer = await payer.post(runner.entry, headers=headers)
    assert (answer.status, "connection refused" in answer.text) == (502, True), answer
    manifest_id = challenge["manifest_id"]
    assert abs(paid_network.credited(manifest_id) - value_of(headers)) < 0.01
    assert paid_network.debited(manifest_id) == WEI["fixed"]


async def test_a_runner_that_is_gone_is_unknown_with_a_payment_too(
    paid_worker: PaidWorker, payer: Payer
) -> None:
    for mode in MODES:
        runner = await paid_worker.price("seconds", mode)
        headers, _ = await payer.sign(await payer.challenge(runner.entry), "live")
        assert await paid_worker.unregister(dict(runner.told)) in (200, 204)
        for given in (payer.known, headers):
            assert (await payer.post(runner.entry, headers=given)).status == 404
