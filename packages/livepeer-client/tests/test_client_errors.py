"""Bad input: a typed error each, that says what was wrong, what would be right, and what to do."""

from __future__ import annotations

import base64
import json
import logging
import socket
import time
from typing import Any

import pytest
from aiohttp import web

from livepeer.client import (
    CapabilityError,
    CapabilityNotFound,
    CapacityError,
    ConfigurationError,
    ConnectionFailed,
    ConnectTimeout,
    Gateway,
    InputError,
    NoOrchestratorError,
    OrchestratorError,
    PaymentUnsupported,
    ResponseError,
    StreamError,
    Timeout,
)

SECRET = "s3cr3t-k3y"

# Configuration


def test_nothing_configured() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Gateway()
    text = str(caught.value)
    for way in (
        "orch_url=",
        "discovery_url=",
        "token=",
        "LIVEPEER_ORCH_URL",
        "pip install livepeer-devkit",
        "livepeer dev",
    ):
        assert way in text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"orch_url": ""}, "orch_url is empty"),
        ({"orch_url": "127.0.0.1:8935"}, "scheme and a host"),
        ({"orch_url": "orchestrator"}, "scheme and a host"),
        ({"orch_url": "ftp://x"}, "scheme and a host"),
        ({"orch_url": "https://"}, "scheme and a host"),
        ({"orch_url": "https://x:99999"}, "scheme and a host"),
        ({"orch_url": "https://[::1"}, "scheme and a host"),
        ({"orch_url": ["https://x", 7]}, "holds a int"),
        ({"discovery_url": "nowhere"}, "discovery_url='nowhere'"),
        ({"orch_url": "https://x", "discovery_headers": {"a": "b"}}, "belong together"),
        ({"discovery_url": "https://x", "discovery_headers": [("a", SECRET)]}, "is a dict of texts"),
        ({"discovery_url": "https://x", "discovery_headers": {"a": f"{SECRET}\n"}}, "not one line"),
        ({"discovery_url": "https://x", "discovery_headers": {"a b": SECRET}}, "can't be a header's"),
        ({"orch_url": "https://x", "tls": "sometimes"}, "'pin', 'pin-strict', 'verify' and 'insecure'"),
        ({"orch_url": "https://x", "timeout": 0}, "above 0"),
        ({"orch_url": "https://x", "timeout": "5"}, "above 0"),
        ({"orch_url": "https://x", "timeout": True}, "above 0"),
        ({"orch_url": "https://x", "signer_url": "signer"}, "scheme and a host"),
        ({"orch_url": "https://x", "signer_headers": {"a": SECRET}}, "belong together"),
        ({"orch_url": "https://x", "gateway_url": "gateway"}, "scheme and a host"),
        ({"gateway_url": "https://g"}, "which orchestrators the gateway node https://g is to use"),
        ({"orch_url": "https://x", "max_price": "1 usd/call"}, "exchange rate"),
        ({"orch_url": "https://x", "max_price": "dear"}, "is not a price"),
        ({"orch_url": "https://x", "max_price": 7}, "is not a price"),
        ({"orch_url": "https://x", "max_price": "1 wei/fortnight"}, "unit"),
        ({"orch_url": "https://x", "budget": -5}, "not an amount of money"),
        ({"orch_url": "https://x", "eth_usd": 0}, "a number above 0"),
    ],
)
def test_configuration_that_cannot_work(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        Gateway(**options)
    assert SECRET not in str(caught.value)


def _token(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    ("token", "says"),
    [
        (SECRET, "not base64 of JSON"),
        ("", "not base64 of JSON"),
        (base64.b64encode(SECRET.encode()).decode(), "not base64 of JSON"),
        (_token([SECRET]), "none of the fields"),
        (_token({"password": SECRET}), "signer, signer_headers, discovery, discovery_headers, orchestrators"),
        (_token({"signer": "http://s.example", "signer_headers": {"A": SECRET}}), "unencrypted"),
        (_token({"orchestrators": [1], "signer": SECRET}), "not a list of URLs"),
        (_token({"orchestrators": "x", "discovery_headers": {"A": SECRET}}), "scheme and a host"),
        (_token({"discovery": 7, "discovery_headers": {"A": SECRET}}), "not a URL"),
        (_token({"discovery": "https://x", "discovery_headers": [SECRET]}), "not an object of texts"),
        (_token({"discovery": "https://x", "discovery_headers": {"A": 7}}), "not an object of texts"),
        (SECRET.encode(), "is a text"),
    ],
)
def test_a_bad_token_never_shows_its_secret(token: Any, says: str) -> None:
    import traceback

    with pytest.raises(ConfigurationError, match=says) as caught:
        Gateway(token=token)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert SECRET not in shown.replace(f'"{SECRET}"', "")
    if isinstance(token, str) and token:
        assert token not in str(caught.value)


def test_secrets_stay_out_of_the_repr_and_the_log(orch: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = _token({"discovery": f"{orch.url}/discovery", "discovery_headers": {"Authorization": SECRET}})
    with Gateway(token=token) as gateway:
        assert gateway.run("echo", input=1) == 1
        assert orch.url in repr(gateway)
        assert "token" in repr(gateway)
        shown = repr(gateway) + repr(gateway._config) + caplog.text
    assert SECRET not in shown
    assert orch.seen[0].headers["Authorization"] == SECRET
    assert all("Authorization" not in seen.headers for seen in orch.seen[1:])
    with_password = Gateway(orch_url=f"http://user:{SECRET}@127.0.0.1:1")
    assert SECRET not in repr(with_password)
    with pytest.raises(NoOrchestratorError) as caught:
        with_password.run("x")
    assert SECRET not in str(caught.value)


# Names and arguments of a call


def test_an_unknown_capability_comes_with_a_suggestion(orch: Any, verbs: Any) -> None:
    with pytest.raises(CapabilityNotFound, match=r"has 'ecko'\. Did you mean 'echo'\?") as caught:
        verbs.run("ecko")
    assert caught.value.capability == "ecko"
    assert "inspect" in caught.value.available
    with pytest.raises(CapabilityNotFound, match="There are: answer, echo"):
        verbs.stream("zzzzzz")
    with pytest.raises(CapabilityNotFound, match="model 'm'"):
        verbs.run("zzz", model="m")
    orch.apps.clear()
    with pytest.raises(CapabilityNotFound, match="no capabilities at all"):
        verbs.run("echo2")


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        ({"capability": ""}, ConfigurationError, "not a name"),
        ({"capability": 7}, ConfigurationError, "not a name"),
        ({"capability": None}, ConfigurationError, "not a name"),
        ({"model": ""}, ConfigurationError, "model="),
        ({"model": 3}, ConfigurationError, "model="),
        ({"path": ""}, ConfigurationError, "not a path"),
        ({"path": 7}, ConfigurationError, "not a path"),
        ({"path": "/ä"}, ConfigurationError, "letters, digits"),
        ({"path": "/a%20b"}, ConfigurationError, "'%'"),
        ({"path": "/../secret"}, ConfigurationError, "dot segments"),
        ({"path": "/a?b=c d"}, ConfigurationError, "white space"),
        ({"path": "/a?b#c"}, ConfigurationError, "fragment"),
        ({"path": "http://elsewhere/"}, ConfigurationError, "':'"),
        ({"timeout": -1}, ConfigurationError, "above 0"),
        ({"timeout": float("nan")}, ConfigurationError, "above 0"),
        ({"timeout": "1"}, ConfigurationError, "above 0"),
        ({"max_price": "dear"}, ConfigurationError, "is not a price"),
        ({"input": {1}}, InputError, "set"),
        ({"input": {"x": float("nan")}}, InputError, "finite"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "call", "stream"])
def test_arguments_that_cannot_work(
    orch: Any, verbs: Any, verb: str, arguments: dict[str, Any], kind: Any, says: str
) -> None:
    with pytest.raises(kind, match=says):
        getattr(verbs, verb)(**{"capability": "echo", **arguments})
    assert not orch.calls("echo")


@pytest.mark.parametrize("field", ["connect", "first_byte", "idle", "total"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), "1", False])
def test_limits_that_cannot_work(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"Timeout {field}="):
        Timeout(**{field: value})


# Orchestrators that are not there, or are none


def test_a_refused_connection_is_quick(make_verbs: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    verbs = make_verbs(orch_url=f"https://127.0.0.1:{port}")
    began = time.monotonic()
    for call in (lambda: verbs.run("echo"), lambda: verbs.stream("echo"), verbs.capabilities):
        with pytest.raises(NoOrchestratorError, match="port is right") as caught:
            call()
        assert caught.value.retryable
        assert f"127.0.0.1:{port}" in caught.value.rejections[0].where
        assert "refused" in caught.value.rejections[0].reason
    assert time.monotonic() - began < 8


def test_an_orchestrator_that_dies_between_discovery_and_call(orch: Any, make_verbs: Any) -> None:
    async def elsewhere(_orch: Any, request: web.Request) -> web.Response:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            base = f"http://127.0.0.1:{taken.getsockname()[1]}"
        return web.json_response(orch.listing(base))

    orch.discovery = elsewhere
    verbs = make_verbs(discovery_url=orch.url + "/discovery")
    for name in ("echo", "p-echo"):
        with pytest.raises(ConnectionFailed, match="refused") as caught:
            verbs.run(name)
        assert isinstance(caught.value, ConnectionError)
        assert caught.value.retryable
        assert caught.value.request_id


def test_a_connection_that_is_never_made(orch: Any, make_verbs: Any, raw_server: Any) -> None:
    """TCP connects, and the TLS handshake is never answered."""
    from threading import Event

    done = Event()
    url = raw_server(lambda _connection: done.wait(10)).replace("http", "https")

    async def elsewhere(_orch: Any, _request: web.Request) -> web.Response:
        return web.json_response(orch.listing(url))

    orch.discovery = elsewhere
    verbs = make_verbs(discovery_url=orch.url + "/discovery")
    with pytest.raises(ConnectTimeout, match=r"within 0\.2 s") as caught:
        verbs.run("echo", timeout=Timeout(connect=0.2))
    assert isinstance(caught.value, TimeoutError)
    done.set()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (404, "404 page not found", "404"),
        (500, "", "answered 500"),
        (200, "<html>", "not a list in JSON"),
        (200, "{}", "not a list in JSON"),
        (200, "null", "not a list in JSON"),
        (200, "[" * 100_000, "not a list in JSON"),
        (301, "", "301"),
    ],
)
def test_not_an_orchestrator(orch: Any, verbs: Any, status: int, body: str, says: str) -> None:
    async def other(_orch: Any, _request: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    orch.discovery = other
    with pytest.raises(NoOrchestratorError, match=says):
        verbs.run("echo")
    with pytest.raises(NoOrchestratorError, match=says):
        verbs.capabilities()


def test_an_orchestrator_without_live_runners_and_without_byoc(orch: Any, verbs: Any) -> None:
    async def off(_orch: Any, _request: web.Request) -> web.Response:
        return web.Response(status=404, text="live runners are not supported\n")

    orch.discovery = off
    with pytest.raises(CapabilityNotFound, match="switched off"):
        verbs.run("echo")


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
    ],
)
def test_not_even_http(make_verbs: Any, raw_server: Any, reply: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(reply)

    url = raw_server(answer)
    with pytest.raises(NoOrchestratorError, match="could be asked"):
        make_verbs(orch_url=url).run("echo")
    with pytest.raises(NoOrchestratorError, match=r"TLS|broke|closed"):
        make_verbs(orch_url=url.replace("http", "https")).run("echo")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"url": None}, "'url'"),
        ({"url": "http://elsewhere.example/apps/x/app"}, "another host"),
        ({"url": "ftp://127.0.0.1/x"}, "not an http"),
        ({"mode": "sometimes"}, "mode"),
        ({"capacity": "many"}, "capacity"),
        ({"price_info": {"price": "dear"}}, "price"),
    ],
)
def test_entries_that_cannot_be_used_are_left_out(orch: Any, verbs: Any, change: Any, says: str) -> None:
    async def spoilt(_orch: Any, _request: web.Request) -> web.Response:
        listing = orch.listing(orch.url)
        listing[0]["runners"][0].update(change)
        listing[0]["runners"].append("no object")
        listing.append({"address": "https://10.0.0.1:8935", "runners": 7})
        listing.append("no object")
        return web.json_response(listing)

    orch.discovery = spoilt
    assert verbs.run("inspect")["method"] == "POST"
    with pytest.raises(CapabilityNotFound):
        verbs.run("echo")  # the first of the list


def test_an_orchestrator_may_not_point_at_a_private_network(orch: Any) -> None:
    from livepeer.client.listing import parse_listing

    body = json.dumps(
        [
            {"address": address}
            for address in (
                "https://127.0.0.1:1",
                "http://203.0.113.9",
                "https://10.1.1.1",
                "https://u:p@8.8.8.8",
            )
        ]
    )
    listing = parse_listing(body.encode(), "https://8.8.4.4:8935")
    assert [reason.reason.partition(": ")[2].partition(",")[0] for reason in listing.rejections] == [
        "it names an address of your own network",
        "it gives up the encryption of the one that handed it out",
        "it names an address of your own network",
        "it carries a password",
    ]


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "\0", "\x7f", "half \ud800", 7])
@pytest.mark.parametrize("which", ["capability", "model"])
def test_what_can_not_be_a_name_is_refused_before_anybody_is_asked(
    orch: Any, verbs: Any, which: str, name: Any
) -> None:
    names = {"capability": "echo", "model": "m"} | {which: name}
    with pytest.raises(ConfigurationError, match=f"{which}="):
        verbs.run(names["capability"], model=names["model"], input=b"")
    assert orch.seen == []


def test_numbers_that_are_none_spoil_one_runner_at_most() -> None:
    from livepeer.client.discovery import parse_listing

    def runner(app: str, **fields: object) -> dict[str, object]:
        return {"url": "https://8.8.8.8/apps/a/app", "app": app, "mode": "single-shot"} | fields

    endless = float("inf")  # 1e999 in JSON
    runners = [
        runner("priced", price_info={"price": endless, "unit": "seconds"}),
        runner("seen", gpu={"id": "0", "name": "a GPU", "vram_mb": endless}),
    ]
    body = json.dumps([{"address": "https://8.8.8.8", "runners": runners}]).replace("Infinity", "1e999")
    listing = parse_listing(body.encode(), "https://8.8.4.4:8935")
    assert [(one.app, one.gpu and one.gpu.vram_mb) for one in listing.runners] == [("seen", 0)]
    assert [one.reason.endswith("the price inf is not a whole number") for one in listing.rejections] == [
        True
    ]


# What comes back


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 422, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("mode", ["", "p-"])
def test_a_workers_error_goes_to_the_caller(orch: Any, verbs: Any, status: int, mode: str) -> None:
    for text, kind, says in (
        ('{"detail": "no text"}', "application/json", "no text"),
        ('{"error": {"message": "no text"}}', "application/json", "no text"),
        ("no text\n", "text/plain", "no text"),
        ("", "text/plain", "without a text"),
    ):
        with pytest.raises(CapabilityError, match=says) as caught:
            verbs.run(f"{mode}answer", input={"status": status, "text": text, "type": kind})
        error = caught.value
        assert (error.status, error.body, error.content_type) == (status, text.encode(), kind)
        assert error.orchestrator == orch.url
        assert (
            error.request_id == [s for s in orch.seen if s.path.endswith("/run")][-1].headers["X-Request-Id"]
        )
        assert error.request_id in str(error)
        assert str(status) in str(error)
    assert len([s for s in orch.seen if s.path.endswith("/run")]) == 4, "no call is repeated"


def test_the_orchestrators_own_errors(orch: Any, verbs: Any) -> None:
    orch.apps["echo"].capacity = orch.apps["p-echo"].capacity = 0
    for name in ("echo", "p-echo"):
        with pytest.raises(CapacityError, match="is taken") as caught:
            verbs.run(name)
        assert caught.value.retryable
    refused = "dial tcp 127.0.0.1:9: connect: connection refused"
    for text, says in ((refused, "is not there"), ("EOF", "before it answered")):

        async def proxy(_orch: Any, request: web.Request, text: str = text) -> web.Response:
            await request.read()
            nosniff = {"X-Content-Type-Options": "nosniff", "Content-Type": "text/plain; charset=utf-8"}
            return web.Response(status=502, text=text + "\n", headers=nosniff)

        orch.apps["inspect"].handler = proxy
        with pytest.raises(OrchestratorError, match=says) as failed:
            verbs.run("inspect")
        assert failed.value.status == 502
        assert failed.value.retryable


def test_a_runner_that_has_gone(orch: Any, verbs: Any) -> None:
    verbs.run("echo")
    listing = orch.listing(orch.url)

    async def stale(_orch: Any, _request: web.Request) -> web.Response:
        return web.json_response(listing)

    orch.discovery = stale
    del orch.apps["echo"]
    with pytest.raises(OrchestratorError, match=r"has gone \(runner not found\)"):
        verbs.run("echo")


def test_the_price_of_a_runner(orch: Any, verbs: Any) -> None:
    orch.apps["echo"].price = {"price": 5, "currency": "wei", "unit": "fixed"}
    with pytest.raises(PaymentUnsupported, match="can't pay it"):
        verbs.run("echo")
    with pytest.raises(PaymentUnsupported, match="no signer to pay with"):
        verbs.run("answer", input={"status": 402})
    assert not orch.calls("echo")


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("{", "application/json", "isn't valid JSON"),
        ("<html>", "application/json", "isn't valid JSON"),
        ("[" * 100_000, "application/json", "isn't valid JSON"),
        ("x", "text/plain; charset=no-such", "can't be decoded"),
        ("é", "text/plain; charset=ascii", "can't be decoded"),
    ],
)
def test_an_answer_that_is_not_what_it_says(verbs: Any, text: str, kind: str, says: str) -> None:
    with pytest.raises(ResponseError, match=says) as caught:
        verbs.run("answer", input={"text": text, "type": kind})
    assert caught.value.body == text.encode()
    assert caught.value.request_id
    assert caught.value.orchestrator


def test_a_worker_that_hangs_up_without_an_answer(orch: Any, verbs: Any) -> None:
    async def dies(_orch: Any, request: web.Request) -> web.Response:
        await request.read()
        request.transport.abort()  # type: ignore[union-attr]
        return web.Response()

    orch.add("dies", dies)
    orch.add("p-dies", dies, mode="persistent")
    for name in ("dies", "p-dies"):
        with pytest.raises(ConnectionFailed, match="unknown"):
            verbs.run(name)
    assert len(orch.calls("dies")) == 1, "the call is not repeated"


def test_a_body_that_pretends_to_be_compressed(verbs: Any) -> None:
    with pytest.raises((StreamError, ResponseError)):
        verbs.run("answer", input={"text": "[1]", "headers": {"Content-Encoding": "gzip"}})


@pytest.mark.parametrize(
    "answer",
    [
        "no json",
        "[]",
        "{}",
        '{"session_id": "x", "app_url": 7, "control_url": "u"}',
        '{"session_id": "x", "app_url": "file:///etc", "control_url": "file:///etc"}',
    ],
)
def test_a_reservation_that_makes_no_sense(orch: Any, verbs: Any, answer: str) -> None:
    async def odd(_request: web.Request) -> web.Response:
        return web.Response(text=answer, content_type="application/json")

    orch.reserving = odd
    with pytest.raises((ResponseError, OrchestratorError)):
        verbs.run("p-echo")


# Calls from the wrong place


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("how", ["run", "stream"])
def test_an_answer_without_an_end_ends(orch: Any, make_verbs: Any, kind: str, zipped: bool, how: str) -> None:
    most = 100_000
    written = 0

    async def endless(orch: Any, request: web.Request) -> web.StreamResponse:
        nonlocal written
        answer = web.StreamResponse(headers={"Content-Type": kind})
        if zipped:
            answer.enable_compression(web.ContentCoding.gzip)
        await answer.prepare(request)
        await answer.write(b"data: ")
        try:
            while True:  # one event, which never comes to its end
                await answer.write(bytes(1_000_000) if zipped else b"x" * 10_000)
                written += 1
        finally:
            orch.note("endless over")

    orch.add("endless", endless)
    verbs = make_verbs(orch_url=orch.url, max_response_bytes=most)
    if how == "stream" and kind == "application/json":
        return  # its pieces are its events
    with pytest.raises(ResponseError, match="more than 100000 bytes") as caught:
        list(verbs.stream("endless")) if how == "stream" else verbs.run("endless")
    assert caught.value.request_id
    assert caught.value.orchestrator == orch.url
    orch.wait_note("endless over")
    assert verbs.run("echo", input=[1]) == [1]


def test_what_is_no_number_of_bytes(orch: Any) -> None:
    for wrong in (0, -1, 1.5, True, "1 MB"):
        with pytest.raises(ConfigurationError, match="max_response_bytes"):
            Gateway(orch_url=orch.url, max_response_bytes=wrong)  # type: ignore[arg-type]
    assert Gateway(orch_url=orch.url, max_response_bytes=None)


def test_from_trio(orch: Any, gateway: Gateway) -> None:
    trio = pytest.importorskip("trio")

    async def main() -> None:
        for call in (
            lambda: gateway.run_async("echo"),
            lambda: gateway.run_async("echo", input=["x" * 1_000_000]),
            lambda: gateway.call_async("echo"),
            lambda: gateway.capabilities_async(),
            lambda: gateway.stream_async("tokens").__aenter__(),
            lambda: gateway.stream_async("tokens").__anext__(),
            lambda: gateway.live("live").__aenter__(),
            lambda: gateway.aclose(),
        ):
            with pytest.raises(ConfigurationError, match=r"trio\.to_thread\.run_sync"):
                await call()
        assert await trio.to_thread.run_sync(gateway.run, "inspect") is not None

    trio.run(main)


def test_from_no_loop_at_all(gateway: Gateway) -> None:
    with pytest.raises(ConfigurationError, match="running asyncio event loop"):
        gateway.run_async("echo").send(None)


def test_from_the_loops_own_thread(orch: Any, gateway: Gateway) -> None:
    """A handler of our own log records runs on that thread; calling there would wait for itself."""
    caught: list[BaseException] = []

    class Reporting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            for call in (gateway.run, gateway.stream):
                try:
                    call("echo", input=record.getMessage())
                except BaseException as error:
                    caught.append(error)

    logger = logging.getLogger("livepeer.client")
    handler = Reporting()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        assert gateway.run("echo", input=1, timeout=5) == 1
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert len(caught) >= 2
    for error in caught:
        assert isinstance(error, ConfigurationError)
        assert "_async form" in str(error)
