"""What paying costs in time: paid calls beside free ones, ours and the published peer's."""

from __future__ import annotations

import asyncio
import importlib
import json
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from options import Options
from peer import peer_python
from rows import Row
from side import SideFailed

__all__ = ["main"]

HERE = Path(__file__).resolve().parent
_APP = "bench/paying"
_PRICE = "0.00001"  # US dollars a call, which is one ticket: what more of them cost is the nodes' time
_COUNT = 40  # calls of each kind in a round
_LIMIT = 0.5  # of the peer's


def main(options: Options) -> list[Row]:
    """Both sides in turn, round by round."""
    took: dict[str, dict[str, list[float]]] = {side: {"paid": [], "free": []} for side in options.sides}
    with ExitStack() as stack:
        asked = stack.enter_context(_stage(options.go))
        asked["count"] = _COUNT
        for _ in range(options.rounds):
            for side in options.sides:
                for name, values in _measure(side, asked).items():
                    took[side][name] += values
    medians = {
        side: {name: statistics.median(values) for name, values in found.items()}
        for side, found in took.items()
    }
    extra = {side: found["paid"] - found["free"] for side, found in medians.items()}
    ours, peer = medians["ours"], medians.get("peer", {})
    return [
        Row("free call", ours["free"], "ms", peer.get("free")),
        Row("paid call", ours["paid"], "ms", peer.get("paid")),
        Row("paying", extra["ours"], "ms", extra.get("peer"), limit=_LIMIT, note="the one less the other"),
    ]


def _measure(side: str, asked: dict[str, Any]) -> dict[str, list[float]]:
    python = sys.executable if side == "ours" else str(peer_python())
    done = subprocess.run(
        [python, "-m", "callers.paying", side],
        cwd=HERE, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode:
        raise SideFailed(f"{side} failed (exit code {done.returncode}); its words are above.")
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


@contextmanager
def _stage(go: Path | None) -> Iterator[dict[str, Any]]:
    """A network on a chain and one off it, each with the same application behind it."""
    for folder in ("conformance", "paidnet"):
        sys.path.append(str(HERE.parent / "tests" / folder))
    harness = importlib.import_module("harness")
    paid_harness = importlib.import_module("paid_harness")
    workers = importlib.import_module("paid_workers")
    paid = paid_harness.EmbeddedPaid() if go is None else paid_harness.PaidGoLivepeer(go)
    free = harness.Embedded() if go is None else harness.GoLivepeer(go)
    with ExitStack() as stack:
        stack.callback(paid.stop)
        stack.callback(free.stop)
        stack.enter_context(paid)
        stack.enter_context(free)
        run = stack.enter_context(_loop())
        runners = {}
        for name, network in (("paid", paid), ("free", free)):
            worker = run(_entered(workers.PaidWorker, network))
            stack.callback(_left, worker, run)
            runners[name] = run(worker.price("fixed", "single-shot", app=_APP, capacity=64, price=_PRICE))
        yield {
            "app": _APP,
            "paid": paid.url,
            "free": free.url,
            "signer": paid.signer_url,
            "paid_url": runners["paid"].entry,
            "free_url": runners["free"].entry,
        }


async def _entered(make: Any, network: Any) -> Any:
    return await make(network).__aenter__()


def _left(worker: Any, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
    run(worker.__aexit__(None, None, None))


@contextmanager
def _loop() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """A loop in a thread of its own; yields what runs something there."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
