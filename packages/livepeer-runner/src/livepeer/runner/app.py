"""The HTTP face of a pipeline: a FastAPI application.

| Path | |
|---|---|
| ``POST /run``, ``POST /{name}`` | a call of a `Pipeline` |
| ``POST /live`` | the start of a stream of a `LivePipeline`, inside a session of an orchestrator |
| ``POST /stream/start``, ``POST /stream/params``, ``POST /stream/stop`` | a BYOC stream of a `LivePipeline` |
| ``POST /live-video-to-video`` | the start of a stream, by an orchestrator's AI worker |
| ``GET /hardware/info``, ``GET /version`` | what an AI worker asks of a `LivePipeline` |
| ``GET /health``, ``POST /health`` | ``{"status": "LOADING" or "OK" or "ERROR" or "IDLE", …}``; see below |
| ``GET /schema``, ``POST /schema`` | what it takes and gives, as JSON Schema |
| ``GET /openapi.json``, ``GET /docs`` | the same for tools and for people |

``/health`` is 503 when the status is ERROR; when it is LOADING, 503 for a `Pipeline` and 200 for a
`LivePipeline`, because an AI worker that polls it takes other answers for a container that doesn't start.

Every error is ``{"error": {"type", "message", "status", "fields"?}}``.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ._calls import answer, through_live_runner
from ._definition import Definition
from ._host import Host
from ._version import __version__
from .errors import HTTPError
from .live_pipeline import LivePipeline
from .pipeline import Pipeline

__all__ = ["describe", "make_app"]

_NO_MODEL: dict[str, Any] = {"response_model": None, "include_in_schema": True}


def make_app(
    pipeline: Definition,
    *,
    name: str | None = None,
    capacity: int | None = None,
    idle_timeout: float | None = 60.0,
) -> FastAPI:
    """The application that serves a pipeline, for any ASGI server (``setup`` runs at its start).

    Args:
        pipeline: An instance of a `Pipeline` or a `LivePipeline`.
        name: The capability's name; the pipeline's own when None.
        capacity: How many calls or sessions at once; the pipeline's own when None.
        idle_timeout: After how many seconds without input a live session is ended; None is never.

    Raises:
        ConfigurationError: The pipeline or the name can't be served.
    """
    return app_of(Host(pipeline, name=name, capacity=capacity), idle_timeout=idle_timeout)


def app_of(host: Host, *, idle_timeout: float | None = 60.0) -> FastAPI:
    """The application of a host."""
    pipeline = host.pipeline

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        host.start()
        try:
            yield
        finally:
            await host.aclose()

    app = FastAPI(
        title=host.name,
        description=inspect.getdoc(type(pipeline)) or "",
        version=pipeline.version or "0",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.host = host
    app.add_exception_handler(HTTPError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    document = describe(pipeline, host.name)

    live = isinstance(pipeline, LivePipeline)

    async def health() -> Response:
        """Whether this runner can take calls."""
        content = host.health()
        # An AI worker reads the status in the body, and gives up on a container that never answers 200.
        unfit = ("ERROR",) if live else ("LOADING", "ERROR")
        return JSONResponse(content, status_code=503 if content["status"] in unfit else 200)

    async def schema() -> Response:
        """What this capability takes and gives, as JSON Schema."""
        return JSONResponse(document)

    for path, answer_of in (("/health", health), ("/schema", schema)):  # BYOC has only POST
        name = path.strip("/")
        app.add_api_route(path, answer_of, methods=["GET"], operation_id=name, **_NO_MODEL)
        app.add_api_route(path, answer_of, methods=["POST"], operation_id=f"{name}_post", **_NO_MODEL)
    if isinstance(pipeline, LivePipeline):
        from .contracts.routes import add_live_routes

        add_live_routes(app, host, pipeline, idle_timeout=idle_timeout, operation=_operation(document))
    elif isinstance(pipeline, Pipeline):

        async def run(request: Request) -> Response:
            """Call the capability."""
            try:
                return await answer(pipeline, host.lease, request)
            except HTTPError as error:
                if host.byoc and not through_live_runner(request):
                    # At a 401 an orchestrator forgets the capability, as one whose token is wrong.
                    raise error.instead_of(401, 403) from error
                raise

        for path in ("/run", f"/{host.name}"):
            app.add_api_route(
                path,
                run,
                methods=["POST"],
                operation_id=path.strip("/"),
                openapi_extra=_operation(document),
                **_NO_MODEL,
            )
    app.openapi = _openapi_with(app.openapi, document)  # type: ignore[method-assign]
    return app


def describe(pipeline: Definition, name: str) -> dict[str, Any]:
    """What ``/schema`` answers (see `livepeer.runner.schema`)."""
    document: dict[str, Any] = {
        "livepeer": 1,
        "name": name,
        "description": inspect.getdoc(type(pipeline)) or "",
        "runner": f"livepeer-runner/{__version__}",
    }
    if pipeline.version:
        document["version"] = pipeline.version
    if isinstance(pipeline, LivePipeline):
        return document | pipeline.describe()
    if isinstance(pipeline, Pipeline):
        signature = pipeline.signature()
        document |= {
            "mode": "single-shot",
            "run": "/run",
            "stream": signature.streams,
            "accepts": signature.accepts,
            "returns": signature.returns,
            "input": signature.input,
            "output": signature.output,
        }
    return document


def _operation(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI description of a call, whose schemas keep their own ``$defs``."""
    accepts = document.get("accepts", ["application/json"])
    schema = _relocated(document["input"], "input")
    answer = {"schema": _relocated(document.get("output", {}), "output")}
    failure = {"description": "An error", "content": {"application/json": {"schema": {"type": "object"}}}}
    return {
        "requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in accepts}},
        "responses": {
            "200": {
                "description": "The result",
                "content": {document.get("returns") or "application/json": answer},
            },
            "422": failure,
            "503": failure,
        },
    }


def _relocated(schema: Any, prefix: str) -> Any:
    """A schema whose ``$defs`` are found among the components of the OpenAPI document."""
    if isinstance(schema, dict):
        return {
            key: value.replace("#/$defs/", f"#/components/schemas/{prefix}.")
            if key == "$ref" and isinstance(value, str)
            else _relocated(value, prefix)
            for key, value in schema.items()
            if key != "$defs"
        }
    if isinstance(schema, list):
        return [_relocated(item, prefix) for item in schema]
    return schema


def _openapi_with(
    original: Callable[[], dict[str, Any]], document: dict[str, Any]
) -> Callable[[], dict[str, Any]]:
    def openapi() -> dict[str, Any]:
        content = original()
        schemas = content.setdefault("components", {}).setdefault("schemas", {})
        for prefix in ("input", "output"):
            for key, value in document.get(prefix, {}).get("$defs", {}).items():
                schemas[f"{prefix}.{key}"] = _relocated(value, prefix)
        return content

    return openapi


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPError)
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    if error.status_code in (404, 405):
        paths = sorted(
            f"{method} {route.path}"
            for route in request.app.routes
            for method in getattr(route, "methods", None) or ()
            if method in ("GET", "POST") and not route.path.startswith("/docs/")
        )
        message = f"{message}: {request.method} {request.url.path}. This runner has {', '.join(paths)}."
    body = {"error": {"type": "HTTPError", "message": message, "status": error.status_code}}
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)
