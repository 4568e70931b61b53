"""Through a gateway node: what it is asked, what its answers mean, and who is asked next.

The node here is a socket that answers as go-livepeer v0.9.1 was seen to (tests/conformance has the real one).
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from livepeer.client import (
    CapabilityError,
    CapabilityNotFound,
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    Gateway,
    IdleTimeout,
    InputError,
    InsufficientBalance,
    LivepeerError,
    NoOrchestratorError,
    OrchestratorError,
    PriceExceeded,
    ResponseError,
    StreamError,
    StreamEvent,
    Timeout,
)
from livepeer.client.routes._gateway_verdict import restored

ONE, OTHER = "https://one.example:8935", "https://other.example:8935"
Answer = Callable[[web.Request, bytes], Any]


class Node:
    """A gateway node that knows `ONE` and `OTHER`, on the socket of `orch`.

    Args:
        orch: Whose socket it has.

    Attributes:
        havers: Which of them have a free place of "job".
        jobs: What it was asked to do, and did.
        asked: Whom it was asked to use.
        answer: What the worker's answer becomes.
    """

    def __init__(self, orch: Any) -> None:
        self.url = orch.url
        self.havers = {ONE, OTHER}
        self.asked: list[list[str]] = []
        self.jobs: list[tuple[str, dict[str, Any], bytes, str]] = []
        self.answer: Answer = lambda request, body: passed_on(body)
        orch.byoc = self._serve

    async def _serve(self, _: Any, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        job = json.loads(base64.b64decode(request.headers["Livepeer"], validate=True))
        include = json.loads(job["parameters"])["orchestrators"]["include"]
        self.asked.append(include)
        if job["capability"] != "job" or not self.havers.intersection(include):
            return refused(400, f"No orchestrators found for capability {job['capability']}\n")
        self.jobs.append((request.path.removeprefix("/process/request"), job, body, request.content_type))
        answer = self.answer(request, body)
        if asyncio.iscoroutine(answer):
            answer = await answer
        return answer  # type: ignore[no-any-return]


def passed_on(body: bytes, kind: str = "text/plain; charset=utf-8", **headers: str) -> web.Response:
    """An answer that a node passes on; its type is what Go makes of the first bytes."""
    known = {"Livepeer-Balance": "7999", "X-Metadata": "", "X-Orchestrator-Url": ONE, "Content-Type": kind}
    return web.Response(body=body, headers=known | headers)


def refused(status: int, text: str) -> web.Response:
    """Go's http.Error; the text is given with its newlines."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    return web.Response(status=status, body=text.encode(), headers=headers)


def sse(*pieces: bytes, then: Callable[[web.StreamResponse], Any] | None = None) -> Answer:
    async def stream(request: web.Request, _: bytes) -> web.StreamResponse:
        answer = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "X-Metadata": "m", "X-Orchestrator-Url": ONE}
            | {"Livepeer-Balance": ""}
        )
        await answer.prepare(request)
        for piece in pieces:
            await answer.write(piece)
        if then is not None:
            await then(answer)
        return answer

    return stream


DONE = b'data: {"balance": 12.000}\n\n\ndata: [DONE]\n'


@pytest.fixture
def node(orch: Any) -> Node:
    return Node(orch)


@pytest.fixture
def through(node: Node, make_verbs: Callable[..., Any]) -> Any:
    """The verbs of a gateway that calls through the node."""
    return make_verbs(gateway_url=node.url, orch_url=[ONE, OTHER])


# What it is asked


def test_what_is_sent(node: Node, through: Any) -> None:
    response = through.call("job", input={"prompt": "a secret"}, timeout=90.5)
    assert response.data == {"prompt": "a secret"}
    assert (response.content_type, response.orchestrator, response.app) == ("application/json", ONE, "job")
    assert response.headers["Livepeer-Balance"] == "7999"
    [(path, job, body, kind)] = node.jobs
    assert (path, body, kind) == ("/job", b'{"prompt":"a secret"}', "application/json")
    assert job == {
        "id": response.request_id,
        "request": "{}",
        "parameters": json.dumps({"orchestrators": {"include": [ONE]}}),
        "capability": "job",
        "timeout_seconds": 91,
    }


@pytest.mark.parametrize(
    ("timeout", "seconds"), [(3, 60), (None, 3600), (Timeout(total=10**6), 24 * 3600), (Timeout(), 3600)]
)
def test_what_a_job_may_take_is_paid_for_in_advance(
    node: Node, through: Any, timeout: Any, seconds: int
) -> None:
    through.call("job", timeout=timeout)
    assert node.jobs[0][1]["timeout_seconds"] == seconds


def test_paths(node: Node, through: Any) -> None:
    through.run("job", path="/a/b")
    with pytest.raises(InputError, match="has a query"):
        through.run("job", path="/a?b=c")
    assert [job[0] for job in node.jobs] == ["/a/b"]


def test_a_name_that_no_path_has(node: Node, make_verbs: Callable[..., Any]) -> None:
    verbs = make_verbs(gateway_url=node.url, orch_url=[ONE])
    with pytest.raises(CapabilityNotFound) as caught:
        verbs.run("a name / of?two")
    assert caught.value.capability == "a name / of?two"


def test_a_discovery_leads_to_orchestrators(node: Node, orch: Any, make_verbs: Callable[..., Any]) -> None:
    async def listed(*_: Any) -> web.Response:
        return web.json_response([{"address": ONE}])

    orch.discovery = listed
    make_verbs(gateway_url=node.url, discovery_url=f"{orch.url}/discovery").run("job")
    assert node.asked == [[ONE]]


def test_a_discovery_that_lists_nobody(node: Node, orch: Any, make_verbs: Callable[..., Any]) -> None:
    async def listed(*_: Any) -> web.Response:
        return web.json_response([])

    orch.discovery = listed
    with pytest.raises(NoOrchestratorError, match="No orchestrator is known that a gateway node could use"):
        make_verbs(gateway_url=node.url, discovery_url=f"{orch.url}/discovery").run("job")


# Who is asked next


def test_the_next_orchestrator_where_the_node_finds_nobody(node: Node, through: Any) -> None:
    node.havers = {OTHER}
    through.run("job")
    assert (node.asked, len(node.jobs)) == ([[ONE], [OTHER]], 1)


def test_nobody_has_it(node: Node, through: Any) -> None:
    with pytest.raises(CapabilityNotFound, match="at any of the 2 orchestrators") as caught:
        through.run("absent")
    assert caught.value.retryable  # its places may all be taken, of which the node says nothing else
    assert [(one.orchestrator, one.route, one.begun, one.paid) for one in caught.value.attempts] == [
        (ONE, "gateway_node", False, False),
        (OTHER, "gateway_node", False, False),
    ]
    assert "-orchAddr" in (caught.value.hint or "")


def test_the_next_node_where_one_cannot_be_reached(node: Node, make_verbs: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    node.havers = {OTHER}
    verbs = make_verbs(gateway_url=[nowhere, node.url], orch_url=[ONE, OTHER])
    verbs.run("job")
    assert node.asked == [[ONE], [OTHER]]
    with pytest.raises(ConnectionFailed) as caught:
        make_verbs(gateway_url=nowhere, orch_url=[ONE, OTHER]).run("job")
    assert [(one.begun, one.paid) for one in caught.value.attempts] == [(False, False)]


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (lambda *_: web.Response(), OrchestratorError, "answered nothing at all"),
        (lambda *_: web.Response(text="hello"), OrchestratorError, "answered nothing at all"),
        (lambda *_: refused(400, "status 400\n\n"), CapabilityError, "answered 400: status 400"),
        (lambda *_: refused(422, '{"detail": "no"}\n\n'), CapabilityError, "answered 422: no"),
        (lambda *_: refused(404, "404: Not Found\n\n"), CapabilityError, "answered 404"),
        (lambda *_: refused(429, "slowly\n\n"), CapabilityError, "answered 429: slowly"),
        (
            lambda *_: refused(400, "No orchestrators found for capability job\n\n"),
            CapabilityError, "400: No orchestrators",
        ),
        (lambda *_: refused(400, "Insufficient balance for request\n\n"), InsufficientBalance, "a minute"),
        (lambda *_: refused(400, "Could not verify job creds\n\n"), OrchestratorError, "signed"),
        (lambda *_: refused(400, "Unable to parse job request, err=x\n"), OrchestratorError, "refused 'job'"),
        (lambda *_: refused(404, "404 page not found\n"), OrchestratorError, "check gateway_url="),
        (lambda *_: refused(502, "a proxy's"), OrchestratorError, "refused 'job'"),
    ],
)  # fmt: skip
def test_whatever_else_it_answers_nobody_is_asked_again(
    node: Node, through: Any, answer: Answer, kind: type[LivepeerError], says: str
) -> None:
    node.answer = answer
    with pytest.raises(LivepeerError, match=says) as caught:
        through.run("job", path="/p")
    assert type(caught.value) is kind
    assert node.asked == [[ONE]]
    assert (caught.value.orchestrator, len(caught.value.request_id or "")) == (ONE, 32)
    assert [(one.begun, one.paid) for one in caught.value.attempts] == [(True, True)]
    assert kind is not CapabilityError or "\n" not in caught.value.body.decode()  # type: ignore[attr-defined]


def test_a_connection_that_breaks_after_the_job_was_sent(
    node: Node, through: Any, reset: Callable[[web.Request], None]
) -> None:
    node.answer = lambda request, _: reset(request) or web.Response()  # type: ignore[func-returns-value]
    with pytest.raises(ConnectionFailed):
        through.run("job")
    assert node.asked == [[ONE]]


def test_each_job_has_a_connection_of_its_own(node: Node, orch: Any, through: Any) -> None:
    for _ in range(3):
        through.run("job")
    assert len({seen.peer for seen in orch.seen}) == 3


# What a body is


@pytest.mark.parametrize(
    ("body", "told", "result"),
    [
        (b'{"a": [1, null]}', "text/plain; charset=utf-8", {"a": [1, None]}),
        (b" 12\n", "text/plain; charset=utf-8", 12),
        (b'"text"', "text/plain; charset=utf-8", "text"),
        (b"null", "text/plain; charset=utf-8", None),
        (b"NaN", "text/plain; charset=utf-8", "NaN"),
        (b"{not json}", "text/plain; charset=utf-8", "{not json}"),
        ("héllo".encode(), "text/plain; charset=utf-8", "héllo"),
        (b"", "text/plain; charset=utf-8", ""),
        (b"\xc8\xc9\xff", "text/plain; charset=utf-8", b"\xc8\xc9\xff"),
        (b"\x89PNG\r\n\x1a\n", "image/png", b"\x89PNG\r\n\x1a\n"),
        (b"<!DOCTYPE HTML>", "text/html; charset=utf-8", "<!DOCTYPE HTML>"),
    ],
)
def test_results(node: Node, through: Any, body: bytes, told: str, result: Any) -> None:
    node.answer = lambda *_: passed_on(body, told)
    assert through.run("job") == result


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode) | st.just(b"[" * 100_000))
def test_any_body_has_a_type(body: bytes) -> None:
    kind = restored(body, "text/plain", lines=True)
    if kind == "application/json":
        json.loads(body)
    elif kind == "application/octet-stream":
        with pytest.raises(UnicodeDecodeError):
            body.decode()
    else:
        body.decode()


@pytest.mark.parametrize(
    ("body", "events", "kind"),
    [
        (b'{"a": 1}', ['{"a": 1}'], "application/json"),
        (b'{"a": 1}\n{"b": 2}\n', ['{"a": 1}', '{"b": 2}'], "application/x-ndjson"),
        (b"1\n2\n", ["1\n2\n"], "text/plain"),
        (b"text", ["text"], "text/plain"),
        (b"\xff\x00", [b"\xff\x00"], "application/octet-stream"),
        (b"", [], "text/plain"),
    ],
)
def test_a_stream_of_what_is_no_event_stream(
    node: Node, through: Any, body: bytes, events: list[str | bytes], kind: str
) -> None:
    node.answer = lambda *_: passed_on(body, **{"X-Metadata": "told"})
    with through.stream("job") as stream:
        assert [event.data for event in stream] == events
        assert (stream.content_type, stream.complete) == (kind, True)
        assert stream.metadata == {"balance": 7999, "x-metadata": "told"}


# Event streams


def test_events(node: Node, through: Any) -> None:
    node.answer = sse(b"data: a\n\nda", b"ta: b\n\n", DONE)
    with through.stream("job") as stream:
        assert [event.data for event in stream] == ["a", "b"]
        assert stream.complete
        assert stream.orchestrator == ONE
        assert stream.metadata == {"balance": 12.0, "x-metadata": "m"}
    assert through.run("job") == [StreamEvent("a"), StreamEvent("b")]


def test_nothing_is_read_behind_done(node: Node, orch: Any, through: Any) -> None:
    """A node that was left to itself would go on with the stream of the next orchestrator."""

    async def go_on(answer: web.StreamResponse) -> None:
        try:
            while True:
                await answer.write(b"data: again\n\n")
                await asyncio.sleep(0.01)
        except (ConnectionError, asyncio.CancelledError):
            orch.note("left")
            raise

    node.answer = sse(b"data: a\n\n", DONE + b"data: again\n\n", then=go_on)
    with through.stream("job") as stream:
        assert [event.data for event in stream] == ["a"]
        assert stream.complete
    orch.wait_note("left")


def test_newlines_are_no_content(node: Node, through: Any) -> None:
    async def slowly(answer: web.StreamResponse) -> None:
        while True:
            await answer.write(b"\n")
            await asyncio.sleep(0.01)

    node.answer = sse(b"data: a\n\n", then=slowly)
    with through.stream("job", timeout=Timeout(idle=0.3)) as stream:
        assert next(iter(stream)).data == "a"
        with pytest.raises(IdleTimeout):
            next(iter(stream))


def test_a_flood_of_newlines_is_an_end(node: Node, through: Any) -> None:
    async def flood(answer: web.StreamResponse) -> None:
        while True:
            await answer.write(b"\n" * 4096)

    node.answer = sse(b"data: a\n\n", then=flood)
    with through.stream("job") as stream:
        events = iter(stream)
        assert next(events).data == "a"
        with pytest.raises(StreamError, match=r"without \[DONE\]"):
            next(events)
    with through.stream("job", allow_incomplete=True) as stream:
        assert [event.data for event in stream] == ["a"]
        assert not stream.complete


def test_funds_that_end(node: Node, through: Any) -> None:
    node.answer = sse(b"data: a\n\n", b'event: insufficient balance\ndata: {"balance": 0}\n\n' + DONE)
    with through.stream("job") as stream:
        events = iter(stream)
        assert next(events).data == "a"
        with pytest.raises(InsufficientBalance):
            next(events)


# Limits


def test_a_body_that_is_too_large(node: Node, make_verbs: Callable[..., Any]) -> None:
    verbs = make_verbs(gateway_url=node.url, orch_url=ONE, max_response_bytes=1000)
    node.answer = lambda *_: passed_on(b"x" * 1001)
    with pytest.raises(ResponseError, match="more than 1000 bytes"):
        verbs.run("job")
    with verbs.stream("job") as stream, pytest.raises(ResponseError, match="more than 1000 bytes"):
        list(stream)


def test_a_worker_that_takes_too_long(node: Node, through: Any) -> None:
    async def never(*_: Any) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    node.answer = never
    with pytest.raises(DeadlineExceeded, match="had not answered"):
        through.run("job", timeout=0.3)
    assert node.asked == [[ONE]]


def test_a_price_that_nobody_knows(node: Node, through: Any) -> None:
    with pytest.raises(PriceExceeded, match="max_price can't be held") as caught:
        through.run("job", max_price="1 wei/second")
    assert (node.asked, caught.value.attempts) == ([], ())


async def test_live_is_refused(node: Node) -> None:
    async with Gateway(gateway_url=node.url, orch_url=ONE) as gateway:
        with pytest.raises(ConfigurationError, match="Live sessions through a gateway node"):
            await gateway.live("job")
    assert node.asked == []


def test_its_repr_shows_no_password() -> None:
    with Gateway(gateway_url="http://user:hush@g.example", orch_url=ONE) as gateway:
        assert repr(gateway) == f"<Gateway http://g.example, {ONE} (arguments)>"
