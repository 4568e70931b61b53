"""What a remote signer knows of the orchestrators (``server/remote_discovery.go``, v0.9.1)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp

__all__ = ["SignerDiscovery"]

_PATIENCE = 5.0  # seconds for one orchestrator
_SCORE = 1  # of every orchestrator


class SignerDiscovery:
    """The orchestrators that a signer lists, asked anew every so often.

    A go-livepeer signer finds out in the background; this one does when it is asked. What an orchestrator has
    besides runners (the models of its AI worker) comes with its address.

    Args:
        interval: Seconds for which an answer is kept.
        clock: The monotonic time in seconds.
    """

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._known: list[dict[str, Any]] = []
        self._cached: list[dict[str, Any]] = []
        self._cached_at = 0.0

    def learn(self, orchestrators: Sequence[dict[str, Any]]) -> None:
        """The orchestrators that there are: ``{"url", "capabilities"}``."""
        self._known = list(orchestrators)
        self._cached = []

    async def orchestrators(self, wanted: Sequence[str]) -> list[dict[str, Any]] | None:
        """Those that have one of the capabilities, or all; None when nothing is known of any."""
        if not self._cached or self._clock() - self._cached_at > self._interval:
            self._cached = [entry for one in self._known for entry in await self._asked(one)]
            self._cached_at = self._clock()
        if not self._cached:
            return None
        wanted = [name for name in wanted if name]
        if not wanted:
            return self._cached
        found: list[dict[str, Any]] = []
        for name in wanted:
            found += [one for one in self._cached if name in one["capabilities"] and one not in found]
        return found

    async def _asked(self, known: dict[str, Any]) -> list[dict[str, Any]]:
        names, runners = set(known["capabilities"]), []
        timeout = aiohttp.ClientTimeout(total=_PATIENCE)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{known['url']}/discovery", ssl=False) as answer,  # it signs for itself
            ):
                told = json.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return []
        for runner in told[0].get("runners", []):
            if "price_info" in runner:  # one without can't be paid
                runners.append(runner)
                names.add(runner["app"])
        if not names:
            return []
        entry = {"address": known["url"], "score": _SCORE, "capabilities": sorted(names)}
        return [entry | ({"runners": runners} if runners else {})]
