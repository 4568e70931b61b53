"""The options of `serve` and `running`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from typing import Any, Literal, TypedDict, get_args

from yarl import URL

from livepeer.trickle.transport import TLSMode, TLSPolicy

from ._host import Host
from .errors import ConfigurationError
from .live_pipeline import LivePipeline
from .registration.capability import Offer
from .registration.heartbeats import Description

__all__ = ["RunnerOptions", "Way"]

_REPIN_AFTER = 10.0  # seconds; see `RunnerOptions.tls`
Way = Literal["live-runner", "byoc"]


class RunnerOptions(TypedDict, total=False):
    """The options of `serve` and `running`; each may be absent."""

    name: str | None
    """The capability's name; the pipeline's own when absent."""
    host: str
    """The address to listen at; ``"127.0.0.1"`` when absent."""
    port: int
    """The port; 0 takes a free one (what `running` does when absent; `serve` takes 8000)."""
    capacity: int | None
    """How many calls or sessions at once; the pipeline's own when absent."""
    orch_url: str | None
    """The orchestrator to register at; none when absent (`serve` then asks ``LIVEPEER_ORCH_URL``)."""
    secret: str | None
    """The orchestrator's ``-orchSecret`` (`serve`: ``LIVEPEER_ORCH_SECRET``)."""
    register: Way | Sequence[Way]
    """How to register there: ``"live-runner"`` (when absent), ``"byoc"``, or both as a tuple. BYOC
    registrations are free of charge for now, so they go without `price`; clients find them on orchestrators
    without payments."""
    runner_url: str | None
    """Where the orchestrator reaches this runner; ``http://host:port`` when absent (`serve`:
    ``LIVEPEER_RUNNER_URL``)."""
    price: float
    """US dollars per `price_unit`; 0 when absent. An orchestrator with payments wants more than 0."""
    price_unit: Literal["hour", "720p", "fixed"]
    """``"hour"`` when absent."""
    schema_url: str | None
    """A public URL of the schema, advertised so that clients need not call the runner for it."""
    runner_id: str | None
    """The live runner's id at the orchestrator, the same after each start: 1 to 64 letters, digits, hyphens
    and underscores; the orchestrator chooses one when absent. After a crash it keeps the id for up to 25 s,
    and the runner waits for it."""
    label: str | None
    """The operator's own name for this runner."""
    gpu: dict[str, Any] | None
    """``{"id", "name", "vram_mb"}``, advertised."""
    idle_timeout: float | None
    """After how many seconds without input a live session is ended; 60 when absent, None is never."""
    grace: float
    """For how many seconds calls may finish when the runner stops; 10 when absent."""
    tls: TLSMode | TLSPolicy
    """Which certificates of the orchestrator are accepted; ``"pin"`` when absent. A changed one is accepted
    10 s after the last change, because a runner has to be back soon after each restart."""


def description(host: Host, url: str, options: RunnerOptions) -> Description:
    """What an orchestrator is told about this host, which listens at `url`, as a live runner."""
    live = isinstance(host.pipeline, LivePipeline)
    metadata: dict[str, Any] = {"livepeer": 1} | ({"live": "/live"} if live else {"run": "/run"})
    if schema_url := options.get("schema_url"):
        metadata["schema_url"] = schema_url
    return Description(
        app=host.name,
        runner_url=_runner_url(url, options),
        mode="persistent" if live else "single-shot",
        capacity=host.capacity,
        price=options.get("price", 0.0),
        price_unit=options.get("price_unit", "hour"),
        metadata=json.dumps(metadata, separators=(",", ":")),
        version=host.pipeline.version,
        label=options.get("label"),
        gpu=options.get("gpu"),
        runner_id=options.get("runner_id"),
    )


def offer(host: Host, url: str, options: RunnerOptions) -> Offer:
    """What an orchestrator is told about this host, which listens at `url`, as a BYOC capability."""
    if options.get("price"):
        raise ConfigurationError(
            f"price={options['price']}: a BYOC registration has no price in US dollars that every "
            'orchestrator takes. Leave price out (the capability is free), or use register="live-runner".'
        )
    text = inspect.getdoc(type(host.pipeline)) or ""
    return Offer(
        name=host.name,
        url=_runner_url(url, options),
        capacity=host.capacity,
        description=text.partition("\n\n")[0][:500],
    )


def ways(options: RunnerOptions) -> tuple[Way, ...]:
    """How to register, each way once; raises `ConfigurationError`."""
    asked = options.get("register", "live-runner")
    found: tuple[Way, ...] = (asked,) if isinstance(asked, str) else tuple(dict.fromkeys(asked))
    if not found or not set(found) <= set(get_args(Way)):
        raise ConfigurationError(
            f'register={asked!r}: it is "live-runner", "byoc", or ("live-runner", "byoc").'
        )
    if options.get("runner_id") and "live-runner" not in found:
        raise ConfigurationError(
            f"runner_id={options['runner_id']!r}: a BYOC registration has no id but the capability's name; "
            'leave it out, or use register="live-runner".'
        )
    return found


def _runner_url(url: str, options: RunnerOptions) -> str:
    runner_url = options.get("runner_url")
    if runner_url is None:
        if URL(url).host in ("0.0.0.0", "::"):
            raise ConfigurationError(
                f"The runner listens at {url}, which is no address that an orchestrator could call. "
                'Say where it reaches the runner: runner_url="http://10.0.0.5:8000" (LIVEPEER_RUNNER_URL).'
            )
        runner_url = url
    return runner_url.rstrip("/")


def tls_policy(options: RunnerOptions) -> TLSPolicy:
    """The memory of certificates that the options give, or ask for."""
    tls = options.get("tls", "pin")
    return tls if isinstance(tls, TLSPolicy) else TLSPolicy(tls, repin_after=_REPIN_AFTER)


def checked_orchestrator(options: RunnerOptions) -> tuple[str, str] | None:
    """The orchestrator's URL and secret; None when there is nowhere to register."""
    url, secret = options.get("orch_url"), options.get("secret")
    if not url:
        return None
    if not url.startswith(("http://", "https://")) or not URL(url).host:
        raise ConfigurationError(f"orch_url={url!r} is no URL; write https://host:8935.")
    if not secret:
        raise ConfigurationError(
            f"To register at {url} its secret is needed: secret=… or LIVEPEER_ORCH_SECRET, the value of the "
            "orchestrator's -orchSecret."
        )
    return url.rstrip("/"), secret
