"""How a network's starter tells its processes what changes: calls over loopback, at a secret address."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any

from aiohttp import web

from livepeer.trickle.errors import LivepeerError

__all__ = ["Answer", "Control", "tell"]

Answer = Callable[[Any], Any | Awaitable[Any]]
_PATIENCE = 30.0  # seconds


class Control:
    """The process's side, as an async context manager.

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


def tell(url: str, word: str, value: Any = None) -> Any:
    """The other side: say a word to a process, and wait for its answer.

    Raises:
        LivepeerError: The process isn't there any more.
    """
    body = json.dumps(value).encode()
    request = urllib.request.Request(f"{url}/{word}", body, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_PATIENCE) as answer:
            return json.load(answer)
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise LivepeerError(f"A process of the network did not answer ({word}: {error}).") from error
