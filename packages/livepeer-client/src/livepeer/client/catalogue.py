"""What an orchestrator lists: runners and their prices; and what a caller sees of it: capabilities."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Capability", "Gpu", "Mode", "Price", "Runner", "Transport", "parse_runner"]

Mode = Literal["persistent", "single-shot"]


@dataclass(frozen=True, slots=True)
class Price:
    """A price in wei per unit.

    Attributes:
        amount: Wei per unit.
        unit: ``"seconds"``, ``"720p-pixel-seconds"``, ``"pixels"`` or ``"fixed"`` (per call).
    """

    amount: int
    unit: str

    def __str__(self) -> str:
        units = {"seconds": "second", "fixed": "call", "pixels": "pixel"}
        return f"{self.amount} wei/{units.get(self.unit, self.unit)}"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as its runner describes it; `vram_mb` in MiB."""

    id: str = ""
    name: str = ""
    vram_mb: int = 0


@dataclass(frozen=True, slots=True)
class Runner:
    """One entry of an orchestrator's `/discovery` (go-livepeer v0.9.1, live runners).

    `ours` is how many of the gateway's own calls were under way there when it said how many are `available`.
    """

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
    ours: int = 0


Transport = Literal["live-runner", "byoc", "lv2v", "builtin"]


@dataclass(frozen=True, slots=True)
class Capability:
    """Something the network can do now.

    Attributes:
        name: What to pass to `run`, `stream` or `live`.
        transport: How it is reached: ``"live-runner"``; ``"byoc"``, a container that registered; ``"lv2v"``,
            the live video pipeline that orchestrators bring along; ``"builtin"``, their other pipelines.
        mode: ``"single-shot"`` for calls, ``"persistent"`` for sessions.
        capacity: Calls or sessions at once, over all orchestrators. None where nobody tells: of BYOC only
            what is free is told, and live video in an external container says 0 of 0 and takes every session.
        available: How many of them are free; None where nobody tells.
        price: The lowest price; None when it is free.
        gpu: The first runner's GPU, when it names one.
        orchestrators: URLs of the orchestrators that have it.
        schema_url: Where its JSON Schema can be read, when its author says so.
        model: What to pass as `model`, for the pipelines that orchestrators bring along.
    """

    name: str
    transport: Transport
    mode: Mode
    capacity: int | None
    available: int | None
    price: Price | None
    gpu: Gpu | None
    orchestrators: tuple[str, ...]
    schema_url: str | None = None
    model: str | None = None


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
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"the price {info.get('price')!r} is not a whole number") from None
    return Price(amount, str(info.get("unit", ""))) if amount > 0 else None


def _gpu(info: Any) -> Gpu | None:
    if not isinstance(info, dict):
        return None
    vram = info.get("vram_mb")
    memory = int(vram) if isinstance(vram, int | float) and math.isfinite(vram) else 0
    return Gpu(str(info.get("id", "")), str(info.get("name", "")), memory)


def _metadata(text: Any) -> dict[str, Any]:
    """The runner's own words about its paths; another runner's metadata is a free text and means nothing."""
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) and "livepeer" in value else {}
