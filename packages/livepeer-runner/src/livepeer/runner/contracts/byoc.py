"""A stream of a BYOC capability: the orchestrator posts to the worker, and makes the channels itself.

``POST /stream/start`` gets ``{"gateway_request_id", "control_url", "events_url", "subscribe_url"?,
"publish_url"?, "data_url"?}`` and the keys of the client's own body, which win over those. The names are the
worker's: its ``subscribe_url`` is where the client publishes, and its ``publish_url`` where the client
subscribes. ``POST /stream/params`` and ``POST /stream/stop`` follow, with the client's body as it is. All of
them have the header ``X-Stream-Id``. Answers matter by their status only: 200, or an error's, whose body the
client sees. Source: go-livepeer v0.9.1, ``byoc/stream_orchestrator.go``.

The client's body is ``{"params": {…}}`` (an object, or JSON text as a gateway node sends it); without
``params`` it is the parameters themselves.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from .._stream import ChannelURLs, Contract
from ..errors import HTTPError, InvalidInput
from .streams import LiveContract, parsed, same_origin

__all__ = ["ByocContract", "StreamRequest"]

_GATEWAYS = {"stream_name", "rtmp_output"}  # a gateway node's fields, which are no parameters


class StreamRequest(BaseModel):
    """The body that starts a stream."""

    model_config: ClassVar[ConfigDict] = ConfigDict(protected_namespaces=(), extra="allow")

    gateway_request_id: str | None = None
    stream_id: str | None = None
    model_id: str | None = None
    control_url: str | None = None
    events_url: str | None = None
    subscribe_url: str | None = None
    publish_url: str | None = None
    data_url: str | None = None
    params: dict[str, Any] | str | None = None

    def parameters(self) -> dict[str, Any]:
        """The parameters of the pipeline; raises `InvalidInput`."""
        if self.params is not None:
            return _parameters(self.params)
        return {key: value for key, value in (self.model_extra or {}).items() if key not in _GATEWAYS}


class ByocContract(LiveContract):
    """The BYOC streams of one host."""

    contract: ClassVar[Contract] = "byoc"
    heartbeat: ClassVar[float] = 10.0

    async def start(self, request: Request) -> Response:
        """Answer ``POST /stream/start``; raises `HTTPError`."""
        return await self._answered(self._start(request))

    async def update(self, request: Request) -> Response:
        """Answer ``POST /stream/params``; raises `HTTPError`."""
        return await self._answered(self._update(request))

    async def stop(self, request: Request) -> Response:
        """Answer ``POST /stream/stop`` when the stream has ended; one that ended before is no error."""
        stream_id = _stream_id(request)
        stream = self.find(stream_id)
        if stream is not None:
            await stream.end("stopped")
        return JSONResponse({"stream_id": stream_id})

    async def _start(self, request: Request) -> Response:
        asked = await parsed(StreamRequest, request)
        # The header is the orchestrator's own word; the body may have been the client's.
        stream_id = request.headers.get("x-stream-id") or asked.gateway_request_id
        if not stream_id:
            raise HTTPError(400, "A stream has an id: the header X-Stream-Id, or gateway_request_id.")
        urls = same_origin(
            ChannelURLs(
                media_in=asked.subscribe_url,
                media_out=asked.publish_url,
                control=asked.control_url,
                events=asked.events_url,
                data=asked.data_url,
            )
        )
        used, unused = self._divided(urls)

        async def channels() -> ChannelURLs:
            await self.delete(*unused)  # so that nobody waits for what never comes
            return used

        await self.begin(
            stream_id,
            asked.parameters(),
            channels,
            on_end=lambda: self.delete(used.media_in, used.control),
        )
        return JSONResponse({"stream_id": stream_id})

    def _divided(self, urls: ChannelURLs) -> tuple[ChannelURLs, list[str | None]]:
        """The channels that the pipeline uses, and those that it doesn't."""
        pipeline = self._pipeline
        media = pipeline.has_media()
        if media and not urls.media_in:
            raise InvalidInput(
                f"{self._host.name} takes media: start its streams with enable_video_ingress, and with "
                "enable_video_egress to see what comes out."
            )
        used = ChannelURLs(
            media_in=urls.media_in if media else None,
            media_out=urls.media_out if media else None,
            control=urls.control,
            events=urls.events,
            data=urls.data if pipeline.has_data() else None,
        )
        kept = set(vars(used).values())
        return used, [url for url in vars(urls).values() if url not in kept]

    async def _update(self, request: Request) -> Response:
        stream_id = _stream_id(request)
        stream = self.find(stream_id)
        if stream is None:
            raise HTTPError(404, f"No stream {stream_id} runs here; it may have ended.")
        body = await request.body()
        try:
            params = json.loads(body or b"{}")
        except (ValueError, RecursionError):
            raise InvalidInput("Parameters are a JSON object.") from None
        if isinstance(params, dict) and params.keys() == {"params"}:
            params = _parameters(params["params"])
        await stream.update(params)
        return JSONResponse({"stream_id": stream_id})

    async def _answered(self, answer: Awaitable[Response]) -> Response:
        """The answer, without a 401: by that an orchestrator would forget the capability."""
        try:
            return await answer
        except ClientDisconnect:
            return Response(status_code=499)
        except HTTPError as error:
            raise error.instead_of(401, 403) from error


def _stream_id(request: Request) -> str:
    stream_id = request.headers.get("x-stream-id", "")
    if not stream_id:
        raise HTTPError(400, "The header X-Stream-Id says which stream is meant.")
    return stream_id


def _parameters(params: Any) -> dict[str, Any]:
    if isinstance(params, str):
        try:
            params = json.loads(params or "{}")
        except (ValueError, RecursionError):
            params = None
    if not isinstance(params, dict):
        raise InvalidInput("params is a JSON object, or the text of one.")
    return params
