"""The route to BYOC: a container behind an orchestrator (go-livepeer v0.9.1, ``/process/request``)."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from .._http import Pool
from .._urls import check_path, join_path
from ..catalogue import Price
from ..errors import (
    CapabilityError,
    ConfigurationError,
    InputError,
    LivepeerError,
    PaymentUnsupported,
)
from ..records import place_of
from ..timeouts import Timeout
from . import Answer, Call, LiveCall, Started
from ._byoc_events import BYOCDecoder
from ._byoc_live import start_stream
from ._byoc_verdict import job_verdict
from ._job import job_header
from ._sending import send

if TYPE_CHECKING:
    from livepeer.trickle.transport import Reply

    from ..payments.job_signer import JobSigner

__all__ = ["ByocRoute"]

_PREPAID = 600  # seconds of a stream that are paid for in advance, at most: it ends with what was paid
_LONGEST = 24 * 3600  # seconds for a call without a limit; the orchestrator wants some number


class ByocRoute:
    """Calls one BYOC capability of one orchestrator.

    Args:
        orchestrator: Its URL.
        capability: The name that the worker registered.
        pool: The gateway's connections.
        price: What the orchestrator says that it costs; None is nothing.
        paths: Which path each worker turned out to have, by orchestrator and capability.
        signing: What signs and pays for jobs; None offchain.
    """

    name = "byoc"

    def __init__(
        self,
        orchestrator: str,
        capability: str,
        pool: Pool,
        *,
        price: Price | None = None,
        paths: MutableMapping[tuple[str, str], str] | None = None,
        signing: JobSigner | None = None,
    ) -> None:
        self.orchestrator: str = orchestrator
        self.place: str = place_of(orchestrator, capability)
        self._capability = capability
        self._pool = pool
        self._price = price
        self._paths = paths if paths is not None else {}
        self._signing = signing
        self.pays: bool = signing is not None

    async def open(self, call: Call) -> Answer:
        """Send a job: to the path with the capability's name; to ``/run`` where a free worker has none."""
        key = self.orchestrator, self._capability
        paths = self._candidates(call.path, paid=call.paid or self.pays or self._price is not None)
        for path in paths:
            try:
                answer = await self._post(path, call)
            except CapabilityError as error:
                missing = error.status in (404, 405)
                if missing and path != paths[-1]:
                    continue
                if call.path is None and not missing:
                    self._paths[key] = path
                elif call.path is None:
                    self._paths.pop(key, None)
                    error.hint = f"The worker has no path {' and no path '.join(paths)}; path= names another."
                raise
            if call.path is None:
                self._paths[key] = path
            return answer
        raise AssertionError("there is always a path")

    async def open_live(self, call: LiveCall) -> Started:
        """Start a stream; see `start_stream`."""
        if self.pays:
            raise PaymentUnsupported(
                f"Streams of {self._capability!r} ask for payment, which can't be made for them.",
                hint="Use an orchestrator that runs offchain, or a live runner.",
                orchestrator=self.orchestrator,
                request_id=call.request_id,
            )
        return await start_stream(self.orchestrator, self._capability, call, self._pool)

    def _candidates(self, wanted: str | None, *, paid: bool) -> tuple[str, ...]:
        """The paths to try, in order. A paid call has one: the next would be paid for once more."""
        if wanted is not None:
            path = check_path(wanted)
            if "?" in path:
                raise InputError(
                    f"path={wanted!r} has a query, which doesn't reach the worker of a BYOC capability.",
                    hint="The orchestrator passes on the body alone: put the data into input=.",
                )
            return (path,)
        known = self._paths.get((self.orchestrator, self._capability))
        if known is not None:
            return (known,)
        try:
            own = check_path(f"/{self._capability}")
        except ConfigurationError:
            return ("/run",)  # a name that no path can have
        if "?" in own:
            return ("/run",)
        return (own,) if paid else (own, "/run")

    async def _post(self, path: str, call: Call) -> Answer:
        seconds = _seconds(call.timeout)
        leaving: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if self._signing is None:
            headers = job_header(self._capability, job_id=call.request_id, timeout_seconds=seconds)
        else:
            signed = await self._signing.sign(
                self.orchestrator, self._capability, job_id=call.request_id, timeout_seconds=seconds,
                seconds=min(seconds, _PREPAID) if call.streamed else 0, most=call.max_price, bill=call.bill,
            )  # fmt: skip
            headers, leaving = signed.headers, signed.leaving(call.bill)
            call = dataclasses.replace(call, paid=True)

        def judge(status: int, headers: Mapping[str, str], body: bytes) -> LivepeerError:
            return job_verdict(
                status, headers, body,
                capability=self._capability, timeout_seconds=seconds,
                orchestrator=self.orchestrator, request_id=call.request_id, path=path, signed=self.pays,
            )  # fmt: skip

        with leaving:
            response, seen = await send(
                self._pool, join_path(self.orchestrator, f"/process/request{path}"),
                dataclasses.replace(call, method="POST"),  # whatever the worker is to do
                route=self.name, control=False, headers=headers, orchestrator=self.orchestrator, judge=judge,
            )  # fmt: skip
        answer = Answer(
            response,
            orchestrator=self.orchestrator,
            app=self._capability,
            price=str(self._price) if self._price else None,
            decoder=lambda: self._decoder(response, seconds),
            seen=seen,
        )
        self._pool.track(answer)
        return answer

    def _decoder(self, response: Reply, seconds: int) -> Any:
        from ..events import decoder_for

        told = response.headers.get("X-Metadata")
        metadata: dict[str, Any] = {"x-metadata": told} if told else {}
        if response.content_type == "text/event-stream":
            return BYOCDecoder(self._capability, seconds, metadata)
        decoder = decoder_for(response.content_type, response.charset)
        decoder.metadata = metadata
        return decoder


def _seconds(timeout: Timeout) -> int:
    """How long the orchestrator is to wait: longer than this side does, whose error says more."""
    return min(_LONGEST, math.ceil(timeout.total)) if timeout.total is not None else _LONGEST
