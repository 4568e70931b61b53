"""Live video-to-video, the built-in pipeline (``server/ai_http.go``, ``StartLiveVideoToVideo``, v0.9.1).

A job is four trickle channels and a container that was told of them. It has no session, no end of its own and
no capacity: it is over when its media-in channel is, by whomever, and then all four are.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from aiohttp import web

from livepeer.trickle import TrickleServer

from . import answers, gojson
from .ai_worker import AIWorker
from .containers import ContainerFailed, NoAnswer
from .credentials import AuthTokens, check_payment, check_segment
from .models import PIPELINE
from .mux import Mux
from .validation import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from livepeer.client._grpc import lp_rpc_pb2 as net

    from .paid.meter import Meter
    from .paid.till import Till

__all__ = ["LiveVideoToVideo"]

_CHANNELS = {
    "": "video/MP2T",
    "-out": "video/MP2T",
    "-control": "application/json",
    "-events": "application/json",
}
_REQUEST: dict[str, gojson.Kind] = {
    "model_id": "string?",
    "params": "object",
    "gateway_request_id": "string",
    "stream_id": "string",
}


class LiveVideoToVideo:
    """The jobs of one orchestrator.

    Args:
        worker: Who runs them.
        trickle: Where their channels are.
        tokens: What callers show.
        capabilities: What the orchestrator has at the moment.
        public_url: The orchestrator's address, without a trailing slash.
        till: Who is paid for them; offchain nobody.
    """

    def __init__(
        self,
        worker: AIWorker,
        trickle: TrickleServer,
        tokens: AuthTokens,
        capabilities: Callable[[], net.Capabilities],
        public_url: str,
        *,
        till: Till | None = None,
    ) -> None:
        self._till = till
        self._worker = worker
        self._trickle = trickle
        self._tokens = tokens
        self._capabilities = capabilities
        self._url = public_url
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._reading: set[asyncio.Task[None]] = set()

    def add_routes(self, mux: Mux) -> None:
        """Serve the pipeline."""
        mux.handle(f"/{PIPELINE}", self.start)

    async def start(self, request: web.Request, _values: Mapping[str, bytes]) -> web.StreamResponse:
        """Begin a job."""
        if request.method != "POST":
            return answers.BareResponse()  # its validator refuses them, and its error handler says nothing
        asked = gojson.decode(await request.read(), "worker.LiveVideoToVideoParams", _REQUEST)
        if asked["model_id"] is None:
            return answers.dropped(request)
        if not self._worker.has_capacity(asked["model_id"]):
            raise Refused("insufficient capacity", 503)
        manifest_id, meter = secrets.token_hex(4), None
        if self._till is None:
            check_payment(request.headers.get("Livepeer-Payment", ""))
            check_segment(request.headers.get("Livepeer-Segment", ""), self._tokens, self._capabilities())
        else:
            meter = self._till.admit(request.headers, manifest_id)
        for suffix, mime_type in _CHANNELS.items():
            self._trickle.create(manifest_id + suffix, mime_type)
        self._read_along(manifest_id, meter)
        base = f"{self._url}/ai/trickle/{manifest_id}"
        common = {
            "control_url": f"{base}-control",
            "events_url": f"{base}-events",
            "manifest_id": manifest_id,
        }
        told = {
            **common,
            "gateway_request_id": asked["gateway_request_id"] or request.headers.get("requestID", ""),
            "model_id": asked["model_id"],
            **({} if asked["params"] is None else {"params": _as_go(asked["params"])}),
            "publish_url": f"{base}-out",
            "stream_id": asked["stream_id"] or request.headers.get("streamID", ""),
            "subscribe_url": base,
        }
        starting = asyncio.create_task(self._begin(manifest_id, asked["model_id"], told))
        starting.add_done_callback(_seen)
        self._jobs[manifest_id] = starting
        try:
            # A client that gives up does not end the job, whose id nobody will know.
            await asyncio.shield(starting)
        except ContainerFailed as failure:
            raise Refused(str(failure), 500) from None
        except NoAnswer:
            return answers.dropped(request)  # and its channels stay
        return answers.json_answer(common | {"publish_url": base, "subscribe_url": f"{base}-out"})

    def _read_along(self, manifest_id: str, meter: Meter | None) -> None:
        """The orchestrator counts what is to be paid by the segments of the input, free or not."""

        def charge() -> None:
            try:
                if meter is not None:
                    meter.look()
            except Refused:
                self.channel_closed(manifest_id)

        reading = asyncio.create_task(self._trickle.read_along(manifest_id, charge))
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)

    async def _begin(self, manifest_id: str, model_id: str, told: dict[str, Any]) -> None:
        """Tell a container of the job; without one there is no job."""
        url = ""
        try:
            url = self._worker.address(model_id)
            await self._worker.run(url, dict(sorted(told.items())))
        except ContainerFailed:
            self.channel_closed(manifest_id)
            raise
        except asyncio.CancelledError:  # somebody closed its media-in meanwhile
            raise ContainerFailed(f'Post "{url}": context canceled') from None

    def channel_closed(self, name: str) -> None:
        """A channel of the orchestrator was closed; with a job's media-in goes the job."""
        starting = self._jobs.pop(name, None)
        if starting is None:
            return
        if starting is not asyncio.current_task():
            starting.cancel()
        for suffix in _CHANNELS:
            self._trickle.close_channel(name + suffix)


def _seen(starting: asyncio.Task[None]) -> None:
    """The client, who would look at what went wrong, may be gone."""
    if not starting.cancelled():
        starting.exception()


def _as_go(value: Any) -> Any:
    """JSON after Go has read it into ``map[string]interface{}``: numbers are floats, keys are in order."""
    if isinstance(value, dict):
        return {_text(key): _as_go(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [_as_go(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
        whole = number.is_integer() and abs(number) < 1e21
        return int(Decimal(repr(number))) if whole else number
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    """Half a surrogate pair is no text."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
