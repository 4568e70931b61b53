"""BYOC streams: channels between a caller and a worker (``byoc/stream_orchestrator.go``, v0.9.1).

The orchestrator makes the channels, tells both ends where they are, and passes updates and the stop on to the
worker. It looks at nothing: a stream whose worker died, or whose caller left, goes on until it is stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

import aiohttp
from aiohttp import web

from . import answers, gojson, paths, sniffing, uploading
from .byoc_accounts import Accounts, BadPayment, Free, admitted
from .byoc_jobs import HEADER, Job, parse_job
from .byoc_registry import Capabilities
from .byoc_workers import WorkerFailed, Workers, authorization, worker_url
from .gojson import GoJSONError, Kind
from .mux import Mux
from .validation import Refused

__all__ = ["ByocStreams"]

_STRINGS: Kind = "strings"
_PARAMETERS: Mapping[str, Kind] = {
    "orchestrators": {"": "byoc.JobOrchestratorsFilter", "exclude": _STRINGS, "include": _STRINGS},
    "enable_video_ingress": "bool",
    "enable_video_egress": "bool",
    "enable_data_output": "bool",
}
_VIDEO, _JSON, _LINES = "video/MP2T", "application/json", "application/jsonl"
# flag, ending of the channel's name, its type, what the worker's body calls it, the caller's header
_CHANNELS = (
    (None, "-control", _JSON, "control_url", "X-Control-Url"),
    (None, "-events", _JSON, "events_url", "X-Events-Url"),
    ("enable_video_ingress", "", _VIDEO, "subscribe_url", "X-Publish-Url"),
    ("enable_video_egress", "-out", _VIDEO, "publish_url", "X-Subscribe-Url"),
    ("enable_data_output", "-data", _LINES, "data_url", "X-Data-Url"),
)
_BALANCE = {"Livepeer-Balance": "0"}
_NO_ANSWER = "Error sending request to worker"


class Channels(Protocol):
    """The trickle channels of the orchestrator, as `livepeer.trickle.TrickleServer` has them."""

    def create(self, name: str, mime_type: str = ...) -> None:
        """Make a channel, unless it is there."""
        ...

    def close_channel(self, name: str) -> bool:
        """End a channel; whether there was one."""
        ...


@dataclass
class _Start:
    """A stream that begins: what the worker is told, and the caller."""

    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    channels: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Stream:
    capability: str
    channels: tuple[str, ...]


class ByocStreams:
    """The calls under ``/ai/stream/``.

    Args:
        capabilities: Which there are.
        workers: The way to them.
        channels: Where the streams' channels are made.
        public_url: The orchestrator's address.
        accounts: Who may have a stream, and on whose account; it is paid for at its start alone.
    """

    def __init__(
        self,
        capabilities: Capabilities,
        workers: Workers,
        channels: Channels,
        public_url: str,
        *,
        accounts: Accounts | None = None,
    ) -> None:
        self._capabilities = capabilities
        self._workers = workers
        self._channels = channels
        self._public_url = public_url
        self._accounts: Accounts = accounts or Free()
        self._streams: dict[str, _Stream] = {}

    def add_routes(self, mux: Mux) -> None:
        """Serve these calls, with whatever method."""
        mux.handle("/ai/stream/start", self.start)
        mux.handle("/ai/stream/update", self.update)
        mux.handle("/ai/stream/stop", self.stop)
        mux.handle("/ai/stream/payment", self.payment)

    async def start(self, request: web.Request, _: Mapping[str, bytes]) -> web.StreamResponse:
        """Make a stream's channels and ask its worker."""
        try:
            admission = admitted(request.headers, self._capabilities, self._accounts, unknown=400, poor=402)
        except BadPayment:
            return answers.dropped(request)
        job = admission[0]
        job.stream_id()  # read, and of no use here
        body = await uploading.whole(request)
        try:
            flags = gojson.unmarshal(job.parameters, "byoc.JobParameters", _PARAMETERS)
        except GoJSONError as error:
            raise Refused(str(error), 400) from None
        start, done = self._make_channels(job.id, flags), False
        try:
            answer = await self._start(request, job, start, body)
            done = answer.status == 200
        finally:
            if not done:
                self._capabilities.release(job.capability)
                # By name: if the id was in use, these are the running stream's.
                self._close(start.channels)
        return answer

    async def update(self, request: web.Request, _: Mapping[str, bytes]) -> web.StreamResponse:
        """Pass parameters on to the worker of a stream, whether or not there is such a stream."""
        job, stream_id = _about_stream(request)
        answer = await self._pass_on(
            job, stream_id, "/stream/params", await uploading.whole(request), {"Content-Type": _JSON}
        )
        return answer if answer is not None else answers.error(_NO_ANSWER, 500)

    async def stop(self, request: web.Request, _: Mapping[str, bytes]) -> web.StreamResponse:
        """Tell the worker, and end a stream whatever the worker says."""
        job, stream_id = _about_stream(request)
        body = await uploading.whole(request)
        try:
            answer = await self._pass_on(job, stream_id, "/stream/stop", body, {})
        finally:
            stream = self._streams.pop(stream_id, None)
            if stream is not None:
                self._capabilities.release(stream.capability)
                self._close(stream.channels)
        return answer if answer is not None else answers.BareResponse()

    async def payment(self, request: web.Request, _: Mapping[str, bytes]) -> web.StreamResponse:
        """Take a payment, of which there are none offchain; tell the balance, which is 0."""
        try:
            parse_job(request.headers.get(HEADER, "")).stream_id()
        except Refused as refused:
            raise Refused(f"Failed to process payment, request not valid err={refused.text}", 400) from None
        return answers.BareResponse(headers=_BALANCE)

    # ------------------------------------------------------------------ inside

    def _make_channels(self, stream_id: str, flags: Mapping[str, Any]) -> _Start:
        start = _Start({"gateway_request_id": stream_id})
        base = self._public_url + paths.join("/ai/trickle", stream_id.encode("utf-8", "replace"))
        for flag, ending, mime_type, key, header in _CHANNELS:
            if flag is None or flags[flag]:
                self._channels.create(stream_id + ending, mime_type)
                start.channels.append(stream_id + ending)
                start.body[key] = start.headers[header] = base + ending
        return start

    async def _start(self, request: web.Request, job: Job, start: _Start, body: bytes) -> web.Response:
        try:
            told = gojson.encode(_sorted(start.body | _object(body)))
        except (ValueError, OverflowError):
            return answers.error("Invalid JSON body", 400, **start.headers)
        headers = {"Content-Type": request.headers.get("Content-Type", "")}
        try:
            answer = await self._ask(job, job.id, "/stream/start", told, headers)
            status, text = await self._judged(job, answer)
        except WorkerFailed:
            return answers.error(_NO_ANSWER, 500, **start.headers)
        except Refused:
            return answers.error("Failed to create worker request", 500, **start.headers)
        if status >= 400:
            return _as_it_is(status, text, **start.headers, **_BALANCE)
        if job.id in self._streams:
            return answers.error(
                "Error adding stream to external capabilities", 500, **start.headers, **_BALANCE
            )
        self._streams[job.id] = _Stream(job.capability, tuple(start.channels))
        return answers.BareResponse(headers=start.headers | _BALANCE)

    async def _pass_on(
        self, job: Job, stream_id: str, path: str, body: bytes, headers: dict[str, str]
    ) -> web.Response | None:
        """Ask the worker about a stream; its answer, or None when there is none."""
        try:
            answer = await self._ask(job, stream_id, path, body, headers)
        except WorkerFailed:
            return None
        except Refused as refused:
            raise Refused(refused.text, 400) from None
        return _as_it_is(*await self._judged(job, answer))

    async def _ask(
        self, job: Job, stream_id: str, path: str, body: bytes, headers: dict[str, str]
    ) -> aiohttp.ClientResponse:
        capability = self._capabilities.get(job.capability)
        if capability is None:
            raise WorkerFailed("unsupported protocol scheme")
        named = {"X-Stream-Id": stream_id} if stream_id else {}
        return await self._workers.post(
            worker_url(capability, path.encode()),
            body,
            headers | named | authorization(capability),
            job.timeout,
        )

    async def _judged(self, job: Job, answer: aiohttp.ClientResponse) -> tuple[int, bytes]:
        async with answer:
            try:
                text = await answer.read()
            except aiohttp.ClientError:
                return 500, b"Error reading response body"
        if answer.status == 401:
            self._capabilities.forget(job.capability)
            return 500, b"Orchestrator worker failure"
        return answer.status, text

    def _close(self, names: list[str] | tuple[str, ...]) -> None:
        for name in names:
            self._channels.close_channel(name)


def _about_stream(request: web.Request) -> tuple[Job, str]:
    try:
        job = parse_job(request.headers.get(HEADER, ""))
        return job, job.stream_id()
    except Refused as refused:
        # The same words for both calls.
        raise Refused(f"Failed to stop stream, request not valid err={refused.text}", 400) from None


def _as_it_is(status: int, body: bytes, **headers: str) -> web.Response:
    """An answer whose type is guessed, for want of one."""
    kind = {"Content-Type": sniffing.content_type(body)} if body else {}
    return answers.BareResponse(
        status=status, reason=answers.reason(status), body=body, headers=headers | kind
    )


def _object(body: bytes) -> dict[str, Any]:
    """A body that is a JSON object, or null; raises `ValueError`."""
    value = json.loads(body)
    if value is not None and not isinstance(value, dict):
        raise ValueError(value)
    return value or {}


def _sorted(value: Any) -> Any:
    """A value as it looks after Go read and wrote it: keys in order, every number a double.

    So a whole number beyond 2**53 arrives as another one.
    """
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_sorted(one) for one in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
        whole = number.is_integer() and abs(number) < 1e21
        return int(Decimal(repr(number))) if whole else number
    return value
