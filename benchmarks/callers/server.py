"""A small server that every library calls in its own dialect; all answers are made before it starts.

Run as ``python -m callers.server``; it prints its port, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

from aiohttp import web

__all__ = ["EVENTS"]

EVENTS = 2000  # in a stream
_AT_ONCE = 16  # events that are written together, as a model server's come when it is fast
_WORDS = "The quick brown fox jumps over the lazy dog and is seen by nobody at all. " * 4
_PIECE = " fox"
_USAGE = {"input_tokens": 9, "output_tokens": 64}

Streams = dict[str, list[bytes]]


class Bench:
    """Every path of every library.

    Args:
        port: Where it listens, for the URLs that it hands out.
    """

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"
        chat = _completion("chat.completion", {"message": {"role": "assistant", "content": _WORDS}})
        prediction = self._prediction()
        self._answers = {
            "/discovery": _json([self._listing()]),
            "/apps/bench/run": _json(chat),
            "/openai/chat/completions": _json(chat),
            "/anthropic/v1/messages": _json(_message()),
            "/replicate/v1/models/a/b/predictions": _json(prediction),
            "/fal/app": _json(chat),
        }
        plain, named = _plain_events(), _anthropic_events()
        self._streams: Streams = {
            "/apps/bench/stream": plain,
            "/openai/chat/completions": plain,
            "/anthropic/v1/messages": named,
            "/replicate/stream": _replicate_events(),
            "/fal/app/stream": plain,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request: with a stream where the path has one alone, or the body asks for it."""
        body = await request.read()
        path = request.path
        answer = self._answers.get(path)
        pieces = self._streams.get(path)
        if pieces is not None and (answer is None or b'"stream":true' in body.replace(b" ", b"")):
            return await _stream(request, pieces)
        if answer is None:
            return web.Response(status=404, text=f"nothing is at {path}")
        return web.Response(body=answer, content_type="application/json")

    def _listing(self) -> dict[str, Any]:
        runner = {"url": f"{self._base}/apps/bench", "app": "bench", "mode": "single-shot"}
        return {"address": self._base, "runners": [{**runner, "capacity": 999, "capacity_available": 999}]}

    def _prediction(self) -> dict[str, Any]:
        urls = {"get": f"{self._base}/replicate/get", "stream": f"{self._base}/replicate/stream"}
        always: dict[str, Any] = {
            "id": "p",
            "model": "a/b",
            "version": "v",
            "logs": "",
            "error": None,
            "metrics": {},
        }
        return {**always, "status": "succeeded", "input": {}, "output": _WORDS, "urls": urls}


async def _stream(request: web.BaseRequest, pieces: list[bytes]) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    with contextlib.suppress(ConnectionResetError):  # it may be left early
        for piece in pieces:
            await answer.write(piece)
        await answer.write_eof()
    return answer


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _completion(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    usage = {"prompt_tokens": 9, "completion_tokens": 64, "total_tokens": 73}
    choices = [{"index": 0, "finish_reason": "stop", **choice}]
    return {"id": "c", "object": kind, "created": 1, "model": "m", "choices": choices, "usage": usage}


def _message(words: str | None = _WORDS) -> dict[str, Any]:
    content = [{"type": "text", "text": words}] if words is not None else []
    always = {"id": "m", "type": "message", "role": "assistant", "model": "m", "usage": _USAGE}
    return {**always, "content": content, "stop_reason": "end_turn", "stop_sequence": None}


def _gathered(events: list[str]) -> list[bytes]:
    return ["".join(events[at : at + _AT_ONCE]).encode() for at in range(0, len(events), _AT_ONCE)]


def _plain_events() -> list[bytes]:
    chunk = _completion("chat.completion.chunk", {"delta": {"content": _PIECE}, "finish_reason": None})
    return _gathered([f"data: {json.dumps(chunk)}\n\n"] * EVENTS)


def _anthropic_events() -> list[bytes]:
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": _PIECE}}
    start = {"type": "message_start", "message": _message(None)}
    all_of_them: list[dict[str, Any]] = [start, *[delta] * (EVENTS - 2), {"type": "message_stop"}]
    return _gathered([f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in all_of_them])


def _replicate_events() -> list[bytes]:
    outputs = [f"event: output\nid: {number}\ndata: {_PIECE}\n\n" for number in range(EVENTS - 1)]
    return _gathered([*outputs, "event: done\nid: end\ndata: {}\n\n"])


async def _serve() -> None:
    bench: list[Bench] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return await bench[0].handle(request)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    bench.append(Bench(port))
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)  # its parent's end is its own
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve())
