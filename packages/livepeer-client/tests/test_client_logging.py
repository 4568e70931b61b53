"""What is said of requests: by loggers, on stderr when the environment asks for it, and to `on_request`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from livepeer.client import (
    CapabilityError,
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    FirstByteTimeout,
    Gateway,
    LivepeerError,
    RequestRecord,
    StreamError,
    Timeout,
)

SECRET = "s3cr3t-k3y"


@pytest.fixture
def records() -> list[RequestRecord]:
    return []


@pytest.fixture
def seen_verbs(orch: Any, make_verbs: Any, records: list[RequestRecord]) -> Any:
    return make_verbs(orch_url=orch.url, on_request=records.append)


def of_calls(records: list[RequestRecord]) -> list[RequestRecord]:
    return [record for record in records if record.route == "live_runner"]


# The hook


def test_each_request_is_told_of_when_it_is_over(
    orch: Any, seen_verbs: Any, records: list[RequestRecord]
) -> None:
    before = time.time()
    response = seen_verbs.call("echo", input={"x": 1}, path="/run?key=private")
    asked, call = records
    assert (asked.route, asked.method, asked.status) == ("discovery", "GET", 200)
    assert asked.url == f"{orch.url}/discovery"
    assert asked.request_id is None
    assert (call.route, call.method, call.status, call.error) == ("live_runner", "POST", 200, None)
    assert call.url == f"{orch.url}/apps/{orch.apps['echo'].id}/app/run?***"
    assert call.request_id == response.request_id == orch.last("echo").headers["X-Request-Id"]
    assert call.orchestrator == orch.url
    assert before - 1 < call.began < time.time() + 1
    assert call.head is not None
    assert 0 < call.head <= call.elapsed <= response.elapsed
    with pytest.raises(AttributeError):
        call.status = 500  # type: ignore[misc]


def test_a_session_of_its_own_is_reserved_called_and_stopped(
    orch: Any, seen_verbs: Any, records: list[RequestRecord]
) -> None:
    seen_verbs.run("p-echo", input=1)
    orch.wait(lambda: len(records) == 4, "the stop is told of")
    paths = [(record.route, re.sub(r"[0-9a-f-]{8,}", "*", record.url[len(orch.url) :])) for record in records]
    assert [route for route, _ in paths] == ["discovery", "live_runner", "live_runner", "stop"]
    assert [path.rsplit("/", 1)[1] for _, path in paths] == ["discovery", "session", "run", "stop"]
    assert records[1].request_id == records[2].request_id


def test_a_stream_is_over_when_its_reader_is(
    orch: Any, seen_verbs: Any, records: list[RequestRecord]
) -> None:
    stream = seen_verbs.stream("tokens", input={"count": 2, "gate": "go"})
    next(iter(stream))
    assert not of_calls(records)
    orch.gate("go").open()
    assert len(list(stream)) == 2
    stream.close()
    [record] = of_calls(records)
    assert (record.status, record.error) == (200, None)
    assert record.request_id == stream.request_id


def test_failures_are_told_of_with_their_errors(
    orch: Any, seen_verbs: Any, records: list[RequestRecord]
) -> None:
    async def hangs(orch: Any, request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async def breaks(orch: Any, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "100"})
        await answer.prepare(request)
        await answer.write(b"x")
        assert request.transport is not None
        request.transport.abort()
        return answer

    orch.add("hangs", hangs)
    orch.add("breaks", breaks)
    for name, options, kind, status in (
        ("answer", {"input": {"status": 418}}, CapabilityError, 418),
        ("hangs", {"timeout": Timeout(first_byte=0.1)}, FirstByteTimeout, None),
        ("hangs", {"timeout": 0.2}, DeadlineExceeded, None),
        ("breaks", {}, StreamError, 200),
    ):
        del records[:]
        with pytest.raises(kind) as caught:
            seen_verbs.run(name, **options)
        [record] = of_calls(records)
        assert record.status == status
        assert (record.head is None) == (status is None)
        if kind is DeadlineExceeded:
            assert isinstance(record.error, asyncio.CancelledError)
        else:
            assert record.error is caught.value
    del records[:]
    with pytest.raises(StreamError):
        list(seen_verbs.stream("breaks"))
    assert isinstance(of_calls(records)[0].error, StreamError)


def test_who_cannot_be_reached_is_told_of(make_verbs: Any, records: list[RequestRecord]) -> None:
    verbs = make_verbs(orch_url="http://127.0.0.1:1", on_request=records.append)
    with pytest.raises(LivepeerError):
        verbs.run("echo")
    assert {(record.route, record.status, type(record.error)) for record in records} == {
        ("discovery", None, ConnectionFailed)
    }


def test_a_hook_that_raises_changes_nothing(
    orch: Any, make_verbs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(record: RequestRecord) -> None:
        raise ValueError(f"no {record.route} here")

    assert make_verbs(orch_url=orch.url, on_request=hook).run("echo", input=5) == 5
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 2
    assert all("on_request=" in record.message and record.exc_info for record in told)


def test_a_hook_has_to_be_an_ordinary_function(orch: Any) -> None:
    async def hook(record: RequestRecord) -> None: ...

    with pytest.raises(ConfigurationError, match="coroutine function"):
        Gateway(orch_url=orch.url, on_request=hook)
    with pytest.raises(ConfigurationError, match="is a str"):
        Gateway(orch_url=orch.url, on_request="x")  # type: ignore[arg-type]


def keep(record: RequestRecord) -> None:
    _kept.append(record)


_kept: list[RequestRecord] = []


def test_the_hook_goes_along_in_a_pickle_and_runs_from_every_thread(orch: Any) -> None:
    del _kept[:]
    again = pickle.loads(pickle.dumps(Gateway(orch_url=orch.url, on_request=keep)))
    with again:
        threads = [threading.Thread(target=again.run, args=("echo",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    calls = of_calls(_kept)
    assert len(calls) == 8
    assert len({call.request_id for call in calls}) == 8


async def test_requests_of_a_session_are_told_of(orch: Any, records: list[RequestRecord]) -> None:
    pytest.importorskip("av")
    gateway = Gateway(orch_url=orch.url, on_request=records.append)
    async with gateway, gateway.live("live") as session:
        with contextlib.suppress(CapabilityError):
            await session.request("GET", "/health")
    routes = [record.route for record in records]
    assert routes[0] == "discovery"
    assert "session" in routes
    assert routes[-1] == "stop"
    assert {record.request_id for record in records if record.route in ("session", "live_runner")} == {
        session.request_id
    }


# Loggers


def test_all_is_silent_at_info(orch: Any, make_verbs: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    verbs = make_verbs(orch_url=orch.url)
    verbs.run("p-echo", input=1)
    list(verbs.stream("tokens", input={"count": 3}))
    with verbs.stream("tokens", input={"count": 3}) as stream:
        next(iter(stream))
    verbs.capabilities()
    for name, options in (("answer", {"input": {"status": 500}}), ("nobody", {}), ("echo", {"input": {1}})):
        with pytest.raises(LivepeerError):
            verbs.run(name, **options)
    with pytest.raises(LivepeerError):
        make_verbs(orch_url="http://127.0.0.1:1").run("echo")
    verbs.disconnect()
    assert [record for record in caplog.records if record.name.startswith("livepeer")] == []


def test_debug_has_a_line_for_each_request(orch: Any, verbs: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="livepeer")
    identity = verbs.call("echo", input={"x": 1}).request_id
    with pytest.raises(CapabilityError) as caught:
        verbs.run("answer", input={"status": 500, "text": "first\nsecond", "type": "text/plain"})
    lines = [record.getMessage() for record in caplog.records if "ms" in record.getMessage()]
    echo, answer = (orch.apps[name].id for name in ("echo", "answer"))
    time_taken = r"head \d+\.\d ms, end \d+\.\d ms"
    expected = (
        rf"discovery GET {orch.url}/discovery 200 orchestrator={orch.url} {time_taken}",
        rf"live_runner POST {orch.url}/apps/{echo}/app/run 200 request_id={identity} "
        rf"orchestrator={orch.url} {time_taken}",
        rf"live_runner POST {orch.url}/apps/{answer}/app/run 500 request_id={caught.value.request_id} "
        rf"orchestrator={orch.url} {time_taken} CapabilityError: 'answer' answered 500: first second\.",
    )
    assert len(lines) == len(expected), lines
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line


CALL = """
import logging, os, sys
os.environ["LIVEPEER_LOG"] = sys.argv[2]
{before}
from livepeer.client import Gateway
{between}
with Gateway(orch_url=sys.argv[1]) as gateway, Gateway(orch_url=sys.argv[1]):
    {inside}
    gateway.run("echo", input=1)
"""
LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} DEBUG livepeer\.client (discovery|live_runner) .* ms\n"
ROOT = "logging.basicConfig(format='root: %(message)s')"
OWN = "own = logging.getLogger('livepeer'); own.addHandler(logging.StreamHandler()); own.setLevel('DEBUG')"


@pytest.mark.parametrize(
    ("level", "parts", "expected"),
    [
        ("debug", {}, f"({LINE}){{2}}"),
        (" DEBUG\n", {}, f"({LINE}){{2}}"),
        ("info", {}, ""),
        ("", {}, ""),
        # The root's handler shows them, in its own form, whenever it came.
        ("debug", {"before": ROOT}, "(root: .* ms\n){2}"),
        ("debug", {"between": ROOT}, "(root: .* ms\n){2}"),
        ("debug", {"inside": ROOT}, "(root: .* ms\n){2}"),
        # Once is enough, and what the application has set up counts.
        ("debug", {"before": OWN}, r"([a-z_]+ (GET|POST) .* ms\n){2}"),
        ("debug", {"inside": OWN}, r"([a-z_]+ (GET|POST) .* ms\n){2}"),
        ("debug", {"before": "logging.getLogger('livepeer.client').setLevel('WARNING')"}, ""),
        ("debug", {"inside": "logging.getLogger('asyncio').debug('x')"}, f"({LINE}){{2}}"),
        ("debug", {"inside": "sys.stderr = sys.stdout"}, ""),
        ("debug", {"inside": "sys.stderr = None"}, ""),
    ],
)
def test_the_environment_asks_for_lines(
    orch: Any, script: Callable[..., Any], level: str, parts: dict[str, str], expected: str
) -> None:
    source = CALL.format(**{"before": "", "between": "", "inside": "", **parts})
    done = script(source, orch.url, level).finish()
    assert done.code == 0, done.err
    # asyncio's debug mode complains of a busy machine, and the root's handler shows that, too.
    told = re.sub(r"(?m)^.*\bExecuting <.*> took \d+\.\d+ seconds\n", "", done.err)
    assert re.fullmatch(expected, told), told
    if "sys.stdout" in parts.get("inside", ""):
        assert re.fullmatch(f"({LINE}){{2}}", done.out)
    else:
        assert done.out == ""


def test_a_level_that_is_none_is_refused(orch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEPEER_LOG", "verbose")
    with pytest.raises(ConfigurationError, match="debug, info, warning, error"):
        Gateway(orch_url=orch.url)
