"""Who of those who can gets a call: decisions without I/O, and what a gateway remembers and explains."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import random
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from livepeer.client import (
    ConfigurationError,
    Gateway,
    NoOrchestratorError,
    PaymentUnsupported,
    Price,
    PriceExceeded,
)
from livepeer.client.catalogue import Runner
from livepeer.client.listing import Listing
from livepeer.client.offers import Offer
from livepeer.client.prices import as_price, over
from livepeer.client.records import Records, place_of
from livepeer.client.routes import LiveCall
from livepeer.client.selection import offers_in_turn, ranked


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_runner(number: int, app: str = "job", **fields: Any) -> Runner:
    orchestrator = f"https://o{number}:8935"
    url = f"{orchestrator}/apps/{fields.pop('id', 'r')}/app"
    return Runner(orchestrator, url, app, **{"mode": "single-shot", "available": 4, "capacity": 4, **fields})


def order(*runners: Runner, **options: Any) -> list[Runner]:
    usable, _ = ranked(Listing(runners, (), 1), "job", None, "call", **options)
    return usable


_runners = st.lists(
    st.builds(
        a_runner,
        st.integers(0, 5),
        st.sampled_from(["job", "job/big", "other"]),
        id=st.sampled_from("abc"),
        mode=st.sampled_from(["single-shot", "persistent"]),
        available=st.integers(-1, 3),
        price=st.none() | st.builds(Price, st.integers(1, 9), st.sampled_from(["seconds", "fixed"])),
    ),
    max_size=20,
)


@given(
    _runners,
    st.sampled_from([None, "big"]),
    st.sampled_from(["call", "live"]),
    st.booleans(),
    st.none() | st.builds(Price, st.integers(0, 9), st.sampled_from(["seconds", "fixed"])),
    st.dictionaries(st.integers(0, 5), st.floats(0.0001, 10)),
    st.sets(st.integers(0, 5)),
    st.integers(),
)
def test_every_match_is_ranked_or_rejected(
    runners: list[Runner],
    model: str | None,
    verb: Any,
    ordered: bool,
    max_price: Price | None,
    latencies: dict[int, float],
    failed: set[int],
    seed: int,
) -> None:
    records = Records(clock=Clock(), rng=random.Random(seed))
    for number, seconds in latencies.items():
        records.took(f"https://o{number}:8935", seconds)
    for number in failed:
        records.failed(f"https://o{number}:8935")
    usable, rejections = ranked(
        Listing(tuple(runners), (), 1), "job", model, verb,
        ordered=ordered, max_price=max_price, records=records, rng=random.Random(seed),
    )  # fmt: skip
    names = ("job/big", "job") if model else ("job",)
    matching = [runner for runner in runners if runner.app in names]
    assert len(usable) + len(rejections) == len(matching)
    assert collections.Counter(map(id, usable)) <= collections.Counter(map(id, matching))
    assert all(runner.price is None for runner in usable), "nothing can be paid for yet"
    grades = [
        (
            names.index(runner.app),
            runner.available <= 0,
            records.rest(runner.orchestrator) > 0,
        )
        for runner in usable
    ]
    assert grades == sorted(grades)
    if ordered:
        first = {runner.orchestrator: index for index, runner in reversed(list(enumerate(usable)))}
        assert all(first[runner.orchestrator] >= 0 for runner in usable)
        listed = list(dict.fromkeys(runner.orchestrator for runner in runners if runner in usable))
        for grade in set(grades):
            same = [runner.orchestrator for runner, its in zip(usable, grades, strict=True) if its == grade]
            assert same == sorted(same, key=listed.index)
    for rejection in rejections:
        assert rejection.reason


def test_the_callers_order_holds() -> None:
    runners = [a_runner(number, available=number + 1) for number in range(5)]
    assert order(*runners, ordered=True) == runners
    records = Records(clock=(clock := Clock()))
    records.failed(runners[0].orchestrator)
    records.failed(runners[1].url)
    assert order(*runners, ordered=True, records=records) == [*runners[2:], *runners[:2]]
    clock.now += 2
    assert order(*runners, ordered=True, records=records) == runners


def test_the_better_one_of_two() -> None:
    near, far, unmeasured = (a_runner(number) for number in range(3))
    records = Records()
    records.took(near.orchestrator, 0.01)
    records.took(far.orchestrator, 0.2)
    assert order(far, near, records=records) == [near, far]
    roomy, tight = a_runner(3, available=9), a_runner(4, available=1)
    assert order(tight, roomy) == [roomy, tight]
    records.took(roomy.orchestrator, 0.012)
    assert order(near, roomy, records=records) == [roomy, near], "2 ms are no difference"
    full = a_runner(5, available=0)
    records.took(full.orchestrator, 0.0001)
    assert order(full, far, unmeasured, records=records)[-1] == full


def test_nobody_gets_all_calls() -> None:
    """The best one of a hundred must not be everybody's choice: there are other callers."""
    records, rng = Records(), random.Random(1)
    runners = [a_runner(number) for number in range(20)]
    for number, runner in enumerate(runners):
        records.took(runner.orchestrator, 0.03 * (number + 1))
    firsts = collections.Counter(
        runners.index(order(*runners, records=records, rng=rng)[0]) for _ in range(2000)
    )
    assert firsts[0] > firsts[10] > 0
    assert max(firsts.values()) < 400
    assert len(firsts) > 15


def test_offers_by_the_same_rules() -> None:
    offers = [Offer(f"https://o{number}", available) for number, available in enumerate((0, 3, 3))]
    records = Records(clock=Clock())
    records.failed(place_of("https://o1", "job"))
    first = offers_in_turn(offers, "job", records=records)
    assert [offer.orchestrator[-1] for offer in first] == list("210")
    first = offers_in_turn(offers, "other", ordered=True, records=records)
    assert [offer.orchestrator[-1] for offer in first] == list("120")


# Records


def test_who_fails_is_left_alone_for_longer_each_time() -> None:
    clock = Clock()
    records = Records(clock=clock, rng=random.Random(0))
    rests = []
    for _ in range(12):
        records.failed("o", "refused")
        rests.append(records.rest("o"))
        records.failed("o", "another call in flight")
        assert records.rest("o") == rests[-1], "the same incident"
        assert records.reason("o") == "refused"
        clock.now += rests[-1]
        assert records.rest("o") == 0
    assert 0.75 <= rests[0] <= 1.25
    assert all(later > 1.1 * earlier for earlier, later in itertools.pairwise(rests[:5]))
    assert all(45 <= rest <= 75 for rest in rests[7:])
    records.succeeded("o")
    records.failed("o")
    assert records.rest("o") <= 1.25, "a success is a fresh start"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_latency_is_between_what_was_measured(measured: list[float]) -> None:
    records = Records()
    assert records.latency("o") is None
    for seconds in measured:
        records.took("o", seconds)
    latency = records.latency("o")
    assert latency is not None
    assert min(measured) - 1e-9 <= latency <= max(measured) + 1e-9


def test_records_dont_grow_without_end() -> None:
    records = Records()
    for number in range(25_000):
        records.failed(f"o{number}")
        records.took(f"o{number}", 1)
    assert len(records._failures) <= 10_000
    assert len(records._latencies) <= 10_000


# Prices


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("900 gwei/second", Price(900 * 10**9, "seconds")),
        ("2e12 wei/call", Price(2 * 10**12, "fixed")),
        ("20 wei/pixel", Price(20, "pixels")),
        (" 0.5 ETH per hour ", Price(5 * 10**17 // 3600, "seconds")),
        ("1_000wei/720p-pixel-seconds", Price(1000, "720p-pixel-seconds")),
        ("0 wei/call", Price(0, "fixed")),
        ("0.1 gwei/minute", Price(10**8 // 60, "seconds")),
        (Price(1, "fixed"), Price(1, "fixed")),
        (None, None),
    ],
)
def test_a_price_as_text(text: Any, price: Price | None) -> None:
    assert as_price(text) == price


@given(st.integers(0, 10**30), st.sampled_from(["seconds", "720p-pixel-seconds", "pixels", "fixed"]))
def test_a_price_reads_what_it_writes(amount: int, unit: str) -> None:
    price = Price(amount, unit)
    assert as_price(str(price)) == price
    assert over(price, price) is None
    assert over(price, None) is None
    assert "over max_price" in (over(Price(amount + 1, unit), price) or "")
    assert "can't be compared" in (over(price, Price(amount, unit + "s")) or "")


@given(st.text(max_size=30))
def test_no_text_breaks_the_reader_of_prices(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        assert isinstance(as_price(text), Price)


# With an orchestrator


def test_what_stands_against_a_price(orch: Any, verbs: Any) -> None:
    orch.apps["echo"].price = {"price": 5, "currency": "wei", "unit": "fixed"}
    for limit, kind, says in (
        ("5 wei/call", PaymentUnsupported, "can't pay it"),
        ("4 wei/call", PriceExceeded, "over max_price, which is 4 wei/call"),
        ("1 eth/second", PriceExceeded, "can't be compared"),
        (None, PaymentUnsupported, "can't pay it"),
    ):
        with pytest.raises(kind, match=says):
            verbs.run("echo", max_price=limit)
        with pytest.raises(kind, match=says):
            verbs.stream("echo", max_price=limit)
    assert verbs.run("inspect", max_price="0 wei/call")["method"] == "POST", (
        "what is free is under every limit"
    )
    with Gateway(orch_url=orch.url, max_price="4 wei/call") as gateway:
        with pytest.raises(PriceExceeded):
            gateway.run("echo")
        with pytest.raises(PaymentUnsupported):
            gateway.run("echo", max_price=Price(6, "fixed"))
    assert not orch.calls("echo")


def test_an_orchestrator_that_fails_is_left_alone_and_tried_again(orch: Any, tls_orch: Any) -> None:
    orch.apps["echo"].capacity = 0
    orch.listing = lambda base, _listing=orch.listing: [
        {**entry, "runners": [{**runner, "capacity_available": 5} for runner in entry["runners"]]}
        for entry in _listing(base)
    ]
    with Gateway(orch_url=[orch.url, tls_orch.url]) as gateway:
        gateway._calls._resolver.records._clock = clock = Clock()
        for _ in range(5):
            assert gateway.call("echo").orchestrator == tls_orch.url
        assert len(orch.calls("echo")) == 1, "asked once, then left alone"
        told = gateway.explain("echo").usable
        assert [one.where.startswith(orch.url) for one in told] == [False, True]
        assert "left alone" in told[1].reason
        assert 0 < told[1].rests <= 1.25
        clock.now += 1.25
        assert gateway.call("echo").orchestrator == tls_orch.url
        assert len(orch.calls("echo")) == 2, "tried again"
        assert gateway.explain("echo").usable[1].rests > 1.25, "and left alone for longer"
        orch.apps["echo"].capacity = 5
        clock.now += 2.5
        assert gateway.call("echo").orchestrator == orch.url
        assert gateway.explain("echo").usable[0].rests == 0


def test_an_explanation_shows_every_candidate(orch: Any, make_verbs: Any) -> None:
    async def more(_orch: Any, _request: web.Request) -> web.Response:
        [entry] = orch.listing(orch.url)
        runner = next(runner for runner in entry["runners"] if runner["app"] == "echo")
        priced = {**runner, "url": runner["url"] + "/2", "price_info": {"price": 7, "unit": "seconds"}}
        broken = {**runner, "mode": "sometimes"}
        return web.json_response(
            [{"address": orch.url, "runners": [runner, priced, broken]}, {"address": "nowhere"}]
        )

    orch.discovery = more
    with Gateway(orch_url=[orch.url, "http://127.0.0.1:1"]) as gateway:
        told = gateway.explain("echo")
        assert [(one.route, one.usable) for one in told.candidates] == [
            ("live_runner", True), ("live_runner", False), ("", False), ("", False), ("", False),
        ]  # fmt: skip
        first, priced, *rest = told.candidates
        assert first.latency is not None
        assert first.available == 1000
        assert priced.reason == "it asks for payment"
        assert "mode 'sometimes'" in rest[0].reason
        assert "address can't be used" in rest[1].reason
        assert "refused" in rest[2].reason
        text = str(told)
        assert "1 of 5 candidates can be used" in text
        assert "1000 of 1000 places free, free of charge, answers in" in text
        assert "over max_price" in str(gateway.explain("echo", max_price="6 wei/second"))
        live = gateway.explain("echo", live=True)
        assert not live.usable
        assert "has no sessions" in str(live)
        assert not orch.calls("echo"), "no worker is asked"

        async def session() -> None:
            async with gateway.live("echo"):
                pass

        with pytest.raises(NoOrchestratorError) as caught:
            asyncio.run(session())
        against = [one.reason for one in live.candidates]
        assert [one.reason for one in caught.value.rejections] == against


async def test_explained_without_blocking(orch: Any) -> None:
    async with Gateway(orch_url=orch.url) as gateway:
        told = await gateway.explain_async("p-echo", live=True)
        assert told.usable[0].route == "live_runner"
        assert (await gateway.explain_async("nothing")).usable == ()


# Calls of one's own


def test_calls_that_began_since_take_places() -> None:
    records = Records()
    one, two = a_runner(1, available=1, capacity=1), a_runner(2, available=1, capacity=1)
    for _ in range(20):
        records.began(one.url)
        assert order(one, two, records=records) == [two, one]
        assert order(one, two, records=records, ordered=True) == [two, one]
        records.ended(one.url)
        assert order(one, two, records=records, ordered=True) == [one, two]
    records.began(one.url)
    known = dataclasses.replace(one, available=0, ours=1)  # as it says while that call is under way
    assert order(known, two, records=records, ordered=True) == [two, known]
    records.ended(one.url)
    assert order(known, two, records=records, ordered=True) == [known, two], "its place is free again"
    assert not records.under_way(one.url)
    offers = [Offer(f"https://o{number}", available=1) for number in (1, 2)]
    records.began(place_of("https://o1", "job"))
    assert offers_in_turn(offers, "job", records=records, ordered=True) == offers[::-1]


@pytest.mark.parametrize("how", ["run", "stream", "live"])
async def test_calls_at_once_take_places_beside_each_other(orch: Any, tls_orch: Any, how: str) -> None:
    """Two orchestrators with a place each get a call each, though both were listed before the first one."""
    both = (orch, tls_orch)
    for place in both:
        place.apps["slow"].capacity = place.apps["live"].capacity = 1
    async with Gateway(orch_url=[orch.url, tls_orch.url]) as gateway:
        records = gateway._calls._resolver.records
        await gateway.capabilities_async()  # both are listed, with a free place each
        if how == "live":
            started = await asyncio.gather(
                *(gateway._calls.open_live(LiveCall("live", f"id-{number}")) for number in range(2))
            )
            assert {one.orchestrator for one in started} == {orch.url, tls_orch.url}
            await asyncio.gather(*(one.stop() for one in started))
        else:
            streams = [gateway.stream_async("slow") for _ in range(2)]
            calls = [
                asyncio.ensure_future(
                    streams[number].__aenter__() if how == "stream" else gateway.run_async("slow")
                )
                for number in range(2)
            ]
            for place in both:
                await place.wait_async(lambda place=place: place.notes, "each has a call")
            assert [len(place.calls("slow")) for place in both] == [1, 1], "nobody had to refuse one"
            for place in both:
                place.gate("slow").open()
            await asyncio.gather(*calls)
            await asyncio.gather(*(stream.aclose() for stream in streams))
        assert not records._under_way
