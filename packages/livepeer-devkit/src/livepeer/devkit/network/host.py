"""The process of the embedded orchestrator, started by `LocalNetwork`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from aiohttp.http_exceptions import HttpProcessingError

from .orchestrator import Orchestrator, listen
from .process import run_child

__all__: list[str] = []


@contextlib.asynccontextmanager
async def _serve(settings: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    listener = listen(settings["host"], settings["port"])
    options = {name: settings[name] for name in ("secret", "tls", "models", "paid")}
    async with Orchestrator(listener, **options) as orchestrator:
        told = {"url": orchestrator.url, "port": listener.getsockname()[1]}
        if orchestrator.till is None:
            yield told
            return
        from .paid.control import Control

        async with Control(orchestrator.till.answers()) as control:
            yield told | {"control": control.url}


class _Ordinary(logging.Filter):
    """Drops what aiohttp says of requests that no server can read; they got their 400."""

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or not issubclass(kind, HttpProcessingError)


def _not_about_leaving(record: logging.LogRecord) -> bool:
    """Drop what asyncio says of answers to somebody who has left: readers ask for many segments ahead."""
    return record.msg not in ("SSL connection is closed", "socket.send() raised exception.")


if __name__ == "__main__":
    logging.getLogger("aiohttp.server").addFilter(_Ordinary())
    logging.getLogger("asyncio").addFilter(_not_about_leaving)
    run_child(_serve, unwinding=0)  # as go-livepeer ends: calls under way are cut
