"""Those who start live streams at a runner: an orchestrator for BYOC, and an AI worker for LV2V.

Each makes trickle channels as go-livepeer v0.9.1 does and posts to the runner; `urls` are the client's.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

import aiohttp

from livepeer.runner import RunningServer

MEDIA, JSON = "video/MP2T", "application/json"


class Caller:
    """One stream at a runner, started by hand."""

    def __init__(self, orchestrator: Any, server: RunningServer, http: aiohttp.ClientSession) -> None:
        self.orchestrator = orchestrator
        self.server = server
        self.http = http
        self.id = f"stream-{secrets.token_hex(4)}"
        self.status = 0
        self.body: Any = None
        self.urls: dict[str, str] = {}

    def channel(self, suffix: str, kind: str) -> str:
        self.orchestrator.trickle.create(self.id + suffix, kind)
        return f"{self.orchestrator.url}/ai/trickle/{self.id}{suffix}"

    def alive(self) -> set[str]:
        """What follows the id in the names of the channels that there still are."""
        names: list[str] = self.orchestrator.trickle.channel_names()
        return {name.removeprefix(self.id) for name in names if name.startswith(self.id)}

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> int:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(self.server.url + path, data=data, headers=headers) as response:
            self.status, text = response.status, await response.text()
            self.body = json.loads(text) if text else None
            return self.status


class Byoc(Caller):
    """`/ai/stream/start` and its like, as the orchestrator passes them on."""

    async def start(self, params: Any = None, *, without: str = "", **body: Any) -> int:
        """Start; `without` names channels that the client doesn't ask for, as ``"data publish"``."""
        self.urls = {"control": self.channel("-control", JSON), "events": self.channel("-events", JSON)}
        for name, suffix, kind in (
            ("publish", "", MEDIA),
            ("subscribe", "-out", MEDIA),
            ("data", "-data", JSON),
        ):
            if name not in without.split():
                self.urls[name] = self.channel(suffix, kind)
        theirs = {"publish": "subscribe_url", "subscribe": "publish_url"}
        asked = {theirs.get(name, f"{name}_url"): url for name, url in self.urls.items()}
        asked |= {"gateway_request_id": self.id} | ({} if params is None else {"params": params}) | body
        return await self.post("/stream/start", asked, {"X-Stream-Id": self.id})

    async def update(self, params: Any) -> int:
        return await self.post("/stream/params", params, {"X-Stream-Id": self.id})

    async def stop(self) -> int:
        return await self.post("/stream/stop", b"stream ended", {"X-Stream-Id": self.id})


class LV2V(Caller):
    """`/live-video-to-video`, as an AI worker posts it to its container."""

    async def start(self, params: Any = None, **body: Any) -> int:
        self.urls = {
            "publish": self.channel("", MEDIA),
            "subscribe": self.channel("-out", MEDIA),
            "control": self.channel("-control", JSON),
            "events": self.channel("-events", JSON),
        }
        asked = {
            "subscribe_url": self.urls["publish"],
            "publish_url": self.urls["subscribe"],
            "control_url": self.urls["control"],
            "events_url": self.urls["events"],
            "gateway_request_id": "",
            "manifest_id": self.id,
            "model_id": "noop",
            "stream_id": "",
        }
        asked |= ({} if params is None else {"params": params}) | body
        return await self.post("/live-video-to-video", asked)
