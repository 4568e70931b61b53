"""Which BYOC capabilities orchestrators list, for calls that found no free place of one.

A job token doesn't tell a capability whose places are all taken from one that isn't there; gRPC does. So no
input goes to an orchestrator that never heard of the capability, and a misspelt name meets the right one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from ._fork import abandon, on_fork
from ._http import Pool, running_loop
from ._payer import Payer
from ._urls import redact
from .errors import LivepeerError

__all__ = ["Names"]

_FRESH = 5.0  # seconds that an answer is believed
_PATIENCE = 5.0  # seconds for an orchestrator to answer
_AT_ONCE = 32  # orchestrators asked at the same time
_logger = logging.getLogger("livepeer.client")


class Names:
    """The names that a gateway's orchestrators list; calls on one loop share the requests in flight."""

    def __init__(self, pool: Pool, payer: Payer | None = None) -> None:
        self._pool = pool
        self._payer = payer
        self._kept: dict[str, tuple[float, frozenset[str] | None]] = {}
        self._asking: dict[tuple[asyncio.AbstractEventLoop, str], asyncio.Task[frozenset[str] | None]] = {}
        on_fork(self)

    async def of(self, orchestrators: Sequence[str]) -> dict[str, frozenset[str] | None]:
        """The names by orchestrator; None where it doesn't say."""
        limit = asyncio.Semaphore(_AT_ONCE)
        answers = await asyncio.gather(*(self._of(url, limit) for url in orchestrators))
        return dict(zip(orchestrators, answers, strict=True))

    async def _of(self, url: str, limit: asyncio.Semaphore) -> frozenset[str] | None:
        async with limit:
            kept = self._kept.get(url)
            if kept is not None and time.monotonic() - kept[0] < _FRESH:
                return kept[1]
            key = (running_loop(), url)
            task = self._asking.get(key)
            if task is None or task.done():
                task = self._asking[key] = key[0].create_task(self._ask(url))
                task.add_done_callback(lambda _: self._asking.pop(key, None))
            # Shielded, because it belongs to every caller that waits for it.
            return await asyncio.shield(task)

    def _after_fork(self) -> None:
        abandon(self._asking)
        self._asking = {}

    async def _ask(self, url: str) -> frozenset[str] | None:
        from ._grpc.orchestrator import get_orchestrator
        from ._merging import byoc_names

        names: frozenset[str] | None = None
        try:
            async with asyncio.timeout(_PATIENCE):
                payer = await self._payer.identity() if self._payer is not None else None
                names = frozenset(byoc_names(await get_orchestrator(url, self._pool, payer=payer)))
        except (LivepeerError, TimeoutError) as error:
            _logger.debug("the BYOC capabilities of %s are not known: %s", redact(url), error)
        self._kept[url] = (time.monotonic(), names)
        return names
