"""BYOC: who is asked, in which order, what a job says, whose error an answer is, and who is asked next."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from livepeer.client import (
    CapabilityError,
    CapabilityNotFound,
    CapacityError,
    ConfigurationError,
    FirstByteTimeout,
    Gateway,
    InputError,
    InsufficientBalance,
    NoOrchestratorError,
    OrchestratorError,
    PaymentUnsupported,
    Price,
    StreamError,
    StreamEvent,
    Timeout,
)
from livepeer.client._http import Pool
from livepeer.client._names import Names
from livepeer.client.failover import not_begun
from livepeer.client.offers import parse_offer
from livepeer.client.routes._byoc_verdict import job_verdict
from livepeer.trickle.transport import TLSPolicy

FAILED = "job not able to be processed, removing capability err="
UNKNOWN = (503, "No capacity available for capability")
REFUSED = (
    500,
    'job not able to be processed, removing capability err=Post "http://127.0.0.1:1/job": '
    "dial tcp 127.0.0.1:1: connect: connection refused",
)


class Jobs:
    """The BYOC side of an orchestrator, as go-livepeer v0.9.1 answers.

    Args:
        orch: The orchestrator.
        capacity: What it says is free, by capability; 0 is not said, as for an unknown one.
        price: What it says that they cost.
    """

    def __init__(self, orch: Any, capacity: dict[str, int] | None = None, price: int = 0) -> None:
        self.orch = orch
        self.capacity = {"job": 2} if capacity is None else capacity
        self.price = price
        self.known = set(self.capacity)
        self.tokens: list[str] = []
        self.jobs: list[tuple[str, dict[str, Any], bytes]] = []
        self.answer: Callable[[web.Request, bytes], Any] = lambda request, body: web.Response(
            body=body, content_type=request.content_type
        )
        self.before_token: Callable[[], Any] | None = None
        orch.byoc = self.serve

    async def serve(self, orch: Any, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/process/token"):
            return await self._token(request)
        body = await request.read()
        job = json.loads(base64.b64decode(request.headers["Livepeer"], validate=True))
        self.jobs.append((request.path.removeprefix("/process/request"), job, body))
        if job["capability"] not in self.known:
            return error(*UNKNOWN)
        answer = self.answer(request, body)
        if asyncio.iscoroutine(answer):
            answer = await answer
        return answer  # type: ignore[no-any-return]

    async def _token(self, request: web.Request) -> web.Response:
        name = request.headers["Livepeer-Capability"]
        who = json.loads(base64.b64decode(request.headers["Livepeer-Eth-Address"], validate=True))
        assert set(who) == {"addr", "sig"}
        self.tokens.append(name)
        if self.before_token is not None:
            await self.before_token()
        price = {"pixelsPerUnit": 1} | ({"pricePerUnit": self.price} if self.price else {})
        token = {"sender_address": who, "price": price, "service_addr": self.orch.url, "LastNonce": 0}
        if self.capacity.get(name):
            token["available_capacity"] = self.capacity[name]
        return web.json_response(token)


def error(status: int, text: str, *, worker: bool = False) -> web.Response:
    """Go's http.Error; a worker's comes with X-Metadata."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    if worker:
        headers |= {"X-Metadata": "", "Livepeer-Balance": "0"}
    return web.Response(status=status, text=text + "\n", headers=headers)


@pytest.fixture
def jobs(orch: Any) -> Jobs:
    return Jobs(orch)


# What a job says


def test_what_is_sent(jobs: Jobs, verbs: Any) -> None:
    secret = {"prompt": "a secret"}
    response = verbs.call("job", input=secret, model="m", timeout=12.3)
    assert response.data == {**secret, "model": "m"}
    [(path, job, body)] = jobs.jobs
    assert path == "/job"
    assert job == {
        "id": response.request_id,
        "request": "{}",
        "parameters": "{}",
        "capability": "job",
        "timeout_seconds": 13,
    }
    assert json.loads(body) == {**secret, "model": "m"}
    assert (response.app, response.orchestrator, response.price) == ("job", jobs.orch.url, None)


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [(0.5, 1), (600, 600), (None, 86_400), (Timeout(first_byte=3), 86_400), (1e9, 86_400), (2.0, 2)],
)
def test_the_orchestrator_waits_no_shorter_than_the_caller(
    jobs: Jobs, verbs: Any, timeout: Any, seconds: int
) -> None:
    verbs.run("job", timeout=timeout)
    assert jobs.jobs[0][1]["timeout_seconds"] == seconds


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a-b_c.d~e", "/a-b_c.d~e"),
        ("vendor/model", "/vendor/model"),
        ("two words", "/run"),
        ("what?", "/run"),
    ],
)
def test_the_first_path(orch: Any, verbs: Any, name: str, path: str) -> None:
    jobs = Jobs(orch, {name: 1})
    verbs.run(name)
    assert [job[0] for job in jobs.jobs] == [path]


def test_a_query_is_refused(jobs: Jobs, verbs: Any) -> None:
    for path in ("/x?a=b", "/x?"):
        with pytest.raises(InputError, match="query") as caught:
            verbs.run("job", path=path)
        assert isinstance(caught.value, ConfigurationError)
    assert not jobs.jobs


def test_the_path_is_found_once_for_each_worker(jobs: Jobs, verbs: Any) -> None:
    own = error(404, "not here", worker=True)

    def answer(request: web.Request, body: bytes) -> web.Response:
        return own if request.path.endswith("/job") else web.json_response("ran")

    jobs.answer = answer
    assert [verbs.run("job"), verbs.run("job")] == ["ran", "ran"]
    assert [job[0] for job in jobs.jobs] == ["/job", "/run", "/run"]


def test_a_path_that_is_known_is_the_only_one(jobs: Jobs, verbs: Any) -> None:
    """A later 404 is the worker's word on the call, and not sent twice; the one after looks again."""
    assert verbs.run("job", input=1) == 1
    jobs.answer = lambda request, body: error(404, '{"detail": "no such model"}', worker=True)
    with pytest.raises(CapabilityError, match="no such model"):
        verbs.run("job")
    assert [job[0] for job in jobs.jobs] == ["/job", "/job"]
    jobs.answer = lambda request, body: (
        error(405, "no", worker=True) if request.path.endswith("/job") else web.json_response("ran")
    )
    assert verbs.run("job") == "ran"


def test_an_error_tells_which_path_the_worker_has(jobs: Jobs, verbs: Any) -> None:
    jobs.answer = lambda request, body: (
        error(404, "x", worker=True) if request.path.endswith("/job") else error(422, "wrong", worker=True)
    )
    for _ in range(2):
        with pytest.raises(CapabilityError, match="wrong"):
            verbs.run("job")
    assert [job[0] for job in jobs.jobs] == ["/job", "/run", "/run"]


def test_the_orchestrators_own_404_is_no_reason_for_another_path(jobs: Jobs, verbs: Any) -> None:
    jobs.answer = lambda request, body: error(404, "404 page not found")
    with pytest.raises(OrchestratorError, match="page not found"):
        verbs.run("job")
    assert len(jobs.jobs) == 1


# Who is asked


def test_a_live_runner_is_called_without_a_question_more(jobs: Jobs, orch: Any, verbs: Any) -> None:
    jobs.capacity["echo"] = 5
    assert verbs.run("echo", input=1) == 1
    assert verbs.run("echo", input=2) == 2
    assert (jobs.tokens, jobs.jobs) == ([], [])
    assert [seen.path for seen in orch.seen if "/apps/" not in seen.path] == ["/discovery"]


def test_a_token_is_asked_for_once_in_a_while(jobs: Jobs, orch: Any, verbs: Any) -> None:
    for number in range(4):
        assert verbs.run("job", input=number) == number
    assert jobs.tokens == ["job"]
    assert sum(1 for seen in orch.seen if seen.path == "/discovery") == 1


async def test_calls_at_once_share_a_token(jobs: Jobs, orch: Any) -> None:
    async with Gateway(orch_url=orch.url) as gateway:
        assert await asyncio.gather(*(gateway.run_async("job", input=n) for n in range(20))) == list(
            range(20)
        )
    assert jobs.tokens == ["job"]


def test_without_live_runners(jobs: Jobs, orch: Any, verbs: Any) -> None:
    async def off(_orch: Any, _request: web.Request) -> web.Response:
        return error(404, "live runners are not supported")

    orch.discovery = off
    assert verbs.run("job", input=1) == 1
    with pytest.raises(CapabilityNotFound):
        verbs.run("nobody")


def test_of_an_orchestrator_that_has_no_discovery(jobs: Jobs, orch: Any, verbs: Any) -> None:
    async def older(_orch: Any, _request: web.Request) -> web.Response:
        return error(404, "404 page not found")

    orch.discovery = older
    assert verbs.run("job", input=1) == 1
    with pytest.raises(NoOrchestratorError, match="page not found"):
        verbs.run("nobody")


def test_free_places_come_first(orch: Any, tls_orch: Any, make_verbs: Any) -> None:
    full, free = Jobs(orch, {"job": 0}), Jobs(tls_orch)
    verbs = make_verbs(orch_url=[orch.url, tls_orch.url])
    assert verbs.call("job").orchestrator == tls_orch.url
    assert (full.jobs, len(free.jobs)) == ([], 1)


def test_no_free_place_is_tried_all_the_same(orch: Any, verbs: Any) -> None:
    """It may be full, and it may have lost count; the worker knows."""
    jobs = Jobs(orch, {"job": 0})
    assert verbs.run("job", input=1) == 1
    jobs.answer = lambda request, body: error(
        503, '{"error": {"type": "Unavailable", "message": "All 2 places are taken."}}', worker=True
    )
    with pytest.raises(CapacityError, match="All 2 places are taken"):
        verbs.run("job")


async def test_nobody_waits_for_a_slow_orchestrator(orch: Any, tls_orch: Any) -> None:
    slow, quick = Jobs(orch), Jobs(tls_orch)
    gate = orch.gate("slow")
    slow.before_token = gate.passed
    async with Gateway(orch_url=[orch.url, tls_orch.url]) as gateway:
        began = time.monotonic()
        response = await gateway.call_async("job", input=1)
        assert time.monotonic() - began < 5
        assert response.orchestrator == tls_orch.url
        gate.open()
        await orch.wait_async(lambda: slow.tokens, "the slow one is asked")
    assert len(quick.jobs) == 1


async def test_many_orchestrators_are_asked_in_turns(orch: Any) -> None:
    jobs = Jobs(orch)
    now, most = 0, 0

    async def busy() -> None:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.02)
        now -= 1

    jobs.before_token = busy
    many = [f"{orch.url}/{number}" for number in range(100)]

    async def anywhere(_orch: Any, request: web.Request) -> web.StreamResponse:
        return web.json_response([{"address": address} for address in many])

    orch.discovery = anywhere
    async with Gateway(discovery_url=f"{orch.url}/discovery") as gateway:
        with pytest.raises(CapabilityNotFound):
            await gateway.run_async("nobody")
    assert len(jobs.tokens) == 100
    assert 10 < most <= 32


def test_a_forgotten_capability_is_asked_for_again(jobs: Jobs, verbs: Any) -> None:
    assert verbs.run("job", input=1) == 1
    jobs.known.clear()
    del jobs.capacity["job"]
    with pytest.raises(CapabilityNotFound, match="was there") as caught:
        verbs.run("job")
    assert caught.value.retryable
    jobs.known.add("job")
    jobs.capacity["job"] = 1
    assert verbs.run("job", input=2) == 2


def test_what_an_orchestrator_forgot_another_may_have(orch: Any, tls_orch: Any, make_verbs: Any) -> None:
    first, second = Jobs(orch), Jobs(tls_orch)
    first.known.clear()
    verbs = make_verbs(orch_url=[orch.url, tls_orch.url])
    assert verbs.call("job").orchestrator == tls_orch.url
    assert (len(first.jobs), len(second.jobs)) == (1, 1)


@pytest.mark.parametrize("status", [404, 405])
def test_an_orchestrator_that_does_not_speak_byoc(orch: Any, verbs: Any, status: int) -> None:
    async def deaf(_orch: Any, _request: web.Request) -> web.Response:
        return error(status, "no")

    orch.byoc = deaf
    with pytest.raises(CapabilityNotFound, match="nobody"):
        verbs.run("nobody")


@pytest.mark.parametrize(("status", "text"), [(500, "oh"), (200, "<html>"), (200, "[]"), (503, "later")])
def test_an_orchestrator_that_can_not_say(orch: Any, verbs: Any, status: int, text: str) -> None:
    async def odd(_orch: Any, _request: web.Request) -> web.Response:
        return error(status, text)

    orch.byoc = odd
    with pytest.raises(NoOrchestratorError, match="nobody") as caught:
        verbs.run("nobody")
    assert len(caught.value.rejections) == 1


# Money


def test_no_job_goes_unpaid_to_an_orchestrator_that_asks_for_payment(orch: Any, verbs: Any) -> None:
    jobs = Jobs(orch, price=7)
    with pytest.raises(PaymentUnsupported, match="job"):
        verbs.run("job")
    assert not jobs.jobs


def test_no_job_goes_unsigned_to_an_orchestrator_on_a_chain(orch: Any, verbs: Any) -> None:
    async def signed(_orch: Any, request: web.Request) -> web.Response:
        assert request.path == "/process/token"
        return error(400, "Invalid eth address header ")

    orch.byoc = signed
    with pytest.raises(PaymentUnsupported, match="job"):
        verbs.run("job")


def test_a_free_orchestrator_is_taken_instead(orch: Any, tls_orch: Any, make_verbs: Any) -> None:
    paid, free = Jobs(orch, price=7), Jobs(tls_orch)
    assert make_verbs(orch_url=[orch.url, tls_orch.url]).call("job").orchestrator == tls_orch.url
    assert (paid.jobs, len(free.jobs)) == ([], 1)


def test_offers() -> None:
    def offer(token: Any, status: int = 200) -> Any:
        return parse_offer(status, json.dumps(token).encode(), "https://o")

    assert offer({"price": {"pixelsPerUnit": 1}, "available_capacity": 2}).available == 2
    assert offer({"price": {"pixelsPerUnit": 1}}).usable
    assert offer({}).usable
    assert offer({"price": {"pricePerUnit": 7, "pixelsPerUnit": 2}}).price == Price(4, "seconds")
    assert not offer({"ticket_params": {"recipient": "x"}}).usable
    assert offer({}, 404).absent
    for odd in (
        {"price": {"pricePerUnit": "x"}},
        {"available_capacity": [1]},
        {"available_capacity": float("inf")},
        {"price": {"pricePerUnit": float("inf")}},
        [],
        {"price": {"pixelsPerUnit": 0}},
    ):
        assert offer(odd).rejection is not None, odd


async def test_many_calls_without_a_place_ask_for_the_names_once(
    raw_server: Callable[[Callable[[socket.socket], None]], str],
) -> None:
    asked: list[bytes] = []

    def mute(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        time.sleep(0.2)  # all callers come meanwhile

    names, url = Names(pool := Pool(TLSPolicy())), raw_server(mute)
    try:
        found = await asyncio.gather(*(names.of([url]) for _ in range(50)))
        assert found == [{url: None}] * 50
        assert len(asked) == 1
    finally:
        await pool.aclose()


# Whose error it is


@pytest.mark.parametrize(
    ("status", "text", "worker", "kind", "begun"),
    [
        (*UNKNOWN, False, OrchestratorError, False),
        (*UNKNOWN, True, CapabilityError, True),
        (*REFUSED, False, OrchestratorError, False),
        (500, REFUSED[1], True, CapabilityError, True),
        (500, f"{FAILED}Post: EOF", False,
         OrchestratorError, True),
        (500, f"{FAILED}Post: context canceled", False,
         FirstByteTimeout, True),
        (500, f"{FAILED}context deadline exceeded", False,
         FirstByteTimeout, True),
        (500, f"{FAILED}worker auth token failed", False,
         CapabilityError, True),
        (500, "unexpected EOF", True, OrchestratorError, True),
        (400, "Could not verify job creds", False, PaymentUnsupported, True),
        (400, "Insufficient balance for request", False, InsufficientBalance, True),
        (400, "no timeout_seconds set with request", False, OrchestratorError, True),
        (503, '{"error": {"type": "Unavailable", "message": "full"}}', True, CapacityError, False),
        (503, '{"error": "full"}', True, CapabilityError, True),
        (418, "short and stout", True, CapabilityError, True),
        (403, "from a proxy", False, OrchestratorError, True),
        (502, "", False, OrchestratorError, True),
    ],
)  # fmt: skip
def test_whose_error_it_is(status: int, text: str, worker: bool, kind: type, begun: bool) -> None:
    found = job_verdict(
        status,
        {"X-Metadata": ""} if worker else {},
        text.encode() + b"\n",
        capability="it",
        timeout_seconds=9,
        orchestrator="https://o",
        request_id="r",
    )
    assert type(found) is kind
    assert not_begun(found) is not begun
    assert text or str(status) in found.message
    assert (found.orchestrator, found.request_id) == ("https://o", "r")
    if isinstance(found, CapabilityError) and worker:
        assert (found.status, found.body) == (status, text.encode())
        assert found.content_type == ("application/json" if text.startswith("{") else "text/plain")
    if isinstance(found, FirstByteTimeout):
        assert found.waited == 9


@pytest.mark.parametrize(
    ("answer", "kind", "asked"),
    [
        (error(*REFUSED), None, True),
        (error(500, f"{FAILED}Post: EOF"), OrchestratorError, False),
        (error(500, f"{FAILED}Post: context canceled"),
         FirstByteTimeout, False),
        (error(500, "failed", worker=True), CapabilityError, False),
        (error(503, "loading", worker=True), CapabilityError, False),
    ],
)  # fmt: skip
def test_another_is_asked_only_when_nothing_was_begun(
    orch: Any, tls_orch: Any, make_verbs: Any, answer: Any, kind: Any, asked: bool
) -> None:
    def copy(request: web.Request, body: bytes) -> web.Response:
        return web.Response(status=answer.status, text=answer.text, headers=answer.headers)

    first, second = Jobs(orch), Jobs(tls_orch)
    first.answer = copy
    verbs = make_verbs(orch_url=[orch.url, tls_orch.url])
    if kind is None:
        assert verbs.call("job").orchestrator == tls_orch.url
    else:
        with pytest.raises(kind):
            verbs.run("job")
    assert (len(first.jobs), len(second.jobs)) == (1, int(asked))


# Streams that end as only an orchestrator ends them


def streamed(*pieces: bytes, **headers: str) -> Callable[[web.Request, bytes], Any]:
    async def answer(request: web.Request, _body: bytes) -> web.StreamResponse:
        stream = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "X-Metadata": "", **headers}
        )
        await stream.prepare(request)
        for piece in pieces:
            await stream.write(piece)
        return stream

    return answer


def test_a_stream_that_the_orchestrator_ends_in_silence(jobs: Jobs, verbs: Any) -> None:
    jobs.answer = streamed(b"data: a\n\n", b"data: half")
    with verbs.stream("job") as stream:
        assert next(stream) == StreamEvent("a")
        with pytest.raises(StreamError, match=r"without \[DONE\].*86400 s") as caught:
            next(stream)
        assert not stream.complete
    assert caught.value.orchestrator == jobs.orch.url
    assert caught.value.request_id == stream.request_id
    with pytest.raises(StreamError, match="without"):
        verbs.run("job")
    with verbs.stream("job", allow_incomplete=True) as stream:
        assert list(stream) == [StreamEvent("a")]
        assert not stream.complete


def test_a_stream_that_is_not_paid_for_any_more(jobs: Jobs, verbs: Any) -> None:
    jobs.answer = streamed(
        b"data: a\n\n", b'event: insufficient balance\ndata: {"balance": 0}\n\ndata: [DONE]\n\n'
    )
    with verbs.stream("job", allow_incomplete=True) as stream:
        assert next(stream) == StreamEvent("a")
        with pytest.raises(InsufficientBalance, match="used up") as caught:
            next(stream)
    assert caught.value.orchestrator == jobs.orch.url


def test_what_the_network_said_beside_the_events(jobs: Jobs, verbs: Any) -> None:
    jobs.answer = streamed(
        b'data: a\n\ndata: {"balance": 12.500}\n\n\ndata: [DONE]\n\n', **{"X-Metadata": "seed=7"}
    )
    with verbs.stream("job") as stream:
        assert list(stream) == [StreamEvent("a")]
        assert stream.metadata == {"balance": 12.5, "x-metadata": "seed=7"}
        assert stream.complete


def test_a_live_runners_stream_needs_no_done(verbs: Any) -> None:
    with verbs.stream("tokens", input={"count": 2, "done": False}) as stream:
        assert len(list(stream)) == 2
        assert (stream.complete, stream.metadata) == (True, {})


def test_an_orchestrator_whose_grpc_does_not_answer_counts_with_its_runners(
    tls_orch: Any, make_verbs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    verbs = make_verbs(orch_url=tls_orch.url)
    with caplog.at_level("DEBUG", "livepeer.client"):
        assert "echo" in [one.name for one in verbs.capabilities()]
    assert any("only the live runners of" in record.getMessage() for record in caplog.records)

    async def off(_orch: Any, _request: web.Request) -> web.Response:
        return error(404, "live runners are not supported")

    tls_orch.discovery = off
    with pytest.raises(NoOrchestratorError, match="switched off") as caught:
        verbs.capabilities()
    assert len(caught.value.rejections) == 2
