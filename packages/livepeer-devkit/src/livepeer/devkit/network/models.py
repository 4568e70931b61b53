"""What an AI worker is configured with, checked without loading what it needs to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from livepeer.trickle.errors import ConfigurationError

__all__ = ["PIPELINE", "START_TIMEOUT", "checked_models"]

PIPELINE = "live-video-to-video"
START_TIMEOUT = 120.0  # seconds a container may take to say that it is there


def checked_models(configured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The entries as they are kept: with what ``-aiModels`` has for the containers of live pipelines.

    Raises:
        ConfigurationError: An entry has another pipeline, or no model or address.
    """
    known = {"pipeline", "model_id", "url", "capacity", "warm", "price_per_unit"}
    checked = []
    for entry in configured:
        wrong = sorted(set(entry) - known)
        if wrong or entry.get("pipeline", PIPELINE) != PIPELINE:
            what = f"has {', '.join(wrong)}" if wrong else f"is of the pipeline {entry['pipeline']!r}"
            raise ConfigurationError(
                f"The model {entry.get('model_id')!r} {what}; the embedded network runs {PIPELINE} only.",
                hint=f"Give each model its {', '.join(sorted(known))}.",
            )
        if not entry.get("model_id") or not str(entry.get("url", "")).startswith(("http://", "https://")):
            raise ConfigurationError(
                f"A model needs its model_id and the url of its container, not {dict(entry)!r}.",
                hint='Such as {"model_id": "noop", "url": "http://127.0.0.1:9000"}.',
            )
        checked.append({**entry, "pipeline": PIPELINE, "url": str(entry["url"]).rstrip("/")})
    return checked
