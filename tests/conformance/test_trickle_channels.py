"""Our readers and writers on an orchestrator's channels, line by line of the protocol.

`test_trickle_wire.py` says what the orchestrator does. Here is what becomes of it: nothing is lost on a
healthy link, what is lost on a broken one is counted and said, and an end is quiet.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from harness import Network, Session, Wire, Worker, dial, until
from relay import Relay
from silence import PROXY_PATIENCE, SWEPT_AFTER, Silence

from livepeer.trickle import (
    ChannelClosed,
    ChannelNotFound,
    ChannelReader,
    ChannelWriter,
    JSONLReader,
    JSONLWriter,
    SegmentWriter,
    Transport,
    TrickleConnectionError,
    TrickleError,
    TricklePublisher,
    TrickleSubscriber,
)

SIZES = (0, 1, 188, 900, 1316, 30_000, 90_000)
MakeChannels = Callable[[int], Awaitable[list[str]]]


@pytest.fixture
async def session(worker: Worker) -> AsyncIterator[Session]:
    async with worker.kept_session() as made:
        yield made


@pytest.fixture
def channels(worker: Worker, session: Session) -> MakeChannels:
    """Makes fresh channels, as a runner does: by its session's callback."""

    async def make(count: int) -> list[str]:
        wanted = [{"name": uuid.uuid4().hex, "mime_type": "video/MP2T"} for _ in range(count)]
        made: list[str] = []
        for start in range(0, count, 25):
            body = {"channels": wanted[start : start + 25]}
            status, answer = await worker.callback(session, "POST", "channels", body)
            assert status == 200, answer
            made += [channel["url"] for channel in answer["channels"]]
        return made

    return make


@pytest.fixture
async def url(channels: MakeChannels) -> str:
    """A fresh channel."""
    return (await channels(1))[0]


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport() as made:
        yield made


@pytest.fixture
async def relay(network: Network) -> AsyncIterator[Relay]:
    """A link to the network that can be cut."""
    async with Relay(network.url) as made:
        yield made


class Reading:
    """A reader at work, what it has so far, and what it ended with."""

    def __init__(self, url: str, transport: Transport | None = None, *, start: int = 0) -> None:
        self.subscriber = TrickleSubscriber(url, transport=transport, start=start)
        self.segments: dict[int, bytes] = {}
        self.began: list[int] = []
        self.order: list[int] = []
        self.truncated: list[int] = []
        self.task = asyncio.create_task(self._read())

    @property
    def missed(self) -> int:
        return self.subscriber.missed

    async def _read(self) -> None:
        async with self.subscriber:
            async for segment in self.subscriber:
                self.began.append(segment.seq)
                data = await segment.read()
                self.order.append(segment.seq)
                self.segments[segment.seq] = data
                if segment.truncated:
                    self.truncated.append(segment.seq)

    async def has(self, seq: int) -> None:
        """Wait until a segment is read to its end."""
        await until(lambda: seq in self.segments or self.task.done(), 30)
        assert seq in self.segments, (seq, self.order[-5:], self.missed)

    async def done(self) -> None:
        """Wait for the channel's end."""
        async with asyncio.timeout(30):
            await self.task


def numbered(count: int, *, sizes: tuple[int, ...] = SIZES, seed: int = 7) -> list[bytes]:
    """Segments which say their number, of random sizes."""
    rng = random.Random(seed)
    return [b"%d:" % number + rng.randbytes(rng.choice(sizes)) for number in range(count)]


def digest(segments: list[bytes]) -> str:
    return hashlib.sha256(b"".join(segments)).hexdigest()


async def put(transport: Transport, url: str, seq: int, data: bytes) -> None:
    """Write one segment without the publisher's care for its number."""
    async with transport.request("POST", f"{url}/{seq}", data=data) as answer:
        assert answer.status == 200


async def head(transport: Transport, url: str) -> int:
    async with transport.request("GET", f"{url}/next") as answer:
        return int(await answer.text())


# Nothing is lost on a healthy link


async def keep_up(written: int, readings: list[Reading]) -> None:
    """Wait while the slowest reader is three segments behind: of the ring's five places one is written now,
    and one is for the segment that others wait for.

    The server has no back-pressure. Readers of ours stay at the head by themselves, except when the machine
    gives them no time: that, and only that, is what the writer waits for here.
    """
    await until(lambda: all(written - len(reading.order) <= 3 for reading in readings), 60)


async def test_thousands_of_segments_at_full_speed(url: str, transport: Transport) -> None:
    segments = numbered(1500)
    readings = [Reading(url, transport) for _ in range(3)]
    publisher = TricklePublisher(url, transport=transport, pace=0)
    for number, data in enumerate(segments):
        await keep_up(number, readings)
        await publisher.write(data)
    for reading in readings:
        await reading.has(len(segments) - 1)
    await publisher.close()
    for reading in readings:
        await reading.done()
        assert (reading.missed, reading.order) == (0, list(range(len(segments))))
        assert digest(list(reading.segments.values())) == digest(segments)


async def test_a_writer_that_waits_for_nobody(url: str, transport: Transport) -> None:
    """No word between writer and readers: as fast as the writer goes by itself, none is missed."""
    segments = numbered(2000, sizes=(0, 900, 60_000))
    readings = [Reading(url, transport) for _ in range(3)]
    publisher = TricklePublisher(url, transport=transport)
    for data in segments:
        await publisher.write(data)
    await publisher.close()
    for reading in readings:
        await reading.done()
        assert (reading.missed, reading.order) == (0, list(range(len(segments))))
        assert digest(list(reading.segments.values())) == digest(segments)


async def test_a_writer_without_a_pace(url: str, transport: Transport) -> None:
    """Faster than a server's scheduling can be: every segment is read, or counted as missed."""
    segments = numbered(600, sizes=(0, 900, 60_000))
    readings = [Reading(url, transport) for _ in range(3)]
    publisher = TricklePublisher(url, transport=transport, pace=0)
    for data in segments:
        await publisher.write(data)
    for reading in readings:
        await reading.has(len(segments) - 1)
    await publisher.close()
    for reading in readings:
        await reading.done()
        assert reading.missed + len(reading.order) == len(segments)
        assert reading.order == sorted(reading.order)
        assert all(data == segments[seq] for seq, data in reading.segments.items())


async def test_segments_in_pieces_at_full_speed(url: str, transport: Transport) -> None:
    """As a muxer writes them: a segment is open while its packets come, and the next begins at once."""
    segments = numbered(300, sizes=(1316, 13_160, 200_000))
    readings = [Reading(url, transport) for _ in range(2)]
    publisher = TricklePublisher(url, transport=transport)
    for number, data in enumerate(segments):
        await keep_up(number, readings)
        async with publisher.segment() as segment:
            for start in range(0, len(data), 1316):
                await segment.write(data[start : start + 1316])
    for reading in readings:
        await reading.has(len(segments) - 1)
    await publisher.close()
    for reading in readings:
        await reading.done()
        assert (reading.missed, reading.order) == (0, list(range(len(segments))))
        assert digest(list(reading.segments.values())) == digest(segments)


async def test_the_tail_survives_a_close_at_once(channels: MakeChannels, transport: Transport) -> None:
    """The server forgets every segment with the channel: a reader in the last one still has it to its end."""

    async def run(url: str, data: bytes) -> None:
        reading = Reading(url, transport)
        publisher = TricklePublisher(url, transport=transport)
        await publisher.write(b"first")
        await reading.has(0)
        async with publisher.segment() as segment:
            await segment.write(b"last")
            await until(lambda: reading.began == [0, 1])
            await segment.write(data)
        await publisher.close()
        await reading.done()
        assert (reading.missed, reading.segments) == (0, {0: b"first", 1: b"last" + data})

    datas = numbered(12, sizes=(10, 90_000, 900_000))
    await asyncio.gather(*map(run, await channels(len(datas)), datas))


async def test_the_first_segments_wait_for_a_late_reader(url: str, transport: Transport) -> None:
    async with TricklePublisher(url, transport=transport) as publisher:
        for number in range(4):  # the fifth place is for the segment that a reader at the head waits for
            await publisher.write(b"%d" % number)
        reading = Reading(url, transport)
        await reading.has(3)
    await reading.done()
    assert (reading.missed, reading.order) == (0, [0, 1, 2, 3])


async def test_the_head_never_runs_backwards_by_our_writing(url: str, transport: Transport) -> None:
    """Bytes of n+1 that overtake those of n would move it back, and readers would see 470."""
    seen: list[int] = []

    async def watch() -> None:
        while True:
            seen.append(await head(transport, url))

    watching = asyncio.create_task(watch())
    async with TricklePublisher(url, transport=transport, start=0) as publisher:
        for data in numbered(300):
            await publisher.write(data)
        await until(lambda: seen and seen[-1] == 300)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert seen == sorted(seen)
    assert len(set(seen)) > 30


async def test_a_large_segment(url: str, transport: Transport) -> None:
    data = random.Random(3).randbytes(50_000_000)
    reading = Reading(url, transport)
    async with TricklePublisher(url, transport=transport) as publisher:
        await publisher.write(data)
        await reading.has(0)
    await reading.done()
    assert hashlib.sha256(reading.segments[0]).digest() == hashlib.sha256(data).digest()


async def test_more_readers_than_a_pool_has_connections(url: str, transport: Transport) -> None:
    """120 long polls at once over one transport: none waits for another's connection."""
    readings = [Reading(url, transport) for _ in range(120)]
    async with TricklePublisher(url, transport=transport) as publisher:
        for number in range(4):
            await publisher.write(b"%d" % number)
            for reading in readings:
                await reading.has(number)
    for reading in readings:
        await reading.done()
        assert (reading.missed, reading.order) == (0, [0, 1, 2, 3])


async def test_more_channels_than_a_pool_has_connections(
    channels: MakeChannels, transport: Transport
) -> None:
    """60 channels, a writer and a reader each, all segments open at once."""
    urls = await channels(60)
    readings = [Reading(url, transport) for url in urls]
    publishers = [TricklePublisher(url, transport=transport) for url in urls]
    writers = [publisher.segment() for publisher in publishers]
    for piece in b"a", b"b":
        await asyncio.gather(*(writer.write(piece) for writer in writers))
    await asyncio.gather(*(writer.close() for writer in writers))
    for reading in readings:
        await reading.has(0)
    await asyncio.gather(*(publisher.close() for publisher in publishers))
    for reading in readings:
        await reading.done()
        assert reading.segments == {0: b"ab"}


# 470: ahead of the writer, or fallen out of the ring


async def test_a_reader_far_ahead_waits_for_its_segment(url: str, transport: Transport) -> None:
    reading = Reading(url, transport, start=7)
    async with TricklePublisher(url, transport=transport) as publisher:
        for number in range(9):
            await publisher.write(b"%d" % number)
            await asyncio.sleep(0.05)
        await reading.has(8)
    await reading.done()
    assert (reading.missed, reading.segments) == (0, {7: b"7", 8: b"8"})


async def test_a_reader_that_comes_too_late_says_what_it_missed(url: str, transport: Transport) -> None:
    async with TricklePublisher(url, transport=transport) as publisher:
        for number in range(20):
            await publisher.write(b"%d" % number)
        reading = Reading(url, transport)
        await reading.has(19)
    await reading.done()
    assert reading.order == list(range(15, 20))
    assert reading.missed == 15


async def test_a_reader_behind_a_dead_link_says_what_it_missed(
    url: str, transport: Transport, relay: Relay
) -> None:
    """Its bytes stand still for longer than the ring lasts; then it goes on, and counts."""
    reading = Reading(relay.url(url))
    async with TricklePublisher(url, transport=transport) as publisher:
        await publisher.write(b"0")
        await reading.has(0)
        relay.hold()
        for number in range(1, 40):
            await publisher.write(b"%d" % number)
        relay.flow()
        await reading.has(39)
    await reading.done()
    assert reading.order == sorted(reading.order)
    assert reading.missed == 40 - len(reading.order) > 0
    assert all(data == b"%d" % seq for seq, data in reading.segments.items())


async def test_the_current_segment(url: str, transport: Transport) -> None:
    async with TricklePublisher(url, transport=transport) as publisher:
        for number in range(3):
            await publisher.write(b"%d" % number)
        reading = Reading(url, transport, start=-2)
        await reading.has(2)
    await reading.done()
    assert (reading.order, reading.missed) == ([2], 0)


async def test_the_next_segment(url: str, transport: Transport) -> None:
    """Whichever is next when the GET comes; from there on every one."""
    async with TricklePublisher(url, transport=transport) as publisher:
        for number in range(3):
            await publisher.write(b"%d" % number)
        reading, written = Reading(url, transport, start=-1), 3
        while len(reading.order) < 3:
            await publisher.write(b"%d" % written)
            written += 1
            await asyncio.sleep(0.02)
        await reading.has(written - 1)
    await reading.done()
    assert reading.order[0] >= 3
    assert (reading.order, reading.missed) == (list(range(reading.order[0], written)), 0)
    assert all(data == b"%d" % seq for seq, data in reading.segments.items())


async def test_the_head_that_runs_backwards(url: str, transport: Transport) -> None:
    """Bytes of 3 come before those of 2: the reader meets 470 for what exists, and still has all in order."""
    await put(transport, url, 0, b"0")
    reading = Reading(url, transport)
    await reading.has(0)
    await put(transport, url, 1, b"1")
    await put(transport, url, 3, b"3")
    await put(transport, url, 2, b"2")
    assert await head(transport, url) == 3
    await reading.has(3)
    await asyncio.sleep(0.1)  # it asks for 4 now, and is told 470: the head is 3 again
    await put(transport, url, 4, b"4")
    await reading.has(4)
    async with TricklePublisher(url, transport=transport) as publisher:
        await publisher.write(b"5")
        await reading.has(5)
    await reading.done()
    assert (reading.missed, reading.order) == (0, list(range(6)))


# How a channel ends


async def test_a_channel_that_never_was(network: Network, transport: Transport) -> None:
    url = f"{network.url}/ai/trickle/{uuid.uuid4().hex}"
    with pytest.raises(ChannelNotFound):
        await anext(TrickleSubscriber(url, transport=transport))
    with pytest.raises(ChannelNotFound):
        await anext(ChannelReader(url, transport=transport))
    publisher = TricklePublisher(url, transport=transport)
    with pytest.raises(ChannelNotFound):
        await publisher.create()  # an orchestrator makes none by HTTP
    with pytest.raises(ChannelNotFound):
        await publisher.write(b"x")
    with pytest.raises(ChannelNotFound):
        async with publisher.segment() as segment:
            await segment.write(b"x")
    writer = ChannelWriter(url, transport=transport)
    with pytest.raises(ChannelNotFound):
        await writer.write({})


async def test_a_channel_that_is_over(
    url: str, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    """Its readers end, blocked or in mid-segment; its writers are told; nobody raises his voice."""
    blocked, ahead = Reading(url, transport), Reading(url, transport, start=9)
    publisher = TricklePublisher(url, transport=transport)
    await publisher.write(b"0")
    await blocked.has(0)
    middle = TrickleSubscriber(url, transport=transport, start=1)
    with caplog.at_level(logging.INFO):
        writer = publisher.segment()
        await writer.write(b"part")
        segment = await anext(middle)
        assert await anext(segment) == b"part"
        async with transport.request("DELETE", url) as answer:
            assert answer.status == 200
        assert await segment.read() == b""
        assert [one.seq async for one in middle] == []
        await blocked.done()
        await ahead.done()
        assert (blocked.segments, ahead.segments) == ({0: b"0", 1: b"part"}, {})
        with contextlib.suppress(ChannelClosed):
            await writer.close()  # the server tells it or not
        with pytest.raises(ChannelClosed):
            await publisher.write(b"2")
        with pytest.raises(ChannelNotFound):
            await anext(TrickleSubscriber(url, transport=transport))
        await publisher.close()
    assert [record for record in caplog.records if record.name.startswith("livepeer")] == []


async def test_a_session_that_is_stopped_ends_its_channels(
    worker: Worker, session: Session, channels: MakeChannels, transport: Transport
) -> None:
    media, events = await channels(2)
    reading = Reading(media, transport)
    messages = ChannelReader(events, transport=transport)
    waiting = asyncio.ensure_future(anext(messages, "over"))
    publisher = TricklePublisher(media, transport=transport)
    await publisher.write(b"0")
    await reading.has(0)
    assert (await worker.callback(session, "POST", "stop"))[0] == 204
    await reading.done()
    assert await waiting == "over"
    with pytest.raises(ChannelClosed):
        await publisher.write(b"1")
    await publisher.close()


async def test_terminated_with_a_body(channels: MakeChannels, worker: Worker, transport: Transport) -> None:
    """A GET that crosses the channel's end can get 200, `terminated` and "Entry not found" as a body.

    So many ask for what isn't there that now and then some cross it at a real orchestrator (in one of ten
    rounds); the embedded one answers one request after the other. No reader takes that body for a segment.
    """
    for url in await channels(8):
        readings = [Reading(url, transport, start=start) for start in (0, 0, 3, 9)]
        await put(transport, url, 0, b"0")
        await asyncio.gather(*(reading.has(0) for reading in readings[:2]))
        async with contextlib.AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(dial(worker.network)) for _ in range(24)]
            asking = [asyncio.create_task(_ask_until_it_is_over(wire, f"{url}/77")) for wire in wires]
            await asyncio.sleep(0.02)
            async with transport.request("DELETE", url) as answer:
                assert answer.status == 200
            await asyncio.gather(*asking)
        for reading in readings:
            await reading.done()
        assert [reading.segments for reading in readings] == [{0: b"0"}, {0: b"0"}, {}, {}]


async def _ask_until_it_is_over(wire: Wire, url: str, burst: int = 8) -> None:
    """Ask on and on, several at once, until the channel is over; no answer is of another kind."""
    path = urlsplit(url).path
    while True:
        await wire.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * burst)
        for _ in range(burst):
            status, headers, body = await wire.answer()
            if status != 470:
                over = (headers.get("Lp-Trickle-Closed"), body) == ("terminated", b"Entry not found")
                assert over if status == 200 else status == 404
                return
            assert "Lp-Trickle-Closed" not in headers


async def test_an_orchestrator_that_dies(fresh_network: Network) -> None:
    """The typed error within two seconds; after its restart another certificate, and no channel."""
    async with Worker(fresh_network) as worker, Transport() as transport:
        session = await worker.reserve(await worker.register(mode="persistent"))
        _, made = await worker.callback(session, "POST", "channels", {"channels": [{"name": "a"}]})
        url = made["channels"][0]["url"]
        reading = Reading(url, transport)
        publisher = TricklePublisher(url, transport=transport)
        await publisher.write(b"0")
        await reading.has(0)
        writer = publisher.segment()
        await writer.write(b"part")
        await asyncio.to_thread(fresh_network.stop)
        async with asyncio.timeout(8):  # six of them for the machine
            await asyncio.wait({reading.task})
            error = reading.task.exception()
            # An orderly end says that the channel is over; a cut only that the server is gone.
            assert error is None or isinstance(error, TrickleConnectionError)
            with contextlib.suppress(TrickleConnectionError, ChannelClosed):
                await writer.close()
            with pytest.raises((TrickleConnectionError, ChannelClosed)):
                await publisher.write(b"1")
        await publisher.abort()


# Segments that are closed, resets, connections that break


async def test_what_a_closed_segment_swallows_is_written_again(url: str, transport: Transport) -> None:
    """An orchestrator answers 200 and forgets it; or appends it, when the data wins a race with it."""
    for number in range(3):
        await put(transport, url, number, b"other")
    reading = Reading(url, transport)

    async def is_there(data: bytes) -> bool:
        if data in reading.segments.values():
            return True
        for closed in 1, 2:
            async with transport.request("GET", f"{url}/{closed}") as answer:
                if await answer.read() == b"other" + data:
                    return True
        return False

    async with TricklePublisher(url, transport=transport, start=1) as publisher:
        await publisher.write(b"mine")
        await until(lambda: is_there(b"mine"))
        await publisher.write(b"and this")
        await until(lambda: b"and this" in reading.segments.values())
    await reading.done()


async def test_a_segment_that_is_closed_under_its_writer_says_so(url: str, transport: Transport) -> None:
    """In pieces there is nobody to write it again but the caller, so it is an error that says `retryable`."""
    await put(transport, url, 0, b"other")

    async with TricklePublisher(url, transport=transport, start=0) as publisher:
        with pytest.raises(TrickleError) as caught:
            await _write_on(publisher.segment())
        assert caught.value.retryable
        reading = Reading(url, transport)
        await publisher.write(b"y")
        await until(lambda: b"y" in reading.segments.values())
    await reading.done()


async def test_one_writer_after_another(url: str, transport: Transport) -> None:
    """Each asks for the next number when it begins, so that none writes into what another has closed."""
    reading = Reading(url, transport)
    for number in range(8):
        publisher = TricklePublisher(url, transport=transport)
        await publisher.write(b"%d" % number)
        await publisher.close(delete=number == 7, linger=0.25)
    await reading.done()
    assert reading.segments == {number: b"%d" % number for number in range(8)}


async def test_a_writer_whose_number_another_took(url: str, transport: Transport) -> None:
    """It learns from the answer that its data was swallowed, asks for the next number, and goes on there."""
    first, second = (TricklePublisher(url, transport=transport) for _ in range(2))
    await first.write(b"0")
    for number in range(1, 4):
        await second.write(b"%d" % number)
    await first.write(b"mine")
    assert await head(transport, url) == first.seq
    assert 2 <= first.seq <= 5  # less than 5: an answer lost a race with the data, see above
    await first.close(delete=False)
    await second.close()


async def test_a_writer_that_was_cut_in_mid_segment_goes_on_with_a_reset(
    url: str, transport: Transport, relay: Relay
) -> None:
    """Its readers have what came, don't hang, and read on."""
    readings = [Reading(url, transport) for _ in range(3)]
    watcher = TrickleSubscriber(url, transport=transport, start=1)
    publisher = TricklePublisher(relay.url(url))
    await publisher.write(b"0")
    segment = publisher.segment()
    await segment.write(b"half")
    watched = await anext(watcher)
    assert await anext(watched) == b"half"
    relay.cut()
    with pytest.raises(TrickleConnectionError) as caught:
        await _write_on(segment)
    assert caught.value.retryable
    await publisher.write(b"whole")
    rest = await watched.read()
    for reading in readings:
        await reading.has(2)
    await publisher.close()
    for reading in readings:
        await reading.done()
        assert reading.segments[1].startswith(b"half")
        assert (reading.missed, reading.order, reading.segments[2]) == (0, [0, 1, 2], b"whole")
        assert reading.segments[1] == b"half" + rest
    await watcher.aclose()


async def _write_on(segment: SegmentWriter) -> None:
    while True:
        await segment.write(b"more" * 1000)
        await asyncio.sleep(0.001)


async def test_whole_segments_survive_a_link_that_breaks_again_and_again(
    url: str, transport: Transport, relay: Relay
) -> None:
    """Cut before, in and after a segment: every one arrives whole, some of them twice."""
    segments = numbered(25, sizes=(10, 60_000, 400_000), seed=11)
    reading = Reading(url, transport)
    rng = random.Random(5)
    publisher = TricklePublisher(relay.url(url))
    for data in segments:
        asyncio.get_running_loop().call_later(rng.uniform(0, 0.006), relay.cut)
        await publisher.write(data)
        await until(lambda data=data: data in reading.segments.values())
    await publisher.close()
    await reading.done()
    assert relay.cuts > 5
    whole = [data for data in reading.segments.values() if data in set(segments)]
    assert list(dict.fromkeys(whole)) == segments


async def test_a_reader_goes_on_where_it_was_cut(url: str, transport: Transport, relay: Relay) -> None:
    """Cut again and again, in the middle of segments too: not a byte is lost, or comes twice."""
    segments = numbered(40, sizes=(100, 200_000, 1_000_000), seed=2)
    reading = Reading(relay.url(url))
    rng = random.Random(6)
    async with TricklePublisher(url, transport=transport) as publisher:
        for number, data in enumerate(segments):
            segment = publisher.segment()
            for start in range(0, len(data), 100_000):
                await segment.write(data[start : start + 100_000])
                if rng.random() < 0.2:
                    await asyncio.sleep(0.002)
                    relay.cut()
            await segment.close()
            await reading.has(number)
    relay.flow()
    await reading.done()
    assert relay.cuts > 5
    assert (reading.missed, reading.truncated, reading.order) == (0, [], list(range(len(segments))))
    assert digest(list(reading.segments.values())) == digest(segments)


async def test_a_reader_that_was_cut_and_lapped_says_both(
    url: str, transport: Transport, relay: Relay
) -> None:
    """The rest of its segment is gone when it is back: the segment is `truncated` and counts as missed."""
    subscriber = TrickleSubscriber(relay.url(url))
    async with TricklePublisher(url, transport=transport) as publisher, subscriber:
        segment = publisher.segment()
        await segment.write(b"part")
        reader = await anext(subscriber)
        assert await anext(reader) == b"part"
        await relay.refuse()
        await segment.close()
        for number in range(1, 12):
            await publisher.write(b"%d" % number)
        await relay.listen()
        assert await reader.read() == b""
        assert reader.truncated
        following = await anext(subscriber)
        assert await following.read() == b"%d" % following.seq
        assert subscriber.missed == following.seq


async def test_a_paused_reader_of_many_segments(url: str, transport: Transport) -> None:
    """It reads nothing for a while; of what the ring has not kept, every segment is counted."""
    subscriber = TrickleSubscriber(url, transport=transport)
    got = []
    async with TricklePublisher(url, transport=transport) as publisher:
        await publisher.write(b"0")
        got.append((await anext(subscriber)).seq)
        for number in range(1, 60):
            await publisher.write(b"%d" % number)
        while not got or got[-1] != 59:
            segment = await anext(subscriber)
            assert await segment.read() == b"%d" % segment.seq
            got.append(segment.seq)
        assert subscriber.missed == 60 - len(got)
        await subscriber.aclose()


# JSON channels


@pytest.mark.parametrize(("writing", "reading"), [(ChannelWriter, ChannelReader), (JSONLWriter, JSONLReader)])
async def test_messages_come_in_order_and_to_the_last(
    channels: MakeChannels, transport: Transport, writing: Any, reading: Any
) -> None:
    """Bursts of messages and an end directly behind the last, over several channels at once.

    Messages that are segments come in bursts of what the ring holds; lines have no such limit.
    """
    ring = 3 if writing is ChannelWriter else 1000

    async def run(url: str, count: int) -> None:
        messages = [{"n": number, "text": "ä" * (number % 50)} for number in range(count)]
        got: list[Any] = []

        async def read() -> None:
            async for message in reader:
                got.append(message)

        async with reading(url, transport=transport) as reader:
            task = asyncio.create_task(read())
            async with writing(url, transport=transport) as writer:
                for number, message in enumerate(messages):
                    await until(lambda number=number: number - len(got) <= ring)
                    await writer.write(message)
            await task
            assert got == messages
            assert (reader.missed, reader.malformed) == (0, 0)

    counts = 300, 2, 7, 30
    await asyncio.gather(
        *(run(url, count) for url, count in zip(await channels(len(counts)), counts, strict=True))
    )


@pytest.mark.parametrize(("writing", "count"), [(ChannelWriter, 4), (JSONLWriter, 200)])
async def test_messages_of_many_tasks_keep_their_order(
    url: str, transport: Transport, writing: Any, count: int
) -> None:
    reader = ChannelReader(url, transport=transport)
    got = asyncio.create_task(_all(reader))
    async with writing(url, transport=transport) as writer:
        await asyncio.gather(*(writer.write(number) for number in range(count)))
    assert await got == list(range(count))


async def test_messages_over_a_link_that_breaks(url: str, transport: Transport, relay: Relay) -> None:
    """A message is written again until the server has it: none is lost, and they stay in order."""
    reader = ChannelReader(url, transport=transport)
    got: list[int] = []

    async def read() -> None:
        async for message in reader:
            got.append(message)

    reading = asyncio.create_task(read())
    async with ChannelWriter(relay.url(url)) as writer:
        for number in range(40):
            if number % 4 == 3:
                relay.cut()
            await writer.write(number)
            await until(lambda number=number: number in got)
    await reading
    assert list(dict.fromkeys(got)) == list(range(40))


async def test_json_lines_over_a_link_that_breaks(url: str, transport: Transport, relay: Relay) -> None:
    """The lines of a segment that was cut come again in the next one: some twice, none not at all."""
    reader = JSONLReader(url, transport=transport)
    got = asyncio.create_task(_all(reader))
    async with JSONLWriter(relay.url(url)) as writer:
        for number in range(60):
            await writer.write(number)
            await asyncio.sleep(0.002)
            if number % 20 == 10:
                relay.cut()
    assert list(dict.fromkeys(await got)) == list(range(60))


async def _all(reader: ChannelReader) -> list[Any]:
    return [message async for message in reader]


# Minutes without a byte; they pass while other tests run


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_a_long_poll_is_patient(silence: Silence) -> None:
    assert silence.outcome("long poll") == ([b"late"], 0)


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_a_proxy_that_cuts_silent_connections_is_no_failure(silence: Silence) -> None:
    data, missed, cuts = silence.outcome("behind a proxy")
    assert (data, missed) == ([b"late"], 0)
    assert cuts >= min(silence.seconds, 280) // (2 * PROXY_PATIENCE)


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_json_lines_go_on_after_a_silence(silence: Silence) -> None:
    assert silence.outcome("lines") == (["first", "late"], [])


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_a_channel_that_nobody_writes_to_is_swept_after_five_minutes(silence: Silence) -> None:
    """And not before; `--silence 400` waits for it."""
    swept, data = silence.outcome("idle")
    if silence.seconds >= SWEPT_AFTER:
        assert (swept, data) == (True, [b"first"])
    elif silence.seconds < 290:
        assert (swept, data) == (False, [b"first", b"late"])


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_a_channel_that_is_written_every_minute_lives(silence: Silence) -> None:
    assert silence.outcome("kept") == []
