"""What the network can do now: every orchestrator is asked in every way it has, and no worker is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ._http import Pool
from ._merging import Entry, byoc_entry, byoc_names, merge, model_entries, runner_entry
from ._payer import Identity, known
from ._urls import redact
from .catalogue import Capability
from .errors import LivepeerError, NoOrchestratorError, Rejection
from .offers import Offer
from .resolution import Resolver

if TYPE_CHECKING:
    from ._grpc.lp_rpc_pb2 import OrchestratorInfo

__all__ = ["survey"]

_PATIENCE = 10.0  # seconds for an orchestrator's gRPC
_AT_ONCE = 32  # orchestrators, and names of BYOC, asked at the same time
_logger = logging.getLogger("livepeer.client")


async def survey(resolver: Resolver, pool: Pool) -> list[Capability]:
    """Everything that the configured places have.

    An orchestrator whose gRPC doesn't answer still counts with its live runners; why it doesn't is logged.
    Through a gateway node there is BYOC alone.

    Raises:
        NoOrchestratorError: Nobody could be asked.
    """
    listing, _ = await resolver.discovery.listing(fresh=True)
    limit = asyncio.Semaphore(_AT_ONCE)
    payer = await known(resolver.payer)
    answers = await asyncio.gather(*(_info(url, pool, limit, payer) for url in listing.orchestrators))
    infos = {
        url: info for url, info in zip(listing.orchestrators, answers, strict=True)
        if not isinstance(info, Rejection)
    }  # fmt: skip
    refused = tuple(answer for answer in answers if isinstance(answer, Rejection))
    if not infos and not listing.runners and (listing.reached == 0 or listing.rejections):
        raise NoOrchestratorError(
            "No orchestrator could be asked for its capabilities.",
            rejections=listing.rejections + refused,
        )
    if resolver.through_node and not infos:
        raise NoOrchestratorError(
            "A gateway node doesn't tell what it can call, and no orchestrator behind it does.",
            rejections=listing.rejections + refused,
            hint="Orchestrators on a chain tell it to a wallet: give signer_url= beside gateway_url=.",
        )
    offers = await _offers(resolver, infos, limit)

    def entries() -> Iterator[Entry]:
        if resolver.through_node:
            for url, info in infos.items():
                for name, price in byoc_names(info).items():
                    yield byoc_entry(name, url, price, offers.get((url, name)))
            return
        for runner in listing.runners:
            yield runner_entry(runner)
        for url, info in infos.items():
            yield from model_entries(info, url)
            for name, price in byoc_names(info).items():
                yield byoc_entry(name, url, price, offers.get((url, name)))

    return merge(entries())


async def _offers(
    resolver: Resolver, infos: dict[str, OrchestratorInfo], limit: asyncio.Semaphore
) -> dict[tuple[str, str], Offer]:
    """What the job tokens of all BYOC capabilities say, by orchestrator and name."""
    havers: dict[str, list[str]] = {}
    for url, info in infos.items():
        for name in byoc_names(info):
            havers.setdefault(name, []).append(url)

    async def ask(name: str, urls: list[str]) -> list[Offer]:
        async with limit:
            return await resolver.offers.of(name, urls, fresh=True, all_of_them=True)

    answers = await asyncio.gather(*(ask(name, urls) for name, urls in havers.items()))
    return {
        (offer.orchestrator, name): offer
        for name, offers in zip(havers, answers, strict=True)
        for offer in offers
    }


async def _info(
    url: str, pool: Pool, limit: asyncio.Semaphore, payer: Identity | None
) -> OrchestratorInfo | Rejection:
    """The answer of an orchestrator's gRPC, or why there is none."""
    from ._grpc.orchestrator import get_orchestrator

    try:
        async with limit, asyncio.timeout(_PATIENCE):
            return await get_orchestrator(url, pool, payer=payer)
    except LivepeerError as error:
        return _unanswered(url, error.message, error.hint, retryable=error.retryable)
    except TimeoutError:
        return _unanswered(url, f"its gRPC did not answer within {_PATIENCE} s")


def _unanswered(url: str, reason: str, hint: str | None = None, *, retryable: bool = True) -> Rejection:
    _logger.debug("only the live runners of %s are known: %s", redact(url), reason)
    return Rejection(redact(url), reason, hint, retryable)
