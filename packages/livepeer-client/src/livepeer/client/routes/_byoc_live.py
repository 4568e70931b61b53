"""Live sessions of a BYOC capability: ``/ai/stream/start``, ``update`` and ``stop``.

Source: ``byoc/stream_orchestrator.go`` of go-livepeer v0.9.1. The orchestrator makes the channels before it
asks the worker, all that the start asks for, and names them in headers. Which of them a worker uses nobody
says beforehand, so all are asked for: three unused ones cost the orchestrator 2 KB and 0.1 ms of its CPU, as
measured. Workers of this SDK end those that they don't use, and so it is looked which are there.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._bodies import skip
from .._http import Pool, translated, within
from .._urls import allowed, forbidden, join_path
from ..errors import CapabilityError, CapacityError, ConfigurationError, LivepeerError
from ..failover import not_begun
from ..inputs import Body, encode_input
from ..timeouts import Timeout
from . import Call, LiveCall, Started
from ._byoc_stream_verdict import stream_verdict
from ._health import ask_channels
from ._job import job_header
from ._sending import send
from ._starting import CHANNELS, start_body, tell

if TYPE_CHECKING:
    from livepeer.trickle import Transport

__all__ = ["start_stream"]

_START_SECONDS = 600  # how long the orchestrator waits for the worker's answer: it may load a model
_UPDATE_SECONDS = 30
_STOP_SECONDS = 5
_REST = 30.0  # seconds for the rest of an answer whose head is there
_LOOK = 5.0  # seconds to find out which channels there are
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_OPTIONAL = ("publish", "subscribe", "data")  # channels that a worker may not use
_ALL = {"enable_video_ingress": True, "enable_video_egress": True, "enable_data_output": True}
_SUFFIXES = {"publish": "", "subscribe": "-out", "control": "-control", "events": "-events", "data": "-data"}


async def start_stream(orchestrator: str, capability: str, call: LiveCall, pool: Pool) -> Started:
    """Start a stream, and take its channels.

    Its id is made here and never used twice: a start with an id that is in use destroys the stream that has
    it. So whatever becomes of the start, the stream can be stopped.

    Args:
        orchestrator: Its URL.
        capability: The name that the worker registered.
        call: What to start. `stream_id` is the beginning of the stream's id, and goes to the worker.
        pool: The gateway's connections.

    Raises:
        CapabilityError: The worker refused, with its status.
        CapacityError: The worker says that it has no place.
        OrchestratorError: It knows no such capability, or the worker is not there.
        ConnectionFailed: Nobody is there, or the connection broke off.
        ConfigurationError: `stream_id` has other characters than letters, digits, "-" and "_"; or `path` is
            given, which means nothing here.
    """
    if call.path is not None:
        raise ConfigurationError(
            f"path={call.path!r} means nothing to {capability!r}: the paths of BYOC sessions are fixed."
        )
    stream = _Stream(orchestrator, capability, _unique(call.stream_id), call.request_id, pool)
    body = start_body(params=call.params or {}, model_id=call.model, stream_id=call.stream_id)
    try:
        urls = await stream.start(body)
    except BaseException as error:
        # A worker's refusal ends the channels, too. Whatever else it is, the stream may run, or be about to.
        refused = isinstance(error, CapabilityError | CapacityError)
        if not refused and not (isinstance(error, LivepeerError) and not_begun(error)):
            pool.adopt(stream.stop)
        raise
    return Started(
        {"stream_id": stream.id, **{f"{role}_url": url for role, url in urls.items()}},
        orchestrator,
        capability,
        stream.id,
        stream.stop,
        ask_channels,
        urls=urls,
        update=stream.update,
    )


class _Stream:
    """One stream's requests to its orchestrator."""

    def __init__(
        self, orchestrator: str, capability: str, stream_id: str, request_id: str, pool: Pool
    ) -> None:
        self.id = stream_id
        self._orchestrator = orchestrator
        self._capability = capability
        self._request_id = request_id
        self._pool = pool
        self._details: dict[str, Any] = {"orchestrator": orchestrator, "request_id": request_id}

    async def start(self, body: Body) -> dict[str, str]:
        """Start it; the URLs of its channels by their roles."""
        headers = job_header(
            self._capability, job_id=self.id, parameters=_ALL, timeout_seconds=_START_SECONDS
        )
        answered = await self._post("start", body, headers)
        urls = {role: self._url(role, answered.get(f"X-{role}-Url")) for role in CHANNELS}
        return await _those_that_are_there(urls, await self._pool.transport())

    async def update(self, params: dict[str, Any]) -> None:
        """Change the worker's parameters; see `LiveSession.update`."""
        await self._post("update", encode_input(params), self._header(_UPDATE_SECONDS))

    async def stop(self) -> None:
        """End it. The worker's answer is waited for some seconds, and whatever it is, the stream is over."""
        await tell(
            self._pool,
            "POST",
            join_path(self._orchestrator, "/ai/stream/stop"),
            headers=self._header(_STOP_SECONDS),
            patience=_STOP_SECONDS + 3.0,
        )

    def _header(self, seconds: int) -> dict[str, str]:
        return job_header(
            self._capability, job_id=self.id, request={"stream_id": self.id}, timeout_seconds=seconds
        )

    async def _post(self, verb: str, body: Body, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Send a request; the headers of its answer."""

        def judge(status: int, found: Mapping[str, str], content: bytes) -> LivepeerError:
            return stream_verdict(
                status, found, content, capability=self._capability, verb=verb, details=self._details
            )

        url = join_path(self._orchestrator, f"/ai/stream/{verb}")
        call = Call(self._capability, body, Timeout(), self._request_id)
        response, _ = await send(
            self._pool, url, call,
            route="byoc", headers=headers, orchestrator=self._orchestrator, judge=judge,
        )  # fmt: skip
        with translated(url, **self._details):
            async with within(_REST, url, **self._details):
                await skip(response)
        return response.headers

    def _url(self, role: str, told: str | None) -> str:
        """A channel's URL.

        An orchestrator may be set up to name its channels to workers by another host, and tells clients the
        same. Where that can't be called from here, the channel is at the orchestrator's own address.
        """
        own = join_path(self._orchestrator, f"/ai/trickle/{self.id}{_SUFFIXES[role]}")
        if told is None or forbidden(told, self._orchestrator) is not None:
            return own
        return allowed(told, self._orchestrator, f"{role} URL")


async def _those_that_are_there(urls: dict[str, str], transport: Transport) -> dict[str, str]:
    """The channels without those that the worker has ended, because it doesn't use them."""

    async def gone(role: str) -> bool:
        url = f"{urls[role]}/next"
        try:
            with translated(url):
                async with within(_LOOK, url), await transport.send("GET", url) as answer:
                    return bool(answer.status == 404)
        except LivepeerError:
            return False  # whoever uses it will see

    unused = await asyncio.gather(*map(gone, _OPTIONAL))
    left_out = {role for role, is_gone in zip(_OPTIONAL, unused, strict=True) if is_gone}
    return {role: url for role, url in urls.items() if role not in left_out}


def _unique(wanted: str | None) -> str:
    """An id for a stream, which begins with the caller's."""
    if wanted is None:
        return uuid.uuid4().hex
    if not isinstance(wanted, str) or not _ID.fullmatch(wanted):
        raise ConfigurationError(
            f"stream_id={wanted!r} can't be; it names channels: up to 128 letters, digits, '-' and '_'."
        )
    return f"{wanted}-{uuid.uuid4().hex[:12]}"
