"""Where a schema is read: a public URL before its worker, never where it must not lead, never for money."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from aiohttp import web

from livepeer.client import (
    CapabilityError,
    CapabilityNotFound,
    ConfigurationError,
    ConnectionFailed,
    Gateway,
    LivepeerTimeout,
    OrchestratorError,
    PaymentUnsupported,
    ResponseError,
)
from livepeer.client._http import Pool
from livepeer.client._schema import _fetch
from livepeer.client.catalogue import Runner
from livepeer.client.timeouts import Timeout
from livepeer.trickle.transport import TLSPolicy

SCHEMA = {"livepeer": 1, "input": {"type": "object"}}
PRICE = {"price": 12, "currency": "wei", "unit": "seconds"}


def metadata(url: Any) -> str:
    return json.dumps({"livepeer": 1, "schema_url": url})


async def described(orch: Any, request: web.Request) -> web.Response:
    """A worker with a schema, and a public page."""
    orch.note(f"{request.method} {request.path.rpartition('/')[2]}")
    return web.json_response(SCHEMA)


@pytest.fixture
def page(orch: Any) -> str:
    """A public page with a schema, on the orchestrator."""
    app = orch.add("page", described)
    return f"{orch.url}/apps/{app.id}/app/page"


def test_the_worker_is_asked(orch: Any, gateway: Gateway) -> None:
    orch.add("it", described)
    orch.add("session", described, mode="persistent")
    assert gateway.schema("it") == SCHEMA
    assert gateway.schema("session") == SCHEMA
    assert orch.notes == ["GET schema", "GET schema"]
    assert (orch.reserved, orch.stopped) == (1, 1)


def test_a_public_page_comes_first(orch: Any, page: str, gateway: Gateway) -> None:
    orch.add("it", described, metadata=metadata(page))
    assert gateway.schema("it") == SCHEMA
    assert orch.notes == ["GET page"]


def test_a_priced_worker_is_not_asked(orch: Any, gateway: Gateway) -> None:
    orch.add("it", described, price=PRICE)
    with pytest.raises(PaymentUnsupported, match="12 wei/second") as caught:
        gateway.schema("it")
    assert "pay=True" in str(caught.value)
    with pytest.raises(PaymentUnsupported, match="signer_url"):
        gateway.schema("it", pay=True)
    assert orch.notes == []


def test_the_page_of_a_priced_worker_costs_nothing(orch: Any, page: str, gateway: Gateway) -> None:
    orch.add("it", described, price=PRICE, metadata=metadata(page))
    assert gateway.schema("it") == SCHEMA
    assert orch.notes == ["GET page"]


def test_a_page_that_is_not_there(orch: Any, page: str, gateway: Gateway) -> None:
    """A free worker is asked instead; of a priced one the page's error is told."""
    orch.add("free", described, metadata=metadata(f"{orch.url}/nowhere"))
    orch.add("priced", described, metadata=metadata(f"{orch.url}/nowhere"), price=PRICE)
    assert gateway.schema("free") == SCHEMA
    with pytest.raises(ResponseError, match="answered 404"):
        gateway.schema("priced")
    assert orch.notes == ["GET schema"]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://user:word@127.0.0.1/s", 7, "ftp://x/y", "//x"])
def test_a_page_must_not_lead_anywhere(orch: Any, gateway: Gateway, url: Any) -> None:
    orch.add("it", described, metadata=metadata(url), price=PRICE)
    with pytest.raises(OrchestratorError, match="schema URL"):
        gateway.schema("it")


@pytest.mark.parametrize(
    ("orchestrator", "url"),
    [
        ("https://8.8.8.8:8935", "http://9.9.9.9/schema"),
        ("https://8.8.8.8:8935", "https://127.0.0.1/schema"),
        ("https://8.8.8.8:8935", "https://localhost/schema"),
        ("https://8.8.8.8:8935", "https://169.254.169.254/latest/meta-data"),
        ("https://8.8.8.8:8935", "https://10.0.0.7/schema"),
        ("https://8.8.8.8:8935", "https://[::1]/schema"),
    ],
)
async def test_a_page_must_not_lead_into_the_callers_network(orchestrator: str, url: str) -> None:
    runner = Runner(orchestrator, f"{orchestrator}/apps/1/app", "it", "single-shot")
    runner = dataclasses.replace(runner, metadata={"livepeer": 1, "schema_url": url})
    pool = Pool(TLSPolicy("pin"))
    with pytest.raises(OrchestratorError, match="schema URL"):
        await _fetch(runner, pool, Timeout(total=5))
    await pool.aclose()


def test_another_host_has_to_prove_its_name(orch: Any, tls_orch: Any) -> None:
    """Only the orchestrator itself is known by a certificate that it made."""
    own, elsewhere = tls_orch.add("own", described), tls_orch.add("elsewhere", described)
    own.metadata = metadata(f"{tls_orch.url}/apps/{elsewhere.id}/app/page")
    with Gateway(orch_url=tls_orch.url) as gateway:
        assert gateway.schema("own") == SCHEMA
    page = f"{tls_orch.url}/apps/{elsewhere.id}/app/page"
    orch.add("it", described, metadata=metadata(page), price=PRICE)
    with Gateway(orch_url=orch.url) as gateway, pytest.raises(ConnectionFailed, match="TLS"):
        gateway.schema("it")
    with Gateway(orch_url=orch.url, tls="insecure") as gateway:
        assert gateway.schema("it") == SCHEMA


@pytest.mark.parametrize("text", ["[]", "no", '"x"', "[" * 100_000, "x" * (5 << 20)])
def test_what_is_no_schema(orch: Any, gateway: Gateway, text: str) -> None:
    async def odd(_orch: Any, _request: web.Request) -> web.Response:
        return web.Response(text=text)

    page = orch.add("page", odd)
    url = f"{orch.url}/apps/{page.id}/app/page"
    orch.add("it", odd, metadata=metadata(url), price=PRICE)
    with pytest.raises(ResponseError, match=r"no JSON object|bytes"):
        gateway.schema("it")


def test_a_page_is_not_followed_elsewhere(orch: Any, gateway: Gateway) -> None:
    async def away(_orch: Any, _request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://169.254.169.254/"})

    page = orch.add("page", away)
    orch.add("it", away, metadata=metadata(f"{orch.url}/apps/{page.id}/app/x"), price=PRICE)
    with pytest.raises(ResponseError, match="answered 302"):
        gateway.schema("it")


def test_no_schema(orch: Any, gateway: Gateway) -> None:
    async def nothing(_orch: Any, _request: web.Request) -> web.Response:
        return web.Response(status=404)

    orch.add("it", nothing)
    with pytest.raises(CapabilityError, match="has no /schema"):
        gateway.schema("it")
    with pytest.raises(CapabilityNotFound):
        gateway.schema("nobody")
    with pytest.raises(ConfigurationError, match="orchestrators' own"):
        gateway.schema("text-to-image")
    with pytest.raises(ConfigurationError, match="name"):
        gateway.schema("")


def test_a_page_that_takes_too_long(orch: Any, gateway: Gateway) -> None:
    async def slow(orch: Any, _request: web.Request) -> web.Response:
        await orch.gate("never").passed()
        return web.Response()

    page = orch.add("page", slow)
    orch.add("it", slow, metadata=metadata(f"{orch.url}/apps/{page.id}/app/x"), price=PRICE)
    with pytest.raises(LivepeerTimeout):
        gateway.schema("it", timeout=0.3)
