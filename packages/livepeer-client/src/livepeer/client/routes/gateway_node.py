"""The route through a gateway node, which pays from its own wallet (go-livepeer v0.9.1, ``byoc/``).

A node takes a job as an orchestrator does, ``POST /process/request/{route}``, signs it, pays for it and hands
it on. It leads to BYOC capabilities, and only where it runs on a chain. Left to itself it makes a job that
fails again on every orchestrator that it knows, and after a stream's ``[DONE]`` it makes the job once more on
the next one: so each request includes exactly one orchestrator, and whether another one is asked is decided
here. A node that finds nothing says so before anything is done; after that no other is asked.
"""

from __future__ import annotations

import dataclasses
import math
import re
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from .._http import Pool
from .._observing import Observation
from .._urls import check_path, join_path, redact
from ..catalogue import Price
from ..errors import ConfigurationError, InputError, LivepeerError
from ..events import Decoder
from ..records import place_of
from ..timeouts import Timeout
from . import Answer, Call, LiveCall
from ._byoc_events import BYOCDecoder
from ._gateway_verdict import RestoringDecoder, gateway_verdict, no_answer, restored
from ._job import job_header
from ._sending import send

if TYPE_CHECKING:
    from livepeer.trickle.transport import Reply

__all__ = ["GatewayNodeRoute"]

_SHORTEST = 60  # seconds: what is paid for must last for a minute, or the orchestrator refuses the job
_UNLIMITED = 3600  # seconds for a call without a limit: the node pays for all of them in advance
_LONGEST = 24 * 3600
_ORCHESTRATOR = "X-Orchestrator-Url"
_WEI = re.compile(r"-?\d+")


class GatewayNodeRoute:
    """Calls one BYOC capability of one orchestrator through a gateway node.

    Args:
        gateway: The node's URL.
        orchestrator: The orchestrator's URL, as the node has it.
        capability: The name that the worker registered.
        pool: The gateway's connections.
        price: What the orchestrator says that it costs; None when that isn't known.
    """

    name = "gateway_node"
    pays = True

    def __init__(
        self, gateway: str, orchestrator: str, capability: str, pool: Pool, *, price: Price | None = None
    ) -> None:
        self.gateway: str = gateway
        self.orchestrator: str = orchestrator
        self.place: str = place_of(f"{gateway} {orchestrator}", capability)
        self._capability = capability
        self._pool = pool
        self._price = price

    async def open(self, call: Call) -> Answer:
        """Send a job to one path: the node pays for each, whatever its worker answers."""
        path = self._path(call.path)
        seconds = _seconds(call.timeout)
        parameters = {"orchestrators": {"include": [self.orchestrator]}}
        headers = job_header(
            self._capability, job_id=call.request_id, parameters=parameters, timeout_seconds=seconds
        )
        gateway = redact(self.gateway)

        def judge(status: int, _: Mapping[str, str], body: bytes) -> LivepeerError:
            return gateway_verdict(
                status, body, capability=self._capability, gateway=gateway,
                orchestrator=self.orchestrator, request_id=call.request_id, path=path,
            )  # fmt: skip

        response, seen = await send(
            self._pool, join_path(self.gateway, f"/process/request{path}"),
            dataclasses.replace(call, method="POST", paid=True),
            route=self.name, control=False, headers=headers, orchestrator=self.orchestrator, judge=judge,
            context=await self._verified(),
        )  # fmt: skip
        if _ORCHESTRATOR not in response.headers:
            failure = no_answer(
                self._capability, gateway,
                orchestrator=self.orchestrator, request_id=call.request_id, timeout_seconds=seconds,
            )  # fmt: skip
            self._give_up(response, seen, failure)
        return self._answer(response, seen, seconds)

    async def open_live(self, call: LiveCall) -> NoReturn:
        """Raise: the sessions of a node aren't those of orchestrators.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(
            "Live sessions through a gateway node are not part of this version of livepeer-client.",
            hint="Call orchestrators themselves, with signer_url= where they ask for payment.",
            orchestrator=self.orchestrator,
            request_id=call.request_id,
        )

    def _path(self, wanted: str | None) -> str:
        if wanted is None:
            try:
                own = check_path(f"/{self._capability}")
            except ConfigurationError:
                return "/run"  # a name that no path can have
            return "/run" if "?" in own else own
        path = check_path(wanted)
        if "?" in path:
            raise InputError(
                f"path={wanted!r} has a query, which doesn't reach the worker of a BYOC capability.",
                hint="The orchestrator passes on the body alone: put the data into input=.",
            )
        return path

    def _answer(self, response: Reply, seen: Observation | None, seconds: int) -> Answer:
        answer = Answer(
            response,
            orchestrator=response.headers[_ORCHESTRATOR],
            app=self._capability,
            price=str(self._price) if self._price else None,
            decoder=lambda: self._decoder(answer, seconds),
            seen=seen,
            restore=restored,
        )
        self._pool.track(answer)
        return answer

    def _decoder(self, answer: Answer, seconds: int) -> Decoder:
        headers = answer.response.headers
        metadata: dict[str, Any] = {}
        if told := headers.get("X-Metadata"):
            metadata["x-metadata"] = told
        if _WEI.fullmatch(balance := headers.get("Livepeer-Balance", "")):
            metadata["balance"] = int(balance)
        if answer.response.content_type == "text/event-stream":
            return BYOCDecoder(self._capability, seconds, metadata, through_node=True)
        decoder = RestoringDecoder(answer)
        decoder.metadata = metadata
        return decoder

    @staticmethod
    def _give_up(response: Reply, seen: Observation | None, failure: LivepeerError) -> NoReturn:
        from livepeer.trickle.transport import hang_up

        hang_up(response)
        if seen is not None:
            seen.end(failure)
        raise failure

    async def _verified(self) -> ssl.SSLContext | None:
        """A node speaks plain HTTP: what speaks TLS before it has an ordinary certificate."""
        tls = self._pool.tls
        if urlsplit(self.gateway).scheme != "https" or tls.mode in ("insecure", "verify"):
            return None
        return await tls.verifying()


def _seconds(timeout: Timeout) -> int:
    """What the job's header says: how long a worker may take, and what is paid for in advance."""
    if timeout.total is None:
        return _UNLIMITED
    return min(_LONGEST, max(_SHORTEST, math.ceil(timeout.total)))
