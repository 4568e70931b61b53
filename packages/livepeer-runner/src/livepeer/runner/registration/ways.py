"""The ways of registering, by the names that the option `register` has for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from ..options import RunnerOptions, description, offer, ways
from .byoc import ByocRegistration
from .live_runner import LiveRunnerRegistration

if TYPE_CHECKING:
    from .._host import Host

__all__ = ["Registration", "registrations"]


class Registration(Protocol):
    """What keeps a host registered at an orchestrator, from its making on until `aclose`."""

    @property
    def runner_id(self) -> str | None:
        """The id that the orchestrator gave; None while it gave none, and where there are no ids."""

    async def registered(self) -> str:
        """Wait until the orchestrator knows the host; the id or name by which it does."""

    async def aclose(self) -> None:
        """End it, and tell the orchestrator."""


def registrations(
    host: Host, url: str, where: tuple[str, str] | None, options: RunnerOptions
) -> list[Callable[[], Registration]]:
    """What begins the registrations that the options ask for.

    Args:
        host: What to register.
        url: Where it listens.
        where: The orchestrator's URL and secret; None when there is nowhere to register.
        options: The options, which are checked here.

    Raises:
        ConfigurationError: They can't work.
    """
    asked = ways(options)
    if where is None:
        return []
    begin: list[Callable[[], Registration]] = []
    if "live-runner" in asked:
        begin.append(partial(LiveRunnerRegistration, host, *where, description(host, url, options)))
    if "byoc" in asked:
        host.byoc = True
        begin.append(partial(ByocRegistration, host, *where, offer(host, url, options)))
    return begin
