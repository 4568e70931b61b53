"""Trickle as an orchestrator speaks it, byte by byte, on channels of a session."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from harness import Session, Wire, Worker, dial

GONE = (404, "Stream not found\n")
LATEST, SEQ, CLOSED = "Lp-Trickle-Latest", "Lp-Trickle-Seq", "Lp-Trickle-Closed"
CHUNKED = "Transfer-Encoding: chunked"


class Channel:
    """One channel, and what can be asked of it. `connect` gives connections that the fixture closes."""

    def __init__(self, worker: Worker, session: Session, url: str, stack: contextlib.AsyncExitStack) -> None:
        self.worker = worker
        self.session = session
        self.url = url
        self._stack = stack

    async def ask(self, method: str, path: str = "", **options: Any) -> tuple[int, dict[str, str], bytes]:
        """A request's status, its trickle headers (their names short) and its body."""
        async with self.worker.request(method, self.url + path, **options) as answer:
            return answer.status, trickle(answer.headers), await answer.read()

    async def put(self, number: int, data: bytes, **headers: str) -> None:
        """Write a whole segment."""
        status, told, body = await self.ask("POST", f"/{number}", data=data, headers=headers)
        assert (status, told["Seq"], body) == (200, str(number), b"")

    async def get(self, number: int) -> tuple[int, bytes]:
        status, _, body = await self.ask("GET", f"/{number}")
        return status, body

    async def next(self) -> int:
        """The number of the next write."""
        status, told, body = await self.ask("GET", "/next")
        assert (status, told) == (200, {"Latest": body.decode()})
        return int(body)

    async def connect(self) -> Wire:
        return await self._stack.enter_async_context(dial(self.worker.network))

    async def reading(self, number: int) -> Wire:
        """A connection on which a segment was asked for."""
        wire = await self.connect()
        await wire.ask("GET", f"{self.url}/{number}")
        return wire

    async def writing(self, number: int, *chunks: bytes, reset: bool = False) -> Wire:
        """A connection on which a segment's chunked body was begun; more of it can follow."""
        wire = await self.connect()
        headers = [CHUNKED, *(["Lp-Trickle-Reset: 1"] if reset else [])]
        await wire.ask("POST", f"{self.url}/{number}", *headers)
        for chunk in chunks:
            await wire.chunk(chunk)
        return wire

    async def begun(self, number: int, *chunks: bytes) -> Wire:
        """The same, with the first bytes known to be at the server."""
        wire = await self.writing(number, *chunks)
        reader = await self.reading(number)
        await reader.head()
        reader.abort()
        return wire


def trickle(headers: Any) -> dict[str, str]:
    return {
        name[11:].title(): value for name, value in headers.items() if name.lower().startswith("lp-trickle-")
    }


@pytest.fixture
async def session(worker: Worker) -> Session:
    return await worker.reserve(await worker.register(mode="persistent"))


@pytest.fixture
async def channel(worker: Worker, session: Session) -> AsyncIterator[Channel]:
    """A fresh channel of video."""
    name = uuid.uuid4().hex
    wanted = {"channels": [{"name": name, "mime_type": "video/MP2T"}]}
    status, made = await worker.callback(session, "POST", "channels", wanted)
    assert status == 200
    async with contextlib.AsyncExitStack() as stack:
        yield Channel(worker, session, made["channels"][0]["url"], stack)


# Writing and reading


async def test_a_segment(channel: Channel) -> None:
    assert await channel.next() == 0
    assert await channel.ask("POST", "/0", data=b"zero") == (200, {"Seq": "0"}, b"")
    assert await channel.next() == 1
    async with channel.worker.request("GET", f"{channel.url}/0") as answer:
        assert answer.status == 200
        assert trickle(answer.headers) == {"Seq": "0", "Latest": "1"}
        assert answer.headers["Content-Type"] == "video/MP2T"
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert await answer.read() == b"zero"


async def test_segments_are_read_as_often_as_one_likes(channel: Channel) -> None:
    await channel.put(0, b"zero")
    assert [await channel.get(0) for _ in range(3)] == [(200, b"zero")] * 3


async def test_the_next_write_and_the_current_one(channel: Channel) -> None:
    for number in 0, 1:
        status, told, _ = await channel.ask("POST", "/-1", data=b"%d" % number)
        assert (status, told) == (200, {"Seq": str(number)})
    assert await channel.ask("GET", "/-2") == (200, {"Seq": "1", "Latest": "2"}, b"1")
    reader = await channel.reading(-1)
    assert await reader.silent()
    await channel.put(2, b"2")
    status, headers, body = await reader.answer()
    assert (status, trickle(headers), body) == (200, {"Seq": "2"}, b"2")


async def test_a_long_segment(channel: Channel) -> None:
    data = bytes(range(256)) * 20_000  # about 5 MB
    wire = await channel.writing(0)
    for start in range(0, len(data), 100_000):
        await wire.chunk(data[start : start + 100_000])
    await wire.chunk(b"")
    assert (await wire.head())[0] == 200
    assert await channel.get(0) == (200, data)


async def test_the_content_type_is_the_channels(channel: Channel) -> None:
    await channel.put(0, b"{}", **{"Content-Type": "application/json"})
    async with channel.worker.request("GET", f"{channel.url}/0") as answer:
        assert answer.headers["Content-Type"] == "video/MP2T"


async def test_a_blocked_reader_hears_nothing_until_the_first_byte(channel: Channel) -> None:
    reader = await channel.reading(0)
    assert await reader.silent()
    writer = await channel.writing(0)
    assert await reader.silent()  # a writer that has connected is not enough
    await writer.chunk(b"first")
    status, headers = await reader.head()
    assert (status, trickle(headers)) == (200, {"Seq": "0"})  # no Latest: it was the next write at the time
    assert await reader.read_chunk() == b"first"
    await writer.chunk(b"second")
    assert await reader.read_chunk() == b"second"
    await writer.chunk(b"")
    assert await reader.read_chunk() == b""
    status, headers, _ = await writer.answer()
    assert (status, trickle(headers)) == (200, {"Seq": "0"})


async def test_a_late_reader_gets_the_segment_from_its_start(channel: Channel) -> None:
    writer = await channel.begun(0, b"first")
    reader = await channel.reading(0)
    status, headers = await reader.head()
    assert (status, trickle(headers)) == (200, {"Seq": "0", "Latest": "1"})
    assert await reader.read_chunk() == b"first"
    await writer.chunk(b"second")
    assert await reader.read_chunk() == b"second"


async def test_a_segment_counts_from_its_first_byte(channel: Channel) -> None:
    writer = await channel.writing(0)
    assert await writer.silent()
    assert await channel.next() == 0
    await writer.chunk(b"x")
    assert (await channel.ask("GET", "/next"))[2] in (b"0", b"1")
    reader = await channel.reading(0)
    await reader.head()
    assert await channel.next() == 1


async def test_many_readers(channel: Channel) -> None:
    readers = [await channel.reading(0) for _ in range(5)]
    writer = await channel.writing(0, b"one")
    for reader in readers:
        await reader.head()
        assert await reader.read_chunk() == b"one"
    await writer.chunk(b"")
    assert [await reader.read_chunk() for reader in readers] == [b""] * 5


async def test_a_reader_that_leaves_disturbs_nobody(channel: Channel) -> None:
    writer = await channel.begun(0, b"one")
    await writer.chunk(b"")
    assert (await writer.head())[0] == 200
    assert await channel.get(0) == (200, b"one")


# The ring


async def test_the_ring_keeps_five_segments(channel: Channel) -> None:
    for number in range(7):
        await channel.put(number, b"%d" % number)
    for number in range(7):
        status, told, body = await channel.ask("GET", f"/{number}")
        if number < 2:
            assert (status, told, body) == (470, {"Seq": str(number), "Latest": "7"}, b"Entry not found")
        else:
            assert (status, told, body) == (200, {"Seq": str(number), "Latest": "7"}, b"%d" % number)


async def test_a_reader_at_the_head_leaves_room_for_four(channel: Channel) -> None:
    for number in range(5):
        await channel.put(number, b"%d" % number)
    assert await channel.get(0) == (200, b"0")
    reader = await channel.reading(5)
    assert await reader.silent()
    assert await channel.get(0) == (470, b"Entry not found")
    assert await channel.get(1) == (200, b"1")


@pytest.mark.parametrize("written", [0, 3])
async def test_ahead_of_the_writer(channel: Channel, written: int) -> None:
    for number in range(written):
        await channel.put(number, b"x")
    ahead = written + 2
    async with channel.worker.request("GET", f"{channel.url}/{ahead}") as answer:
        assert answer.status == 470
        assert trickle(answer.headers) == {"Seq": str(ahead), "Latest": str(written)}
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert await answer.read() == b"Entry not found"


async def test_how_far_ahead_a_reader_may_wait(channel: Channel) -> None:
    """The next write; on a fresh channel the one after it, too; and any that a writer has connected for."""
    first, second = await channel.reading(0), await channel.reading(1)
    assert await first.silent()
    assert await second.silent()
    for number in 0, 1:
        await channel.put(number, b"%d" % number)
    assert [await wire.body((await wire.head())[1]) for wire in (first, second)] == [b"0", b"1"]
    assert await channel.get(3) == (470, b"Entry not found")
    writer = await channel.writing(3)
    assert await writer.silent()
    third = await channel.reading(3)
    assert await third.silent()


async def test_a_jump_leaves_what_its_slot_does_not_need(channel: Channel) -> None:
    for number in range(5):
        await channel.put(number, b"%d" % number)
    await channel.put(20, b"20")  # in the slot of 0
    assert await channel.next() == 21
    assert [(await channel.get(number))[0] for number in (0, 1, 4, 19, 20)] == [470, 200, 200, 470, 200]


async def test_the_head_can_run_backwards(channel: Channel) -> None:
    for number in 0, 3:
        await channel.put(number, b"%d" % number)
    assert await channel.next() == 4
    await channel.put(2, b"2")
    assert await channel.next() == 3
    assert await channel.ask("GET", "/-2") == (200, {"Seq": "2", "Latest": "3"}, b"2")
    assert await channel.ask("GET", "/3") == (
        200,
        {"Seq": "3"},
        b"3",
    )  # no Latest: it is the next write again
    assert await channel.ask("GET", "/4") == (470, {"Seq": "4", "Latest": "3"}, b"Entry not found")


async def test_a_segment_that_is_pushed_out_ends(channel: Channel) -> None:
    writer = await channel.begun(0, b"part")
    reader = await channel.reading(0)
    await reader.head()
    assert await reader.read_chunk() == b"part"
    await channel.put(5, b"five")
    assert await reader.read_chunk() == b""
    assert await channel.get(0) == (470, b"Entry not found")
    await writer.chunk(b"late")
    await writer.chunk(b"")
    assert (await writer.answer())[0] == 200  # as if nothing were lost
    assert await channel.next() == 6


# Segments that are closed


async def test_a_closed_segment_swallows_writes(channel: Channel) -> None:
    await channel.put(0, b"first")
    writer = await channel.writing(0)  # answered before it says anything
    status, headers, body = await writer.answer()
    assert (status, trickle(headers), body) == (200, {"Seq": "0"}, b"")
    assert headers["Connection"] == "close"
    with contextlib.suppress(ConnectionError):  # it is closed at once, or when the body is over
        await writer.chunk(b"")
    assert await writer.closed()
    assert await channel.get(0) == (200, b"first")


async def test_such_a_write_moves_the_head(channel: Channel) -> None:
    for number in 0, 1:
        await channel.put(number, b"%d" % number)
    await (await channel.writing(0)).answer()
    assert await channel.next() == 1


async def test_an_empty_segment(channel: Channel) -> None:
    async with channel.worker.request("POST", f"{channel.url}/0", data=b"") as answer:
        assert (answer.status, trickle(answer.headers)) == (200, {"Seq": "0"})
        assert answer.headers["Connection"] == "close"
    assert await channel.next() == 1
    async with channel.worker.request("GET", f"{channel.url}/0") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
        assert trickle(answer.headers) == {"Seq": "0", "Latest": "1"}
        assert "Content-Type" not in answer.headers


async def test_closing_a_segment(channel: Channel) -> None:
    waiting, writer = await channel.reading(0), await channel.writing(0)
    assert await writer.silent()
    assert await channel.ask("DELETE", "/0") == (200, {}, b"")
    status, headers, body = await waiting.answer()
    assert (status, body) == (200, b"")
    assert CLOSED not in headers
    status, headers, _ = await writer.answer()
    assert (status, trickle(headers), headers["Connection"]) == (200, {"Seq": "0"}, "close")
    assert await channel.next() == 1


async def test_closing_a_segment_that_is_being_written(channel: Channel) -> None:
    writer = await channel.begun(0, b"part")
    reader = await channel.reading(0)
    await reader.head()
    assert await reader.read_chunk() == b"part"
    assert await channel.ask("DELETE", "/0") == (200, {}, b"")
    assert await reader.read_chunk() == b""
    await writer.chunk(b"")
    assert (await writer.answer())[0] == 200
    assert await channel.get(0) == (200, b"part")


async def test_closing_what_is_not_there(channel: Channel) -> None:
    assert await channel.ask("DELETE", "/0") == (400, {}, b"Nonexistent segment\n")
    await channel.put(0, b"x")
    assert await channel.ask("DELETE", "/5") == (400, {}, b"Nonexistent segment\n")
    assert await channel.ask("DELETE", "/0") == (200, {}, b"")
    assert await channel.ask("DELETE", "/0") == (200, {}, b"")
    assert await channel.get(0) == (200, b"x")


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_what_is_no_number(channel: Channel, method: str) -> None:
    assert await channel.ask(method, "/zero") == (400, {}, b"Invalid idx\n")
    assert await channel.ask(method, "/1.5") == (400, {}, b"Invalid idx\n")


@pytest.mark.parametrize(("method", "number"), [("GET", -3), ("POST", -2)])
async def test_numbers_below_what_means_something(channel: Channel, method: str, number: int) -> None:
    wire = await channel.connect()
    await wire.ask(method, f"{channel.url}/{number}", "Content-Length: 0")
    assert await wire.closed()
    assert await channel.next() == 0


async def test_two_writers_of_one_segment(channel: Channel) -> None:
    first = await channel.begun(0, b"a")
    second = await channel.writing(0, b"b")
    reader = await channel.reading(0)
    await reader.head()
    data = b""
    while len(data) < 2:
        data += await reader.read_chunk()
    assert data == b"ab"
    await second.chunk(b"")
    assert (await second.answer())[0] == 200
    assert await reader.read_chunk() == b""  # whoever ends first ends it for both
    await first.chunk(b"")
    assert (await first.answer())[0] == 200


async def test_a_writer_that_breaks_off_leaves_the_segment_open(channel: Channel) -> None:
    writer = await channel.begun(0, b"part")
    reader = await channel.reading(0)
    await reader.head()
    assert await reader.read_chunk() == b"part"
    writer.abort()
    assert await reader.silent()
    await channel.put(0, b" and the rest")  # somebody may go on
    assert await reader.read_chunk() == b" and the rest"
    assert await reader.read_chunk() == b""


async def test_a_reset_closes_what_is_open_before_it(channel: Channel) -> None:
    broken = await channel.begun(0, b"part")
    reader = await channel.reading(0)
    await reader.head()
    assert await reader.read_chunk() == b"part"
    broken.abort()
    later = await channel.writing(2)  # connected ahead: stays open
    assert await reader.silent()
    await channel.put(1, b"one", **{"Lp-Trickle-Reset": "1"})
    assert await reader.read_chunk() == b""
    assert await later.silent()
    await later.chunk(b"two")
    await later.chunk(b"")
    assert (await later.answer())[0] == 200
    assert [await channel.get(number) for number in range(3)] == [
        (200, b"part"),
        (200, b"one"),
        (200, b"two"),
    ]


async def test_a_reset_is_heard_before_any_data(channel: Channel) -> None:
    preconnected = await channel.writing(0)
    assert await preconnected.silent()
    await channel.writing(1, reset=True)
    status, headers, _ = await preconnected.answer()
    assert (status, trickle(headers), headers["Connection"]) == (200, {"Seq": "0"}, "close")


# Channels that aren't there, and their end


async def test_nobody_makes_a_channel_by_http(worker: Worker) -> None:
    url = f"{worker.network.url}/ai/trickle/{uuid.uuid4().hex}"
    for method, path in ("POST", ""), ("POST", "/0"), ("GET", "/0"), ("GET", "/next"), ("DELETE", "/0"):
        headers = {"Expect-Content": "video/MP2T"}
        assert await worker.ask(method, url + path, data=b"x", headers=headers) == GONE
    assert await worker.ask("DELETE", url) == (400, "Invalid stream\n")
    async with worker.request("POST", f"{url}/0", data=b"x") as answer:
        assert answer.headers["Connection"] == "close"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_making_a_channel_that_exists(channel: Channel) -> None:
    await channel.put(0, b"x")
    assert await channel.ask("POST", headers={"Expect-Content": "text/plain"}) == (200, {}, b"")
    async with channel.worker.request("GET", f"{channel.url}/0") as answer:
        assert answer.headers["Content-Type"] == "video/MP2T"


async def test_other_methods(channel: Channel) -> None:
    async with channel.worker.request("GET", channel.url) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "DELETE, POST")
    async with channel.worker.request("PUT", f"{channel.url}/0") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "DELETE, GET, HEAD, POST")


async def test_the_end_of_a_channel(channel: Channel) -> None:
    await channel.put(0, b"zero")
    blocked, preconnected = await channel.reading(1), await channel.writing(1)
    assert await blocked.silent()
    assert await preconnected.silent()
    assert await channel.ask("DELETE") == (200, {}, b"")
    status, headers, body = await blocked.answer()
    assert (status, body, headers[CLOSED], headers[SEQ]) == (200, b"", "terminated", "1")
    assert LATEST in headers
    status, headers, _ = await preconnected.answer()
    assert (status, headers[CLOSED], headers["Connection"]) == (200, "terminated", "close")
    for method, path in ("GET", "/0"), ("GET", "/1"), ("GET", "/next"), ("POST", "/1"), ("POST", ""):
        assert await channel.ask(method, path) == (404, {}, GONE[1].encode())
    assert await channel.ask("DELETE") == (400, {}, b"Invalid stream\n")


async def test_a_reader_in_mid_segment_ends_as_always(channel: Channel) -> None:
    writer = await channel.begun(0, b"part")
    reader = await channel.reading(0)
    _, headers = await reader.head()
    assert CLOSED not in headers
    assert await reader.read_chunk() == b"part"
    assert await channel.ask("DELETE") == (200, {}, b"")
    assert await reader.read_chunk() == b""
    await writer.chunk(b"lost")
    await writer.chunk(b"")
    status, headers, _ = await writer.answer()
    assert (status, trickle(headers)) == (200, {"Seq": "0"})  # the writer isn't told
    assert await channel.get(1) == (404, GONE[1].encode())


async def test_channels_do_not_touch_each_other(channel: Channel) -> None:
    _, made = await channel.worker.callback(
        channel.session, "POST", "channels", {"channels": [{"name": "b"}]}
    )
    other = made["channels"][0]["url"]
    await channel.put(0, b"x")
    assert await channel.worker.ask("GET", f"{other}/next") == (200, "0")
    assert await channel.ask("DELETE") == (200, {}, b"")
    assert await channel.worker.ask("GET", f"{other}/next") == (200, "0")


@pytest.mark.slow
async def test_a_writer_that_waits_is_kept_alive(channel: Channel) -> None:
    """A provisional answer every ten seconds, until the first byte."""
    writer = await channel.writing(0)
    start = asyncio.get_running_loop().time()
    async with asyncio.timeout(12):
        assert await writer.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert asyncio.get_running_loop().time() - start > 9
    await writer.chunk(b"late")
    await writer.chunk(b"")
    assert (await writer.answer())[0] == 200
    assert await channel.get(0) == (200, b"late")
