"""The parts of the embedded BYOC that need no network, and one that does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from fractions import Fraction

import aiohttp
import pytest
from aiohttp import web

from livepeer.devkit import LocalNetwork
from livepeer.devkit.network.byoc_events import EventLines
from livepeer.devkit.network.byoc_jobs import Job
from livepeer.devkit.network.byoc_registry import Capabilities, Capability, UnknownCurrency
from livepeer.devkit.network.byoc_workers import worker_url
from livepeer.devkit.network.gojson import GoJSONError, unmarshal
from livepeer.devkit.network.validation import Refused

STREAM = b'data: 1\r\n\r\nevent: x\ndata: {"t": "[DONE]"}\n\n: \xc3\xa9\ndata: [DONE]\n\ntail'
FORWARDED = (
    b'data: 1\n\nevent: x\ndata: {"balance": 0.000}\n\n\ndata: {"t": "[DONE]"}\n\n'
    b': \xc3\xa9\ndata: {"balance": 0.000}\n\n\ndata: [DONE]\n\ntail\n'
)


class TestEventLines:
    @pytest.mark.parametrize("cut", range(len(STREAM) + 1))
    def test_it_is_the_same_wherever_the_stream_is_cut(self, cut: int) -> None:
        lines = EventLines()
        assert lines.feed(STREAM[:cut]) + lines.feed(STREAM[cut:]) + lines.end() == FORWARDED

    def test_it_is_the_same_byte_by_byte(self) -> None:
        lines = EventLines()
        out = b"".join(lines.feed(STREAM[at : at + 1]) for at in range(len(STREAM)))
        assert out + lines.end() == FORWARDED

    @pytest.mark.parametrize("size", [1000, 65535, 65536, 100_000])
    def test_a_line_of_64_kib_is_too_long(self, size: int) -> None:
        line, lines = b"x" * 65535, EventLines()
        data = b"a\n" + line + b"\n" + line + b"x\nb\n"
        out = b"".join(lines.feed(data[at : at + size]) for at in range(0, len(data), size))
        assert out == b"a\n" + line + b"\n"
        assert lines.too_long
        assert lines.end() == b""


async def test_clients_that_leave_are_nothing_to_speak_of(capfd: pytest.CaptureFixture[str]) -> None:
    async def work(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        with contextlib.suppress(ConnectionResetError):
            for _ in range(20):
                await answer.write(b"data: 1\n\n")
                await asyncio.sleep(0.001)
        return answer

    async def leave(http: aiohttp.ClientSession, url: str, after: float) -> None:
        job = {"capability": "a", "request": "{}", "parameters": "{}", "timeout_seconds": 9}
        headers = {"Livepeer": base64.b64encode(json.dumps(job).encode()).decode()}
        async with http.post(f"{url}/process/request/a", headers=headers, data=b"{}") as answer:
            await answer.content.readline()
            await asyncio.sleep(after)
            answer.close()

    app = web.Application()
    app.router.add_post("/a", work)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    worker = {"name": "a", "url": f"http://127.0.0.1:{runner.addresses[0][1]}", "capacity": 9}
    connector = aiohttp.TCPConnector(ssl=False)
    async with LocalNetwork(samples=False) as network, aiohttp.ClientSession(connector=connector) as http:
        secret = {"Authorization": network.orch_secret}
        async with http.post(f"{network.orch_url}/capability/register", headers=secret, json=worker) as told:
            assert told.status == 200
        for _ in range(6):
            await asyncio.gather(*(leave(http, network.orch_url, after / 500) for after in range(20)))
        await asyncio.sleep(0.1)
    await runner.cleanup()
    assert capfd.readouterr().err == ""


class TestCapabilities:
    def test_the_load_is_counted_and_never_enforced(self) -> None:
        known = Capabilities()
        known.register(b'{"name": "a", "url": "http://w", "capacity": 1}')
        assert [known.reserve("a"), known.reserve("a"), known.free("a")] == [True, True, 0]
        known.register(b'{"name": "a", "url": "http://w", "capacity": 1}')
        known.release("a")
        assert known.free("a") == 2

    def test_an_unknown_one_takes_nothing(self) -> None:
        known = Capabilities()
        known.release("a")
        known.forget("a")
        assert (known.reserve("a"), known.free("a"), known.get("a")) == (False, 0, None)

    @pytest.mark.parametrize(
        ("price", "wei"),
        [
            ('"price_per_unit": 7, "price_scaling": 2', 3),
            ('"price_per_unit": 7', 7),
            ('"price_per_unit": 1, "price_scaling": 1000, "currency": "eth"', 10**15),
            ('"currency": "WEI"', 0),
        ],
    )
    def test_prices_are_whole_wei(self, price: str, wei: int) -> None:
        known = Capabilities()
        known.register(f'{{"name": "a", {price}}}'.encode())
        assert known.prices() == [("a", wei)]

    def test_a_negative_price_is_not_listed(self) -> None:
        known = Capabilities()
        known.register(b'{"name": "a", "price_per_unit": -1}')
        assert known.prices() == []

    def test_dollars_have_no_rate(self) -> None:
        with pytest.raises(UnknownCurrency):
            Capabilities().register(b'{"name": "a", "currency": "USD"}')


@pytest.mark.parametrize(
    ("url", "path", "address"),
    [
        ("http://w:1", b"/run", "http://w:1/run"),
        ("http://w:1/below", b"/run", "http://w:1/below/run"),
        ("http://w:1", b"", "http://w:1"),
        ("http://w:1", "/é b".encode(), "http://w:1/%C3%A9%20b"),
        ("http://w:1", b"/a?b#c", "http://w:1/a?b"),
        ("nonsense", b"/run", "nonsense/run"),
    ],
)
def test_the_address_of_a_route(url: str, path: bytes, address: str) -> None:
    assert worker_url(Capability("a", url, 1, Fraction(0), ""), path) == address


@pytest.mark.parametrize(
    ("url", "path"), [("http://[w", b"/run"), ("http://w:x", b""), ("http://w", b"/%zz")]
)
def test_what_is_no_address(url: str, path: bytes) -> None:
    with pytest.raises(Refused, match="parse ") as refused:
        worker_url(Capability("a", url, 1, Fraction(0), ""), path)
    assert refused.value.status == 500


def test_a_request_that_is_no_object() -> None:
    with pytest.raises(Refused, match="Unable to unmarshal job request details"):
        Job("a", "[]", "{}", "c", 1).stream_id()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "unexpected end of JSON input"),
        (b'{"a": "b"', "unexpected end of JSON input"),
        (b'{"a": "b"} \n]', "invalid character ']' after top-level value"),
    ],
)
def test_a_value_and_nothing_else(text: bytes, complaint: str) -> None:
    with pytest.raises(GoJSONError, match=complaint):
        unmarshal(text, "x.Y", {"a": "string"})
