"""What an orchestrator lists: runners and their prices, and the capabilities made of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Capability", "Gpu", "Mode", "Price", "Runner", "parse_runner"]

Mode = Literal["persistent", "single-shot"]


@dataclass(frozen=True, slots=True)
class Price:
    """A price in wei per unit.

    Attributes:
        amount: Wei per unit.
        unit: ``"seconds"``, ``"720p-pixel-seconds"`` or ``"fixed"`` (per call).
    """

    amount: int
    unit: str

    def __str__(self) -> str:
        return f"{self.amount} wei/{ {'seconds': 'second', 'fixed': 'call'}.get(self.unit, self.unit) }"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as its runner describes it; `vram_mb` in MiB."""

    id: str = ""
    name: str = ""
    vram_mb: int = 0


@dataclass(frozen=True, slots=True)
class Runner:
    """One entry of an orchestrator's `/discovery` (go-livepeer v0.9.1, live runners)."""

    orchestrator: str
    url: str
    app: str
    mode: Mode
    capacity: int = 1
    available: int = 1
    price: Price | None = None
    gpu: Gpu | None = None
    version: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Capability:
    """Something the network can do now.

    Attributes:
        name: What to pass to `run`, `stream` or `live`.
        transport: How it is reached; ``"live-runner"`` in this version.
        mode: ``"single-shot"`` for calls, ``"persistent"`` for sessions.
        capacity: Calls or sessions at once, over all orchestrators.
        available: How many of them are free.
        price: The lowest price; None when it is free.
        gpu: The first runner's GPU, when it names one.
        orchestrators: URLs of the orchestrators that have it.
        schema_url: Where its JSON Schema can be read, when its author says so.
    """

    name: str
    transport: str
    mode: Mode
    capacity: int
    available: int
    price: Price | None
    gpu: Gpu | None
    orchestrators: tuple[str, ...]
    schema_url: str | None = None


def parse_runner(entry: Any, orchestrator: str) -> Runner:
    """Read one runner of a discovery answer.

    Raises:
        ValueError: A field is missing or has another type; the text says which.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"the runner is a {type(entry).__name__}, not an object")
    mode = entry.get("mode")
    if mode not in ("persistent", "single-shot"):
        raise ValueError(f"the mode {mode!r} is unknown")
    capacity = _number(entry, "capacity", 1)
    return Runner(
        orchestrator=orchestrator,
        url=_text(entry, "url").rstrip("/"),
        app=_text(entry, "app"),
        mode=mode,
        capacity=capacity,
        available=_number(entry, "capacity_available", capacity),
        price=_price(entry.get("price_info")),
        gpu=_gpu(entry.get("gpu")),
        version=entry["version"] if isinstance(entry.get("version"), str) else "",
        metadata=_metadata(entry.get("metadata")),
    )


def merge(runners: list[Runner]) -> list[Capability]:
    """Capabilities by name, in alphabetical order, from all their runners."""
    groups: dict[tuple[str, Mode], list[Runner]] = {}
    for runner in runners:
        groups.setdefault((runner.app, runner.mode), []).append(runner)
    return [
        Capability(
            name=app,
            transport="live-runner",
            mode=mode,
            capacity=sum(runner.capacity for runner in group),
            available=sum(max(0, runner.available) for runner in group),
            price=_lowest(group),
            gpu=next((runner.gpu for runner in group if runner.gpu), None),
            orchestrators=tuple(dict.fromkeys(runner.orchestrator for runner in group)),
            schema_url=next(
                (str(r.metadata["schema_url"]) for r in group if r.metadata.get("schema_url")), None
            ),
        )
        for (app, mode), group in sorted(groups.items())
    ]


def _lowest(group: list[Runner]) -> Price | None:
    prices = [runner.price for runner in group]
    if any(price is None for price in prices):
        return None
    return min((price for price in prices if price is not None), key=lambda price: price.amount)


def _text(entry: dict[str, Any], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"the field {name!r} is missing or not a text")
    return value


def _number(entry: dict[str, Any], name: str, default: int) -> int:
    value = entry.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"the field {name!r} is not a whole number")
    return value


def _price(info: Any) -> Price | None:
    if not isinstance(info, dict):
        return None
    try:
        amount = int(info.get("price", 0))
    except (TypeError, ValueError):
        raise ValueError(f"the price {info.get('price')!r} is not a whole number") from None
    return Price(amount, str(info.get("unit", ""))) if amount > 0 else None


def _gpu(info: Any) -> Gpu | None:
    if not isinstance(info, dict):
        return None
    vram = info.get("vram_mb")
    return Gpu(
        str(info.get("id", "")), str(info.get("name", "")), int(vram) if isinstance(vram, int | float) else 0
    )


def _metadata(text: Any) -> dict[str, Any]:
    """The runner's own words about its paths; another runner's metadata is a free text and means nothing."""
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) and "livepeer" in value else {}
