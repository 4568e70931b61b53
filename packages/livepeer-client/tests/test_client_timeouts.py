"""Every kind of timeout on every path: its own error, which says what was waited for and how long."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from livepeer.client import (
    CapabilityError,
    ConnectTimeout,
    DeadlineExceeded,
    FirstByteTimeout,
    Gateway,
    IdleTimeout,
    LivepeerError,
    LivepeerTimeout,
    NoOrchestratorError,
    Timeout,
)
from livepeer.client._http import Pool
from livepeer.client.routes import live_runner
from livepeer.trickle.transport import TLSPolicy

SHORT = 0.1  # seconds that are allowed
LONGER = (SHORT, 1.0, 10.0)  # seconds that a busy machine may take to come to what is slow
LONG = 60.0  # seconds after which it is clear that nothing ended the wait

Server = Callable[[Callable[[socket.socket], None]], str]
Change = Callable[[Any, "Places"], None]


class Places:
    """Where an orchestrator may send its callers to wait."""

    def __init__(self, raw_server: Server, over: threading.Event) -> None:
        self._raw_server = raw_server
        self._over = over

    def silent(self, scheme: str = "http") -> str:
        """Accepts connections, and says nothing: with https, TLS never finishes."""
        return self._raw_server(lambda _: bool(self._over.wait(LONG))).replace("http", scheme)


@pytest.fixture
def places(raw_server: Server) -> Iterator[Places]:
    over = threading.Event()
    yield Places(raw_server, over)
    over.set()


async def never(_orch: Any, _request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


def dripping(kind: str, piece: bytes, status: int = 200) -> Any:
    """A worker whose answer goes on for ever, a piece at a time."""

    async def drip(_orch: Any, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(status=status, headers={"Content-Type": kind})
        await stream.prepare(request)
        while True:
            await stream.write(piece)
            await asyncio.sleep(SHORT / 10)

    return drip


async def half(_orch: Any, request: web.Request) -> web.StreamResponse:
    """A worker that falls silent in the middle of its answer."""
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await stream.prepare(request)
    await stream.write(b"data: 1\n\n")
    await asyncio.Event().wait()
    return stream


# What is slow. Each changes an orchestrator whose `it` and `p-it` are called.


def name(orch: Any, places: Places) -> None:
    """The name of the place has no address yet."""
    orch.discovery = _listing(orch, "https://hangs.invalid:8935")


def tls(orch: Any, places: Places) -> None:
    orch.discovery = _listing(orch, places.silent("https"))


def answer(orch: Any, places: Places) -> None:
    orch.apps["it"].handler = orch.apps["p-it"].handler = never


def discovery(orch: Any, places: Places) -> None:
    orch.discovery = never


def token(orch: Any, places: Places) -> None:
    orch.apps.clear()
    orch.byoc = never


def job(orch: Any, places: Places) -> None:
    async def byoc(orch: Any, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/token"):
            return web.json_response({"available_capacity": 1})
        return await never(orch, request)

    orch.apps.clear()
    orch.byoc = byoc


def reservation(orch: Any, places: Places) -> None:
    async def reserving(request: web.Request) -> web.StreamResponse:
        return await never(orch, request)

    orch.reserving = reserving


def reservations_body(orch: Any, places: Places) -> None:
    async def reserving(request: web.Request) -> web.StreamResponse:
        return await dripping("application/json", b" ")(orch, request)

    orch.reserving = reserving


def pause(orch: Any, places: Places) -> None:
    orch.apps["it"].handler = orch.apps["p-it"].handler = half


def drips(orch: Any, places: Places) -> None:
    orch.apps["it"].handler = orch.apps["p-it"].handler = dripping("application/octet-stream", b"x")


def comments(orch: Any, places: Places) -> None:
    orch.apps["it"].handler = orch.apps["p-it"].handler = dripping("text/event-stream", b": here\n\n")


def halves(orch: Any, places: Places) -> None:
    """Bytes of an event that never ends."""
    orch.apps["it"].handler = orch.apps["p-it"].handler = dripping("text/event-stream", b"data: 1\n")


def error(orch: Any, places: Places) -> None:
    orch.apps["it"].handler = orch.apps["p-it"].handler = dripping("text/plain", b"x", 500)


def _listing(orch: Any, base: str) -> Any:
    async def listing(_orch: Any, _request: web.Request) -> web.Response:
        return web.json_response(orch.listing(base))

    return listing


LATE = "did not finish|took longer"
UNKNOWN = "not known yet who has it"
WAITS = "had not answered"
READS = "not come to its end"

TABLE: list[tuple[Change, str, str, type[LivepeerTimeout], str]] = [
    # what is slow, to whom, the limit, the error, what it says
    (
        name,
        "it",
        "connect",
        ConnectTimeout,
        r"No connection to https://hangs\.invalid:8935\S* within SECONDS s",
    ),
    (name, "it", "first_byte", FirstByteTimeout, r"no answer within SECONDS s"),
    (name, "it", "total", DeadlineExceeded, f"{LATE}.*SECONDS s allowed: https://hangs.invalid:8935 {WAITS}"),
    (tls, "it", "connect", ConnectTimeout, r"No connection to https://127\S* within SECONDS s"),
    (tls, "it", "first_byte", FirstByteTimeout, r"no answer within SECONDS s"),
    (tls, "it", "total", DeadlineExceeded, f"{LATE}.*SECONDS s allowed: https://127.* {WAITS}"),
    (tls, "p-it", "connect", ConnectTimeout, r"No connection to https://127\S* within SECONDS s"),
    (tls, "p-it", "total", DeadlineExceeded, f"{LATE}.*SECONDS s allowed: https://127.* {WAITS}"),
    (answer, "it", "first_byte", FirstByteTimeout, r"no answer within SECONDS s"),
    (answer, "it", "total", DeadlineExceeded, f"{LATE}.*SECONDS s allowed: http://127.* {WAITS}"),
    (answer, "p-it", "first_byte", FirstByteTimeout, r"no answer within SECONDS s"),
    (answer, "p-it", "total", DeadlineExceeded, f"{LATE}.*SECONDS s allowed: http://127.* {WAITS}"),
    (discovery, "it", "total", DeadlineExceeded, f"{LATE}.*SECONDS s allowed: .*{UNKNOWN}"),
    (token, "it", "total", DeadlineExceeded, f"{LATE}.*SECONDS s allowed: .*{UNKNOWN}"),
    (job, "it", "first_byte", FirstByteTimeout, r"no answer within SECONDS s"),
    (job, "it", "total", DeadlineExceeded, f"{LATE}.*SECONDS s allowed: http://127.* {WAITS}"),
    (reservation, "p-it", "first_byte", FirstByteTimeout, r"no answer within SECONDS s"),
    (reservation, "p-it", "total", DeadlineExceeded, f"{LATE}.*SECONDS s allowed: http://127.* {WAITS}"),
    (
        reservations_body,
        "p-it",
        "total",
        DeadlineExceeded,
        f"{LATE}.*SECONDS s allowed: http://127.* {WAITS}",
    ),
    (pause, "it", "idle", IdleTimeout, r"SECONDS s"),
    (pause, "it", "total", DeadlineExceeded, f"{LATE}.*SECONDS s allowed: .*{READS}"),
    (pause, "p-it", "idle", IdleTimeout, r"SECONDS s"),
    (pause, "p-it", "total", DeadlineExceeded, f"{LATE}.*SECONDS s allowed: .*{READS}"),
    (drips, "it", "total", DeadlineExceeded, f"{LATE}.*SECONDS s allowed: .*{READS}"),
    (comments, "it", "idle", IdleTimeout, r"SECONDS s"),
    (comments, "it", "total", DeadlineExceeded, f"{LATE}.*SECONDS s allowed: .*{READS}"),
    (halves, "it", "idle", IdleTimeout, r"SECONDS s"),
    (error, "it", "total", DeadlineExceeded, f"{LATE}.*SECONDS s allowed: .*{WAITS}"),
]


@pytest.mark.parametrize("verb", ["run", "stream"])
@pytest.mark.parametrize(
    ("slow", "app", "limit", "kind", "says"),
    [pytest.param(*row, id=f"{row[0].__name__}-{row[1]}-{row[2]}") for row in TABLE],
)
def test_each_limit_on_each_path(
    orch: Any,
    places: Places,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    slow: Change,
    app: str,
    limit: str,
    kind: type[LivepeerTimeout],
    says: str,
) -> None:
    over = threading.Event()
    look_up = socket.getaddrinfo

    def hanging(host: Any, *args: Any, **options: Any) -> Any:
        # No name server can be made to hang here.
        if host == "hangs.invalid":
            over.wait(LONG)
        return look_up(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    monkeypatch.setattr(live_runner, "_GIVE_BACK", SHORT)
    orch.add("it", never)
    orch.add("p-it", never, mode="persistent")
    slow(orch, places)
    with Gateway(discovery_url=orch.url + "/discovery") as gateway:
        try:
            error, seconds, took = _late(gateway, verb, app, limit, says)
        finally:
            over.set()
    assert type(error) is kind
    assert error.waited == seconds
    assert error.request_id
    assert seconds - 0.05 <= took < LONG / 2
    orch.wait(lambda: orch.connections == 0, "no connection is left")


def _late(
    gateway: Gateway, verb: str, app: str, limit: str, says: str
) -> tuple[LivepeerTimeout, float, float]:
    """The error of a call that came as far as to what is slow; its limit, and how long it took."""
    for seconds in LONGER:
        allowed = Timeout(**{limit: seconds})
        began = time.monotonic()
        with pytest.raises(LivepeerTimeout) as caught:
            _ = (
                gateway.run(app, timeout=allowed)
                if verb == "run"
                else list(gateway.stream(app, timeout=allowed))
            )
        took = time.monotonic() - began
        if re.search(says.replace("SECONDS", re.escape(str(seconds))), str(caught.value)):
            break
    else:
        pytest.fail(f"{says!r} is not what it says: {caught.value}")
    return caught.value, seconds, took


@pytest.mark.parametrize(("slow", "says"), [(discovery, "discovery"), (tls, "127"), (token, "token")])
def test_what_is_asked_by_the_way_has_limits_of_its_own(
    orch: Any, places: Places, monkeypatch: pytest.MonkeyPatch, slow: Change, says: str
) -> None:
    """So a call without a limit ends, and says who did not answer, and for how long."""
    from livepeer.client import _questions as asks
    from livepeer.client import offers

    monkeypatch.setattr(offers if slow is token else asks, "_PATIENCE", SHORT)
    orch.add("it", never)
    slow(orch, places)
    where = places.silent("https") if slow is tls else orch.url
    with Gateway(orch_url=where) as gateway, pytest.raises(NoOrchestratorError) as caught:
        gateway.run("it", timeout=None)
    assert says in str(caught.value)
    assert "did not answer within 0.1 s" in str(caught.value)
    assert caught.value.retryable


async def test_a_caller_that_gives_up_leaves_the_discovery_to_the_others(orch: Any) -> None:
    gate = orch.gate("listing")

    async def later(orch: Any, request: web.Request) -> web.Response:
        orch.note("asked")
        await gate.passed()
        return web.json_response(orch.listing(orch.url))

    orch.discovery = later
    async with Gateway(orch_url=orch.url) as gateway:
        waiting = asyncio.create_task(gateway.run_async("echo", input=1))
        with pytest.raises(DeadlineExceeded, match=UNKNOWN):
            await gateway.run_async("echo", timeout=SHORT)
        gate.open()
        assert await waiting == 1
    assert orch.notes == ["asked"]


def test_an_error_whose_text_never_ends_is_told_all_the_same(
    orch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from livepeer.client.routes import _sending

    monkeypatch.setattr(_sending, "_ERROR_PATIENCE", 0.5)
    orch.add("it", dripping("text/plain", b"oh no ", 500))
    with Gateway(orch_url=orch.url) as gateway, pytest.raises(CapabilityError, match="oh no") as caught:
        gateway.stream("it")
    assert caught.value.status == 500


def test_a_result_that_is_there_is_not_lost_to_a_place_that_cannot_be_given_back(orch: Any) -> None:
    async def stopping(request: web.Request) -> web.StreamResponse:
        await orch.gate("stop").passed()
        return await orch.stop_session(request)

    orch.stopping = stopping
    with Gateway(orch_url=orch.url) as gateway:
        results = []
        for seconds in LONGER:
            with contextlib.suppress(DeadlineExceeded):
                results.append(gateway.run("p-echo", input=1, timeout=seconds))
                break
        assert results == [1]
        orch.gate("stop").open()
    orch.wait(lambda: not orch.sessions, "the session is stopped")


def test_the_total_of_a_schema(orch: Any) -> None:
    orch.add("it", never)
    with Gateway(orch_url=orch.url) as gateway:
        for url in ("", f"{orch.url}/apps/{orch.apps['it'].id}/app/public"):
            orch.apps["it"].metadata = f'{{"schema_url": "{url}"}}' if url else None
            with pytest.raises(DeadlineExceeded, match=r"within the 0\.1 s allowed") as caught:
                gateway.schema("it", timeout=SHORT)
            assert caught.value.waited == SHORT


def test_nothing_of_a_handshake_is_left(places: Places) -> None:
    """Whoever gives up while TLS is being spoken closes the socket."""

    async def main() -> None:
        before = len(asyncio.all_tasks())
        pool = Pool(TLSPolicy())
        transport = await pool.transport()
        url = URL(places.silent("https"))
        for speak in (transport.request("GET", url), transport.dial(url, "h2")):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SHORT):
                    await speak
        await pool.aclose()
        async with asyncio.timeout(LONG):
            while len(asyncio.all_tasks()) > before:
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_errors_of_time_are_timeouts_of_python(orch: Any) -> None:
    for kind in (ConnectTimeout, FirstByteTimeout, IdleTimeout, DeadlineExceeded):
        assert issubclass(kind, LivepeerTimeout)
        assert issubclass(kind, LivepeerError)
        assert issubclass(kind, TimeoutError)


async def test_grpc_over_tls_that_never_finishes(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    from livepeer.client._grpc import asking, orchestrator

    monkeypatch.setattr(asking, "_CONNECT", SHORT)
    pool = Pool(TLSPolicy())
    with pytest.raises(ConnectTimeout, match=r"No connection to https://127\S* within 0\.1 s") as caught:
        await orchestrator.get_orchestrator(places.silent("https"), pool)
    assert caught.value.waited == SHORT
    await pool.aclose()
