"""A stream inside a session of a persistent live runner.

The client opens a session at the orchestrator and posts ``{"model_id"?, "params"?, "gateway_request_id"?,
"stream_id"?}`` to the runner through it. The runner asks the orchestrator for trickle channels, with the
address and token that came in headers, and answers ``{"manifest_id", "publish_url"?, "subscribe_url"?,
"control_url", "events_url", "data_url"?}``. Source: go-livepeer v0.9.1, ``doc/live-runner.md`` and
``server/ai_http.go``.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, ClassVar

import aiohttp
from pydantic import BaseModel, ConfigDict
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from yarl import URL

from .._stream import ChannelURLs, Contract
from ..errors import HTTPError
from ..live_pipeline import LivePipeline
from .streams import LiveContract, parsed

if TYPE_CHECKING:
    from .._host import Host

__all__ = ["LiveRequest", "LiveRunnerContract"]

_logger = logging.getLogger("livepeer.runner")

_MEDIA, _JSON = "video/MP2T", "application/json"


class LiveRequest(BaseModel):
    """The body that starts a stream."""

    model_config: ClassVar[ConfigDict] = ConfigDict(protected_namespaces=())

    model_id: str | None = None
    params: dict[str, Any] | None = None
    gateway_request_id: str | None = None
    stream_id: str | None = None


class LiveRunnerContract(LiveContract):
    """The live-runner sessions of one host."""

    contract: ClassVar[Contract] = "live-runner"
    heartbeat: ClassVar[float] = 60.0  # no gateway watches; the server sweeps a channel after 300 s

    async def start(self, request: Request) -> Response:
        """Answer ``POST /live``; raises `HTTPError`."""
        try:
            asked = await parsed(LiveRequest, request)
        except ClientDisconnect:
            return Response(status_code=499)
        session = _Session.of(request, self._host)
        made: dict[str, dict[str, Any]] = {}

        async def channels() -> ChannelURLs:
            made.update(await session.create_channels(_wanted(self._pipeline)))
            return ChannelURLs(
                media_in=_inner(made, "in"),
                media_out=_inner(made, "out"),
                control=_inner(made, "control"),
                events=_inner(made, "events"),
                data=_inner(made, "data"),
            )

        try:
            await self.begin(session.id, asked.params or {}, channels, on_end=session.stop)
        except BaseException:
            if made:
                await session.stop()  # its channels are over, so another try needs another session
            raise
        answer = {
            "manifest_id": session.id,
            "publish_url": _outer(made, "in"),
            "subscribe_url": _outer(made, "out"),
            "control_url": _outer(made, "control"),
            "events_url": _outer(made, "events"),
            "data_url": _outer(made, "data"),
        }
        return JSONResponse({key: value for key, value in answer.items() if value})


def _wanted(pipeline: LivePipeline) -> dict[str, str]:
    names = {"control": _JSON, "events": _JSON}
    if pipeline.has_media():
        names = {"in": _MEDIA, "out": _MEDIA} | names
    if pipeline.has_data():
        names["data"] = _JSON
    return names


def _outer(channels: dict[str, dict[str, Any]], name: str) -> str | None:
    return channels[name]["url"] if name in channels else None


def _inner(channels: dict[str, dict[str, Any]], name: str) -> str | None:
    """The URL for this side: an orchestrator may have an address that only its runners reach."""
    return (channels[name].get("internal_url") or channels[name]["url"]) if name in channels else None


def _callable(url: str) -> bool:
    try:
        parts = URL(url)
        return parts.scheme in ("http", "https") and bool(parts.host) and parts.port is not None
    except ValueError:
        return False


class _Session:
    """The orchestrator's side of one session: its callbacks, with the session's token."""

    def __init__(self, host: Host, session_id: str, token: str, control: str) -> None:
        self.id = session_id
        self._host = host
        self._transport = host.transport
        self._token = token
        self._controls = [control.rstrip("/")]
        if host.orchestrator:
            # The header has the public address, which a runner inside a container may not reach.
            inner = str(URL(host.orchestrator).join(URL(URL(control).raw_path, encoded=True))).rstrip("/")
            self._controls += [inner] if inner not in self._controls else []

    @classmethod
    def of(cls, request: Request, host: Host) -> _Session:
        """The session that a request came through, from its headers; raises `HTTPError` (400) without."""
        found = [request.headers.get(f"livepeer-session-{name}", "") for name in ("id", "token", "control")]
        if not all(found) or not _callable(found[2]):
            raise HTTPError(
                400,
                "A stream starts inside a session of an orchestrator, which adds the headers "
                "Livepeer-Session-Id, Livepeer-Session-Token and Livepeer-Session-Control: open a session "
                "there, and post to its app_url.",
            )
        return cls(host, *found)

    async def create_channels(self, wanted: dict[str, str]) -> dict[str, dict[str, Any]]:
        """Ask for channels; what came back, by name. Raises `HTTPError` (502)."""
        body = {"channels": [{"name": name, "mime_type": kind} for name, kind in wanted.items()]}
        status, content = await self._post("channels", body)
        listed = content.get("channels") if isinstance(content, dict) else None
        channels = {item["name"]: item for item in listed or () if isinstance(item, dict) and item.get("url")}
        if status >= 300 or not channels.keys() >= wanted.keys():
            raise HTTPError(
                502, f"The orchestrator gave no channels for session {self.id}: it answered {status}."
            )
        return channels

    async def stop(self) -> None:
        """Release the session, so that its place is free although the client may have vanished."""
        try:
            status, _ = await self._post("stop", None)
            _logger.debug("Session %s stopped: %d", self.id, status)  # 404: the client was first
        except HTTPError:
            status = 0
            _logger.debug("Session %s could not be stopped", self.id, exc_info=True)
        if status == 0 or status >= 500:
            # The next answer to a heartbeat tells whether the orchestrator still has it.
            self._host.unstopped[self.id] = self.stop

    async def _post(self, path: str, body: Any) -> tuple[int, Any]:
        headers = {"Livepeer-Session-Token": self._token}
        options = {"json": body} if body is not None else {}
        failure: Exception | None = None
        for control in list(self._controls):
            try:
                async with (
                    asyncio.timeout(10),
                    self._transport.request(
                        "POST", f"{control}/{path}", headers=headers, **options
                    ) as response,
                ):
                    try:
                        content = await response.json(content_type=None)
                    except ValueError:
                        content = None
                    self._controls = [control]
                    return response.status, content
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                failure = error
        raise HTTPError(
            502, f"The orchestrator's session callback can't be reached: {type(failure).__name__}."
        ) from failure
