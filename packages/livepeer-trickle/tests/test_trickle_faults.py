"""Connections that break, servers that go away, and tasks that are cancelled."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from livepeer.trickle import (
    ChannelReader,
    ChannelWriter,
    Transport,
    TrickleConnectionError,
    TrickleError,
    TricklePublisher,
    TrickleServer,
    TrickleSubscriber,
)

Until = Callable[[Callable[[], object]], Awaitable[None]]
LeftOver = Callable[[], set[str]]


async def test_a_reader_goes_on_where_its_connection_was_cut(
    server: TrickleServer, wire: Any, transport: Transport
) -> None:
    server.create("c")
    segment = server._channels["c"].for_write(0)
    server._channels["c"].begin(segment, 0.0)
    segment.append(b"before|")
    async with TrickleSubscriber(wire.url(server.channel_url("c")), transport=transport) as subscriber:
        reader = await anext(subscriber)
        assert await anext(reader) == b"before|"
        wire.cut()
        segment.append(b"after")
        segment.close()
        assert await reader.read() == b"after"
        assert not reader.truncated
        server.publish("c", b"next")
        assert await (await anext(subscriber)).read() == b"next"


async def test_a_cut_segment_that_is_gone_is_told(
    server: TrickleServer, wire: Any, transport: Transport
) -> None:
    server.create("c")
    segment = server._channels["c"].for_write(0)
    server._channels["c"].begin(segment, 0.0)
    segment.append(b"before|")
    async with TrickleSubscriber(wire.url(server.channel_url("c")), transport=transport) as subscriber:
        reader = await anext(subscriber)
        await anext(reader)
        for number in range(1, 9):
            server.publish("c", b"%d" % number)
        wire.cut()
        assert await reader.read() == b""
        assert reader.truncated
        following = await anext(subscriber)
        assert following.seq >= 4
        assert await following.read() == b"%d" % following.seq
        assert subscriber.missed == following.seq


async def test_long_polls_that_are_cut_are_made_again(
    server: TrickleServer, wire: Any, transport: Transport, until: Until
) -> None:
    server.create("c")
    async with TrickleSubscriber(wire.url(server.channel_url("c")), transport=transport) as subscriber:
        getting = asyncio.ensure_future(anext(subscriber))
        for connections in (1, 2, 3):
            await until(lambda n=connections: wire.connections >= n)
            await asyncio.sleep(0.01)
            wire.cut()
        server.publish("c", b"x")
        assert await (await getting).read() == b"x"


async def test_a_server_that_goes_away_is_an_error_within_two_seconds(
    server: TrickleServer, wire: Any, transport: Transport, left_over: LeftOver
) -> None:
    server.create("c")
    server.publish("c", b"x")
    subscriber = TrickleSubscriber(wire.url(server.channel_url("c")), transport=transport)
    assert await (await anext(subscriber)).read() == b"x"
    await wire.refuse()
    async with asyncio.timeout(6):  # four of them for the machine
        with pytest.raises(TrickleConnectionError) as caught:
            await anext(subscriber)
    assert caught.value.retryable
    assert isinstance(caught.value, ConnectionError)
    await subscriber.aclose()
    assert not left_over()


async def test_nobody_there_fails_at_once(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}/c"
    async with asyncio.timeout(3.5):  # less than both together take when they try for two seconds
        with pytest.raises(TrickleConnectionError, match=str(unused_tcp_port)):
            await anext(TrickleSubscriber(url))
        with pytest.raises(TrickleConnectionError):
            async with TricklePublisher(url, start=0) as publisher:
                await publisher.write(b"x")


async def test_a_writer_that_was_cut_resumes_with_reset_and_readers_do_not_hang(
    server: TrickleServer, wire: Any, transport: Transport
) -> None:
    server.create("c")
    url = server.channel_url("c")
    async with (
        TrickleSubscriber(url, transport=transport) as subscriber,
        TricklePublisher(wire.url(url), transport=transport, start=0) as publisher,
    ):
        writer = publisher.segment()
        await writer.write(b"half")
        reader = await anext(subscriber)
        assert await anext(reader) == b"half"
        wire.cut()
        with pytest.raises(TrickleConnectionError):
            await writer.close()
        rest = asyncio.create_task(reader.read())
        await publisher.write(b"whole")
        assert await rest == b""
        following = await anext(subscriber)
        assert (following.seq, await following.read()) == (1, b"whole")


async def test_a_whole_segment_is_written_again(
    server: TrickleServer, wire: Any, transport: Transport
) -> None:
    server.create("c")
    async with TricklePublisher(wire.url(server.channel_url("c")), transport=transport) as publisher:
        await publisher.write(b"0")
        wire.cut()  # the idle connection too
        await publisher.write(b"1")
        await wire.refuse()
        writing = asyncio.create_task(publisher.write(b"2"))
        await asyncio.sleep(0.02)
        await wire.start()
        await writing
    everything = [b"".join(s.chunks) for s in server._channels.get("c", [])]
    assert everything == []  # closed, after the last one was answered


async def test_closing_when_the_server_is_gone_is_quiet(
    server: TrickleServer, wire: Any, transport: Transport
) -> None:
    publisher = TricklePublisher(wire.url(server.channel_url("c")), transport=transport)
    await publisher.write(b"x")
    await wire.refuse()
    await publisher.close()
    await publisher.close()


async def test_a_closed_transport_is_an_error_of_ours(server: TrickleServer) -> None:
    transport = Transport()
    await transport.aclose()
    server.create("c")
    with pytest.raises(TrickleConnectionError, match="closed"):
        await anext(TrickleSubscriber(server.channel_url("c"), transport=transport))
    with pytest.raises(TrickleConnectionError, match="closed"):
        await TricklePublisher(server.channel_url("c"), transport=transport).write(b"x")


async def test_a_server_that_is_none(unused_tcp_port: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-nope\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", unused_tcp_port):
        with pytest.raises(TrickleError):
            await anext(TrickleSubscriber(f"http://127.0.0.1:{unused_tcp_port}/c"))


# Cancellation


async def _subscriber(url: str, transport: Transport) -> None:
    async with TrickleSubscriber(url, transport=transport) as subscriber:
        async for segment in subscriber:
            async for _ in segment:
                pass


async def _reader(url: str, transport: Transport) -> None:
    async with ChannelReader(url, transport=transport) as reader:
        async for _ in reader:
            pass


async def _publisher(url: str, transport: Transport) -> None:
    async with TricklePublisher(url, transport=transport) as publisher:
        for _ in range(3):
            async with publisher.segment() as segment:
                for _ in range(3):
                    await segment.write(b"x" * 40_000)
            await publisher.write(b"y")


async def _writer(url: str, transport: Transport) -> None:
    async with ChannelWriter(url, transport=transport) as writer:
        for number in range(5):
            await writer.write(number)


@pytest.mark.parametrize("work", [_subscriber, _reader, _publisher, _writer])
async def test_cancelled_at_any_await(
    server: TrickleServer,
    transport: Transport,
    left_over: LeftOver,
    until: Until,
    work: Callable[[str, Transport], Awaitable[None]],
) -> None:
    """Let it run for a growing number of the loop's turns, cancel it, and look what is left."""
    for turns in [*range(40), 60, 90, 150]:
        name = f"c{turns}"
        server.create(name)
        server.publish(name, b'{"a": 1}')
        task = asyncio.ensure_future(work(server.channel_url(name), transport))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not left_over(), turns
        server.close_channel(name)
    await until(lambda: not transport.connections.busy)
    gc.collect()  # an unclosed response or session says so now


async def test_a_wait_that_times_out_loses_nothing(server: TrickleServer, transport: Transport) -> None:
    server.create("c")
    async with TrickleSubscriber(server.channel_url("c"), transport=transport) as subscriber:
        got: list[bytes] = []
        for number in range(20):
            server.publish("c", b"%d" % number)
            while len(got) <= number:
                try:
                    segment = await asyncio.wait_for(anext(subscriber), 0.0005)
                except TimeoutError:
                    continue
                got.append(await segment.read())
    assert got == [b"%d" % number for number in range(20)]


@pytest.fixture
async def unused_tcp_port() -> int:
    listening = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port: int = listening.sockets[0].getsockname()[1]
    listening.close()
    await listening.wait_closed()
    return port
