"""What an orchestrator says of itself when it is asked over gRPC (``server/rpc.go``, v0.9.1).

Offchain there are no prices except those of BYOC, no ticket parameters, and nobody's signature is looked at;
on-chain `paid.cashier` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from livepeer.client._grpc import lp_rpc_pb2 as net

from .ai_worker import AIWorker
from .credentials import AuthTokens

if TYPE_CHECKING:
    from .paid.cashier import Cashier

__all__ = ["RequestRefused", "SelfDescription", "capabilities_of"]

_LIVE_VIDEO_TO_VIDEO, _BYOC = 35, 37
_BUILT_IN = (*range(13), 14, 26)  # H.264, MPEG-TS, …: what every node can transcode
_VERSION = "0.9.1"
_TOO_MUCH = 1 << 63  # wei; a price that its field can't hold is left away
_GPU = ("id", "name", "major", "minor", "memory_free", "memory_total")


class RequestRefused(Exception):
    """The orchestrator doesn't say what it is asked; the text is go-livepeer's."""


def capabilities_of(worker: AIWorker) -> net.Capabilities:
    """What the orchestrator offers; external containers advertise no capacity at all."""
    models = worker.constraints()
    numbers = [*_BUILT_IN, *([_LIVE_VIDEO_TO_VIDEO] if models else [])]
    found = net.Capabilities(bitstring=[sum(1 << number for number in numbers)], version=_VERSION)
    found.constraints.SetInParent()
    for number in numbers:
        found.capacities[number] = 1
    for name, model in models.items():
        constraint = found.constraints.PerCapability[_LIVE_VIDEO_TO_VIDEO].models[name]
        constraint.warm, constraint.runnerVersion = model.warm, model.version
    return found


class SelfDescription:
    """The answers, without I/O.

    Args:
        worker: The AI worker.
        tokens: Where auth tokens come from.
        byoc: The names of the BYOC capabilities at the moment, with their prices in wei per second.
        public_url: The orchestrator's address.
        cashier: Who is paid, on a network where there are payments.
    """

    def __init__(
        self,
        worker: AIWorker,
        tokens: AuthTokens,
        byoc: Callable[[], Iterable[tuple[str, int]]],
        public_url: str,
        cashier: Cashier | None = None,
    ) -> None:
        self._worker = worker
        self._tokens = tokens
        self._byoc = byoc
        self._url = public_url
        self._cashier = cashier

    def answer(self, request: net.OrchestratorRequest) -> net.OrchestratorInfo:
        """What to say; to a request without capabilities all that there is.

        Raises:
            RequestRefused: There is no AI worker for what is asked, or the payer isn't who it says, or poor.
        """
        if self._cashier is not None:
            self._cashier.check_caller(request.address, request.sig)
        if not request.ignoreCapacityCheck:
            self._check_capacity(request.capabilities)
        everything = not request.HasField("capabilities")
        if self._cashier is None:
            info = self._free()
        else:
            info = self._cashier.offer(request.address, None if everything else request.capabilities)
        if everything:
            for model in self._worker.models:
                info.hardware.append(_hardware(model.hardware))
            for name, price in self._cashier.model_prices() if self._cashier is not None else ():
                info.capabilities_prices.add(
                    pricePerUnit=price, pixelsPerUnit=1, capability=_LIVE_VIDEO_TO_VIDEO, constraint=name
                )
            for name, price in self._byoc():
                if price < _TOO_MUCH:
                    info.capabilities_prices.add(
                        pricePerUnit=price, pixelsPerUnit=1, capability=_BYOC, constraint=name
                    )
        return info

    def _free(self) -> net.OrchestratorInfo:
        token, session, expiration = self._tokens.issue()
        return net.OrchestratorInfo(
            transcoder=self._url,
            address=bytes(20),
            capabilities=capabilities_of(self._worker),
            auth_token=net.AuthToken(token=token, session_id=session, expiration=expiration),
        )

    def _check_capacity(self, wanted: net.Capabilities) -> None:
        constraints = wanted.constraints.PerCapability
        if _LIVE_VIDEO_TO_VIDEO not in constraints:  # nothing else is looked at
            return
        if not any(self._worker.has_capacity(name) for name in constraints[_LIVE_VIDEO_TO_VIDEO].models):
            raise RequestRefused("Invalid orchestrator request: OrchestratorCapped")


def _hardware(told: dict[str, Any]) -> net.HardwareInformation:
    found = net.HardwareInformation(pipeline=told.get("pipeline", ""), model_id=told.get("model_id", ""))
    for number, gpu in (told.get("gpu_info") or {}).items():
        known = net.GPUComputeInfo(**{name: gpu[name] for name in _GPU if name in gpu})
        found.gpu_info[str(number)].CopyFrom(known)
    return found
