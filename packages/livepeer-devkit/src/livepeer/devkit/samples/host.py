"""The process of the samples: ``python -m livepeer.devkit.samples.host --orch-url URL --secret SECRET``.

Each sample is a runner of its own, on a free port of the loopback address.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any, Literal
from urllib.parse import urlsplit

from livepeer.runner import running
from livepeer.trickle import TLSPolicy
from livepeer.trickle.errors import ConfigurationError, LivepeerError

from ..network.process import run_child
from .runners import SampleRunners

__all__: list[str] = []

_CLASSES = {
    "echo": ("echo", "Echo"),
    "text-reverse": ("text_reverse", "TextReverse"),
    "llm-chat": ("llm_chat", "LlmChat"),
    "image-invert": ("image_invert", "ImageInvert"),
    "video-filter": ("video_filter", "VideoFilter"),
    "word-count": ("word_count", "WordCount"),
}
_BYOC = ("word-count",)  # one of them, to show that callers see no difference
_REGISTERING = 15.0  # seconds
_CALL: tuple[float, Literal["fixed"]] = (0.001, "fixed")  # US dollars, on a network with payments
_TIME: tuple[float, Literal["hour"]] = (0.36, "hour")
_PRICES = {"llm-chat": _TIME, "video-filter": _TIME}
_CAPACITY = {"llm-chat": 16, "video-filter": 4}


@contextlib.asynccontextmanager
async def _serve(settings: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Serve the samples side by side, each in a task of its own: they start and stop at once."""
    await _reach(settings["orch_url"])
    logger = logging.getLogger("livepeer.runner")
    logger.setLevel(logging.CRITICAL)  # until it is registered a refusal is ours to tell, once
    tls, over, names = TLSPolicy(settings["tls"]), asyncio.Event(), settings["names"]
    urls: dict[str, asyncio.Future[str]] = {name: asyncio.Future() for name in names}

    async def one(name: str) -> None:
        module, kind = _CLASSES[name]
        pipeline = getattr(importlib.import_module(f"{__package__}.{module}"), kind)()
        price, unit = _PRICES.get(name, _CALL)
        try:
            async with running(
                pipeline,
                name=name,
                capacity=_CAPACITY.get(name, 8),
                orch_url=settings["orch_url"],
                secret=settings["secret"],
                register="byoc" if name in _BYOC else "live-runner",
                tls=tls,
                price=price if settings["paid"] and name not in _BYOC else 0.0,
                price_unit=unit,
            ) as server:
                await server.registered(_REGISTERING)
                urls[name].set_result(server.url)
                await over.wait()
        except TimeoutError:
            urls[name].set_exception(
                ConfigurationError(
                    f"The orchestrator did not register {name!r} within {_REGISTERING:g} s.",
                    orchestrator=settings["orch_url"],
                )
            )
        except Exception as error:
            if urls[name].done():
                raise
            urls[name].set_exception(error)

    serving = [asyncio.create_task(one(name)) for name in names]
    try:
        await asyncio.wait(urls.values())
        told = {name: url.result() for name, url in urls.items()}
        logger.setLevel(logging.NOTSET)
        yield told
    finally:
        over.set()
        await asyncio.gather(*serving)


async def _reach(orch_url: str) -> None:
    """Fail at once when nobody listens there; a runner would try for ever."""
    parts = urlsplit(orch_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"{orch_url!r} is not an orchestrator's URL; write https://host:8935.")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(parts.hostname, port), 5)
    except (OSError, TimeoutError) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number).lower() if number else "no answer within 5 s"
        raise ConfigurationError(
            f"The orchestrator can't be reached ({reason}).",
            hint="Is it running, and is the port right?",
            orchestrator=orch_url,
        ) from error
    writer.close()


async def _serve_until_told(settings: dict[str, Any]) -> None:
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(number, over.set)
    async with _serve(settings) as urls:
        print(json.dumps({"ready": urls}), flush=True)
        await over.wait()


def _main() -> None:
    parser = argparse.ArgumentParser(description="Serve the sample capabilities.")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--orch-url", default=os.environ.get("LIVEPEER_ORCH_URL"))
    parser.add_argument("--secret", default=os.environ.get("LIVEPEER_ORCH_SECRET", ""))
    parser.add_argument("--only", action="append", metavar="SAMPLE", help="a sample to serve; all by default")
    parser.add_argument("--paid", action="store_true", help="cost something, for an on-chain orchestrator")
    arguments = parser.parse_args()
    if arguments.child:
        run_child(_serve, unwinding=0.7)
        return
    if not arguments.orch_url:
        sys.exit("--orch-url (or LIVEPEER_ORCH_URL) must name the orchestrator to register with.")
    names = SampleRunners.checked_names(arguments.only or True)
    settings = {
        "orch_url": arguments.orch_url,
        "secret": arguments.secret,
        "names": list(names),
        "tls": "pin",
        "paid": arguments.paid,
    }
    try:
        asyncio.run(_serve_until_told(settings))
    except KeyboardInterrupt:
        sys.exit(130)
    except LivepeerError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()
