"""One face for every library: what a user of each would write."""

from __future__ import annotations

import asyncio
import importlib
import json
import threading
from collections.abc import Coroutine
from typing import Any, Protocol

__all__ = ["LIBRARIES", "Library"]

_INPUT = {"model": "m", "messages": [{"role": "user", "content": "Tell me of the fox."}]}
_CALL = {"model": "m", "max_tokens": 64, "messages": _INPUT["messages"]}


class Library(Protocol):
    """One library, called with the same input and answered with as much.

    Args:
        base: The URL of the server.
    """

    def __init__(self, base: str) -> None: ...

    def run(self) -> Any:
        """Make one call, from synchronous code."""

    async def run_async(self) -> Any:
        """Make one call on the running event loop."""

    def stream(self) -> int:
        """Read one stream, from synchronous code, each event as what the library makes of it; how many."""


class Livepeer:
    """This SDK. Its events are parsed as JSON, as the SDKs parse theirs."""

    def __init__(self, base: str) -> None:
        self._gateway: Any = importlib.import_module("livepeer.client").Gateway(orch_url=base)

    def run(self) -> Any:
        return self._gateway.run("bench", input=_INPUT)

    async def run_async(self) -> Any:
        return await self._gateway.run_async("bench", input=_INPUT)

    def stream(self) -> int:
        found = [event.json() for event in self._gateway.stream("bench", input=_INPUT, path="/stream")]
        return len(found)


class Aiohttp:
    """Bare aiohttp, in synchronous code through a loop in another thread."""

    def __init__(self, base: str) -> None:
        self._aiohttp: Any = importlib.import_module("aiohttp")
        self._base = f"{base}/apps/bench"
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._there: Any = self._wait(self._session())
        self._here: Any = None

    def run(self) -> Any:
        return self._wait(self._post(self._there))

    async def run_async(self) -> Any:
        if self._here is None:
            self._here = await self._session()
        return await self._post(self._here)

    def stream(self) -> int:
        return int(self._wait(self._lines()))

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _session(self) -> Any:
        return self._aiohttp.ClientSession()

    async def _post(self, session: Any) -> Any:
        async with session.post(f"{self._base}/run", json=_INPUT) as answer:
            return await answer.json()

    async def _lines(self) -> int:
        found = []
        async with self._there.post(f"{self._base}/stream", json=_INPUT) as answer:
            async for line in answer.content:
                if line.startswith(b"data: "):
                    found.append(json.loads(line[6:]))
        return len(found)


class Httpx:
    """Bare httpx."""

    def __init__(self, base: str) -> None:
        httpx: Any = importlib.import_module("httpx")
        self._base = f"{base}/apps/bench"
        self._client, self._async = httpx.Client(), httpx.AsyncClient()

    def run(self) -> Any:
        return self._client.post(f"{self._base}/run", json=_INPUT).json()

    async def run_async(self) -> Any:
        return (await self._async.post(f"{self._base}/run", json=_INPUT)).json()

    def stream(self) -> int:
        with self._client.stream("POST", f"{self._base}/stream", json=_INPUT) as answer:
            lines = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
        return len(lines)


class Openai:
    """openai: chat completions."""

    def __init__(self, base: str) -> None:
        openai: Any = importlib.import_module("openai")
        options = {"base_url": f"{base}/openai", "api_key": "none"}
        self._client, self._async = openai.OpenAI(**options), openai.AsyncOpenAI(**options)

    def run(self) -> Any:
        return self._client.chat.completions.create(**_INPUT)

    async def run_async(self) -> Any:
        return await self._async.chat.completions.create(**_INPUT)

    def stream(self) -> int:
        return len(list(self._client.chat.completions.create(**_INPUT, stream=True)))


class Anthropic:
    """anthropic: messages."""

    def __init__(self, base: str) -> None:
        anthropic: Any = importlib.import_module("anthropic")
        options = {"base_url": f"{base}/anthropic", "api_key": "none"}
        self._client, self._async = anthropic.Anthropic(**options), anthropic.AsyncAnthropic(**options)

    def run(self) -> Any:
        return self._client.messages.create(**_CALL)

    async def run_async(self) -> Any:
        return await self._async.messages.create(**_CALL)

    def stream(self) -> int:
        return len(list(self._client.messages.create(**_CALL, stream=True)))


class Replicate:
    """replicate: a prediction that is waited for."""

    def __init__(self, base: str) -> None:
        replicate: Any = importlib.import_module("replicate")
        self._client = replicate.Client(api_token="none", base_url=f"{base}/replicate")

    def run(self) -> Any:
        return self._client.run("a/b", input=_INPUT)

    async def run_async(self) -> Any:
        return await self._client.async_run("a/b", input=_INPUT)

    def stream(self) -> int:
        return len(list(self._client.stream("a/b", input=_INPUT)))


class Fal:
    """fal-client: a run that is waited for. Where it goes is a constant of its module."""

    def __init__(self, base: str) -> None:
        fal: Any = importlib.import_module("fal_client.client")
        fal.RUN_URL_FORMAT = f"{base}/fal/"
        self._client, self._async = fal.SyncClient(key="none"), fal.AsyncClient(key="none")

    def run(self) -> Any:
        return self._client.run("app", arguments=_INPUT)

    async def run_async(self) -> Any:
        return await self._async.run("app", arguments=_INPUT)

    def stream(self) -> int:
        return len(list(self._client.stream("app", arguments=_INPUT)))


LIBRARIES: dict[str, type[Library]] = {
    "livepeer-client": Livepeer,
    "aiohttp": Aiohttp,
    "httpx": Httpx,
    "openai": Openai,
    "anthropic": Anthropic,
    "replicate": Replicate,
    "fal-client": Fal,
}
