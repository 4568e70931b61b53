"""Streams over real sockets: one event at a time, left early, broken off, late."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from aiohttp import web

from livepeer.client import (
    CapabilityError,
    ConfigurationError,
    DeadlineExceeded,
    FirstByteTimeout,
    Gateway,
    IdleTimeout,
    LivepeerTimeout,
    StreamError,
    StreamEvent,
    Timeout,
)


async def begin(request: web.Request, kind: str = "text/event-stream") -> web.StreamResponse:
    await request.read()
    stream = web.StreamResponse(headers={"Content-Type": kind})
    await stream.prepare(request)
    return stream


def data(events: Any) -> list[Any]:
    return [event.data for event in events]


# One at a time


@pytest.mark.parametrize(
    ("kind", "piece"),
    [
        ("text/event-stream", "data: {}\n\n"),
        ("application/x-ndjson", "{}\n"),
        ("text/plain", "{}"),
        ("application/octet-stream", "{}"),
    ],
)
def test_events_arrive_one_at_a_time(orch: Any, verbs: Any, kind: str, piece: str) -> None:
    async def asked(orch: Any, request: web.Request) -> web.StreamResponse:
        stream = await begin(request, kind)
        for number in range(4):
            await orch.gate(f"{number}").passed()
            orch.note("sent")
            await stream.write(piece.format(number).encode())
        return stream

    orch.add("asked", asked)
    stream = verbs.stream("asked")
    for number in range(4):
        assert orch.notes.count("sent") == number, "the server has not sent the next"
        orch.gate(f"{number}").open()
        event = next(stream)
        assert event.data in (str(number), str(number).encode())
    assert not stream.complete
    assert list(stream) == []
    assert stream.complete
    assert stream.content_type == kind


def test_a_json_answer_is_one_event(verbs: Any) -> None:
    stream = verbs.stream("answer", input={"text": '{"a": 1}'})
    assert [event.json() for event in stream] == [{"a": 1}]


def test_what_a_stream_says_about_itself(orch: Any, verbs: Any) -> None:
    with verbs.stream("tokens") as stream:
        assert stream.orchestrator == orch.url
        assert stream.metadata == {}
        assert stream.content_type == "text/event-stream"
        assert stream.request_id == orch.last("tokens").headers["X-Request-Id"]
        assert not stream.complete
        assert data(stream) == ["0", "1", "2"]
        assert stream.complete
        assert list(stream) == []


def test_an_open_end_is_an_end_on_a_live_runner(orch: Any, verbs: Any) -> None:
    async def open_end(_orch: Any, request: web.Request) -> web.StreamResponse:
        stream = await begin(request)
        await stream.write(b"data: x\n\n")
        return stream

    orch.add("open-end", open_end)
    for options in ({}, {"allow_incomplete": True}):
        stream = verbs.stream("open-end", **options)
        assert data(stream) == ["x"]
        assert stream.complete


# Leaving early


def test_close_is_noticed_by_the_worker(orch: Any, verbs: Any) -> None:
    stream = verbs.stream("tokens", input={"endless": True})
    assert next(stream).data == "0"
    stream.close()
    orch.wait_note("tokens gone")
    stream.close()
    assert list(stream) == []
    assert not stream.complete


def test_with_is_noticed_by_the_worker(orch: Any, verbs: Any) -> None:
    def leave() -> None:
        with verbs.stream("tokens", input={"endless": True}) as stream:
            assert next(stream).data == "0"
            raise KeyError

    with pytest.raises(KeyError):
        leave()
    orch.wait_note("tokens gone")


def test_break_closes_a_stream_without_a_name(orch: Any, gateway: Gateway) -> None:
    for mode in ("", "p-"):
        for event in gateway.stream(f"{mode}tokens", input={"endless": True}):
            assert event.data == "0"
            break
        orch.wait_note(f"{mode}tokens gone")
    orch.wait(lambda: not orch.sessions, "the session is stopped")


async def test_break_closes_an_asynchronous_stream_without_a_name(orch: Any) -> None:
    async with Gateway(orch_url=orch.url) as gateway:
        async for event in gateway.stream_async("p-tokens", input={"endless": True}):
            assert event.data == "0"
            break
        await orch.wait_async(lambda: "p-tokens gone" in orch.notes, "the worker notices")
        await orch.wait_async(lambda: not orch.sessions, "the session is stopped")


def test_a_stream_with_a_name_goes_on_after_break(orch: Any, verbs: Any) -> None:
    stream = verbs.stream("tokens", input={"count": 4})
    for event in stream:
        if event.data == "1":
            break
    assert data(stream) == ["2", "3"]


def test_a_stream_that_is_collected_is_closed(orch: Any, gateway: Gateway) -> None:
    stream = gateway.stream("tokens", input={"endless": True})
    next(stream)
    del stream
    orch.wait_note("tokens gone")


def test_closing_from_another_thread_ends_the_iteration(orch: Any, gateway: Gateway) -> None:
    stream = gateway.stream("tokens", input={"count": 1, "endless": True})
    got: list[Any] = []
    reader = threading.Thread(target=lambda: got.extend(data(stream)))
    reader.start()
    orch.wait(lambda: orch.notes == ["tokens written"], "the events are written")
    stream.close()
    reader.join(5)
    assert not reader.is_alive()
    assert got in ([], ["0"])


async def test_awaiting_entering_and_iterating_open_a_stream(orch: Any) -> None:
    async with Gateway(orch_url=orch.url) as gateway:
        stream = gateway.stream_async("tokens")
        assert (stream.orchestrator, stream.content_type) == ("", "")
        assert await stream is stream
        assert data([event async for event in stream]) == ["0", "1", "2"]
        async with gateway.stream_async("tokens") as entered:
            assert data([event async for event in entered]) == ["0", "1", "2"]
        async with await gateway.stream_async("tokens") as awaited:
            assert data([event async for event in awaited]) == ["0", "1", "2"]
        assert data([event async for event in gateway.stream_async("tokens")]) == ["0", "1", "2"]
        assert len(orch.calls("tokens")) == 4


async def test_a_stream_that_is_never_opened_costs_nothing(orch: Any) -> None:
    async with Gateway(orch_url=orch.url) as gateway:
        stream = gateway.stream_async("tokens")
        await stream.aclose()
        with pytest.raises(ConfigurationError, match="make another"):
            await stream
        gateway.stream_async("tokens")
    assert orch.seen == []


async def test_closing_while_it_opens(orch: Any) -> None:
    async with Gateway(orch_url=orch.url) as gateway:
        stream = gateway.stream_async("slow")
        opening = asyncio.ensure_future(stream.__aenter__())
        await orch.wait_async(lambda: orch.notes, "the worker is at it")
        await stream.aclose()
        orch.gate("slow").open()
        await opening
        assert [event async for event in stream] == []
        await orch.wait_async(lambda: orch.apps["slow"].calls == 0, "the worker is done")


def test_more_than_a_hundred_streams_at_once(orch: Any, gateway: Gateway) -> None:
    async def many() -> None:
        streams = [gateway.stream_async("tokens", input={"count": 1, "gate": "all"}) for _ in range(130)]
        await asyncio.gather(*streams)
        assert data(await asyncio.gather(*map(anext, streams))) == ["0"] * 130
        orch.gate("all").open()
        assert data(await asyncio.gather(*map(anext, streams))) == ["later"] * 130
        await asyncio.gather(*(stream.aclose() for stream in streams))
        await gateway.aclose()

    asyncio.run(many())


# Failures in mid-stream


@pytest.mark.parametrize("how", ["abort", "reset"])
@pytest.mark.parametrize("mode", ["single-shot", "persistent"])
def test_a_worker_that_dies(orch: Any, verbs: Any, reset: Any, how: str, mode: str) -> None:
    async def dies(orch: Any, request: web.Request) -> web.StreamResponse:
        stream = await begin(request)
        await stream.write(b"data: 0\n\ndata: 1\n\ndata: ha")
        await orch.gate("die").passed()
        if how == "reset":
            reset(request)
        else:
            request.transport.abort()  # type: ignore[union-attr]
        return stream

    orch.add("dies", dies, mode=mode)
    stream = verbs.stream("dies")
    assert next(stream).data == "0"
    orch.gate("die").open()
    assert next(stream).data == "1"
    with pytest.raises(StreamError, match="broke off") as caught:
        next(stream)
    assert caught.value.request_id == stream.request_id
    assert caught.value.orchestrator == orch.url
    assert not stream.complete
    assert list(stream) == []
    orch.wait(lambda: not orch.sessions, "the session is stopped")


async def test_a_slow_reader_gets_what_came_before_the_death(orch: Any) -> None:
    async def dies(orch: Any, request: web.Request) -> web.StreamResponse:
        stream = await begin(request)
        await stream.write(b"data: 0\n\n")
        await orch.gate("more").passed()
        await stream.write(b"data: 1\n\ndata: 2\n\n")
        await asyncio.sleep(0.05)
        request.transport.abort()  # type: ignore[union-attr]
        orch.note("dead")
        return stream

    orch.add("dies", dies)
    async with Gateway(orch_url=orch.url) as gateway:
        stream = await gateway.stream_async("dies")
        assert (await anext(stream)).data == "0"
        orch.gate("more").open()
        await orch.wait_async(lambda: "dead" in orch.notes, "the worker is dead")
        await asyncio.sleep(0.05)  # the end is to have arrived before the next read
        assert [(await anext(stream)).data, (await anext(stream)).data] == ["1", "2"]
        with pytest.raises(StreamError):
            await anext(stream)


def test_a_body_shorter_than_its_length(orch: Any, verbs: Any) -> None:
    async def cut(_orch: Any, request: web.Request) -> web.StreamResponse:
        await request.read()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n[1,"
        request.transport.write(head)  # type: ignore[union-attr]
        request.transport.close()  # type: ignore[union-attr]
        return web.Response()

    orch.add("cut", cut)
    with pytest.raises(StreamError, match="broke off before its end"):
        verbs.run("cut")
    with pytest.raises(StreamError):
        list(verbs.stream("cut"))


ERRORS = [
    ('{"error": "out of memory"}', "out of memory"),
    ('{"error": {"message": "out of memory", "code": 3}}', "out of memory"),
    ('{"error": {"code": 3}}', "code"),
]


@pytest.mark.parametrize(("body", "says"), ERRORS)
def test_an_error_event_raises_after_the_events_before_it(
    orch: Any, verbs: Any, body: str, says: str
) -> None:
    async def fails(_orch: Any, request: web.Request) -> web.StreamResponse:
        stream = await begin(request)
        await stream.write(f"data: 0\n\ndata: 1\n\nevent: error\ndata: {body}\n\ndata: [DONE]\n\n".encode())
        return stream

    orch.add("fails", fails)
    got: list[Any] = []
    stream = verbs.stream("fails")
    with pytest.raises(CapabilityError, match=says) as caught:
        got.extend(event.data for event in stream)
    assert (caught.value.status, caught.value.body) == (200, body.encode())
    assert caught.value.orchestrator == orch.url
    assert not stream.complete
    stream = verbs.stream("fails")
    assert [next(stream).data, next(stream).data] == ["0", "1"]
    with pytest.raises(CapabilityError):
        next(stream)
    with pytest.raises(CapabilityError, match=says) as caught:
        verbs.run("fails")
    assert caught.value.request_id


@pytest.mark.parametrize("body", ["oh no", "[1]", '{"message": "no error here"}', "null"])
def test_an_error_event_of_another_kind_is_an_event(orch: Any, verbs: Any, body: str) -> None:
    async def says(_orch: Any, request: web.Request) -> web.StreamResponse:
        stream = await begin(request)
        await stream.write(f"event: error\ndata: {body}\n\n".encode())
        return stream

    orch.add("says", says)
    assert list(verbs.stream("says")) == [StreamEvent(body, "error")]


def test_what_is_no_event_stream_brings_no_events(verbs: Any) -> None:
    stream = verbs.stream("answer", input={"text": "<html>\n\n\0\xff", "type": "text/event-stream"})
    assert list(stream) == []


# Time


def test_idle_counts_content_only(orch: Any, verbs: Any) -> None:
    async def chatty(_orch: Any, request: web.Request) -> web.StreamResponse:
        stream = await begin(request)
        await stream.write(b"data: 0\n\n")
        while True:
            await stream.write(b": keep-alive\n\n")
            await asyncio.sleep(0.02)

    orch.add("chatty", chatty)
    with verbs.stream("chatty", timeout=Timeout(idle=0.15)) as stream:
        assert next(stream).data == "0"
        with pytest.raises(IdleTimeout, match=r"no event for 0.15 s") as caught:
            next(stream)
    assert caught.value.waited == 0.15
    assert isinstance(caught.value, TimeoutError)
    orch.wait_note("chatty gone")


def test_idle_starts_anew_with_each_event(orch: Any, verbs: Any) -> None:
    async def steady(_orch: Any, request: web.Request) -> web.StreamResponse:
        stream = await begin(request)
        for number in range(8):
            await stream.write(f"data: {number}\n\n".encode())
            await asyncio.sleep(0.05)
        return stream

    orch.add("steady", steady)
    assert len(list(verbs.stream("steady", timeout=Timeout(idle=0.3)))) == 8


def test_the_total_of_a_stream(orch: Any, verbs: Any) -> None:
    with verbs.stream("tokens", input={"endless": True}, timeout=0.2) as stream:
        with pytest.raises(DeadlineExceeded, match=r"longer than the 0.2 s allowed") as caught:
            assert len(list(stream)) < 3
        assert caught.value.waited == 0.2
        assert list(stream) == []
    orch.wait_note("tokens gone")
    with pytest.raises(DeadlineExceeded):
        verbs.stream("slow", timeout=0.1)
    orch.wait_note("slow gone")


def test_the_total_of_a_call(orch: Any, verbs: Any) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"did not finish within the 0.1 s") as caught:
        verbs.run("slow", timeout=0.1)
    assert time.monotonic() - began < 10
    assert caught.value.request_id
    orch.wait_note("slow gone")
    with pytest.raises(DeadlineExceeded):
        verbs.run("tokens", input={"endless": True}, timeout=0.1)


def test_the_first_byte(orch: Any, verbs: Any) -> None:
    for call in (verbs.run, verbs.stream):
        with pytest.raises(FirstByteTimeout, match=r"no answer within 0.1 s") as caught:
            call("slow", timeout=Timeout(first_byte=0.1))
        assert isinstance(caught.value, LivepeerTimeout)
    orch.wait_note("slow gone", 2)
    assert verbs.run("echo", input=1, timeout=Timeout(first_byte=5)) == 1


def test_idle_in_the_middle_of_a_call(orch: Any, verbs: Any) -> None:
    with pytest.raises(IdleTimeout, match="paused in the middle"):
        verbs.run("tokens", input={"endless": True}, timeout=Timeout(idle=0.1))


def test_the_gateways_limits_are_those_of_calls_that_name_none(orch: Any, make_verbs: Any) -> None:
    verbs = make_verbs(orch_url=orch.url, timeout=0.15)
    with pytest.raises(DeadlineExceeded, match=r"0.15"):
        verbs.run("slow")
    with pytest.raises(DeadlineExceeded, match=r"0.15"):
        list(verbs.stream("tokens", input={"endless": True}))
    with pytest.raises(DeadlineExceeded, match=r"0.05"):
        verbs.run("slow", timeout=0.05)
