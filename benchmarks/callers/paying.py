"""The process of one side of `paying`: paid calls and free ones in turn; prints how long each took.

Run as ``python -m callers.paying SIDE`` in the `benchmarks` folder, with a JSON object on stdin: the URLs of
the orchestrators, ``paid`` and ``free``, of the runners' paths there, and of the signer; and how many calls.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

__all__: list[str] = []

Calling = Callable[[], Awaitable[Any]]
_INPUT = {"a": 1}
_WARM = 3


async def _ours(asked: dict[str, Any]) -> dict[str, Any]:
    from livepeer.client import Gateway

    async with (
        Gateway(orch_url=asked["paid"], signer_url=asked["signer"]) as paying,
        Gateway(orch_url=asked["free"]) as free,
    ):
        return await _measured(
            asked,
            lambda: paying.run_async(asked["app"], input=_INPUT, path="/run"),
            lambda: free.run_async(asked["app"], input=_INPUT, path="/run"),
        )


async def _peer(asked: dict[str, Any]) -> dict[str, Any]:
    from livepeer_gateway import call_runner  # type: ignore[import-not-found,unused-ignore]

    return await _measured(
        asked,
        lambda: call_runner(
            asked["paid_url"], payload=_INPUT, signer_url=asked["signer"], payment_unit="fixed"
        ),
        lambda: call_runner(asked["free_url"], payload=_INPUT),
    )


async def _measured(asked: dict[str, Any], paid: Calling, free: Calling) -> dict[str, Any]:
    took: dict[str, list[float]] = {"paid": [], "free": []}
    for number in range(asked["count"] + _WARM):
        for name, call in (("free", free), ("paid", paid)):
            began = time.perf_counter()
            await call()
            if number >= _WARM:
                took[name].append(1000 * (time.perf_counter() - began))
    return took


def main() -> None:
    """Measure what stdin asks for."""
    asked = json.load(sys.stdin)
    side = {"ours": _ours, "peer": _peer}[sys.argv[1]]
    print(json.dumps(asyncio.run(side(asked))))


if __name__ == "__main__":
    main()
