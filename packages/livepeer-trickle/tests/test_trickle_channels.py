"""Publisher, subscriber and JSON channels through our server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from livepeer.trickle import (
    ChannelClosed,
    ChannelNotFound,
    ChannelReader,
    ChannelWriter,
    ConfigurationError,
    JSONLReader,
    JSONLWriter,
    Transport,
    TrickleError,
    TricklePublisher,
    TrickleServer,
    TrickleSubscriber,
)

Until = Callable[[Callable[[], object]], Awaitable[None]]


async def everything(subscriber: TrickleSubscriber) -> list[tuple[int, bytes]]:
    return [(segment.seq, await segment.read()) async for segment in subscriber]


async def waiting(server: TrickleServer, name: str, until: Until, seq: int = 0) -> None:
    """Wait until a reader waits for this segment."""
    await until(lambda: (s := server._channels[name].segment(seq)) is not None and s._watchers)


async def test_whole_segments_and_pieces(server: TrickleServer, until: Until) -> None:
    server.create("c")
    reading = asyncio.create_task(everything(TrickleSubscriber(server.channel_url("c"))))
    await waiting(server, "c", until)
    big = random.Random(1).randbytes(3_000_000)
    async with TricklePublisher(server.channel_url("c"), mime_type="a/b") as publisher:
        await publisher.write(b"one")
        await publisher.write(b"")  # writes nothing
        async with publisher.segment() as segment:
            assert segment.seq == 1
            for start in range(0, len(big), 1316):
                await segment.write(big[start : start + 1316])
        await waiting(server, "c", until, 2)
        await publisher.write(big)
        assert publisher.seq == 3
        await waiting(server, "c", until, 3)
    assert await reading == [(0, b"one"), (1, big), (2, big)]


async def test_a_segment_can_be_read_while_it_is_written(server: TrickleServer, transport: Transport) -> None:
    server.create("c", "a/b")
    url = server.channel_url("c")
    async with TricklePublisher(url, transport=transport) as publisher, publisher.segment() as writer:
        await writer.write(b"first")
        async with TrickleSubscriber(url, transport=transport) as subscriber:
            reader = await anext(subscriber)
            assert (reader.seq, reader.content_type) == (0, "a/b")
            assert await anext(reader) == b"first"
            await writer.write(b"second")
            assert await anext(reader) == b"second"


async def test_a_writer_goes_on_where_the_one_before_stopped(server: TrickleServer) -> None:
    server.create("c")
    url = server.channel_url("c")
    for number in range(3):
        publisher = TricklePublisher(url)
        assert publisher.seq == 0
        await publisher.write(b"%d" % number)
        assert publisher.seq == number + 1
        await publisher.close(delete=False)
    subscriber = TrickleSubscriber(url)
    got = [await (await anext(subscriber)).read() for _ in range(3)]
    await subscriber.aclose()
    assert got == [b"0", b"1", b"2"]


@pytest.mark.parametrize(("start", "first"), [(0, 2), (-2, 6), (-1, 7), (4, 4)])
async def test_where_a_reader_begins(server: TrickleServer, start: int, first: int, until: Until) -> None:
    server.create("c")
    for number in range(7):
        server.publish("c", b"%d" % number)
    async with TrickleSubscriber(server.channel_url("c"), start=start) as subscriber:
        getting = asyncio.ensure_future(anext(subscriber))
        if start == -1:
            await waiting(server, "c", until, 7)
            server.publish("c", b"7")
        segment = await getting
        assert (segment.seq, await segment.read()) == (first, b"%d" % first)
        assert subscriber.missed == (2 if start == 0 else 0)


async def test_a_slow_reader_counts_what_it_missed(server: TrickleServer, until: Until) -> None:
    server.create("c")
    server.publish("c", b"0")
    async with TrickleSubscriber(server.channel_url("c")) as subscriber:
        assert (await anext(subscriber)).seq == 0
        await waiting(server, "c", until, 1)
        for number in range(1, 21):
            server.publish("c", b"%d" % number)
        numbers = [(await anext(subscriber)).seq for _ in range(6)]
        assert numbers == [1, 16, 17, 18, 19, 20]  # 1 was under way already
        assert subscriber.missed == 14


async def test_a_reader_whose_owner_takes_his_time_stays_at_the_head(
    server: TrickleServer, until: Until
) -> None:
    """What it was given is its own, although the ring has forgotten it: sixty segments, or two MiB."""
    server.create("c")
    server.publish("c", b"0")
    async with TrickleSubscriber(server.channel_url("c")) as subscriber:
        segments = [await anext(subscriber)]
        for number in range(1, 60):
            await waiting(server, "c", until, number)
            server.publish("c", b"%d" % number)
        got = [await segments[0].read()]
        got += [await (await anext(subscriber)).read() for _ in range(1, 60)]
        assert got == [b"%d" % number for number in range(60)]
        assert subscriber.missed == 0


async def test_a_reader_that_is_never_read_asks_for_no_more(server: TrickleServer, until: Until) -> None:
    server.create("c")
    async with TrickleSubscriber(server.channel_url("c")) as subscriber:
        server.publish("c", b"x")
        got = [(await anext(subscriber)).seq]
        queue = subscriber._ahead._asked
        for _ in range(80):
            server.publish("c", bytes(100_000))
            await asyncio.sleep(0.002)
        size = sum(exchange.waiting for _, exchange in queue)
        assert 2_000_000 < size < 4_000_000
        assert len(queue) < 40
        while got[-1] != 80:
            got.append((await anext(subscriber)).seq)
        assert len(got) + subscriber.missed == 81
        assert got[:20] == list(range(20))


async def test_a_reader_ahead_of_the_writer_waits(server: TrickleServer) -> None:
    server.create("c")
    async with TrickleSubscriber(server.channel_url("c"), start=3) as subscriber:
        getting = asyncio.ensure_future(anext(subscriber))
        for number in range(4):
            server.publish("c", b"%d" % number)
            await asyncio.sleep(0.01)
        assert await (await getting).read() == b"3"


async def test_channels_that_are_not_there() -> None:
    async with TrickleServer.serve(autocreate=False) as server:
        url = server.channel_url("nope")
        with pytest.raises(ChannelNotFound):
            await anext(TrickleSubscriber(url))
        publisher = TricklePublisher(url)
        with pytest.raises(ChannelNotFound):
            await publisher.create()
        with pytest.raises(ChannelNotFound):
            await publisher.write(b"x")
        with pytest.raises(ChannelNotFound):
            async with publisher.segment() as segment:
                await segment.write(b"x")
        await publisher.close()


async def test_a_channel_that_was_closed_by_the_other_side() -> None:
    async with TrickleServer.serve(autocreate=False) as server:
        server.create("c")
        async with TricklePublisher(server.channel_url("c")) as publisher:
            await publisher.write(b"x")
            server.close_channel("c")
            with pytest.raises(ChannelClosed):
                await publisher.write(b"y")


async def test_data_that_a_closed_segment_swallowed_is_written_again(server: TrickleServer) -> None:
    server.create("c")
    for _ in range(3):
        server.publish("c", b"other")
    async with TricklePublisher(server.channel_url("c"), start=1) as publisher:
        await publisher.write(b"mine")  # go-livepeer says 200 here, and forgets it
        assert publisher.seq > 2
        found = [chunk for segment in server._channels["c"] for chunk in segment.chunks]
        assert found.count(b"mine") == 1


async def test_a_segment_that_is_closed_while_it_is_written(
    server: TrickleServer, transport: Transport
) -> None:
    server.create("c")
    server._channels["c"].for_write(0).close()
    async with TricklePublisher(server.channel_url("c"), transport=transport, start=0) as publisher:

        async def write() -> None:
            async with publisher.segment() as segment:
                for _ in range(1000):
                    await segment.write(b"x" * 1000)
                    await asyncio.sleep(0)

        with pytest.raises(TrickleError) as caught:
            await write()
        assert caught.value.retryable
        await publisher.write(b"y")


async def test_one_segment_at_a_time(server: TrickleServer) -> None:
    publisher = TricklePublisher(server.channel_url("c"))
    async with publisher:
        async with publisher.segment() as segment:
            with pytest.raises(TrickleError, match="still open"):
                publisher.segment()
            await segment.write(b"x")
        with pytest.raises(TrickleError, match="closed"):
            await segment.write(b"y")
    with pytest.raises(TrickleError, match="closed"):
        await publisher.write(b"z")


async def test_many_writers_of_one_publisher_take_turns(server: TrickleServer) -> None:
    server.create("c")
    async with TricklePublisher(server.channel_url("c")) as publisher:
        await asyncio.gather(*(publisher.write(b"%d" % number) for number in range(4)))
        assert [b"".join(s.chunks) for s in server._channels["c"]] == [b"0", b"1", b"2", b"3"]


async def test_more_than_four_segments_at_once_are_spaced(server: TrickleServer) -> None:
    """The ring has room for a burst of four; what is more goes out in time for readers."""
    server.create("c")
    async with TricklePublisher(server.channel_url("c"), pace=0.05) as publisher:
        began = asyncio.get_running_loop().time()
        for number in range(7):
            await publisher.write(b"%d" % number)
        assert asyncio.get_running_loop().time() - began >= 0.14


@pytest.mark.parametrize("url", ["", "nope", "ftp://x/y", "127.0.0.1:80/c"])
def test_what_is_no_url(url: str) -> None:
    for kind in (TricklePublisher, TrickleSubscriber, ChannelWriter, ChannelReader):
        with pytest.raises(ConfigurationError, match="trickle channel"):
            kind(url)
    with pytest.raises(ConfigurationError, match="-7"):
        TrickleSubscriber("http://x/y", start=-7)


@pytest.mark.parametrize("readers", [2])
async def test_thousands_of_segments_at_full_speed(
    server: TrickleServer, transport: Transport, readers: int
) -> None:
    """The server has no back-pressure and keeps five segments, one of them for a waiting reader. So the
    writer stays at most three segments ahead of the slowest reader; within that it writes at full speed.
    """
    count, ahead = 2000, 3
    rng = random.Random(7)
    segments = [b"%d:" % n + rng.randbytes(rng.choice((0, 1, 900, 1316, 30_000))) for n in range(count)]
    server.create("c")
    url = server.channel_url("c")
    positions = [0] * readers
    moved = asyncio.Event()

    async def read(reader: int) -> tuple[str, int]:
        digest = hashlib.sha256()
        subscriber = TrickleSubscriber(url, transport=transport)
        async for segment in subscriber:
            data = await segment.read()
            assert data.startswith(b"%d:" % segment.seq)
            digest.update(data)
            positions[reader] = segment.seq + 1
            moved.set()
        return digest.hexdigest(), subscriber.missed

    reading = [asyncio.create_task(read(reader)) for reader in range(readers)]
    publisher = TricklePublisher(url, transport=transport, pace=0)
    for number, data in enumerate(segments):
        while number - min(positions) > ahead:
            moved.clear()
            await moved.wait()
        await publisher.write(data)
    while min(positions) < count:
        moved.clear()
        await moved.wait()
    await publisher.close()
    expected = hashlib.sha256(b"".join(segments)).hexdigest()
    assert [await task for task in reading] == [(expected, 0)] * readers


# JSON


async def test_json_messages(server: TrickleServer, until: Until) -> None:
    server.create("c")
    url = server.channel_url("c")
    messages: list[Any] = [{"prompt": "ein Bär"}, [1, 2.5, None], "text", 7, False]
    async with ChannelReader(url) as reader:
        reading = asyncio.create_task(_all(reader()))
        await waiting(server, "c", until)
        async with ChannelWriter(url) as writer:
            for message in messages:
                await writer.write(message)
        assert await reading == messages
        assert (reader.malformed, reader.missed) == (0, 0)


async def test_json_lines(server: TrickleServer, until: Until) -> None:
    server.create("c")
    url = server.channel_url("c")
    reading = asyncio.create_task(_all(JSONLReader(url)))
    await waiting(server, "c", until)
    async with JSONLWriter(url) as writer:
        for number in range(1000):
            await writer.write({"n": number})
    assert await reading == [{"n": number} for number in range(1000)]


async def test_a_long_lived_json_lines_writer_begins_new_segments(
    server: TrickleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livepeer.trickle.channels._ROLL_SIZE", 10)
    server.create("c")
    async with JSONLWriter(server.channel_url("c")) as writer:
        await writer.write("a long message")
        await writer.write("another")
        await writer.write(1)
        assert server._channels["c"].next_write >= 2


async def test_json_lines_of_a_segment_that_broke_are_written_once_more(
    server: TrickleServer, wire: Any, until: Until
) -> None:
    server.create("c")
    url = server.channel_url("c")
    reading = asyncio.create_task(_all(JSONLReader(url)))
    await waiting(server, "c", until)
    writer = JSONLWriter(wire.url(url))
    await writer.write(0)
    wire.cut()
    with contextlib.suppress(TimeoutError):  # cancelled at whatever it waits for, it takes nothing with it
        await asyncio.wait_for(writer.write("given up"), 0)
    for number in range(1, 5):
        await writer.write(number)
    await writer.close()
    got = await reading
    assert [message for message in dict.fromkeys(got) if message != "given up"] == list(range(5))


async def test_a_segment_of_json_lines_ends_by_itself(server: TrickleServer, until: Until) -> None:
    server.create("c")
    async with JSONLWriter(server.channel_url("c"), roll_after=0.05) as writer:
        await writer.write(1)
        await until(lambda: (s := server._channels["c"].segment(0)) is not None and s.closed)
        await writer.write(2)
        await until(lambda: server._channels["c"].next_write == 2)


async def test_json_lines_for_a_channel_that_is_over(until: Until) -> None:
    async with TrickleServer.serve(autocreate=False) as server:
        server.create("c")
        writer = JSONLWriter(server.channel_url("c"), roll_after=0.05)
        await writer.write(1)
        await until(lambda: (s := server._channels["c"].segment(0)) is not None and s.closed)
        server.close_channel("c")

        async def write() -> None:
            while True:
                await writer.write(2)
                await asyncio.sleep(0.001)

        with pytest.raises((ChannelClosed, ChannelNotFound)):
            await asyncio.wait_for(write(), 30)
        await writer.close()


async def test_what_is_no_json_is_left_out_and_counted(server: TrickleServer) -> None:
    server.create("c")
    for data in (b"nope", b'{"a": 1}', b'{"b": \n{"c": 2}\n'):
        server.publish("c", data)
    async with ChannelReader(server.channel_url("c")) as reader:
        assert [await anext(reader) for _ in range(1)] == [{"a": 1}]
        server.publish("c", b"3")
        assert await anext(reader) == 3
        assert reader.malformed == 2


@pytest.mark.parametrize("message", [b"bytes", {1, 2}, object(), float("nan")])
async def test_what_cannot_be_written_as_json(server: TrickleServer, message: Any) -> None:
    async with ChannelWriter(server.channel_url("c")) as writer:
        with pytest.raises(TrickleError, match="JSON"):
            await writer.write(message)


async def _all(reader: Any) -> list[Any]:
    return [message async for message in reader]
