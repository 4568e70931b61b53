"""The paths of the live contracts: each caller has its own, so who calls chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .byoc import ByocContract
from .live_runner import LiveRunnerContract
from .lv2v import LV2VContract
from .streams import check_media

if TYPE_CHECKING:
    from fastapi import FastAPI

    from .._host import Host
    from ..live_pipeline import LivePipeline

__all__ = ["add_live_routes"]

_NO_MODEL: dict[str, Any] = {"response_model": None, "include_in_schema": True}


def add_live_routes(
    app: FastAPI,
    host: Host,
    pipeline: LivePipeline,
    *,
    idle_timeout: float | None,
    operation: dict[str, Any],
) -> None:
    """Add the paths of every contract to an application.

    Args:
        app: The application.
        host: The host of the pipeline.
        pipeline: The pipeline.
        idle_timeout: After how many seconds without input a stream is ended; None is never.
        operation: What OpenAPI says of a start.

    Raises:
        ConfigurationError: The pipeline takes media, which can't be encoded here.
    """
    check_media(pipeline)
    sessions = LiveRunnerContract(host, pipeline, idle_timeout=idle_timeout)
    streams = ByocContract(host, pipeline, idle_timeout=idle_timeout)
    container = LV2VContract(host, pipeline, idle_timeout=idle_timeout)

    async def live(request: Request) -> Response:
        """Start a stream in the session that this request came through."""
        return await sessions.start(request)

    async def stream_start(request: Request) -> Response:
        """Start a BYOC stream, as an orchestrator does."""
        return await streams.start(request)

    async def stream_params(request: Request) -> Response:
        """Change the parameters of a BYOC stream."""
        return await streams.update(request)

    async def stream_stop(request: Request) -> Response:
        """End a BYOC stream."""
        return await streams.stop(request)

    async def live_video_to_video(request: Request) -> Response:
        """Start a stream, as an orchestrator's AI worker does."""
        return await container.start(request)

    async def hardware() -> Response:
        """The GPU, as an AI worker asks for it."""
        return JSONResponse(container.hardware())

    async def version() -> Response:
        """The version, as an AI worker asks for it."""
        return JSONResponse(container.version())

    app.add_api_route("/live", live, methods=["POST"], openapi_extra=operation, **_NO_MODEL)
    app.add_api_route("/stream/start", stream_start, methods=["POST"], **_NO_MODEL)
    app.add_api_route("/stream/params", stream_params, methods=["POST"], **_NO_MODEL)
    app.add_api_route("/stream/stop", stream_stop, methods=["POST"], **_NO_MODEL)
    app.add_api_route("/live-video-to-video", live_video_to_video, methods=["POST"], **_NO_MODEL)
    app.add_api_route("/hardware/info", hardware, methods=["GET"], **_NO_MODEL)
    app.add_api_route("/version", version, methods=["GET"], **_NO_MODEL)
