"""The AI worker of an orchestrator: which models it has, and what it believes that it could do.

As ``ai/worker`` (v0.9.1) does it for external containers: each is asked how it is while the node starts, and
never again; a container takes any number of jobs, whatever capacity its model was configured with.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .containers import ContainerFailed, Containers, Model
from .models import PIPELINE

__all__ = ["AIWorker"]


class AIWorker:
    """The models of one orchestrator.

    Args:
        configured: The entries of ``-aiModels`` (`models.checked_models`); none: there is no AI worker.
    """

    def __init__(self, configured: Sequence[Mapping[str, Any]] = ()) -> None:
        self.models: list[Model] = [
            Model(
                entry["model_id"],
                entry["url"],
                entry.get("capacity") or 1,
                bool(entry.get("warm")),
                price=entry.get("price_per_unit", 0),
            )
            for entry in configured
        ]
        self._containers: Containers | None = None

    async def start(self) -> None:
        """Wait for each container. Raises `LivepeerError` when one isn't there, or broken."""
        self._containers = Containers()
        try:
            for model in self.models:
                await self._containers.wait_for(model)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the connections to the containers."""
        containers, self._containers = self._containers, None
        if containers is not None:
            await containers.aclose()

    def has_capacity(self, model_id: str) -> bool:
        """Whether a job for a model may come: for every one, known or not, where there is an AI worker.

        The worker believes that it could start a container of its own (``docker.go``, ``HasCapacity``).
        """
        return bool(self.models)

    def constraints(self) -> dict[str, Model]:
        """What is advertised, by model id; of several containers the lowest version."""
        found: dict[str, Model] = {}
        for model in self.models:
            other = found.get(model.model_id)
            if other is None or _order(model.version) < _order(other.version):
                found[model.model_id] = model
        return found

    def address(self, model_id: str) -> str:
        """Where a job for the model goes, to any of its containers. Raises `ContainerFailed` without one."""
        containers = [model for model in self.models if model.model_id == model_id]
        if not containers:
            raise ContainerFailed(f"no container image found for live pipeline {model_id}")
        return f"{random.choice(containers).url}/{PIPELINE}"

    async def run(self, url: str, body: Mapping[str, Any]) -> None:
        """Give a job to the container at this address. Raises `ContainerFailed` and `NoAnswer`."""
        assert self._containers is not None
        await self._containers.run(url, body)


def _order(version: str) -> tuple[int, ...]:
    numbers = re.split(r"[-+]", version)[0].split(".")
    return tuple(int(number) for number in numbers if number.isdigit())
