"""Single lines of the protocol: what is never asked, how an end looks, proxies, and channels that idle."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from livepeer.trickle import (
    ChannelClosed,
    ChannelReader,
    ChannelWriter,
    JSONLReader,
    JSONLWriter,
    Transport,
    TrickleError,
    TricklePublisher,
    TrickleServer,
    TrickleSubscriber,
)

Until = Callable[[Callable[[], object]], Awaitable[None]]


@contextlib.asynccontextmanager
async def scripted(answer: Callable[[bytes], Awaitable[bytes]]) -> AsyncIterator[str]:
    """A server that answers each request (its method and path) with bytes; the URL of a channel there."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await answer(head.partition(b" HTTP")[0]))
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/c"
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def told(status: str, body: bytes = b"", **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


async def test_what_is_never_asked(
    server: TrickleServer, wire: Any, transport: Transport, until: Until
) -> None:
    """A DELETE of a segment -1 hangs go-livepeer, and a writer that begins at -1 loses its second segment."""
    server.create("c")
    url = wire.url(server.channel_url("c"))
    publisher = TricklePublisher(url, transport=transport)
    reading = [TrickleSubscriber(url, transport=transport, start=start) for start in (-1, -2, 0)]
    tasks = [asyncio.ensure_future(anext(one)) for one in reading]
    await publisher.write(b"0")
    broken = publisher.segment()
    await broken.write(b"part")
    await broken.abort()
    with contextlib.suppress(TrickleError):
        async with publisher.segment() as cut:
            await cut.write(b"part")
            await until(lambda: b"part" in wire.sent)
            wire.cut()
            await asyncio.sleep(0.01)
    await publisher.write(b"after")
    await asyncio.gather(*tasks)
    for one in reading:
        await one.aclose()
    async with ChannelWriter(url, transport=transport) as writer:
        await writer.write(1)
    await publisher.close()
    asked = re.findall(rb"(GET|POST|DELETE|PUT|HEAD) /ai/trickle/c(\S*) HTTP", bytes(wire.sent))
    assert {method for method, _ in asked} == {b"GET", b"POST", b"DELETE"}
    for method, path in asked:
        if method == b"DELETE":
            assert path == b""
        elif method == b"POST":
            assert re.fullmatch(rb"/\d+", path)
        else:
            assert re.fullmatch(rb"/(\d+|-1|-2|next)", path)


@pytest.mark.parametrize("status", ["200 OK", "470 "])
async def test_terminated_with_a_body(status: str, transport: Transport) -> None:
    """The header alone means the end; the bytes are no media, and no JSON either."""

    async def answer(request: bytes) -> bytes:
        if request == b"GET /c/0":
            return told("200 OK", b"0\n", Lp_Trickle_Seq="0")
        return told(
            status,
            b"Entry not found",
            Lp_Trickle_Closed="terminated",
            Lp_Trickle_Latest="1",
            Lp_Trickle_Seq="1",
        )

    async with scripted(answer) as url:
        segments = [await one.read() async for one in TrickleSubscriber(url, transport=transport)]
        assert segments == [b"0\n"]
        reader = ChannelReader(url, transport=transport)
        assert [message async for message in reader] == [0]
        assert reader.malformed == 0
        publisher = TricklePublisher(url, transport=transport)
        with pytest.raises(ChannelClosed):
            await publisher.write(b"x")
        await publisher.abort()


async def test_a_proxy_that_gives_up_on_long_polls_is_asked_again(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 504, as nginx does after a minute of silence: for ever, and no failure of the server's."""
    monkeypatch.setattr("livepeer.trickle.protocol._LONG_LIVED", 0.02)
    monkeypatch.setattr("livepeer.trickle.protocol.backoff", lambda *_, **__: 0.001)
    asked = 0

    async def answer(request: bytes) -> bytes:
        nonlocal asked
        asked += request == b"GET /c/0"
        await asyncio.sleep(0.03)
        if asked < 12:
            return told("504 Gateway Timeout", b"no")
        return told("200 OK", b"x", Lp_Trickle_Seq=request.rpartition(b"/")[2].decode())

    async with (
        scripted(answer) as url,
        TrickleSubscriber(url, transport=transport) as subscriber,
    ):
        segment = await anext(subscriber)
        assert (segment.seq, await segment.read()) == (0, b"x")
    assert asked >= 12


async def test_a_proxy_that_keeps_no_connection(transport: Transport) -> None:
    """Every answer ends its connection there, so that it means nothing: no segment counts as swallowed."""
    written: list[bytes] = []

    async def answer(request: bytes) -> bytes:
        written.append(request)
        return told("200 OK", b"7", Connection="close", Lp_Trickle_Latest="7")

    async with scripted(answer) as url:
        publisher = TricklePublisher(url, transport=transport)
        for _ in range(3):
            await publisher.write(b"x")
        await publisher.close(delete=False)
    posts = [request for request in written if request.startswith(b"POST")]
    assert posts == [b"POST /c/7", b"POST /c/8", b"POST /c/9"]


async def test_a_channel_that_is_swept_ends_quietly(transport: Transport) -> None:
    async with TrickleServer.serve(autocreate=False, idle_timeout=0.1, sweep_interval=0.02) as server:
        server.create("c")
        url = server.channel_url("c")
        publisher = TricklePublisher(url, transport=transport)
        reader = ChannelReader(url, transport=transport)
        await publisher.write(b"1")
        assert [message async for message in reader] == [1]
        with pytest.raises(ChannelClosed):
            await publisher.write(b"2")
        await publisher.close()


async def test_a_channel_that_is_written_now_and_then_is_kept(transport: Transport) -> None:
    """What counts is the begin of a segment, so JSON lines begin a new one in time."""
    async with TrickleServer.serve(autocreate=False, idle_timeout=1.0, sweep_interval=0.05) as server:
        for name in "c", "d":
            server.create(name)
        url, lines_url = map(server.channel_url, "cd")
        messages, lines = ChannelReader(url, transport=transport), JSONLReader(lines_url, transport=transport)
        async with (
            ChannelWriter(url, transport=transport) as writer,
            JSONLWriter(lines_url, transport=transport, roll_after=0.1) as lines_writer,
        ):
            for number in range(8):
                await writer.write(number)
                await lines_writer.write(number)
                assert (await anext(messages), await anext(lines)) == (number, number)
                await asyncio.sleep(0.2)
        assert [message async for message in messages] == []
        assert [message async for message in lines] == []


async def test_the_server_keeps_five_segments_of_memory(server: TrickleServer, transport: Transport) -> None:
    server.create("c")
    async with TricklePublisher(server.channel_url("c"), transport=transport) as publisher:
        for _ in range(40):
            await publisher.write(bytes(1_000_000))
            kept = sum(len(chunk) for segment in server._channels["c"] for chunk in segment.chunks)
            assert kept <= 5_000_000
