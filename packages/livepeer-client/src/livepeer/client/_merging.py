"""One list of capabilities from all that orchestrators say, in three tongues. Pure decisions, without I/O.

Live runners are in ``/discovery``; BYOC capabilities and the pipelines that orchestrators bring along are in
the answer of gRPC's ``GetOrchestrator`` (go-livepeer v0.9.1, ``core/orchestrator.go``); what is free of a
BYOC capability, and its price, are in a job token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from .catalogue import Capability, Gpu, Mode, Price, Runner, Transport
from .offers import Offer

if TYPE_CHECKING:
    from ._grpc.lp_rpc_pb2 import OrchestratorInfo
    from ._grpc.lp_rpc_pb2 import PriceInfo as GrpcPrice

__all__ = ["PIPELINES", "Entry", "byoc_entry", "byoc_names", "merge", "model_entries", "runner_entry"]

LIVE_VIDEO = 35
_BYOC = 37
PIPELINES: dict[int, str] = {
    27: "text-to-image",
    28: "image-to-image",
    29: "image-to-video",
    30: "upscale",
    31: "audio-to-text",
    32: "segment-anything-2",
    33: "llm",
    34: "image-to-text",
    LIVE_VIDEO: "live-video-to-video",
    36: "text-to-speech",
}
"""The pipelines that orchestrators bring along, by go-livepeer's numbers (``core/capabilities.go``)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one orchestrator has of one capability; the fields are those of `Capability`."""

    name: str
    transport: Transport
    mode: Mode
    orchestrator: str
    capacity: int | None = None
    available: int | None = None
    price: Price | None = None
    gpu: Gpu | None = None
    schema_url: str | None = None
    model: str | None = None


def runner_entry(runner: Runner) -> Entry:
    """A live runner."""
    url = runner.metadata.get("schema_url")
    return Entry(
        name=runner.app,
        transport="live-runner",
        mode=runner.mode,
        orchestrator=runner.orchestrator,
        capacity=runner.capacity,
        available=max(0, runner.available),
        price=runner.price,
        gpu=runner.gpu,
        schema_url=str(url) if url else None,
    )


def byoc_names(info: OrchestratorInfo) -> dict[str, Price | None]:
    """The BYOC capabilities of an orchestrator and their prices; workers that have died may be among them."""
    return {
        entry.constraint: _price(entry, "seconds", info)
        for entry in info.capabilities_prices
        if entry.capability == _BYOC and entry.constraint
    }


def byoc_entry(name: str, orchestrator: str, price: Price | None, offer: Offer | None) -> Entry:
    """A BYOC capability.

    Args:
        name: Its name.
        orchestrator: The orchestrator's URL.
        price: What the orchestrator lists as its price.
        offer: What its job token says; None when there is none.
    """
    told = offer is not None and (offer.usable or offer.price is not None)
    return Entry(
        name=name,
        transport="byoc",
        mode="single-shot",
        orchestrator=orchestrator,
        available=offer.available if told and offer is not None else None,
        price=offer.price if told and offer is not None else price,
    )


def model_entries(info: OrchestratorInfo, orchestrator: str) -> Iterator[Entry]:
    """The models of the pipelines that an orchestrator brings along."""
    prices = {(entry.capability, entry.constraint): entry for entry in info.capabilities_prices}
    for number, constraints in info.capabilities.constraints.PerCapability.items():
        pipeline = PIPELINES.get(number)
        if pipeline is None:
            continue
        for model, told in constraints.models.items():
            price = prices.get((number, model)) or prices.get((number, "default")) or info.price_info
            # An external container counts nothing: 0 of 0, and takes every session.
            counted = told.capacity + told.capacityInUse > 0 or number != LIVE_VIDEO
            yield Entry(
                name=pipeline,
                transport="lv2v" if number == LIVE_VIDEO else "builtin",
                mode="persistent" if number == LIVE_VIDEO else "single-shot",
                orchestrator=orchestrator,
                capacity=told.capacity + told.capacityInUse if counted else None,
                available=told.capacity if counted else None,
                price=_price(price, "pixels", info),
                gpu=_gpu(info, pipeline, model),
                model=model,
            )


def merge(entries: Iterable[Entry]) -> list[Capability]:
    """Capabilities by name, in alphabetical order, from all orchestrators."""
    groups: dict[tuple[str, str, str, str], list[Entry]] = {}
    for entry in entries:
        key = entry.name, entry.model or "", entry.transport, entry.mode
        groups.setdefault(key, []).append(entry)
    return [
        Capability(
            name=group[0].name,
            transport=group[0].transport,
            mode=group[0].mode,
            capacity=_sum(entry.capacity for entry in group),
            available=_sum(entry.available for entry in group),
            price=_lowest(group),
            gpu=next((entry.gpu for entry in group if entry.gpu), None),
            orchestrators=tuple(dict.fromkeys(entry.orchestrator for entry in group)),
            schema_url=next((entry.schema_url for entry in group if entry.schema_url), None),
            model=group[0].model,
        )
        for _, group in sorted(groups.items())
    ]


def _sum(numbers: Iterable[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _lowest(group: list[Entry]) -> Price | None:
    prices = [entry.price for entry in group]
    if any(price is None for price in prices):
        return None
    return min((price for price in prices if price is not None), key=lambda price: price.amount)


def _price(price: GrpcPrice, unit: str, info: OrchestratorInfo) -> Price | None:
    """A price of gRPC's; an orchestrator that runs offchain lists prices, too, and asks for none."""
    if not info.HasField("ticket_params") or price.pixelsPerUnit <= 0 or price.pricePerUnit <= 0:
        return None
    amount = Fraction(price.pricePerUnit, price.pixelsPerUnit)
    return Price(-(-amount.numerator // amount.denominator), unit)


def _gpu(info: OrchestratorInfo, pipeline: str, model: str) -> Gpu | None:
    for hardware in info.hardware:
        if (hardware.pipeline, hardware.model_id) == (pipeline, model):
            for _, gpu in sorted(hardware.gpu_info.items()):
                return Gpu(gpu.id, gpu.name, gpu.memory_total // (1 << 20))
    return None
