"""The container of the built-in pipeline live-video-to-video, as an AI worker of go-livepeer calls it.

``POST /live-video-to-video`` gets ``{"subscribe_url", "publish_url", "control_url", "events_url",
"gateway_request_id", "manifest_id", "model_id", "stream_id", "params"?}``; the names are the container's: its
``subscribe_url`` is where the client publishes. Nothing else comes: the stream ends with its channels.

At its start the AI worker polls ``GET /health`` until it answers 200, for two minutes, and asks ``GET
/hardware/info`` and ``GET /version`` once each. Of the answers to a start it understands 200, 400, 401, 422
and 500, as JSON with ``detail``; any other makes it drop the client's connection, so others become 500 with
the status in the text. Source: go-livepeer v0.9.1, ``ai/worker/container.go``, ``ai/worker/worker.go``
(``LiveVideoToVideo``) and ``ai/worker/runner.gen.go``.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from .._calls import as_http_error
from .._stream import ChannelURLs, Contract
from ..errors import HTTPError, InvalidInput
from .streams import LiveContract, parsed, same_origin

__all__ = ["LV2VContract", "LV2VRequest"]

_PIPELINE = "live-video-to-video"
_PATIENCE = 60.0  # seconds that a start waits for `setup`: the AI worker sends jobs as soon as we are LOADING
_UNDERSTOOD = (400, 401, 422, 500)


class LV2VRequest(BaseModel):
    """The body that starts a stream."""

    model_config: ClassVar[ConfigDict] = ConfigDict(protected_namespaces=())

    subscribe_url: str
    publish_url: str
    control_url: str | None = None
    events_url: str | None = None
    gateway_request_id: str | None = None
    manifest_id: str | None = None
    model_id: str | None = None
    stream_id: str | None = None
    params: dict[str, Any] | None = None


class LV2VContract(LiveContract):
    """The streams of one host that an AI worker starts."""

    contract: ClassVar[Contract] = "lv2v"
    heartbeat: ClassVar[float] = 10.0

    async def start(self, request: Request) -> Response:
        """Answer ``POST /live-video-to-video``."""
        try:
            return await self._start(request)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            return _refusal(as_http_error(error, f"{type(self._pipeline).__name__}.on_stream_start"))

    async def _start(self, request: Request) -> Response:
        asked = await parsed(LV2VRequest, request)
        if not self._pipeline.has_media():
            raise InvalidInput(f"{self._host.name} takes no media, so it can't be a {_PIPELINE} container.")
        urls = same_origin(
            ChannelURLs(
                media_in=asked.subscribe_url,
                media_out=asked.publish_url,
                control=asked.control_url,
                events=asked.events_url,
            )
        )
        with suppress(TimeoutError):
            await asyncio.wait_for(self._host.ready.wait(), _PATIENCE)
        stream_id = asked.manifest_id or asked.gateway_request_id or uuid.uuid4().hex

        async def channels() -> ChannelURLs:
            return urls

        # The end of the media-in channel is what tells the orchestrator that the job is over.
        await self.begin(stream_id, asked.params or {}, channels, on_end=lambda: self.delete(urls.media_in))
        kept = {"manifest_id", "subscribe_url", "publish_url", "control_url", "events_url"}
        return JSONResponse(asked.model_dump(include=kept, exclude_none=True))

    def version(self) -> dict[str, Any]:
        """The answer of ``GET /version``, by which the orchestrator advertises a model's version."""
        return self._named() | {"version": self._pipeline.version or "0.0.0"}

    def hardware(self) -> dict[str, Any]:
        """The answer of ``GET /hardware/info``; what isn't known of the GPU is 0."""
        gpu, known = self._host.gpu, {}
        if gpu:
            memory = int(gpu.get("vram_mb") or 0) * 1024 * 1024
            known["0"] = {
                "id": str(gpu.get("id", "0")),
                "name": str(gpu.get("name", "")),
                "memory_total": memory,
                "memory_free": 0,
                "major": 0,
                "minor": 0,
            }
        return self._named() | {"gpu_info": known}

    def _named(self) -> dict[str, Any]:
        return {"pipeline": _PIPELINE, "model_id": self._host.name.removeprefix(f"{_PIPELINE}/")}


def _refusal(error: HTTPError) -> Response:
    """An error in the form that reaches the client: with its text in ``detail``."""
    status = error.status if error.status in _UNDERSTOOD else 500
    message = error.message if error.status == status else f"{error.status} {error.message}"
    detail: Any = {"msg": message}
    if status == 422:
        fields = error.fields or [{"field": "body", "message": message}]
        detail = [
            {
                "loc": field["field"].split("."),
                "msg": field["message"],
                "type": field.get("type", "value_error"),
            }
            for field in fields
        ]
    return JSONResponse({"detail": detail} | error.body(), status_code=status)
