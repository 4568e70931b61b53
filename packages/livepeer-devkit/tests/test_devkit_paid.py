"""The embedded network's paid mode: its calls as bare HTTP, its faults, and its arithmetic."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from fractions import Fraction
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from livepeer.client._grpc import lp_rpc_pb2 as net
from livepeer.devkit import LocalNetwork, PaidMode
from livepeer.devkit.network.paid.chain import Chain
from livepeer.devkit.network.paid.meter import Meter
from livepeer.devkit.network.paid.prices import Prices, go_float
from livepeer.devkit.network.paid.recipient import InsufficientReserve, Recipient, TicketRefused
from livepeer.devkit.network.paid.signer_state import BadState, State
from livepeer.devkit.network.paid.tickets import MAX_WIN_PROB
from livepeer.devkit.network.paid.wallets import Wallet, account
from livepeer.devkit.network.validation import Refused
from livepeer.trickle.errors import ConfigurationError

SECOND = {"price": 0.36, "currency": "usd", "unit": "hour"}
CALL = {"price": 0.0005, "currency": "usd", "unit": "fixed"}
PIXEL = {"price": 0.05, "currency": "usd", "unit": "720p"}


@pytest.fixture(scope="module")
def network() -> Iterator[LocalNetwork]:
    signers = {"main": {}, "poor": {"deposit": 10**14}, "broke": {"deposit": 0}, "newcomer": {}}
    with LocalNetwork(samples=False, paid=PaidMode(signers=signers, payment_interval=0.5)) as running:
        yield running


@pytest.fixture
async def runner(
    network: LocalNetwork,
    http: aiohttp.ClientSession,
    serve_worker: Callable[[web.Application], Awaitable[str]],
) -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Registers a runner with a price: the URL that calls of it begin with."""

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/slow":
            await asyncio.sleep(3600)
        return web.json_response({"got": len(await request.read())})

    app = web.Application()
    app.router.add_route("*", "/{target:.*}", answer)
    url = await serve_worker(app)
    beats: list[asyncio.Task[None]] = []

    async def register(price: dict[str, Any] | None, mode: str = "single-shot", capacity: int = 4) -> str:
        body = {"runner_url": url, "app": "test", "mode": mode, "capacity": capacity, "price_info": price}

        async def beat(authorization: str) -> dict[str, Any]:
            headers = {"Authorization": authorization}
            async with http.post(
                f"{network.orch_url}/runners/heartbeat", json=body, headers=headers
            ) as answered:
                assert answered.status == 200, await answered.text()
                return dict(await answered.json())

        told = await beat(network.orch_secret)
        body["runner_id"] = told["runner_id"]

        async def keep() -> None:
            while True:
                await asyncio.sleep(4)
                await beat(told["heartbeat_secret"])

        beats.append(asyncio.create_task(keep()))
        part = "session" if mode == "persistent" else "app/run"
        return f"{network.orch_url}/apps/{told['runner_id']}/{part}"

    yield register
    for task in beats:
        task.cancel()


class Payer:
    """Somebody who pays, step by step."""

    def __init__(self, http: aiohttp.ClientSession, signer: str) -> None:
        self.http = http
        self.signer = signer
        self.state: dict[str, Any] | None = None

    async def payer(self) -> dict[str, str]:
        async with self.http.post(f"{self.signer}/sign-orchestrator-info", json={}) as answer:
            return dict(await answer.json())

    async def challenge(self, url: str) -> dict[str, Any]:
        headers = {"Livepeer-Payer-Address": (await self.payer())["address"]}
        async with self.http.post(url, headers=headers) as answer:
            assert answer.status == 402, await answer.text()
            return dict(await answer.json())

    async def sign(self, challenge: dict[str, Any], kind: str) -> tuple[int, Any]:
        asked = {
            "orchestrator": challenge["payment_params"],
            "ManifestID": challenge["manifest_id"],
            "type": kind,
        } | ({"state": self.state} if self.state else {})
        async with self.http.post(f"{self.signer}/generate-live-payment", json=asked) as answer:
            told = await answer.json()
            if answer.status == 200:
                self.state = told["state"]
            return answer.status, told

    async def headers(self, challenge: dict[str, Any], kind: str) -> dict[str, str]:
        status, told = await self.sign(challenge, kind)
        assert status == 200, told
        return {"Livepeer-Payment": told["payment"], "Livepeer-Segment": told["segCreds"]}


@pytest.fixture
async def payer(
    network: LocalNetwork, http: aiohttp.ClientSession, runner: Callable[..., Awaitable[str]]
) -> Payer:
    """One who has paid here before: the first session of a payer has no price of its own."""
    url = await runner(CALL)
    before = Payer(http, network.signer_url)
    headers = await before.headers(await before.challenge(url), "fixed")
    assert (await post(http, url, headers=headers))[0] == 200
    return Payer(http, network.signer_url)


def value_of(headers: dict[str, str]) -> Fraction:
    """What a payment is worth, computed from what is in it."""
    payment = net.Payment.FromString(base64.b64decode(headers["Livepeer-Payment"]))
    face_value = int.from_bytes(payment.ticket_params.face_value, "big")
    win_prob = int.from_bytes(payment.ticket_params.win_prob, "big")
    return len(payment.ticket_sender_params) * Fraction(face_value * win_prob, MAX_WIN_PROB)


async def post(http: aiohttp.ClientSession, url: str, **options: Any) -> tuple[int, str]:
    async with http.post(url, **options) as answer:
        return answer.status, (await answer.read()).decode("utf-8", "replace")


async def test_a_call_at_a_fixed_price_is_paid_once_and_charged_at_once(
    network: LocalNetwork, http: aiohttp.ClientSession, runner: Callable[..., Awaitable[str]], payer: Payer
) -> None:
    url = await runner(CALL)
    challenge = await payer.challenge(url)
    headers = await payer.headers(challenge, "fixed")
    assert await post(http, url, headers=headers, data=b"abc") == (200, '{"got": 3}')
    manifest_id = challenge["manifest_id"]
    assert network.credited(manifest_id) == value_of(headers)
    assert network.debited(manifest_id) == 250_000_000_000  # $0.0005 at $2000
    assert network.balance(manifest_id) == value_of(headers) - 250_000_000_000
    status, text = await post(http, url, headers=headers, data=b"abc")
    assert (status, "already seen" in text) == (400, True)
    status, text = await post(http, challenge["payment_url"], headers=headers)
    assert (status, text) == (404, "runner session not found\n")


async def test_a_session_by_the_second_is_paid_once_and_topped_up(
    network: LocalNetwork, http: aiohttp.ClientSession, runner: Callable[..., Awaitable[str]], payer: Payer
) -> None:
    url = await runner(SECOND, "persistent")
    challenge = await payer.challenge(url)
    first = await payer.headers(challenge, "live")
    status, text = await post(http, url, headers=first)
    session = json.loads(text)
    assert (status, session["session_id"]) == (200, challenge["manifest_id"])
    assert await post(http, url, headers=first) == (409, "session already exists\n")
    await asyncio.sleep(1.1)
    more = await payer.headers(challenge, "live")
    async with http.post(challenge["payment_url"], headers=more) as answer:
        result = net.PaymentResult.FromString(await answer.read())
    assert result.info.auth_token.session_id == challenge["manifest_id"]
    assert network.credited(challenge["manifest_id"]) == value_of(first) + value_of(more)
    assert await post(http, f"{session['app_url']}/x", data=b"1") == (200, '{"got": 1}')
    assert network.debited(challenge["manifest_id"]) % 50_000_000_000 == 0
    assert (await post(http, f"{session['control_url']}/stop"))[0] == 204
    assert (await post(http, challenge["payment_url"], headers=more))[0] == 404


async def test_who_pays_for_seconds_where_pixels_count_is_dropped_within_two(
    http: aiohttp.ClientSession, runner: Callable[..., Awaitable[str]], payer: Payer, network: LocalNetwork
) -> None:
    url = await runner(PIXEL, "persistent")
    challenge = await payer.challenge(url)
    status, text = await post(http, url, headers=await payer.headers(challenge, "live"))
    assert status == 200
    began, app_url = time.monotonic(), json.loads(text)["app_url"]
    payer.state = None
    call = (await runner(PIXEL)).removesuffix("/run") + "/slow"
    headers = await payer.headers(await payer.challenge(call), "live")
    async with http.post(call, headers=headers, timeout=aiohttp.ClientTimeout(total=120)) as answer:
        assert (answer.status, await answer.text()) == (502, "context canceled\n")
    while (await post(http, f"{app_url}/x"))[0] == 200:
        assert time.monotonic() - began < 120
        await asyncio.sleep(0.1)
    assert await post(http, f"{app_url}/x") == (404, "runner session not found\n")
    assert 0 < network.balance(challenge["manifest_id"]) < 251 * 1280 * 720 * 30


async def test_pixels_are_paid_for_a_minute_ahead(
    network: LocalNetwork, http: aiohttp.ClientSession, runner: Callable[..., Awaitable[str]], payer: Payer
) -> None:
    url = await runner(PIXEL, "persistent")
    challenge = await payer.challenge(url)
    headers = await payer.headers(challenge, "lv2v")
    assert (await post(http, url, headers=headers))[0] == 200
    price = int(Fraction("0.05") * 10**18 / 2000 / (3600 * 1280 * 720 * 30))
    minute = price * 60 * 1280 * 720 * 30
    assert minute <= network.credited(challenge["manifest_id"]) < minute + 8_000_000_001


async def test_what_is_wrong_with_a_payment_is_said_as_go_livepeer_says_it(
    http: aiohttp.ClientSession, runner: Callable[..., Awaitable[str]], payer: Payer
) -> None:
    url = await runner(SECOND, "persistent")
    assert await post(http, url) == (
        402,
        '{"error":{"message":"invalid live runner payment signer address"}}\n',
    )
    one, other = await payer.challenge(url), await payer.challenge(url)
    headers = await payer.headers(one, "live")
    status, text = await post(http, url, headers=headers | {"Livepeer-Payment": "!"})
    assert (status, text) == (402, "base64 decode error: illegal base64 data at input byte 0\n")
    assert await post(http, url, headers=headers | {"Livepeer-Segment": "!"}) == (403, "ErrorSegEncoding\n")
    assert await post(http, url, headers={"Livepeer-Payment": headers["Livepeer-Payment"]}) == (
        403,
        "ErrSegSig\n",
    )
    payer.state = None
    mixed = other | {"manifest_id": one["manifest_id"]}
    assert await post(http, url, headers=await payer.headers(mixed, "live")) == (
        403,
        "mismatched manifest and auth token\n",
    )
    payment = net.Payment.FromString(base64.b64decode(headers["Livepeer-Payment"]))
    payment.ticket_sender_params[0].sig = bytes(65)
    spoilt = base64.b64encode(payment.SerializeToString()).decode()
    assert await post(http, url, headers=headers | {"Livepeer-Payment": spoilt}) == (
        400,
        "invalid ticket signature\n",
    )


async def test_parameters_expire_and_are_refreshed(
    network: LocalNetwork, http: aiohttp.ClientSession, runner: Callable[..., Awaitable[str]], payer: Payer
) -> None:
    url = await runner(SECOND, "persistent")
    challenge = await payer.challenge(url)
    refresh = {"sender": (await payer.payer())["address"], "manifest_id": challenge["manifest_id"]}
    where = f"{network.orch_url}/refresh-payment"
    assert await post(http, where, json=refresh) == (
        409,
        '{"error":{"message":"fixed price not found for session"}}\n',
    )
    headers = await payer.headers(challenge, "live")
    assert (await post(http, url, headers=headers))[0] == 200
    network.mine(41)
    assert await payer.sign(challenge, "live") == (
        480,
        {"error": {"message": "refresh session for remote signer"}},
    )
    status, text = await post(http, where, json=refresh)
    fresh = json.loads(text)
    assert (status, fresh["manifest_id"]) == (200, challenge["manifest_id"])
    assert fresh["payment_url"] == f"{network.orch_url}/payment"
    await asyncio.sleep(0.1)  # for some time to pay for
    assert (await post(http, challenge["payment_url"], headers=await payer.headers(fresh, "live")))[0] == 200


async def test_the_first_session_of_a_payer_has_its_price_from_the_second_payment_on(
    network: LocalNetwork, http: aiohttp.ClientSession, runner: Callable[..., Awaitable[str]]
) -> None:
    payer = Payer(http, network.signers["newcomer"].url)
    url = await runner(SECOND, "persistent")
    challenge = await payer.challenge(url)
    assert (await post(http, url, headers=await payer.headers(challenge, "live")))[0] == 200
    refresh = {"sender": (await payer.payer())["address"], "manifest_id": challenge["manifest_id"]}
    where = f"{network.orch_url}/refresh-payment"
    assert (await post(http, where, json=refresh))[0] == 409
    await asyncio.sleep(0.1)  # for some time to pay for
    more = await payer.headers(challenge, "live")
    assert (await post(http, challenge["payment_url"], headers=more))[0] == 200
    assert (await post(http, where, json=refresh))[0] == 200


async def test_an_orchestrator_may_ask_for_more_than_it_said(
    network: LocalNetwork, http: aiohttp.ClientSession, runner: Callable[..., Awaitable[str]], payer: Payer
) -> None:
    url = await runner(SECOND, "persistent")
    challenge = await payer.challenge(url)
    assert (await post(http, url, headers=await payer.headers(challenge, "live")))[0] == 200
    refresh = {"sender": (await payer.payer())["address"], "manifest_id": challenge["manifest_id"]}
    network.raise_prices(1.5)
    try:
        _, text = await post(http, f"{network.orch_url}/refresh-payment", json=refresh)
        status, told = await payer.sign(json.loads(text), "live")
        said = "orchestrator price 75000000000.000 exceeds initial session price ceiling 50000000000.000"
        assert (status, told["error"]["message"]) == (481, said)
    finally:
        network.raise_prices(1)


async def test_wallets_that_have_too_little_say_so(
    network: LocalNetwork, http: aiohttp.ClientSession, runner: Callable[..., Awaitable[str]]
) -> None:
    url = await runner(SECOND)
    for name, reason in (
        ("poor", "ticket faceValue 350000000000000 > max faceValue 100000000000000"),
        ("broke", "no sender deposit"),
    ):
        payer = Payer(http, network.signers[name].url)
        status, told = await payer.sign(await payer.challenge(url), "live")
        assert (status, told["error"]["message"]) == (
            400,
            f"remote signer could not check whether to refresh session: {reason}",
        )
    network.signers["broke"].fund(reserve=0)
    headers = {"Livepeer-Payer-Address": network.signers["broke"].address}
    assert await post(http, url, headers=headers) == (500, "insufficient sender reserve\n")


async def test_a_signer_can_be_killed_hung_and_told_what_to_answer(
    network: LocalNetwork, http: aiohttp.ClientSession, runner: Callable[..., Awaitable[str]], payer: Payer
) -> None:
    challenge = await payer.challenge(await runner(SECOND))
    signer = network.signers["main"]
    before = signer.signed
    signer.answer(481, "too dear", times=2)
    assert await payer.sign(challenge, "live") == (481, {"error": {"message": "too dear"}})
    assert (await payer.sign(challenge, "live"))[0] == 481
    signer.answer(0)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await payer.sign(challenge, "live")
    signer.kill()
    with pytest.raises(aiohttp.ClientError):
        await payer.sign(challenge, "live")
    signer.restart()
    signer.hang()
    waiting = asyncio.create_task(payer.sign(challenge, "live"))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    assert signer.signed == before
    signer.hang(False)
    assert (await waiting)[0] == 200
    assert signer.signed == before + 1


async def test_of_signings_at_once_with_one_set_of_parameters_most_fail(
    runner: Callable[..., Awaitable[str]], payer: Payer
) -> None:
    challenge = await payer.challenge(await runner(SECOND))
    answers = await asyncio.gather(*(payer.sign(challenge, "live") for _ in range(8)))
    statuses = sorted(status for status, _ in answers)
    assert statuses[0] == 200
    assert statuses[-1] == 500


async def test_no_runner_without_a_price(network: LocalNetwork, http: aiohttp.ClientSession) -> None:
    headers = {"Authorization": network.orch_secret}
    body = {"runner_url": "http://127.0.0.1:1", "app": "free"}
    where = f"{network.orch_url}/runners/heartbeat"
    assert await post(http, where, json=body, headers=headers) == (400, "price_info.price is required\n")


def test_signers_of_unknown_kinds_and_too_many_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="rezerve"):
        LocalNetwork(paid=PaidMode(signers={"main": {"rezerve": 1}}))
    with pytest.raises(ConfigurationError, match="at most 8"):
        LocalNetwork(paid=PaidMode(signers={f"number{n}": {} for n in range(9)}))
    with pytest.raises(ConfigurationError, match="Nothing costs"):
        LocalNetwork(samples=False).mine(1)


# ---------------------------------------------------------------------- without a network


def make_chain(wallet: Wallet, clock: Callable[[], float] = lambda: 0.0) -> Chain:
    return Chain(Chain.started([wallet], block_time=2, eth_usd=2000, now=0.0), clock)


def test_a_ticket_is_worth_the_recipients_ev_and_its_face_value_follows_the_gas() -> None:
    wallet = Wallet(account(1), "00" * 32)
    chain = make_chain(wallet)
    params = Recipient(chain, account(0), 8_000_000_000, 10_000_000).params(wallet.address, Fraction(1))
    assert params.face_value == 350_000_000_000_000
    assert 8_000_000_000 <= params.ev < 8_000_000_001
    wallet.reserve = 5 * 10**13  # the face value shrinks with the reserve
    chain = make_chain(wallet)
    params = Recipient(chain, account(0), 8_000_000_000, 10_000_000).params(wallet.address, Fraction(1))
    assert params.face_value == 5 * 10**13
    wallet.reserve = 10**9
    poor = Recipient(make_chain(wallet), account(0), 8_000_000_000, 10_000_000)
    with pytest.raises(InsufficientReserve):
        poor.params(wallet.address, Fraction(1))


def test_a_set_of_parameters_is_good_for_600_tickets_and_40_blocks() -> None:
    wallet, now = Wallet(account(1), "00" * 32), [0.0]
    recipient = Recipient(make_chain(wallet, lambda: now[0]), account(0), 8_000_000_000, 10_000_000)
    price = Fraction(1)
    params = recipient.params(wallet.address, price)

    def give(nonce: int) -> None:
        signature = wallet.sign(params.ticket(wallet.address, nonce))
        recipient.receive(params, wallet.address, nonce, signature, price)

    for nonce in range(1, 601):
        give(nonce)
    with pytest.raises(TicketRefused, match="already seen"):
        give(600)
    with pytest.raises(TicketRefused, match="too many values"):
        give(601)
    with pytest.raises(TicketRefused, match="invalid recipientRand"):
        recipient.receive(params, wallet.address, 1, b"", Fraction(2))
    now[0] = 80.0
    with pytest.raises(TicketRefused, match="TicketParams expired"):
        give(602)


def test_a_meter_charges_whole_units_and_keeps_the_rest() -> None:
    now, charged = [0.0], []
    meter = Meter(5, 1, charged.append, clock=lambda: now[0])
    for now[0] in (4.9, 5.7, 9.9, 10.2, 16.0):
        meter.look()
    assert charged == [5, 5, 6]


def test_prices_are_whole_wei() -> None:
    prices = Prices(make_chain(Wallet(account(1), "00" * 32)))
    assert prices.convert(prices.normalize(SECOND)).wei == 50_000_000_000
    assert prices.convert(prices.normalize(PIXEL)).unit == "720p-pixel-seconds"
    with pytest.raises(Refused, match="at least one wei"):
        prices.convert(prices.normalize(PIXEL | {"price": "0.00000001"}))
    for wrong, words in (
        ({"price": ""}, "price is required"),
        ({"price": 0}, "positive decimal"),
        ({"currency": "eur"}, "must be usd"),
        ({"unit": "day"}, "must be hour, 720p, or fixed"),
    ):
        with pytest.raises(Refused, match=words):
            prices.normalize(SECOND | wrong)


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [
        (Fraction(1, 2), 0, "1"),
        (Fraction(-1, 2), 0, "-1"),
        (Fraction(-1, 3), 0, "0"),
        (Fraction(12345, 1000), 2, "12.35"),
        (Fraction(1, 16), 3, "0.063"),
    ],
)
def test_numbers_are_written_as_go_writes_them(number: Fraction, digits: int, text: str) -> None:
    assert go_float(number, digits) == text


def test_a_state_comes_back_as_it_was_and_only_from_its_signer() -> None:
    wallet, other = Wallet(account(1), "01" * 32), Wallet(account(2), "02" * 32)
    state = State("id", account(0), "app", 7, 2, "live", "0xab", 1_700_000_000_123_400_000, 5, 63)
    state.balance = Fraction(1, 3)
    told = {name: base64.b64decode(text) for name, text in state.signed(wallet).items()}
    assert json.loads(told["State"])["LastUpdate"] == "2023-11-14T22:13:20.1234Z"
    assert State.read(told["State"], told["Sig"], wallet) == state
    with pytest.raises(BadState, match="invalid sig"):
        State.read(told["State"], told["Sig"], other)
