"""Asks and decides what a call would, without making it; see `Gateway.explain`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ._through_node import against
from ._urls import redact
from .catalogue import Price
from .errors import Rejection
from .explanation import Candidate, Explanation
from .offers import Offer
from .records import place_of
from .resolution import Resolver
from .routes.lv2v import PIPELINE
from .selection import Verb, check_names, free_of, names_of, offers_in_turn, priced, ranked, resting

__all__ = ["explain"]


async def explain(
    resolver: Resolver, capability: str, model: str | None, verb: Verb, max_price: Price | None
) -> Explanation:
    """Ask who may have a capability, and tell of each what a call would make of it. No worker is asked."""
    check_names(capability, model)
    if resolver.through_node:
        return await _through_node(resolver, capability, model, verb, max_price)
    listing, _ = await resolver.discovery.listing(apps=names_of(capability, model))
    if not listing.complete:
        listing, _ = await resolver.discovery.listing(fresh=True, apps=names_of(capability, model))
    records = resolver.records
    runners, against = ranked(
        listing, capability, model, verb,
        ordered=resolver.ordered, max_price=max_price, records=records, pays=resolver.wallet is not None,
    )  # fmt: skip
    offers = await resolver.offers.of(capability, listing.orchestrators, all_of_them=True)
    signed = {
        offer.orchestrator for offer in offers if verb == "call" and await resolver.signable(offer, max_price)
    }

    def told(candidate: Candidate, orchestrator: str, place: str, facts: list[str]) -> Candidate:
        latency, rests = records.latency(orchestrator), resting(records, orchestrator, place)
        if latency is not None:
            facts.append(f"answers in {1000 * latency:.0f} ms")
        if rests:
            why = records.reason(place) or records.reason(orchestrator) or "it failed"
            facts.append(f"left alone for {rests:.0f} s more, unless no other is left: {why}")
        return dataclasses.replace(candidate, reason=", ".join(facts), latency=latency, rests=rests)

    def usable() -> Iterator[Candidate]:
        for runner in runners:
            free = free_of(runner, records)
            facts = [_places(free, runner.capacity), str(runner.price or "free of charge")]
            yield told(
                Candidate(runner.url, "live_runner", True, "", None, runner.price, free),
                runner.orchestrator, runner.url, facts,
            )  # fmt: skip
        if verb == "live" and capability == PIPELINE:
            for url in listing.orchestrators:
                facts = ["whether it has the pipeline is found out by the call"]
                yield told(Candidate(redact(url), "lv2v", True, ""), url, place_of(url, PIPELINE), facts)
        for offer in offers_in_turn(offers, capability, ordered=resolver.ordered, records=records):
            paid = offer.orchestrator in signed
            if not (offer.usable or paid) or (runners and not offer.available):
                continue
            free = offer.available
            facts = [_places(free) if free else "no free place is shown, if it has the capability at all"]
            facts += [f"{offer.price or 'free of charge'}, by a signer that signs jobs"] if paid else []
            facts += ["tried when no live runner is left"] if runners else []
            url = offer.orchestrator
            yield told(
                Candidate(redact(url), "byoc", True, "", None, offer.price, free),
                url, place_of(url, capability), facts,
            )  # fmt: skip

    unusable = [_unusable(one, "live_runner") for one in against]
    unusable += [
        _unusable(against_it, "byoc", offer)
        for offer in offers
        if offer.orchestrator not in signed and (against_it := priced(offer, max_price)) is not None
    ]
    unusable += [_unusable(one, "") for one in listing.rejections]
    return Explanation(capability, model, (*usable(), *unusable))


async def _through_node(
    resolver: Resolver, capability: str, model: str | None, verb: Verb, max_price: Price | None
) -> Explanation:
    """The orchestrators that a gateway node would be asked to use, in that order."""
    listing, _ = await resolver.discovery.listing()
    offers = await resolver.offers.of(capability, listing.orchestrators, all_of_them=True)
    known = {offer.orchestrator: offer for offer in offers}

    def candidates() -> Iterator[Candidate]:
        for url in listing.orchestrators:
            offer = known[url]
            told = offer.price is not None or offer.available > 0
            reason = against(offer, max_price) if max_price is not None else None
            if verb == "live":
                reason = "live sessions don't go through a gateway node"
            facts = [f"through {', '.join(resolver.nodes)}"]
            if told:
                facts += [_places(offer.available), str(offer.price or "free of charge")]
            else:
                facts.append("the node finds out whether it has the capability, and a free place")
            yield Candidate(
                redact(url), "gateway_node", reason is None, reason or ", ".join(facts),
                None, offer.price, offer.available if told else None,
            )  # fmt: skip

    found = sorted(candidates(), key=lambda one: not one.usable)
    return Explanation(capability, model, (*found, *(_unusable(one, "") for one in listing.rejections)))


def _unusable(rejection: Rejection, route: str, offer: Offer | None = None) -> Candidate:
    price, available = (offer.price, offer.available) if offer is not None else (None, None)
    return Candidate(rejection.where, route, False, rejection.reason, rejection.hint, price, available)


def _places(free: int, capacity: int | None = None) -> str:
    if free <= 0:
        return "no free place"
    return f"{free} of {capacity} places free" if capacity is not None else f"{free} places free"
