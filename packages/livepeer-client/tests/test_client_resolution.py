"""Where calls go: sources of configuration, services and signers, lists in which many don't answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from livepeer.client import (
    CapabilityNotFound,
    ConfigurationError,
    Gateway,
    NoOrchestratorError,
    _questions,
    discovery,
    resolution,
)
from livepeer.client.config import read_config
from livepeer.client.listing import parse_listing
from livepeer.client.token import parse_token

KEY = "s3cr3t-k3y"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """A web server on the test's own loop, whose prefixes are orchestrators: ``/o0``, ``/o1``, …"""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[web.Request] = []
        self.handlers: dict[str, Handler] = {}
        self.apps: dict[str, list[dict[str, Any]]] = {}

    def paths(self) -> list[str]:
        return [request.path for request in self.seen]

    def orchestrator(self, name: str, *apps: str, **fields: Any) -> str:
        """An orchestrator with these apps; its URL."""
        self.apps[name] = [self.runner(name, app, **fields) for app in apps]
        return f"{self.url}/{name}"

    def runner(self, name: str, app: str, **fields: Any) -> dict[str, Any]:
        url = f"{self.url}/{name}/apps/{app}/app"
        return {
            "url": url,
            "app": app,
            "mode": "single-shot",
            "capacity": 9,
            "capacity_available": 9,
            **fields,
        }

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        if request.path in self.handlers:
            return await self.handlers[request.path](request)
        name, _, rest = request.path[1:].partition("/")
        if name not in self.apps:
            return web.Response(status=404, text="404 page not found\n")
        if rest == "discovery":
            return web.json_response([{"address": f"{self.url}/{name}", "runners": self.apps[name]}])
        if rest.endswith("/app/run"):
            return web.json_response(name)
        return web.Response(status=404, text="404 page not found\n")


@contextlib.asynccontextmanager
async def a_site() -> AsyncIterator[Site]:
    site = Site()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", site.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=512).start()
    site.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield site
    finally:
        await runner.cleanup()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with a_site() as opened:
        yield opened


@pytest.fixture
def silent() -> Iterator[str]:
    """Accepts connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def dropping() -> Iterator[str]:
    """Drops SYNs: its queue of connections is full (as Linux does it)."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, contextlib.ExitStack() as opened:
        for _ in range(4):
            filling = opened.enter_context(socket.socket())
            filling.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filling.connect(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def lists(*entries: Any) -> Handler:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.json_response(list(entries))

    return answer


def token(**fields: Any) -> str:
    return base64.b64encode(json.dumps(fields).encode()).decode()


# Which source wins


@pytest.mark.parametrize(
    ("given_", "environment", "source", "places", "signers"),
    [
        ({"orch_url": "http://a,http://b"}, {}, "arguments", ("http://a", "http://b"), ()),
        ({"orch_url": "http://a", "discovery_url": "http://d"}, {}, "arguments", ("http://a",), ()),
        ({"discovery_url": ["http://d?a,b", "http://e"]}, {}, "arguments", ("http://d?a,b", "http://e"), ()),
        ({"discovery_url": "http://d?a=1,2, http://e"}, {}, "arguments", ("http://d?a=1,2", "http://e"), ()),
        (
            {"signer_url": ["http://s", "http://t"]},
            {},
            "arguments", ("http://s", "http://t"), ("http://s", "http://t"),
        ),
        ({"signer_url": "http://s", "discovery_url": "http://d"}, {}, "arguments", ("http://d",), ("http://s",)),
        (
            {"orch_url": "http://a", "token": token(orchestrators=["http://b"], signer="https://s")},
            {"LIVEPEER_SIGNER_URL": "http://t"},
            "arguments", ("http://a",), ("https://s",),
        ),
        (
            {"token": token(discovery="https://d", signer="https://s")},
            {"LIVEPEER_ORCH_URL": "http://a"},
            "token", ("https://d",), ("https://s",),
        ),
        (
            {"token": token(signer="https://s/p", signer_headers={"A": "b"})},
            {"LIVEPEER_ORCH_URL": "http://a"},
            "token", ("https://s/p",), ("https://s/p",),
        ),
        (
            {"token": token(signer_headers={"A": "b"})},
            {"LIVEPEER_ORCH_URL": "http://a"},
            "environment", ("http://a",), (),
        ),
        (
            {"signer_url": "http://s"},
            {"LIVEPEER_ORCH_URL": "http://a", "LIVEPEER_GATEWAY_URL": "http://g"},
            "arguments", ("http://s",), ("http://s",),
        ),
        (
            {"orch_url": "http://a"},
            {"LIVEPEER_SIGNER_URL": "http://s", "LIVEPEER_ORCH_URL": "broken"},
            "arguments", ("http://a",), ("http://s",),
        ),
        (
            {},
            {"LIVEPEER_TOKEN": token(signer="https://s"), "LIVEPEER_ORCH_URL": "http://a"},
            "LIVEPEER_TOKEN", ("https://s",), ("https://s",),
        ),
        (
            {},
            {"LIVEPEER_DISCOVERY_URL": "http://d", "LIVEPEER_SIGNER_URL": "http://s"},
            "environment", ("http://d",), ("http://s",),
        ),
    ],
)  # fmt: skip
def test_which_source_wins(
    given_: Any, environment: dict[str, str], source: str, places: tuple[str, ...], signers: tuple[str, ...]
) -> None:
    config = read_config(**given_, environ=environment)
    assert (config.source, config.places, config.signers) == (source, places, signers)


def test_headers_come_from_the_source_of_their_url() -> None:
    config = read_config(
        discovery_url="http://mine",
        token=token(discovery="https://theirs", discovery_headers={"Authorization": KEY}),
        environ={},
    )
    assert config.discovery == ("http://mine",)
    assert config.discovery_headers == {}


@pytest.mark.parametrize(
    ("given_", "environment", "gateways", "places", "source"),
    [
        (
            {"gateway_url": "http://g/", "orch_url": "http://a"}, {"LIVEPEER_GATEWAY_URL": "http://other"},
            ("http://g",), ("http://a",), "arguments",
        ),
        (
            {"gateway_url": ["http://g", "http://h/p"]}, {"LIVEPEER_ORCH_URL": "http://a"},
            ("http://g", "http://h/p"), ("http://a",), "arguments",
        ),
        (
            {"gateway_url": "http://g", "token": token(discovery="https://d")}, {"LIVEPEER_ORCH_URL": "http://a"},
            ("http://g",), ("https://d",), "arguments",
        ),
        ({"orch_url": "http://a"}, {"LIVEPEER_GATEWAY_URL": "http://g"}, (), ("http://a",), "arguments"),
        (
            {}, {"LIVEPEER_GATEWAY_URL": "http://g,http://h", "LIVEPEER_ORCH_URL": "http://a"},
            ("http://g", "http://h"), ("http://a",), "environment",
        ),
        (
            {}, {"LIVEPEER_GATEWAY_URL": "http://g", "LIVEPEER_TOKEN": token(signer="https://s")},
            ("http://g",), ("https://s",), "LIVEPEER_TOKEN",
        ),
        (
            {}, {"LIVEPEER_GATEWAY_URL": "http://u:p@g", "LIVEPEER_ORCH_URL": "http://a"},
            ("http://g",), ("http://a",), "environment",
        ),
    ],
)  # fmt: skip
def test_a_gateway_node_and_the_orchestrators_behind_it(
    given_: Any, environment: dict[str, str], gateways: tuple[str, ...], places: tuple[str, ...], source: str
) -> None:
    config = read_config(**given_, environ=environment)
    assert (config.gateways, config.places, config.source) == (gateways, places, source)
    assert ("http://g" in config.credentials) == ("@" in environment.get("LIVEPEER_GATEWAY_URL", ""))


@pytest.mark.parametrize(
    ("given_", "environment"),
    [({"gateway_url": "http://g"}, {}), ({}, {"LIVEPEER_GATEWAY_URL": "http://u:secret@g"})],
)
def test_a_gateway_node_without_an_orchestrator(given_: Any, environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"gateway node http://(\*\*\*@)?g .*orch_url=") as caught:
        read_config(**given_, environ=environment)
    assert "secret" not in str(caught.value)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "signer": st.just("https://s"),
            "signer_headers": st.dictionaries(st.sampled_from("abc"), st.text(max_size=5)),
            "discovery": st.just("https://d?ä=ü~~??>>"),
            "discovery_headers": st.dictionaries(st.sampled_from("abc"), st.text(max_size=5)),
            "orchestrators": st.lists(st.sampled_from(["https://a", "http://b:1"])),
        },
    ),
    st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]),
    st.booleans(),
    st.integers(0, 80),
)
def test_every_way_to_write_a_token(fields: dict[str, Any], encode: Any, padded: bool, cut: int) -> None:
    text = encode(json.dumps(fields, ensure_ascii=False).encode()).decode()
    text = text if padded else text.rstrip("=")
    text = f"  {text[:cut]}\r\n{text[cut:]}\t"
    if not fields:
        with pytest.raises(ConfigurationError, match="none of the fields"):
            parse_token(text)
        return
    found = parse_token(text)
    assert found.signer == fields.get("signer")
    assert found.discovery == fields.get("discovery")
    assert found.orchestrators == tuple(fields.get("orchestrators", ()))
    assert found.signer_headers == fields.get("signer_headers", {})


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: base64.b64encode(raw).decode()))
def test_what_is_no_token_raises_one_error(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        parse_token(text)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["address", "runners", "url", "app", "mode", "price_info", "price", "capacity", "gpu"]
            ),
            inner | st.sampled_from(["https://1.1.1.1/x", "http://[::1", "https://1.1.1.1", "persistent"]),
            max_size=6,
        )
    ),
    max_leaves=30,
)


@given(_json)
def test_no_discovery_answer_breaks_the_reader(answer: Any) -> None:
    listing = parse_listing(json.dumps(answer).encode(), "https://1.1.1.1")
    assert listing.reached == int(isinstance(answer, list))
    if isinstance(answer, list):
        addresses = [entry.get("address") for entry in answer if isinstance(entry, dict)]
        assert set(listing.orchestrators) <= {str(address).rstrip("/") for address in addresses}
    assert all(rejection.reason for rejection in listing.rejections)


# Services


async def test_a_services_path_query_and_headers(site: Site) -> None:
    first = site.orchestrator("o0", "job")
    site.handlers["/some/prefix/list"] = lists({"address": first})
    url = f"{site.url}/some/prefix/list?region=eu&x=1,2"
    async with Gateway(discovery_url=url, discovery_headers={"Authorization": KEY}) as gateway:
        assert await gateway.run_async("job") == "o0"
        assert KEY not in repr(gateway)
    asked = site.seen[0]
    assert (asked.path, asked.rel_url.raw_query_string) == ("/some/prefix/list", "region=eu&x=1,2")
    assert asked.headers["Authorization"] == KEY
    assert site.paths()[1:] == ["/o0/discovery", "/o0/apps/job/app/run"], (
        "it only has an address: asked itself"
    )
    assert all("Authorization" not in request.headers for request in site.seen[1:])


async def test_headers_follow_no_redirect(site: Site) -> None:
    async with a_site() as elsewhere:
        elsewhere.handlers["/list/"] = site.handlers["/moved/"] = lists(
            {"address": site.orchestrator("o0", "job")}
        )

        async def away(_request: web.Request) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": f"{elsewhere.url}/list/"})

        async def slash(_request: web.Request) -> web.StreamResponse:
            return web.Response(status=301, headers={"Location": "/moved/"})

        site.handlers["/list"], site.handlers["/moved"] = away, slash
        for path in ("/list", "/moved"):
            async with Gateway(discovery_url=site.url + path, discovery_headers={"X-Key": KEY}) as gateway:
                if path == "/moved":
                    assert await gateway.run_async("job") == "o0"
                    continue
                with pytest.raises(NoOrchestratorError, match="it answered 307"):
                    await gateway.run_async("job")
        assert not elsewhere.seen


async def test_services_fail_over_in_their_order(site: Site, silent: str) -> None:
    async def down(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=503, text="cache empty")

    site.handlers["/down"] = down
    site.handlers["/good"] = lists({"address": site.orchestrator("o0", "job")})
    site.handlers["/unasked"] = lists({"address": site.orchestrator("o1", "job")})
    urls = ["http://127.0.0.1:1/x", silent, *(f"{site.url}/{name}" for name in ("down", "good", "unasked"))]
    began = time.monotonic()
    async with Gateway(discovery_url=urls) as gateway:
        assert await gateway.run_async("job") == "o0"
        assert time.monotonic() - began < 5, "the silent one isn't waited for"
    assert site.paths()[:3] == ["/down", "/good", "/o0/discovery"]
    async with Gateway(discovery_url=[f"{site.url}/down", "http://127.0.0.1:1/x"]) as gateway:
        with pytest.raises(NoOrchestratorError) as caught:
            await gateway.run_async("job")
    assert [one.reason for one in caught.value.rejections] == [
        "it answered 503 (cache empty)",
        caught.value.rejections[1].reason,
    ]
    assert caught.value.retryable


async def test_what_is_kept_has_an_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from livepeer.client import discovery

    monkeypatch.setattr(discovery, "_MANY", 3)
    monkeypatch.setattr(discovery, "_MANY_SEEN", 2)

    async def discover(request: web.Request) -> web.StreamResponse:
        return web.json_response([{"address": f"{site.url}/o0", "runners": site.apps["o0"]}])

    site.handlers["/signer/discover-orchestrators"] = discover
    site.orchestrator("o0", "job")
    async with Gateway(signer_url=f"{site.url}/signer", signer_headers={"Authorization": KEY}) as gateway:
        found = gateway._calls._resolver.discovery
        for number in range(10):
            site.orchestrator("o0", f"job-{number}")
            listing, asked_now = await found.listing(apps=(f"job-{number}",))
            assert asked_now
            assert [runner.app for runner in listing.runners] == [f"job-{number}"]
            assert len(found._kept) <= 3
            assert len(found._seen) <= 2
        assert not (await found.listing(apps=("job-9",)))[1]


async def test_a_signer_is_asked_for_what_is_wanted(site: Site) -> None:
    async def discover(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != KEY:
            return web.Response(status=401)
        wanted = request.query.getall("caps", [])
        names = {"o0": ["job/small", "other"], "o1": ["job"]}
        stale = [site.runner("o0", "gone-since")]
        return web.json_response(
            [
                {"address": f"{site.url}/{name}", "score": 1, "capabilities": caps, "runners": stale}
                for name, caps in names.items()
                if not wanted or set(wanted) & set(caps)
            ]
        )

    site.handlers["/signer/discover-orchestrators"] = discover
    site.orchestrator("o0", "job/small", "other")
    site.orchestrator("o1", "job", "unknown-to-it")
    async with Gateway(
        signer_url=f"{site.url}/signer/?zone=1", signer_headers={"Authorization": KEY}
    ) as gateway:
        assert await gateway.run_async("job", model="small") == "o0"
        assert site.seen[0].rel_url.raw_query_string == "zone=1&caps=job/small&caps=job"
        assert await gateway.run_async("unknown-to-it") == "o1", "then it is asked for all"
        names = {one.name for one in await gateway.capabilities_async()}
        assert names == {"job/small", "other", "job", "unknown-to-it"}, (
            "orchestrators say themselves what they have"
        )
    own = [request for request in site.seen if not request.path.startswith("/signer")]
    assert all("Authorization" not in request.headers for request in own)


async def test_runners_that_a_service_lists_are_as_their_orchestrator_says(site: Site) -> None:
    for name, free in (("o0", 0), ("o1", 5)):
        site.orchestrator(name, "job", "unlisted", capacity_available=free)
    site.apps["o2"] = []

    async def work(_request: web.Request) -> web.StreamResponse:
        return web.json_response("o3")

    site.handlers["/o3/apps/job/app/run"] = work
    site.handlers["/list"] = lists(
        *(
            {"address": f"{site.url}/{n}", "runners": [site.runner(n, "job")]}
            for n in ("o0", "o1", "o2", "o3")
        )
    )
    async with Gateway(discovery_url=f"{site.url}/list") as gateway:
        assert {await gateway.run_async("job") for _ in range(8)} <= {"o1", "o3"}
        listed = {one.name: one for one in await gateway.capabilities_async()}
    assert sorted(listed) == ["job"], "a service may leave runners out on purpose"
    assert listed["job"].available == 0 + 5 + 9, (
        "o2 has none any more; o3 doesn't say, so the service is believed"
    )


# Headers that a function makes


async def test_a_function_makes_headers_in_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_FRESH", 0.0)
    monkeypatch.setattr(discovery, "_STALE", 0.0)
    monkeypatch.setattr(discovery, "_A_SECOND", 1e9)
    good = ["k1"]

    async def guarded(request: web.Request) -> web.StreamResponse:
        if request.headers.get("X-Key") not in good:
            return web.Response(status=401)
        return web.json_response([{"address": f"{site.url}/o0"}])

    site.handlers["/list"] = guarded
    site.orchestrator("o0", "job")
    made: list[tuple[threading.Thread, asyncio.AbstractEventLoop | None]] = []
    life: float | datetime.timedelta | None = 3600.0

    def make() -> Any:
        made.append((threading.current_thread(), asyncio._get_running_loop()))
        headers = {"X-Key": f"k{len(made)}"}
        if isinstance(life, datetime.timedelta):
            return headers, datetime.datetime.now(datetime.UTC) + life
        return (headers, time.time() + life) if life is not None else headers

    async def make_async() -> Any:
        return make()

    async with Gateway(discovery_url=f"{site.url}/list", discovery_headers=make) as gateway:
        await gateway.run_async("job")
        await gateway.run_async("job")
        assert len(made) == 1, "kept as long as they last"
        good[:] = ["k2"]
        life = datetime.timedelta(seconds=-1)
        assert await gateway.run_async("job") == "o0", "a 401 asks for others"
        assert len(made) == 2
        good[:] = ["k3"]
        life = None
        assert await gateway.run_async("job") == "o0"
        assert len(made) == 3, "those had expired"
        good[:] = ["k4"]
        assert await gateway.run_async("job") == "o0"
        assert len(made) == 4, "those had no expiry"
        good.clear()
        with pytest.raises(NoOrchestratorError, match="401"):
            await gateway.run_async("job")
        assert len(made) == 6, "a second 401 is an answer"
    assert all(thread is not threading.current_thread() and loop is None for thread, loop in made)
    made.clear()
    good[:] = ["k1"]
    for function in (make_async, lambda: make_async()):
        async with Gateway(discovery_url=f"{site.url}/list", discovery_headers=function) as gateway:
            assert await gateway.run_async("job") == "o0"
        assert [loop for _, loop in made] == [asyncio.get_running_loop()], "on the calling loop"
        made.clear()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "NoneType"),
        ({"a": 7}, "not one line"),
        (({"a": "b"}, "tomorrow"), "seconds since 1970"),
        (({"a": "b"}, datetime.datetime(2026, 1, 1)), "without a time zone"),
        (ValueError(KEY), "raised ValueError"),
    ],
)
async def test_a_function_that_makes_no_headers(site: Site, answer: Any, says: str) -> None:
    def make() -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with Gateway(discovery_url=f"{site.url}/list", discovery_headers=make) as gateway:
        with pytest.raises(ConfigurationError, match=says) as caught:
            await gateway.run_async("job")
    assert KEY not in str(caught.value)
    assert not site.seen


# Lists


@pytest.mark.parametrize("way", ["orch_url", "addresses", "runners"])
@pytest.mark.parametrize("kind", ["silent", "dropping"])
async def test_many_that_never_answer(site: Site, request: Any, way: str, kind: str) -> None:
    dead = request.getfixturevalue(kind)
    urls = [site.orchestrator(f"o{number}", "job") for number in range(40)]
    urls += [f"{dead}/d{number}" for number in range(60)]
    urls = [urls[index * 37 % 100] for index in range(100)]
    entries: list[dict[str, Any]] = [{"address": url} for url in urls]
    if way == "runners":
        for entry, url in zip(entries, urls, strict=True):
            runner = {"url": f"{url}/apps/job/app", "app": "job", "mode": "single-shot"}
            entry["runners"] = [runner]
    site.handlers["/list"] = lists(*entries)
    options: dict[str, Any] = (
        {"orch_url": urls} if way == "orch_url" else {"discovery_url": f"{site.url}/list"}
    )
    async with Gateway(**options) as gateway:
        began = time.monotonic()
        assert (await gateway.run_async("job")).startswith("o")
        first = time.monotonic() - began
        began = time.monotonic()
        await asyncio.gather(*(gateway.run_async("job") for _ in range(20)))
        then = time.monotonic() - began
    assert first < 2
    assert then < 2
    assert time.monotonic() - began < 5, "closing doesn't wait for them either"


@pytest.mark.parametrize("kind", ["silent", "dropping"])
async def test_nobody_waits_long_for_a_misspelt_name(
    site: Site, request: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as those who answer have said no, and a moment more; the others go on being asked."""
    monkeypatch.setattr(_questions, "_PATIENCE", 120.0)
    dead = request.getfixturevalue(kind)
    urls = [site.orchestrator("o0", "jobs"), *(f"{dead}/d{number}" for number in range(20))]
    async with Gateway(orch_url=urls) as gateway:
        with pytest.raises(CapabilityNotFound, match=r"mean 'jobs'.*Not all orchestrators") as caught:
            await asyncio.wait_for(gateway.run_async("jbos"), 60)
        assert caught.value.retryable
        assert gateway._calls._resolver.discovery._asking, "they may answer yet"


async def test_who_answers_a_little_late_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolution, "GRACE", 60.0)
    said_no = asyncio.Event()

    async def later(_request: web.Request) -> web.StreamResponse:
        await said_no.wait()
        return web.json_response([{"address": f"{site.url}/o1", "runners": site.apps["o1"]}])

    urls = [site.orchestrator("o0", "other"), site.orchestrator("o1", "job")]
    site.handlers["/o1/discovery"] = later
    async with Gateway(orch_url=urls) as gateway:
        call = asyncio.create_task(gateway.run_async("job"))
        while "/o0/process/token" not in site.paths():  # those who have answered are asked in every way
            await asyncio.sleep(0.01)
        said_no.set()
        assert await call == "o1"


async def test_one_round_for_many_callers(site: Site) -> None:
    asked = asyncio.Event()

    async def later(_request: web.Request) -> web.StreamResponse:
        await asked.wait()
        return web.json_response([{"address": f"{site.url}/o0"}])

    site.handlers["/list"] = later
    site.orchestrator("o0", "job")
    async with Gateway(discovery_url=f"{site.url}/list") as gateway:
        calls = [asyncio.create_task(gateway.run_async("job")) for _ in range(50)]
        while "/list" not in site.paths():
            await asyncio.sleep(0.01)
        asked.set()
        assert await asyncio.gather(*calls) == ["o0"] * 50
    assert site.paths().count("/list") == site.paths().count("/o0/discovery") == 1


async def test_an_old_answer_is_used_while_a_new_one_is_on_its_way(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "_FRESH", 0.0)
    monkeypatch.setattr(discovery, "_A_SECOND", 1e9)
    url = site.orchestrator("o0", "job")
    gate = asyncio.Event()

    async def slow(_request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return web.json_response([{"address": url, "runners": site.apps["o0"]}])

    async with Gateway(orch_url=url) as gateway:
        assert await gateway.run_async("job") == "o0"
        site.handlers["/o0/discovery"] = slow
        assert await gateway.run_async("job") == "o0", "it doesn't wait"
        assert await gateway.run_async("job") == "o0"
        while site.paths().count("/o0/discovery") < 2:
            await asyncio.sleep(0.01)
        site.apps["o0"].append(site.runner("o0", "other"))
        gate.set()
        assert await gateway.run_async("other") == "o0", "what isn't in it is asked for"
    assert site.paths().count("/o0/discovery") <= 3


async def test_closing_ends_a_round_that_is_under_way(site: Site, silent: str) -> None:
    gateway = Gateway(orch_url=silent)
    call = asyncio.create_task(gateway.run_async("job"))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await gateway.aclose()
    assert time.monotonic() - began < 5
    with pytest.raises(ConnectionError, match="closed while"):
        await call
