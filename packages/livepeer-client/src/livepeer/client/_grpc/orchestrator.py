"""``GetOrchestrator``: what an orchestrator has, and what a job there needs (go-livepeer v0.9.1)."""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .._http import Pool
    from .._payer import Identity
    from .lp_rpc_pb2 import OrchestratorInfo

__all__ = ["get_orchestrator"]

_ASKING = f"{__package__}.asking"


async def get_orchestrator(
    orchestrator: str,
    pool: Pool,
    *,
    capability: int | None = None,
    model: str | None = None,
    request_id: str | None = None,
    payer: Identity | None = None,
) -> OrchestratorInfo:
    """Ask an orchestrator for its description; one on a chain tells it to a payer alone.

    Args:
        orchestrator: Its base URL.
        pool: The gateway's connections; the certificate is the one that HTTP has pinned.
        capability: The id of a built-in pipeline that will be asked for; None lists everything.
        model: The model that the pipeline needs.
        request_id: The id of the call, for errors.
        payer: The wallet; None offchain.

    Returns:
        Its answer. An unknown or full `model` is no error here: capacity is not checked, because external
        containers advertise none and take jobs.

    Raises:
        ConnectionFailed, ConnectTimeout: It could not be reached, or its certificate has changed.
        FirstByteTimeout: It did not answer in 15 s.
        CapacityError: It says that it is full.
        OrchestratorError: It refused, or speaks no gRPC.
        ResponseError: Its answer can't be read.
        ConfigurationError: The URL or the model's name can't be used.
    """
    if _ASKING not in sys.modules:
        # In a thread: protobuf and HTTP/2 take a tenth of a second, for which sessions would stand still.
        await asyncio.to_thread(importlib.import_module, _ASKING)
    from .asking import ask

    return await ask(
        orchestrator, pool, capability=capability, model=model, request_id=request_id, payer=payer
    )
