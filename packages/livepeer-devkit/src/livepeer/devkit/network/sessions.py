"""What a runner may ask of the orchestrator during a session: channels, an address, the end.

Every call carries ``Livepeer-Session-Token`` (``server/ai_http.go``, v0.9.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from . import answers
from .gojson import GoJSONError, decode
from .mux import Mux
from .records import Runner, Session
from .registry import Registry
from .validation import Refused

__all__ = ["SessionCallbacks"]

_MAX_CHANNELS = 25  # in one call
_CHANNEL = {"": "server.liveRunnerTrickleChannelRequest", "name": "string", "mime_type": "string"}


class SessionCallbacks:
    """The calls under ``/runner/{runner_id}/session/{session_id}/``."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def add_routes(self, mux: Mux) -> None:
        """Serve these calls."""
        base = "/runner/{runner_id}/session/{session_id}"
        mux.handle(f"POST {base}/channels", self.create_channels)
        mux.handle(f"DELETE {base}/channels", self.delete_channels)
        mux.handle(f"POST {base}/proxy", self.create_proxy)
        mux.handle(f"POST {base}/stop", self.stop)

    async def create_channels(self, request: web.Request, values: Mapping[str, bytes]) -> web.StreamResponse:
        """Make trickle channels; those made before a wrong one stay."""
        _, session = self._authorized(request, values)
        wanted = _counted(decode_channels(await request.read(), objects=True))
        made = [self._registry.add_channel(session, one["name"], one["mime_type"]) for one in wanted]
        return answers.json_answer({"channels": made})

    async def delete_channels(self, request: web.Request, values: Mapping[str, bytes]) -> web.StreamResponse:
        """End trickle channels of the session."""
        _, session = self._authorized(request, values)
        names = _counted(decode_channels(await request.read(), objects=False))
        for name in names:
            self._registry.remove_channel(session, name)
        return answers.json_answer({"deleted": names})

    async def create_proxy(self, request: web.Request, values: Mapping[str, bytes]) -> web.StreamResponse:
        """Make a public address that leads to the runner, or beside it on the same host."""
        runner, session = self._authorized(request, values)
        try:
            wanted = decode(await request.read(), "server.liveRunnerProxyRequest", {"target_url": "string"})
        except GoJSONError as error:
            if str(error) != "EOF":  # an empty body is no target
                raise
            wanted = {"target_url": ""}
        return answers.json_answer(self._registry.add_proxy(runner, session, wanted["target_url"]))

    async def stop(self, request: web.Request, values: Mapping[str, bytes]) -> web.StreamResponse:
        """End the session."""
        runner, session = self._authorized(request, values)
        self._registry.release(runner.id, session.id)
        return answers.no_content()

    def _authorized(self, request: web.Request, values: Mapping[str, bytes]) -> tuple[Runner, Session]:
        return self._registry.authorized(
            values["runner_id"].decode("utf-8", "replace"),
            values["session_id"].decode("utf-8", "replace"),
            request.headers.get("Livepeer-Session-Token", ""),
        )


def decode_channels(body: bytes, *, objects: bool) -> list[Any]:
    """The ``channels`` of a request: objects with ``name`` and ``mime_type``, or names."""
    kind: Any = {"[]": _CHANNEL} if objects else "strings"
    struct = "liveRunnerTrickleChannelsRequest" if objects else "deleteLiveRunnerTrickleChannelsRequest"
    channels = decode(body, f"server.{struct}", {"channels": kind})["channels"]
    return list(channels or [])


def _counted(channels: list[Any]) -> list[Any]:
    if not channels:
        raise Refused("channels is required", 400)
    if len(channels) > _MAX_CHANNELS:
        raise Refused(f"channels cannot contain more than {_MAX_CHANNELS} entries", 400)
    return channels
