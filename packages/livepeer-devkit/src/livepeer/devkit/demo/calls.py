"""``run`` and ``stream`` for real: a text, a picture, tokens, and leaving early, which must be noticed."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import picture
from .report import Report, Row

if TYPE_CHECKING:
    from livepeer.client import Gateway

__all__ = ["count_words", "invert_picture", "leave_early", "reverse_text", "stream_tokens"]

_TEXT = "Anyone can call any capability by its name — 名前で呼べる."
_TOKENS, _PAUSE = 16, 0.05
_LEAVE_AFTER = 5  # tokens
_NOTICED_WITHIN = 3.0  # seconds


async def reverse_text(gateway: Gateway, report: Report, row: Row) -> None:
    """``run`` with a text."""
    began = time.perf_counter()
    response = await gateway.call_async(row.capability, input={"text": _TEXT})
    row.total = row.first_result = time.perf_counter() - began
    row.orchestrator = response.orchestrator
    found = response.data.get("text") if isinstance(response.data, dict) else response.data
    report.check("the text came back reversed", found == _TEXT[::-1], repr(found))


async def count_words(gateway: Gateway, report: Report, row: Row) -> None:
    """``run`` with a capability that registered for BYOC; the call is the same."""
    began = time.perf_counter()
    response = await gateway.call_async(row.capability, input={"text": _TEXT})
    row.total = row.first_result = time.perf_counter() - began
    row.orchestrator = response.orchestrator
    words = _TEXT.lower().split()
    wanted = {"words": len(words), "different": len(set(words))}
    report.check("the words were counted", response.data == wanted, repr(response.data))


async def invert_picture(
    gateway: Gateway, report: Report, row: Row, source: Path | None, folder: Path
) -> None:
    """``run`` with a picture; leaves ``output.png``."""
    if source is None:
        source = folder / "input.png"
        picture.draw().save(source)
    sent = await asyncio.to_thread(picture.opened, source)
    began = time.perf_counter()
    response = await gateway.call_async(row.capability, input=source)
    row.total = row.first_result = time.perf_counter() - began
    row.orchestrator = response.orchestrator
    body = response.data if isinstance(response.data, bytes) else b""
    target = folder / "output.png"
    target.write_bytes(body)
    report.files["picture"] = target
    off = await asyncio.to_thread(picture.difference_from_inverted, sent, body)
    report.check("the picture came back inverted", off < 1, f"mean difference {off:.2f} of 255")
    report.check("the picture is a PNG", response.content_type == "image/png", response.content_type)


async def stream_tokens(gateway: Gateway, report: Report, row: Row) -> None:
    """``stream`` to its end; the tokens have to arrive one at a time."""
    request = _request(_TOKENS)
    began = time.perf_counter()
    arrived: list[float] = []
    async with gateway.stream_async(row.capability, input=request) as stream:
        row.orchestrator = stream.orchestrator
        async for _ in stream:
            arrived.append(time.perf_counter() - began)
    row.total = time.perf_counter() - began
    row.first_result = arrived[0] if arrived else None
    report.check("every token arrived", len(arrived) == _TOKENS, f"{len(arrived)} of {_TOKENS}")
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrived)]
    apart = sum(gap > _PAUSE / 2 for gap in gaps)
    report.check(
        "the tokens arrived one at a time", apart >= len(gaps) * 0.7 > 0, f"{apart} of {len(gaps)} pauses"
    )


async def leave_early(gateway: Gateway, report: Report, row: Row) -> None:
    """``stream`` left in the middle; the worker has to notice that the connection was closed."""
    read = 0
    async with gateway.stream_async(row.capability, input=_request(10_000)) as stream:
        async for _ in stream:
            read += 1
            if read == _LEAVE_AFTER:
                break
    deadline = time.monotonic() + _NOTICED_WITHIN
    stats: dict[str, Any] = {}
    while time.monotonic() < deadline:
        async with gateway.stream_async(row.capability, input=_request(1) | {"stats": True}) as asked:
            async for event in asked:
                stats = event.json()
                break
        if not stats.get("open_streams"):
            break
        await asyncio.sleep(0.05)
    last = stats.get("last_stream", {})
    noticed = stats.get("open_streams") == 0 and not last.get("finished", True)
    report.check(
        "leaving a stream early closed its connection",
        noticed,
        f"read {read} tokens, the worker stopped at {last.get('tokens')}",
    )


def _request(tokens: int) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": tokens,
        "pause": _PAUSE,
    }
