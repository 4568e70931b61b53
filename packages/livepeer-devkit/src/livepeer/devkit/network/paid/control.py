"""How a network's starter tells its processes what changes: calls over loopback, at a secret address."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any

from aiohttp import web

__all__ = ["Answer", "Control"]

Answer = Callable[[Any], Any | Awaitable[Any]]


class Control:
    """The process's side, as an async context manager.

    `telling.tell` is the other side.

    Args:
        answers: What to do at each word, with the JSON that came with it; what it returns goes back.
    """

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = answers
        self._path = f"/{secrets.token_urlsafe(24)}"
        self._runner: web.AppRunner | None = None
        self.url: str = ""

    async def __aenter__(self) -> Control:
        app = web.Application()
        app.router.add_post(f"{self._path}/{{word}}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}{self._path}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        made = self._answers[request.match_info["word"]](await request.json())
        return web.json_response(await made if isinstance(made, Awaitable) else made)
