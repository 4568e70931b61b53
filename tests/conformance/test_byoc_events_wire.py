"""Event streams of BYOC workers by hand: what an orchestrator makes of them (PROTOCOL section 3)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from byoc_harness import ByocWorker, job, job_header
from harness import Worker, dial

BALANCE = b'data: {"balance": 0.000}\n\n\n'
Write = Callable[[bytes], Awaitable[None]]


@pytest.fixture
async def byoc(worker: Worker) -> ByocWorker:
    """A bare worker with one capability of capacity 3."""
    return await ByocWorker.make(worker, capacity=3)


def events(script: Callable[[Write], Awaitable[None]], **options: Any) -> Any:
    """A handler that answers with events, written by the script."""

    async def answer(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream", **options.get("headers", {})}
        response = web.StreamResponse(headers=headers, status=options.get("status", 200))
        await response.prepare(request)
        await script(response.write)
        if options.get("die"):
            assert request.transport is not None
            request.transport.close()
        return response

    return answer


def pieces(*data: bytes) -> Callable[[Write], Awaitable[None]]:
    """A script that writes some pieces, and ends."""

    async def script(write: Write) -> None:
        for piece in data:
            await write(piece)

    return script


class Reader:
    """What the client gets of a stream."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.data = b""

    async def until(self, wanted: Callable[[bytes], bool]) -> bytes:
        """Read until a condition on everything that came holds; all that came."""
        async with asyncio.timeout(15):
            while not wanted(self.data):
                piece = await self.answer.content.readany()
                assert piece, self.data
                self.data += piece
        return self.data

    async def flooded(self) -> bytes:
        """Read until newlines come without end; what came before them."""
        data = await self.until(lambda data: data.endswith(b"\n" * 20))
        return data.rstrip(b"\n") + b"\n"

    async def end(self) -> bytes:
        """Read to the end."""
        async with asyncio.timeout(15):
            self.data += await self.answer.read()
        return self.data


@contextlib.asynccontextmanager
async def opened(byoc: ByocWorker, *, timeout: int = 10) -> AsyncIterator[Reader]:
    """A call under way; it leaves at the end of the block."""
    url = f"{byoc.network.url}/process/request/run"
    async with byoc.worker.request("POST", url, headers=job(byoc.capability, timeout=timeout)) as answer:
        assert answer.status == 200
        yield Reader(answer)
        answer.close()


class TestLines:
    async def test_lines_come_one_by_one_as_the_worker_writes_them(self, byoc: ByocWorker) -> None:
        go = asyncio.Event()

        async def script(write: Write) -> None:
            await write(b"data: 1\n")
            await go.wait()
            go.clear()
            await write(b"\nda")
            await write(b"ta: 2")
            await go.wait()
            await write(b"\n\n")

        byoc.answer = events(script)
        async with opened(byoc) as reader:
            assert await reader.until(lambda data: data == b"data: 1\n")
            go.set()
            assert await reader.until(lambda data: data == b"data: 1\n\n")  # half a line isn't one
            go.set()
            assert await reader.until(lambda data: data.startswith(b"data: 1\n\ndata: 2\n\n"))

    async def test_the_head_is_the_orchestrators_own(self, byoc: ByocWorker) -> None:
        headers = {
            "Content-Type": "text/event-stream; charset=utf-8",
            "X-Metadata": "mine",
            "X-Mine": "1",
            "Cache-Control": "max-age=5",
        }
        byoc.answer = events(pieces(b"data: 1\n\n"), headers=headers)
        async with opened(byoc) as reader:
            sent = dict(reader.answer.headers)
        sent.pop("Date")
        assert sent == {
            "Content-Type": "text/event-stream",
            "X-Metadata": "mine",
            "Cache-Control": "no-cache",
            "Connection": "keep-alive",
            "Livepeer-Payment-Balance": "0",
            "Transfer-Encoding": "chunked",
        }

    async def test_the_head_comes_with_the_first_line(self, byoc: ByocWorker) -> None:
        go, begun = asyncio.Event(), asyncio.Event()

        async def script(write: Write) -> None:
            begun.set()
            await go.wait()
            await write(b"data: 1\n\n")

        byoc.answer = events(script)
        async with dial(byoc.network) as wire:
            headers = [f"Livepeer: {job_header(byoc.capability)}", "Content-Length: 0"]
            await wire.ask("POST", "/process/request/run", *headers)
            await begun.wait()
            assert await wire.silent()
            go.set()
            assert (await wire.head())[0] == 200

    async def test_a_carriage_return_at_the_end_of_a_line_is_lost(self, byoc: ByocWorker) -> None:
        byoc.answer = events(pieces(b"data: a\rb\r\n\r\ndata: c\r\r\n\r\n", b"\r"))
        async with opened(byoc) as reader:
            assert await reader.flooded() == b"data: a\rb\n\ndata: c\r\n"

    async def test_an_error_becomes_a_200(self, byoc: ByocWorker) -> None:
        byoc.answer = events(pieces(b"data: bad\n\n"), status=422)
        async with opened(byoc) as reader:
            assert (reader.answer.status, await reader.flooded()) == (200, b"data: bad\n")

    async def test_but_not_a_401(self, byoc: ByocWorker) -> None:
        byoc.answer = events(pieces(b"data: bad\n\n"), status=401)
        assert (await byoc.call()).status == 500
        assert not await byoc.known()

    async def test_a_line_just_under_64_kib_passes(self, byoc: ByocWorker) -> None:
        line = b"data: " + b"x" * (65535 - 6)
        byoc.answer = events(pieces(line + b"\n\ndata: after\n\n"))
        async with opened(byoc) as reader:
            assert await reader.flooded() == line + b"\n\ndata: after\n"

    async def test_a_longer_one_ends_everything(self, byoc: ByocWorker) -> None:
        line = b"data: " + b"x" * (65536 - 6)
        go = asyncio.Event()

        async def script(write: Write) -> None:
            await write(b"data: before\n\n" + line + b"\n\ndata: after\n\ndata: [DONE]\n\n")
            await go.wait()

        byoc.answer = events(script)
        async with opened(byoc) as reader:
            assert await reader.flooded() == b"data: before\n"
            await asyncio.wait_for(byoc.gone.wait(), 30)  # and the worker is left

    async def test_a_caller_who_leaves_is_noticed_at_once(self, byoc: ByocWorker) -> None:
        never = asyncio.Event()

        async def script(write: Write) -> None:
            await write(b"data: 1\n\n")
            await never.wait()

        byoc.answer = events(script)
        async with opened(byoc) as reader:
            await reader.until(lambda data: data == b"data: 1\n\n")
            assert await byoc.free() == 2
        await asyncio.wait_for(byoc.gone.wait(), 30)
        assert await byoc.known()


class TestDone:
    @pytest.mark.parametrize(
        ("sent", "arrives"),
        [
            pytest.param(
                b"data: 1\n\ndata: [DONE]\n\n",
                b"data: 1\n\n" + BALANCE + b"data: [DONE]\n",
                id="its own event",
            ),
            pytest.param(
                b"data: 1\ndata: [DONE]\n\n", b"data: 1\n" + BALANCE + b"data: [DONE]\n", id="glued on"
            ),
            pytest.param(
                b'data: {"text": "say [DONE]"}\n\ndata: 2\n\n',
                BALANCE + b'data: {"text": "say [DONE]"}\n\ndata: 2\n',
                id="inside text",
            ),
            pytest.param(b": [DONE]\n\n", BALANCE + b": [DONE]\n", id="inside a comment"),
            pytest.param(
                b"data: [DONE]\n\ndata: later\n\ndata: [DONE]\n\n",
                BALANCE + b"data: [DONE]\n\ndata: later\n\n" + BALANCE + b"data: [DONE]\n",
                id="and more behind it",
            ),
            pytest.param(
                b'data: {"balance": 7}\n\ndata: [DONE]\n\n',
                b'data: {"balance": 7}\n\n' + BALANCE + b"data: [DONE]\n",
                id="a balance of the application's own",
            ),
        ],
    )
    async def test_a_balance_comes_before_it(self, byoc: ByocWorker, sent: bytes, arrives: bytes) -> None:
        byoc.answer = events(pieces(sent))
        async with opened(byoc) as reader:
            assert await reader.flooded() == arrives


class TestEnd:
    @pytest.mark.parametrize("die", [False, True])
    async def test_after_the_workers_end_come_newlines_until_the_timeout(
        self, byoc: ByocWorker, die: bool
    ) -> None:
        byoc.answer = events(pieces(b"data: 1\n\ndata: half"), die=die)
        began = time.monotonic()
        async with opened(byoc, timeout=1) as reader:
            assert await reader.flooded() == b"data: 1\n\ndata: half\n"
            flood = (await reader.end()).removeprefix(b"data: 1\n\ndata: half\n")
        assert time.monotonic() - began > 0.9
        assert len(flood) > 1000
        assert not flood.strip(b"\n")
        assert await byoc.free() == 3
        assert await byoc.known()

    async def test_or_until_the_caller_leaves(self, byoc: ByocWorker) -> None:
        byoc.answer = events(pieces(b"data: 1\n\ndata: [DONE]\n\n"))
        async with opened(byoc, timeout=60) as reader:
            await reader.flooded()
            assert await byoc.free() == 2
        async with asyncio.timeout(30):
            while await byoc.free() != 3:
                await asyncio.sleep(0.02)

    async def test_at_the_timeout_a_slow_stream_is_cut_without_a_word(self, byoc: ByocWorker) -> None:
        never = asyncio.Event()

        async def script(write: Write) -> None:
            await asyncio.sleep(0.6)  # the headers went before: they end the first span
            await write(b"data: 1\n\n")
            await asyncio.sleep(0.1)
            await write(b"data: half")
            await never.wait()

        byoc.answer = events(script)
        async with opened(byoc, timeout=1) as reader:
            assert await reader.end() == b"data: 1\n\n"
        await asyncio.wait_for(byoc.gone.wait(), 30)

    async def test_the_events_have_a_timeout_of_their_own(self, byoc: ByocWorker) -> None:
        stream = events(pieces(b"data: 1\n\n", b"data: [DONE]\n\n"))

        async def late(request: web.Request) -> web.StreamResponse:
            await asyncio.sleep(0.6)
            response: web.StreamResponse = await stream(request)
            return response

        byoc.answer = late
        began = time.monotonic()
        async with opened(byoc, timeout=1) as reader:
            await reader.end()
        assert time.monotonic() - began > 1.5

    async def test_a_stream_without_a_line_ends_empty(self, byoc: ByocWorker) -> None:
        never = asyncio.Event()

        async def script(_: Write) -> None:
            await never.wait()

        byoc.answer = events(script)
        async with opened(byoc, timeout=1) as reader:
            assert (await reader.end(), reader.answer.content_type) == (b"", "text/event-stream")


async def test_json_in_events_arrives_as_it_is(byoc: ByocWorker) -> None:
    text = json.dumps({"text": "é\u2028 " * 100}, ensure_ascii=False).encode()
    byoc.answer = events(pieces(b"data: " + text + b"\n\n"))
    async with opened(byoc) as reader:
        assert await reader.flooded() == b"data: " + text + b"\n"
