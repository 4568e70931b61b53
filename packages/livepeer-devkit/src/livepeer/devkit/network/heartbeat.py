"""The registration side: what a runner calls to be known, and to stay so (``server/ai_http.go``, v0.9.1)."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from . import answers
from .gojson import Kind, decode
from .mux import Mux
from .registry import Registry

__all__ = ["Heartbeats"]

_FIELDS: Mapping[str, Kind] = {
    "runner_id": "string",
    "label": "string",
    "proxy": "bool",
    "runner_url": "string",
    "version": "string",
    "metadata": "string",
    "status": "string",
    "mode": "string",
    "gpu": "gpu",
    "app": "string",
    "capacity": "int",
    "price_info": {
        "": "runner.LiveRunnerPriceInfo",
        "price": "number",
        "currency": "string",
        "unit": "string",
    },
    "session_ids": "strings",
}


class Heartbeats:
    """``POST /runners/heartbeat`` and ``POST /runners/{runner_id}/unregister``."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def add_routes(self, mux: Mux) -> None:
        """Serve these calls."""
        mux.handle("POST /runners/heartbeat", self.heartbeat)
        mux.handle("POST /runners/{runner_id}/unregister", self.unregister)

    async def heartbeat(self, request: web.Request, _: Mapping[str, bytes]) -> web.StreamResponse:
        """Register a runner, or renew its registration."""
        fields = decode(await request.read(), "runner.LiveRunnerHeartbeatRequest", _FIELDS)
        return answers.json_answer(self._registry.heartbeat(fields, request.headers.get("Authorization", "")))

    async def unregister(self, request: web.Request, values: Mapping[str, bytes]) -> web.StreamResponse:
        """Forget a runner."""
        runner_id = values["runner_id"].decode("utf-8", "replace")
        self._registry.unregister(runner_id, request.headers.get("Authorization", ""))
        return answers.no_content()
