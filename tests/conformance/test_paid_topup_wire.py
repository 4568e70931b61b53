"""Sessions that are paid on, on the wire: top-ups, fresh parameters, nonces of tickets, a signer's state."""

from __future__ import annotations

import asyncio
import base64
import json
from fractions import Fraction
from typing import Any

import pytest
from harness import until
from paid_harness import PaidNetwork
from paid_workers import PaidWorker
from payer import Answer, Payer, message, payment_in, value_of

from livepeer.client._grpc import lp_rpc_pb2 as net

EV = 8_000_000_000
BASE = 100  # wei a pixel, the orchestrator's own price
SECOND = 50_000_000_000  # wei, of the runners here


def close(one: Fraction, other: Fraction) -> bool:
    """Equal, to what go-livepeer's log rounds."""
    return abs(one - other) < Fraction(1, 10)


def nonces(headers: dict[str, str]) -> list[int]:
    return [ticket.sender_nonce for ticket in payment_in(headers).ticket_sender_params]


def inside(state: dict[str, str]) -> dict[str, Any]:
    """What a signer wrote into a state."""
    found: dict[str, Any] = json.loads(base64.b64decode(state["State"]))
    return found


# ---------------------------------------------------------------------- top-ups


async def test_a_top_up_is_credited_and_answered_with_the_sessions_price(
    paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    runner = await paid_worker.price("seconds")
    challenge, first, state, told = await payer.session(runner)
    more, state = await payer.sign(challenge, "live", state)
    answer = await payer.post(challenge["payment_url"], headers=more)
    assert answer.status == 200, answer
    info = net.PaymentResult.FromString(answer.body).info
    assert info.auth_token.session_id == challenge["manifest_id"]
    assert info.transcoder == paid_network.url
    assert Fraction(info.price_info.pricePerUnit, info.price_info.pixelsPerUnit) == SECOND
    paid = value_of(first) + value_of(more)
    assert close(paid_network.credited(challenge["manifest_id"]), paid)
    assert nonces(more)[0] == nonces(first)[-1] + 1
    assert len(nonces(more)) in (6, 7)  # one second and not ten, when the signer was asked in time
    assert (await payer.post(f"{told['app_url']}/run")).status == 200
    assert (await payer.post(f"{told['control_url']}/stop")).status == 204


async def test_how_top_ups_are_refused(
    paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    runner = await paid_worker.price("seconds")
    challenge, first, _, told = await payer.session(runner)
    where, manifest_id = challenge["payment_url"], challenge["manifest_id"]

    again = await payer.post(where, headers=first)
    assert (again.status, "already seen" in again.text) == (400, True), again
    other, _ = await payer.sign(await payer.challenge(runner.entry), "live")
    assert (await payer.post(where, headers=other)).said == (
        403,
        "mismatched session and payment manifest\n",
    )
    assert (await payer.post(where)).said == (403, "ErrSegSig\n")
    junk = {"Livepeer-Payment": "!", "Livepeer-Segment": first["Livepeer-Segment"]}
    assert (await payer.post(where, headers=junk)).status == 402
    assert close(paid_network.credited(manifest_id), value_of(first))

    assert (await payer.post(f"{told['control_url']}/stop")).status == 204
    assert (await payer.post(where, headers=other)).said == (404, "runner session not found\n")
    assert (await payer.post(f"{runner.url}/session/none/payment", headers=other)).said == (
        404,
        "runner session not found\n",
    )

    fixed = await paid_worker.price("fixed")
    challenge, _, _, _ = await payer.session(fixed)
    more, _ = await payer.sign(challenge, "fixed")
    assert (await payer.post(challenge["payment_url"], headers=more)).said == (
        409,
        "fixed-price live runner sessions do not accept follow-up payments\n",
    )
    assert paid_network.credited(challenge["manifest_id"]) < 2 * value_of(more)


# ---------------------------------------------------------------------- fresh parameters


async def test_fresh_parameters_after_the_first_payment(
    paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    runner = await paid_worker.price("seconds")
    challenge = await payer.challenge(runner.entry)
    early = await payer.refresh(challenge)
    assert (early.status, message(early)) == (409, "fixed price not found for session")
    challenge, first, state, told = await payer.session(runner)
    answer = await payer.refresh(challenge)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    fresh = answer.json()
    assert fresh == {
        "payment_params": fresh["payment_params"],
        "orchestrator": paid_network.url,
        "manifest_id": challenge["manifest_id"],
        "payment_url": f"{paid_network.url}/payment",
    }
    info = net.OrchestratorInfo.FromString(base64.b64decode(fresh["payment_params"]))
    assert (info.price_info.pricePerUnit, info.price_info.pixelsPerUnit) == (SECOND, 1)
    assert info.auth_token.session_id == challenge["manifest_id"]
    more, state = await payer.sign(fresh, "live", state)
    assert nonces(more)[0] == 1  # of these parameters
    assert (await payer.post(challenge["payment_url"], headers=more)).status == 200

    assert (await payer.post(f"{told['control_url']}/stop")).status == 204
    late, _ = await payer.sign(fresh, "live", state)
    assert (await payer.post(challenge["payment_url"], headers=late)).status == 404
    before = paid_network.credited(challenge["manifest_id"])
    assert close(before, value_of(first) + value_of(more))
    assert (await payer.post(fresh["payment_url"], headers=late)).status == 200  # takes money for nothing
    assert close(paid_network.credited(challenge["manifest_id"]), before + value_of(late))
    assert (await payer.refresh(challenge)).status == 200  # and tells nobody that it is over


async def test_a_payers_first_session_has_no_price_of_its_own_before_its_second_payment(
    fresh_paid_network: PaidNetwork,
) -> None:
    """So it is at an orchestrator that was started since the payer's last session, too."""
    async with PaidWorker(fresh_paid_network) as worker, Payer(fresh_paid_network, "main") as payer:
        challenge, _, state, _ = await payer.session(await worker.price("seconds"))
        early = await payer.refresh(challenge)
        assert (early.status, message(early)) == (409, "fixed price not found for session")
        for price in (BASE, SECOND):
            more, state = await payer.sign(challenge, "live", state)
            answer = await payer.post(challenge["payment_url"], headers=more)
            told = net.PaymentResult.FromString(answer.body).info.price_info
            assert Fraction(told.pricePerUnit, told.pixelsPerUnit) == price
        assert (await payer.refresh(challenge)).status == 200


async def test_an_orchestrator_that_was_restarted_takes_no_payment_of_before(
    fresh_paid_network: PaidNetwork,
) -> None:
    network = fresh_paid_network
    async with PaidWorker(network) as worker, Payer(network, "main") as payer:
        runner = await worker.price("seconds")
        challenge, _, state, _ = await payer.session(runner)
        more, _ = await payer.sign(challenge, "live", state)
        unused, _ = await payer.sign(await payer.challenge(runner.entry), "live")
        await asyncio.to_thread(network.restart)
        assert (await payer.post(challenge["payment_url"], headers=more)).status == 404
        assert (await payer.refresh(challenge)).status == 409
        runner = await worker.price("seconds")
        for where, headers in ((runner.entry, unused), (f"{network.url}/payment", more)):
            assert (await payer.post(where, headers=headers)).said == (403, "invalid auth token\n")
        await payer.session(runner)  # with a challenge of now it is as ever


async def test_how_fresh_parameters_are_refused(
    paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    challenge, *_ = await payer.session(await paid_worker.price("seconds"))
    stranger = paid_network.signers["poor"].address
    where, manifest_id = f"{paid_network.url}/refresh-payment", challenge["manifest_id"]
    for asked, status, words in (
        ({"sender": stranger, "manifest_id": manifest_id}, 409, "fixed price not found for session"),
        ({"sender": payer.signer.address, "manifest_id": "none"}, 409, "fixed price not found for session"),
        ({"sender": "me", "manifest_id": manifest_id}, 400, "invalid sender"),
        ({"manifest_id": manifest_id}, 400, "invalid sender"),
        ({"sender": payer.signer.address, "manifest_id": " "}, 400, "missing manifest_id"),
    ):
        answer = await payer.post(where, json=asked)
        assert (answer.status, message(answer)) == (status, words)
    assert (await payer.post(where, data=b"{")).status == 400


async def test_parameters_end_after_forty_blocks(
    paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    runner = await paid_worker.price("seconds")
    challenge, _, state, told = await payer.session(runner)
    ready, ready_state = await payer.sign(challenge, "live", state)
    unused = await payer.challenge(runner.entry)
    unspent, _ = await payer.sign(unused, "live")
    paid_network.mine(41)
    refused: Answer | None = None

    async def ended() -> bool:
        nonlocal refused
        refused = await payer.try_to_sign(challenge, "live", ready_state)
        return refused.status == 480

    await until(ended)
    assert refused is not None
    assert message(refused) == "refresh session for remote signer"
    assert refused.headers["Livepeer-Orchestrator-Url"] == paid_network.url
    for where, headers in ((challenge["payment_url"], ready), (runner.entry, unspent)):
        answer = await payer.post(where, headers=headers)
        assert (answer.status, "TicketParams expired" in answer.text) == (400, True), answer
    assert paid_network.credited(unused["manifest_id"]) == 0

    fresh = (await payer.refresh(challenge)).json()
    more, _ = await payer.sign(fresh, "live", ready_state)
    assert (await payer.post(challenge["payment_url"], headers=more)).status == 200
    assert (await payer.post(f"{told['app_url']}/run")).status == 200
    # a payment that was refused was one: its challenge can be refreshed, too, and then be paid
    headers, _ = await payer.sign((await payer.refresh(unused)).json(), "live")
    assert (await payer.post(runner.entry, headers=headers)).status == 200
    assert close(paid_network.credited(unused["manifest_id"]), value_of(headers))


# ---------------------------------------------------------------------- nonces


async def test_parameters_are_good_for_600_tickets(
    paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    """Without a type a signer bills what it is told, which needs no waiting."""
    runner = await paid_worker.price("seconds")
    challenge = await payer.challenge(runner.entry)
    headers, state = await payer.sign(challenge, "", inPixels=15)
    assert (await payer.post(runner.entry, headers=headers)).status == 200
    count, credited = len(nonces(headers)), value_of(headers)
    while True:
        headers, state = await payer.sign(challenge, "", state, inPixels=15)
        count += len(nonces(headers))
        if count > 600:
            break
        assert (await payer.post(challenge["payment_url"], headers=headers)).status == 200
        credited += value_of(headers)
    answer = await payer.post(challenge["payment_url"], headers=headers)
    assert answer.status == 400
    assert answer.text.startswith("invalid ticket senderNonce: too many values sender=")
    # what came before the 601st was taken all the same
    kept = value_of(headers) * Fraction(600 - (count - len(nonces(headers))), len(nonces(headers)))
    assert close(paid_network.credited(challenge["manifest_id"]), credited + kept)
    assert inside(state)["SenderNonce"] == count > 600  # a signer signs on

    fresh = (await payer.refresh(challenge)).json()
    headers, state = await payer.sign(fresh, "", state, inPixels=15)
    assert nonces(headers)[0] == 1
    assert (await payer.post(challenge["payment_url"], headers=headers)).status == 200


# ---------------------------------------------------------------------- the state


async def test_what_a_state_says(paid_worker: PaidWorker, payer: Payer) -> None:
    runner = await paid_worker.price("seconds")
    challenge = await payer.challenge(runner.entry)
    headers, state = await payer.sign(challenge, "live", app="an/app")
    assert sorted(state) == ["Sig", "State"]
    told = inside(state)
    assert Fraction(told["Balance"]) == value_of(headers) - 10 * SECOND
    assert told["SenderNonce"] == len(nonces(headers))
    assert (told["InitialPricePerUnit"], told["InitialPixelsPerUnit"]) == (SECOND, 1)
    assert (told["App"], told["Type"], told["SequenceNumber"]) == ("an/app", "live", 0)
    _, state = await payer.sign(challenge, "live", state, app="an/app")
    assert inside(state)["SequenceNumber"] == 1
    assert inside(state)["StateID"] == told["StateID"]


async def test_an_old_state_signs_used_nonces(
    paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    challenge, first, state, _ = await payer.session(await paid_worker.price("seconds"))
    one, newest = await payer.sign(challenge, "live", state)
    other, _ = await payer.sign(challenge, "live", state)
    assert set(nonces(one)) & set(nonces(other))
    assert (await payer.post(challenge["payment_url"], headers=one)).status == 200
    answer = await payer.post(challenge["payment_url"], headers=other)
    assert (answer.status, "already seen" in answer.text) == (400, True), answer
    # those of its tickets that are no others are lost, too: the first bad one decides
    assert close(paid_network.credited(challenge["manifest_id"]), value_of(first) + value_of(one))
    more, _ = await payer.sign(challenge, "live", newest)
    assert (await payer.post(challenge["payment_url"], headers=more)).status == 200


async def test_signings_at_once_with_one_state_race(paid_worker: PaidWorker, payer: Payer) -> None:
    challenge, _, state, _ = await payer.session(await paid_worker.price("seconds"))
    answers = await asyncio.gather(*(payer.try_to_sign(challenge, "live", state) for _ in range(12)))
    assert {answer.status for answer in answers} <= {200, 400, 482, 500}
    more, _ = await payer.sign(challenge, "live", state)  # once nobody else does, it works
    assert (await payer.post(challenge["payment_url"], headers=more)).status == 200


async def test_a_state_is_the_signers_alone(
    paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    runner = await paid_worker.price("seconds")
    challenge, _, state, _ = await payer.session(runner)
    spoilt = base64.b64encode(base64.b64decode(state["State"]) + b" ").decode()
    for wrong, changed, words in (
        ({"State": spoilt, "Sig": state["Sig"]}, {}, "invalid sig"),
        ({"State": state["State"], "Sig": ""}, {}, "invalid sig"),
        (state, {"type": "fixed"}, "job type mismatch"),
        (state, {"app": "another/app"}, "app mismatch"),
        (state, {"ManifestID": ""}, "missing manifestID"),
    ):
        answer = await payer.try_to_sign(challenge, "live", wrong, **changed)
        assert (answer.status, message(answer)) == (400, words)
    async with Payer(paid_network, "hooked") as other:
        answer = await other.try_to_sign(challenge, "live", state)
    assert (answer.status, message(answer)) == (400, "invalid sig")


async def test_a_state_of_another_session_underpays(paid_worker: PaidWorker, payer: Payer) -> None:
    """A signer takes it: the state isn't tied to a session, and its clock runs on."""
    runner = await paid_worker.price("seconds")
    _, first, state, _ = await payer.session(runner)
    other = await payer.challenge(runner.entry)
    headers, _ = await payer.sign(other, "live", state)
    assert value_of(headers) < value_of(first)
    assert nonces(headers)[0] == 1


async def test_a_lost_state_is_paid_anew_with_fresh_parameters(
    paid_network: PaidNetwork, paid_worker: PaidWorker, payer: Payer
) -> None:
    challenge, first, _, _ = await payer.session(await paid_worker.price("seconds"))
    used, _ = await payer.sign(challenge, "live")
    answer = await payer.post(challenge["payment_url"], headers=used)
    assert (answer.status, "already seen" in answer.text) == (400, True), answer
    headers, state = await payer.sign((await payer.refresh(challenge)).json(), "live")
    assert (await payer.post(challenge["payment_url"], headers=headers)).status == 200
    assert value_of(headers) == pytest.approx(value_of(first), rel=1e-6)  # ten seconds again
    assert inside(state)["SequenceNumber"] == 0
    assert close(paid_network.credited(challenge["manifest_id"]), value_of(first) + value_of(headers))


async def test_a_bill_of_more_than_100_tickets_is_refused_each_time(
    paid_worker: PaidWorker, payer: Payer
) -> None:
    """After too long a pause. Here a second is worth 98 tickets: two of them are enough."""
    runner = await paid_worker.price("seconds", price="5.6")
    challenge = await payer.challenge(runner.entry)
    headers, state = await payer.sign(challenge, "", inPixels=1)
    assert (await payer.post(runner.entry, headers=headers)).status == 200
    refused: Answer | None = None

    async def too_late() -> bool:
        nonlocal refused
        refused = await payer.try_to_sign(challenge, "live", state)
        return refused.status != 200

    await until(too_late)
    for _ in range(2):
        assert refused is not None
        assert refused.status == 400
        assert message(refused).endswith("exceeds maximum of 100")
        refused = await payer.try_to_sign(challenge, "live", state)
    fresh = (await payer.refresh(challenge)).json()
    assert (await payer.try_to_sign(fresh, "live", state)).status == 400  # that is no help
    headers, _ = await payer.sign(fresh, "", inPixels=1)  # without the state it is
    assert (await payer.post(challenge["payment_url"], headers=headers)).status == 200


async def test_who_has_credit_left_gets_no_ticket(paid_worker: PaidWorker, payer: Payer) -> None:
    """At less than a ticket for ten seconds; with one in hand no other is signed."""
    challenge, _, state, _ = await payer.session(await paid_worker.price("seconds", price="0.001"))
    for _ in range(3):
        answer = await payer.try_to_sign(challenge, "live", state)
        if answer.status != 200:
            break
        state = answer.json()["state"]
    assert (answer.status, message(answer)) == (482, "no tickets")
