"""run, stream and call through BYOC: the client against bare workers that registered by hand."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from harness import Network, Worker, free_port, until
from PIL import Image

from livepeer.client import (
    AsyncStreamResponse,
    Blob,
    CapabilityError,
    CapabilityNotFound,
    ConnectionFailed,
    DeadlineExceeded,
    FirstByteTimeout,
    Gateway,
    InputError,
    LivepeerError,
    NoOrchestratorError,
    OrchestratorError,
    StreamError,
    StreamEvent,
    Timeout,
)
from livepeer.client._http import Pool
from livepeer.client.inputs import Body
from livepeer.client.routes import Call
from livepeer.client.routes.byoc import ByocRoute
from livepeer.trickle.transport import TLSPolicy

Pieces = Callable[[web.StreamResponse], Awaitable[None]]


@pytest.fixture
async def gw(network: Network) -> AsyncIterator[Gateway]:
    """A gateway for the network, used asynchronously."""
    async with Gateway(orch_url=network.url) as made:
        yield made


async def echo(request: web.Request) -> web.Response:
    """The body, as it came, with its type."""
    return web.Response(body=await request.read(), headers={"Content-Type": request.content_type})


def sse(pieces: Pieces | bytes) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A worker that streams."""

    async def handler(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        if isinstance(pieces, bytes):
            await stream.write(pieces)
        else:
            await pieces(stream)
        return stream

    return handler


async def events_of(gw: Gateway, name: str, **options: Any) -> tuple[list[StreamEvent], Any]:
    """The events of a stream to its end or its error, and the stream."""
    events: list[StreamEvent] = []
    stream = gw.stream_async(name, **options)
    async with stream:
        async for event in stream:
            events.append(event)
    return events, stream


async def until_failure(gw: Gateway, name: str, **options: Any) -> tuple[list[StreamEvent], StreamError]:
    """The events of a stream before it fails, and how it does."""
    events: list[StreamEvent] = []
    async with gw.stream_async(name, **options) as stream:
        try:
            async for event in stream:
                events.append(event)
        except StreamError as error:
            assert not stream.complete
            return events, error
    raise AssertionError(f"the stream ended well: {events}")


# Results


async def test_a_call_reaches_the_worker_as_it_was_made(
    gw: Gateway, worker: Worker, network: Network
) -> None:
    seen: list[web.Request] = []

    async def tell(request: web.Request) -> web.Response:
        seen.append(request)
        return web.json_response(await request.json(), headers={"X-Metadata": "told"})

    worker.routes.add_post("/{any}", tell)
    name = await worker.register_byoc()
    response = await gw.call_async(name, input={"text": "héllo"}, model="small")
    assert response.data == {"text": "héllo", "model": "small"}
    assert (response.app, response.orchestrator, response.status) == (name, network.url, 200)
    assert (response.content_type, response.price, response.cost) == ("application/json", None, 0)
    assert response.headers["X-Metadata"] == "told"
    assert seen[0].path == f"/{name}"
    assert await asyncio.to_thread(gw.run, name, input=[1]) == [1]


async def test_bytes_and_text_come_back_with_their_types(gw: Gateway, worker: Worker) -> None:
    worker.routes.add_post("/{any}", echo)
    name = await worker.register_byoc()
    picture = io.BytesIO()
    Image.new("RGB", (4, 4), (1, 2, 3)).save(picture, "PNG")
    sent = Blob(picture.getvalue(), "image/png")
    back = await gw.run_async(name, input=sent)
    assert isinstance(back, Blob)
    assert (back, back.content_type) == (sent, "image/png")
    assert await gw.run_async(name, input=Blob(b"words", "text/plain")) == "words"
    large = bytes(range(256)) * 65_536  # 16 MiB
    assert await gw.run_async(name, input=large) == large


async def test_a_live_runner_of_the_same_name_comes_first(gw: Gateway, worker: Worker) -> None:
    async def which(request: web.Request) -> web.Response:
        return web.json_response("Livepeer-Runner-Route" in request.headers)

    worker.routes.add_post("/{any}", which)
    name = await worker.register_byoc()
    assert await gw.run_async(name) is False
    answer = await worker.register(name)
    await gw.capabilities_async()  # looks at the listing again
    assert await gw.run_async(name) is True
    worker.answers.remove(next(one for one in worker.answers if one["app"] == name))
    await worker.unregister(answer)
    assert await gw.run_async(name) is False


# Paths


async def test_a_worker_without_a_path_of_its_name_is_asked_for_run_once(gw: Gateway, worker: Worker) -> None:
    asked: list[str] = []

    async def run(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response("ran")

    async def missing(request: web.Request) -> web.Response:
        asked.append(request.path)
        raise web.HTTPNotFound if len(asked) == 1 else web.HTTPInternalServerError

    worker.routes.add_post("/run", run)
    worker.routes.add_post("/{any}", missing)
    name = await worker.register_byoc()
    for _ in range(3):
        assert await gw.run_async(name) == "ran"
    assert asked == [f"/{name}", "/run", "/run", "/run"]


async def test_a_path_of_ones_own(gw: Gateway, worker: Worker) -> None:
    async def where(request: web.Request) -> web.Response:
        return web.json_response(request.path)

    worker.routes.add_post("/v1/{any:.*}", where)
    name = await worker.register_byoc()
    assert await gw.run_async(name, path="/v1/chat/completions") == "/v1/chat/completions"
    assert await gw.run_async(name, path="v1/x") == "/v1/x"
    with pytest.raises(CapabilityError, match="404") as caught:
        await gw.run_async(name, path="/v2")
    assert caught.value.status == 404
    with pytest.raises(CapabilityError, match=f"no path /{name} and no path /run") as caught:
        await gw.run_async(name)
    assert caught.value.status == 404
    with pytest.raises(InputError, match="query"):
        await gw.run_async(name, path="/v1/x?a=b")


# Streams


CHAT = (
    b"data: a\n\n"
    b'data: {"balance": 5.000}\n\n'
    b'data: {"text": "not yet [DONE]"}\n\n'
    b'id: 7\nevent: note\ndata: {"text": "[DONE]"}\ndata: more\n\n'
    b"event: done\ndata: [DONE]\n\n"
    b"data: never\n\n"
)
CHAT_EVENTS = [
    StreamEvent("a"),
    StreamEvent('{"balance": 5.000}'),
    StreamEvent('{"text": "not yet [DONE]"}'),
    StreamEvent('{"text": "[DONE]"}\nmore', "note", "7"),
]


async def test_a_stream_is_what_the_worker_sent(gw: Gateway, worker: Worker) -> None:
    """What the orchestrator put into it is gone: its balance is metadata, an event of that look is the
    worker's."""
    worker.routes.add_post("/{any}", sse(CHAT))
    name = await worker.register_byoc()
    events, stream = await events_of(gw, name)
    assert events == CHAT_EVENTS
    assert stream.complete
    assert stream.metadata == {"balance": 0.0}
    assert await gw.run_async(name) == CHAT_EVENTS

    def synchronous() -> tuple[list[StreamEvent], dict[str, Any], bool]:
        with gw.stream(name) as stream:
            return list(stream), stream.metadata, stream.complete

    assert await asyncio.to_thread(synchronous) == (CHAT_EVENTS, {"balance": 0.0}, True)


async def test_events_come_one_at_a_time_and_an_early_exit_reaches_the_worker(
    gw: Gateway, worker: Worker
) -> None:
    go_on, left = asyncio.Event(), asyncio.Event()

    async def endless(stream: web.StreamResponse) -> None:
        try:
            await stream.write(b"data: first\n\n")
            await go_on.wait()
            while True:
                await stream.write(b"data: more\n\n")
                await asyncio.sleep(0.01)
        finally:
            left.set()

    worker.routes.add_post("/{any}", sse(endless))
    name = await worker.register_byoc()
    async with gw.stream_async(name) as stream:
        assert (await anext(stream)).data == "first"
        go_on.set()
        assert (await anext(stream)).data == "more"
    await asyncio.wait_for(left.wait(), 30)


async def test_a_stream_is_over_at_done_though_the_worker_goes_on(gw: Gateway, worker: Worker) -> None:
    left = asyncio.Event()

    async def goes_on(stream: web.StreamResponse) -> None:
        try:
            await stream.write(b"data: a\n\ndata: [DONE]\n\n")
            await asyncio.sleep(60)
        finally:
            left.set()

    worker.routes.add_post("/{any}", sse(goes_on))
    name = await worker.register_byoc()
    assert await gw.run_async(name) == [StreamEvent("a")]
    await asyncio.wait_for(left.wait(), 30)


async def test_an_end_without_done_is_none(gw: Gateway, worker: Worker) -> None:
    """The orchestrator sends blank lines without end after it; the events before it are delivered."""
    worker.routes.add_post("/{any}", sse(b"data: a\n\ndata: b\n\n"))
    name = await worker.register_byoc()
    began = time.monotonic()
    events, error = await until_failure(gw, name)
    assert events == [StreamEvent("a"), StreamEvent("b")]
    assert "without [DONE]" in str(error)
    assert "allow_incomplete" in str(error)
    assert error.orchestrator
    with pytest.raises(StreamError, match="without"):
        await gw.run_async(name)
    events, stream = await events_of(gw, name, allow_incomplete=True)
    assert events == [StreamEvent("a"), StreamEvent("b")]
    assert not stream.complete
    assert time.monotonic() - began < 20


async def test_a_worker_that_dies_in_mid_stream(gw: Gateway, worker: Worker) -> None:
    async def dies(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        await stream.write(b"data: one\n\n")
        assert request.transport is not None
        request.transport.abort()
        return stream

    worker.routes.add_post("/{any}", dies)
    name = await worker.register_byoc()
    events, error = await until_failure(gw, name)
    assert events == [StreamEvent("one")]
    assert "died" in str(error)


async def test_a_line_that_is_too_long(gw: Gateway, worker: Worker) -> None:
    long = b"data: " + b"x" * 70_000 + b"\n\n"
    worker.routes.add_post("/{any}", sse(b"data: a\n\n" + long + b"data: [DONE]\n\n"))
    name = await worker.register_byoc()
    events, error = await until_failure(gw, name)
    assert events == [StreamEvent("a")]
    assert "64 KiB" in str(error)


async def test_an_event_of_almost_64_kib_passes(gw: Gateway, worker: Worker) -> None:
    text = "y" * 60_000
    worker.routes.add_post("/{any}", sse(f"data: {text}\n\ndata: [DONE]\n\n".encode()))
    name = await worker.register_byoc()
    assert await gw.run_async(name) == [StreamEvent(text)]


async def test_an_error_event_in_mid_stream(gw: Gateway, worker: Worker) -> None:
    sent = b'data: a\n\nevent: error\ndata: {"error": {"message": "out of memory"}}\n\ndata: [DONE]\n\n'
    worker.routes.add_post("/{any}", sse(sent))
    name = await worker.register_byoc()
    async with gw.stream_async(name) as stream:
        assert (await anext(stream)).data == "a"
        with pytest.raises(CapabilityError, match="out of memory"):
            await anext(stream)


async def test_an_error_answer_of_the_streams_type(gw: Gateway, worker: Worker) -> None:
    """Its status becomes 200 on the way, and it is no stream."""

    async def fails(request: web.Request) -> web.Response:
        return web.Response(status=500, text='{"detail": "no such model"}', content_type="text/event-stream")

    worker.routes.add_post("/{any}", fails)
    name = await worker.register_byoc()
    with pytest.raises(CapabilityError, match="no such model"):
        await gw.run_async(name)
    async with gw.stream_async(name) as stream:
        with pytest.raises(CapabilityError, match="no such model"):
            await anext(stream)


async def test_lines_of_json_are_events_too(gw: Gateway, worker: Worker) -> None:
    async def lines(request: web.Request) -> web.Response:
        return web.Response(text='{"n": 1}\n{"n": 2}\n', content_type="application/x-ndjson")

    worker.routes.add_post("/{any}", lines)
    name = await worker.register_byoc()
    events, stream = await events_of(gw, name)
    assert [event.json() for event in events] == [{"n": 1}, {"n": 2}]
    assert stream.complete


# Errors


@pytest.mark.parametrize("status", [400, 402, 403, 405, 422, 429, 500, 503])
async def test_a_workers_error_is_the_callers(gw: Gateway, worker: Worker, status: int) -> None:
    body = {"error": {"message": "not like this", "code": 7}}

    async def fails(request: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    worker.routes.add_post("/{any}", fails)
    name = await worker.register_byoc()
    with pytest.raises(CapabilityError, match="not like this") as caught:
        await gw.run_async(name)
    error = caught.value
    assert (error.status, error.content_type) == (status, "application/json")
    assert json.loads(error.body) == body
    assert error.orchestrator
    assert error.request_id
    assert error.retryable is (status in (429, 503))


async def test_a_workers_own_word_is_not_taken_for_the_orchestrators(gw: Gateway, worker: Worker) -> None:
    said = "No capacity available for capability"

    async def fails(request: web.Request) -> web.Response:
        return web.Response(status=503, text=said)

    worker.routes.add_post("/{any}", fails)
    name = await worker.register_byoc()
    with pytest.raises(CapabilityError, match=said) as caught:
        await gw.run_async(name)
    assert (caught.value.status, caught.value.body) == (503, said.encode())


async def test_an_unknown_capability(gw: Gateway, worker: Worker) -> None:
    with pytest.raises(CapabilityNotFound, match="test-nobody") as caught:
        await gw.run_async("test-nobody")
    assert caught.value.capability == "test-nobody"
    name = await worker.register_byoc()
    async with Gateway(orch_url=worker.network.url) as other:
        with pytest.raises(CapabilityNotFound, match=f"Did you mean '{name}'") as caught:
            await other.run_async(f"{name}s")
    assert name in caught.value.available
    with pytest.raises(CapabilityError):
        await gw.run_async(name)
    await worker.unregister_byoc(name)
    with pytest.raises(CapabilityNotFound):
        await gw.run_async(name)


async def test_a_worker_that_is_not_there_is_forgotten_and_found_again(gw: Gateway, worker: Worker) -> None:
    worker.routes.add_post("/{any}", echo)
    name = await worker.register_byoc(url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(OrchestratorError, match="not there") as caught:
        await gw.run_async(name)
    assert caught.value.retryable
    with pytest.raises(CapabilityNotFound):
        await gw.run_async(name)
    await worker.register_byoc(name)
    assert await gw.run_async(name, input=1) == 1


async def test_the_next_orchestrator_is_asked_when_the_worker_of_one_is_not_there(
    network: Network, fresh_network: Network, worker: Worker
) -> None:
    worker.routes.add_post("/{any}", echo)
    async with Worker(fresh_network) as absent:
        name = await absent.register_byoc(url=f"http://127.0.0.1:{free_port()}")
        await worker.register_byoc(name)
        async with Gateway(orch_url=[fresh_network.url, network.url]) as gw:
            response = await gw.call_async(name, input=1)
    assert (response.data, response.orchestrator) == (1, network.url)


async def test_a_worker_that_breaks_off(gw: Gateway, worker: Worker) -> None:
    """It may have done the work, so nobody else is asked, and it is not asked again."""
    calls: list[web.Request] = []

    async def breaks(request: web.Request) -> web.StreamResponse:
        calls.append(request)
        answer = web.StreamResponse(headers={"Content-Length": "100", "Content-Type": "application/json"})
        if request.path == "/late":
            await answer.prepare(request)
            await answer.write(b'{"half":')
        assert request.transport is not None
        request.transport.abort()
        return answer

    worker.routes.add_post("/{any}", breaks)
    name = await worker.register_byoc()
    with pytest.raises(OrchestratorError, match="middle of its answer"):
        await gw.run_async(name, path="/late")
    with pytest.raises(OrchestratorError, match="broke off before"):
        await gw.run_async(name, path="/early")
    assert len(calls) == 2


async def test_a_time_limit_reaches_the_worker(gw: Gateway, worker: Worker) -> None:
    left = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        try:
            await asyncio.sleep(60)
        finally:
            left.set()
        return web.Response()

    worker.routes.add_post("/{any}", slow)
    name = await worker.register_byoc()
    with pytest.raises(DeadlineExceeded):
        await gw.run_async(name, timeout=0.3)
    await asyncio.wait_for(left.wait(), 30)


async def test_a_call_that_finds_every_place_taken_is_the_workers_to_refuse(
    gw: Gateway, worker: Worker
) -> None:
    """The orchestrator shows no place then, as for a capability that it doesn't know, and still passes on."""
    entered, leave = asyncio.Event(), asyncio.Event()

    async def one_at_a_time(request: web.Request) -> web.Response:
        if entered.is_set():
            return web.json_response({"detail": "busy"}, status=503)
        entered.set()
        await leave.wait()
        return web.json_response("done")

    worker.routes.add_post("/{any}", one_at_a_time)
    name = await worker.register_byoc(capacity=1)
    first = asyncio.create_task(gw.run_async(name))
    await entered.wait()
    async with Gateway(orch_url=worker.network.url) as other:
        with pytest.raises(CapabilityError, match="busy") as caught:
            await other.run_async(name)
    assert caught.value.retryable
    leave.set()
    assert await first == "done"


async def test_many_at_once(gw: Gateway, worker: Worker) -> None:
    worker.routes.add_post("/{any}", echo)
    name = await worker.register_byoc(capacity=50)
    results = await asyncio.gather(*(gw.run_async(name, input=number) for number in range(50)))
    assert results == list(range(50))


async def test_a_cancelled_call_reaches_the_worker(gw: Gateway, worker: Worker) -> None:
    entered, left = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        entered.set()
        try:
            await asyncio.sleep(60)
        finally:
            left.set()
        return web.Response()

    worker.routes.add_post("/{any}", slow)
    name = await worker.register_byoc()
    task = asyncio.create_task(gw.run_async(name))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(left.is_set)


async def test_what_an_orchestrator_does_when_a_jobs_time_is_over(network: Network, worker: Worker) -> None:
    """A gateway's own limits come first; so the route is asked without them, in both ways at once."""

    async def work(request: web.Request) -> web.StreamResponse:
        if request.path == "/late":
            await asyncio.sleep(60)
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        while True:
            await stream.write(b"data: more\n\n")
            await asyncio.sleep(0.3)

    worker.routes.add_post("/{any}", work)
    name = await worker.register_byoc(capacity=5)
    pool = Pool(TLSPolicy("pin"))
    route = ByocRoute(network.url, name, pool)

    def call(path: str) -> Call:
        return Call(name, Body(b"{}", "application/json"), Timeout(total=1), "r-1", path)

    async def late() -> None:
        with pytest.raises(FirstByteTimeout, match="within the job's 1 s") as caught:
            await route.open(call("/late"))
        assert (caught.value.waited, caught.value.orchestrator) == (1, network.url)

    async def cut() -> None:
        stream = AsyncStreamResponse(
            lambda _: route.open(call("/cut")), capability=name, timeout=Timeout(), request_id="r-1"
        )
        assert (await anext(stream)).data == "more"

        async def rest() -> set[Any]:
            return {event.data async for event in stream}

        with pytest.raises(StreamError, match=r"without \[DONE\].*1 s after its beginning") as caught:
            await rest()
        assert not stream.complete
        assert caught.value.orchestrator == network.url

    await asyncio.gather(late(), cut())
    await pool.aclose()


# Restarts


async def test_an_orchestrator_that_is_killed_in_mid_call(fresh_network: Network) -> None:
    """What was in flight is lost, with its fate unknown; what comes after the restart is found."""
    entered = asyncio.Semaphore(0)

    async def work(request: web.Request) -> web.StreamResponse:
        if await request.read() == b'"quick"':
            return web.json_response("done")
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        if request.path == "/stream":
            await stream.prepare(request)
            await stream.write(b"data: a\n\n")
        entered.release()
        await asyncio.sleep(60)
        return stream

    async with Worker(fresh_network) as worker, Gateway(orch_url=fresh_network.url) as gw:
        worker.routes.add_post("/{any}", work)
        name = await worker.register_byoc()
        call = asyncio.create_task(gw.run_async(name))
        await entered.acquire()
        async with gw.stream_async(name, path="/stream") as stream:
            assert (await anext(stream)).data == "a"
            await asyncio.to_thread(fresh_network.restart)
            with pytest.raises(StreamError, match="broke off"):
                await anext(stream)
        with pytest.raises(ConnectionFailed, match="unknown") as lost:
            await call
        assert not lost.value.retryable
        with pytest.raises(LivepeerError) as gone:
            await gw.run_async(name, input="quick")
        assert gone.value.retryable
        await worker.register_byoc(name)

        async def works() -> bool:
            try:
                return await gw.run_async(name, input="quick") == "done"
            except LivepeerError as error:
                if not error.retryable:
                    raise
                return False

        await until(works)


async def test_a_client_that_was_there_before_its_orchestrator(fresh_network: Network) -> None:
    async with Worker(fresh_network) as worker, Gateway(orch_url=fresh_network.url) as gw:
        worker.routes.add_post("/{any}", echo)
        await asyncio.to_thread(fresh_network.kill)
        with pytest.raises(NoOrchestratorError) as caught:
            await gw.run_async("test-later")
        assert caught.value.retryable
        await asyncio.to_thread(fresh_network.restart)
        await worker.register_byoc("test-later")
        assert await gw.run_async("test-later", input=1) == 1
