"""``GET /discovery``: what the orchestrator can do now (``server/ai_http.go``, v0.9.1)."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from . import answers
from .mux import Mux
from .registry import Registry

__all__ = ["Discovery"]


class Discovery:
    """The orchestrator's own discovery: one entry, in which ``runners`` is absent when there are none."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def add_routes(self, mux: Mux) -> None:
        """Serve this call."""
        mux.handle("GET /discovery", self.discover)

    async def discover(self, _request: web.Request, _values: Mapping[str, bytes]) -> web.StreamResponse:
        """The orchestrator and its runners."""
        runners = self._registry.listing()
        entry = {"address": self._registry.public_url} | ({"runners": runners} if runners else {})
        return answers.json_answer([entry])
