"""Looks at everything that a call would need; see `Gateway.check`. Nothing is called, and nothing is paid."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ._bodies import SMALL, whole
from ._http import Pool, within
from ._observing import asking
from ._payer import Identity, identity_of
from ._survey import survey
from ._urls import redact
from .catalogue import Capability
from .config import Config
from .diagnosis import Diagnosis, Finding
from .errors import ConfigurationError, LivepeerError, PaymentError, Rejection
from .listing import Listing
from .resolution import Resolver

if TYPE_CHECKING:
    from ._grpc.lp_rpc_pb2 import OrchestratorInfo
    from .payments.signer import Signer

__all__ = ["diagnose"]

_PATIENCE = 10.0  # seconds for each answer
_AT_ONCE = 16  # orchestrators asked at the same time
_NOT_A_NODE = "What answers there is no gateway node: check gateway_url=."
_FUND = "Put ETH into the deposit and the reserve of {}, or ask the signer's operator to."
_UNSIGNED = "Whether its deposit pays for a ticket is told by check(sign=True), which asks for one, unsent."


async def diagnose(config: Config, pool: Pool, resolver: Resolver, *, sign: bool) -> Diagnosis:
    """Ask everybody who is configured."""
    findings = [_configuration(config)]
    findings += await asyncio.gather(*(_gateway_node(pool, url) for url in config.gateways))
    wallet = resolver.wallet
    identities: dict[Signer, Identity] = {}
    for signer in wallet.signers if wallet is not None else ():
        findings.append(await _signer(signer, identities, headers=bool(config.signer_headers)))
    try:
        listing, _ = await resolver.discovery.listing(fresh=True)
    except ConfigurationError as error:
        findings.append(Finding("discovery", "", False, error.message, error.hint))
        return Diagnosis(tuple(findings))
    findings += _services(config, listing)
    payer = next(iter(identities.values()), None)
    limit = asyncio.Semaphore(_AT_ONCE)
    answers = await asyncio.gather(*(_info(url, pool, payer, limit) for url in listing.orchestrators))
    infos = dict(zip(listing.orchestrators, answers, strict=True))
    through = bool(config.gateways)
    findings += [
        _orchestrator(url, listing, infos[url], resolver.records.latency(url), payer, through=through)
        for url in listing.orchestrators
    ]
    findings += [_rejected(one, through=through) for one in _others(config, listing)]
    if payer is not None:
        findings += await _funds(next(iter(identities)), payer, infos, sign=sign)
    capabilities, found = await _capabilities(resolver, pool, through=through)
    return Diagnosis((*findings, found), capabilities)


def _configuration(config: Config) -> Finding:
    places = ", ".join(map(redact, (*config.gateways, *config.places)))
    return Finding("configuration", "", True, f"from {config.source}: {places}")


async def _gateway_node(pool: Pool, gateway: str) -> Finding:
    """A node says what is wrong with a request that is no job, and does nothing."""
    url = f"{gateway}/process/request/"
    header = base64.b64encode(json.dumps({"timeout_seconds": 0}).encode()).decode()
    try:
        transport = await pool.transport()
        with asking(pool, "gateway_node", "POST", url) as answered:
            async with (
                within(_PATIENCE, url),
                await transport.send("POST", url, headers={"Livepeer": header}, body=b"") as answer,
            ):
                answered(answer.status)
                body = await whole(answer, SMALL, f"The answer of {redact(gateway)}")
                status = answer.status
    except LivepeerError as error:
        return Finding("gateway node", redact(gateway), False, error.message, error.hint)
    if status == 400 and body.startswith(b"Unable to parse job request"):
        told = "it answers; what it can pay, its operator knows"
        return Finding("gateway node", redact(gateway), True, told)
    return Finding("gateway node", redact(gateway), False, f"it answered {status}", _NOT_A_NODE)


async def _signer(signer: Signer, identities: dict[Signer, Identity], *, headers: bool) -> Finding:
    where = redact(signer.url)
    try:
        identities[signer] = identity_of(*await signer.payer())
    except LivepeerError as error:
        return Finding("signer", where, False, error.message, error.hint)
    detail = "it answers" if urlsplit(signer.url).scheme == "https" else "it answers, unencrypted"
    if headers:
        detail += ", and takes its headers"
    return Finding("signer", where, True, f"{detail}; its wallet is {identities[signer].address}")


def _services(config: Config, listing: Listing) -> Iterator[Finding]:
    """The discovery services, or the signers in their place, that list orchestrators."""
    if config.orchestrators:
        return
    against = {rejection.where: rejection for rejection in listing.rejections}
    services = config.discovery or config.signers
    for service in services:
        rejection = against.get(redact(service))
        if rejection is not None:
            yield Finding("discovery", rejection.where, False, rejection.reason, rejection.hint)
        else:
            count = len(listing.orchestrators)
            yield Finding(
                "discovery", redact(service), count > 0, f"it lists {_count(count, 'orchestrator')}"
            )
            return  # the others are asked only when this one fails


def _others(config: Config, listing: Listing) -> list[Rejection]:
    """What stands against orchestrators and runners, of which nothing was said yet."""
    services = (
        {redact(url) for url in (config.discovery or config.signers)} if not config.orchestrators else ()
    )
    known = {redact(url) for url in listing.orchestrators}
    return [one for one in listing.rejections if one.where not in services and one.where not in known]


def _rejected(rejection: Rejection, *, through: bool) -> Finding:
    ok = None if through else False
    return Finding("orchestrator", rejection.where, ok, rejection.reason, rejection.hint)


async def _info(
    url: str, pool: Pool, payer: Identity | None, limit: asyncio.Semaphore
) -> OrchestratorInfo | LivepeerError:
    from ._grpc.orchestrator import get_orchestrator

    try:
        async with limit, asyncio.timeout(_PATIENCE):
            return await get_orchestrator(url, pool, payer=payer)
    except LivepeerError as error:
        return error
    except TimeoutError:
        return LivepeerError(f"its gRPC did not answer within {_PATIENCE:.0f} s")


def _orchestrator(
    url: str,
    listing: Listing,
    info: OrchestratorInfo | LivepeerError,
    latency: float | None,
    payer: Identity | None,
    *,
    through: bool,
) -> Finding:
    where = redact(url)
    facts = [] if latency is None else [f"answers in {1000 * latency:.0f} ms"]
    if not through:
        count = sum(runner.orchestrator == url for runner in listing.runners)
        facts.append(_count(count, "live runner"))
    refusal = next((one for one in listing.rejections if one.where == where), None)
    if not isinstance(info, LivepeerError):
        chain = "on a chain" if info.HasField("ticket_params") else "offchain, so all is free"
        return Finding("orchestrator", where, True, ", ".join([*facts, f"runs {chain}"]))
    text = info.message
    if "sig check failed" in text:
        hint = None if payer is not None else "A signer (signer_url=, or a token) lets it tell its prices."
        return Finding("orchestrator", where, True, ", ".join([*facts, "runs on a chain"]), hint)
    if "insufficient sender reserve" in text:
        return Finding("orchestrator", where, True, ", ".join([*facts, "runs on a chain"]))
    if through:
        # Only the node has to reach it.
        return Finding("orchestrator", where, None, f"not reached from here, which calls don't need: {text}")
    if refusal is not None:
        return Finding("orchestrator", where, False, refusal.reason, refusal.hint)
    return Finding("orchestrator", where, None, ", ".join([*facts, f"its gRPC failed: {text}"]), info.hint)


async def _funds(
    signer: Signer,
    payer: Identity,
    infos: dict[str, OrchestratorInfo | LivepeerError],
    *,
    sign: bool,
) -> list[Finding]:
    """What orchestrators, which look at the chain, and the signer say of the wallet."""
    fund = _FUND.format(payer.address)
    for url, info in infos.items():
        if isinstance(info, LivepeerError) and "insufficient sender reserve" in info.message:
            detail = f"its reserve is too low, says {redact(url)}"
            return [Finding("funds", payer.address, False, detail, fund)]
    told = [info for info in infos.values() if not isinstance(info, LivepeerError)]
    on_chain = [info for info in told if info.HasField("ticket_params")]
    if not on_chain:
        return []
    reserve = "its reserve is enough for tickets"
    if not sign:
        return [Finding("funds", payer.address, None, reserve, _UNSIGNED)]
    try:
        await _one_ticket(signer, on_chain[0])
    except PaymentError as error:
        return [Finding("funds", payer.address, False, error.message, error.hint or fund)]
    return [Finding("funds", payer.address, True, f"{reserve}, and its deposit pays for them")]


async def _one_ticket(signer: Signer, info: OrchestratorInfo) -> None:
    """Ask for a payment of one unit, which is a ticket, and throw it away: unsent, it costs nothing.

    Raises:
        PaymentError: There is none.
    """
    orchestrator = base64.b64encode(info.SerializeToString()).decode()
    request = json.dumps({"orchestrator": orchestrator, "inPixels": 1})
    await signer.ask("/generate-live-payment", request.encode(), None)


async def _capabilities(
    resolver: Resolver, pool: Pool, *, through: bool
) -> tuple[tuple[Capability, ...], Finding]:
    try:
        found: Iterable[Capability] = await survey(resolver, pool)
    except LivepeerError as error:
        ok = None if through else False
        return (), Finding("capabilities", "", ok, error.message, error.hint)
    capabilities = tuple(found)
    if not capabilities:
        return (), Finding("capabilities", "", None, "none is listed now")
    return capabilities, Finding("capabilities", "", True, f"{len(capabilities)} can be called")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
