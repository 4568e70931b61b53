from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509

from livepeer.devkit.network.orchestrator import Orchestrator, listen

Register = Callable[..., Awaitable[dict[str, Any]]]
ServeWorker = Callable[[web.Application], Awaitable[str]]


@pytest.fixture
async def worker(serve_worker: ServeWorker) -> str:
    async def describe(request: web.Request) -> web.Response:
        return web.json_response(
            {
                "method": request.method,
                "path": request.raw_path,
                "headers": dict(request.headers),
                "body": (await request.read()).decode(),
            }
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", describe)
    return await serve_worker(app)


async def certificate_of(orchestrator: Orchestrator) -> x509.Certificate:
    address = ("127.0.0.1", int(orchestrator.url.rpartition(":")[2]))
    pem = await asyncio.to_thread(ssl.get_server_certificate, address, timeout=20)
    return x509.load_pem_x509_certificate(pem.encode())


async def test_certificate(orchestrator: Orchestrator) -> None:
    first = await certificate_of(orchestrator)
    assert not list(first.subject)
    names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["127.0.0.1"]
    async with Orchestrator(listen(), secret="") as other:
        assert (await certificate_of(other)).public_key() != first.public_key()


async def test_errors_are_gos(orchestrator: Orchestrator, http: aiohttp.ClientSession) -> None:
    for method, path, status, text in [
        ("GET", "/nothing", 404, "404 page not found\n"),
        ("POST", "/discovery", 405, "Method Not Allowed\n"),
        ("GET", "/apps/unknown/app/", 404, "runner not found\n"),
        ("POST", "/apps/unknown/session", 404, "runner not found\n"),
        ("POST", "/apps/unknown/session/x/stop", 404, "runner not found\n"),
        ("GET", "/run/unknown/x", 404, "live runner proxy not found\n"),
        ("POST", "/runners/heartbeat", 400, "EOF\n"),
    ]:
        async with http.request(method, orchestrator.url + path) as answer:
            assert (answer.status, await answer.text()) == (status, text)
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "Server" not in answer.headers


async def test_wrong_methods_name_the_right_ones(
    orchestrator: Orchestrator, http: aiohttp.ClientSession
) -> None:
    for path, allowed in [
        ("/discovery", "GET, HEAD"),
        ("/runner/a/session/b/channels", "DELETE, POST"),
        ("/ai/trickle/x/0", "DELETE, GET, HEAD, POST"),
    ]:
        async with http.put(orchestrator.url + path) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, allowed)


async def test_discovery_is_empty_without_runners(
    orchestrator: Orchestrator, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{orchestrator.url}/discovery") as answer:
        assert await answer.json() == [{"address": orchestrator.url}]


async def test_missing_slash(
    orchestrator: Orchestrator, http: aiohttp.ClientSession, register: Register, worker: str
) -> None:
    runner = await register(worker)
    path = f"/apps/{runner['runner_id']}/app"
    async with http.get(f"{orchestrator.url}{path}?a=b", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (307, f"{path}/?a=b")
        assert await answer.text() == f'<a href="{path}/?a=b">Temporary Redirect</a>.\n\n'


async def test_single_shot_call(
    orchestrator: Orchestrator, http: aiohttp.ClientSession, register: Register, worker: str
) -> None:
    runner = await register(worker + "/base")
    url = f"{orchestrator.url}/apps/{runner['runner_id']}/app/a?q=%20!"
    headers = {"X-Mine": "1", "Cookie": "a=b", "X-Forwarded-For": "1.2.3.4", "Authorization": "me"}
    async with http.post(url, data=b"hello", headers=headers) as answer:
        seen = await answer.json()
    assert (seen["method"], seen["path"], seen["body"]) == ("POST", "/base/a?q=%20!", "hello")
    assert seen["headers"]["X-Mine"] == "1"
    assert seen["headers"]["Cookie"] == "a=b"
    assert seen["headers"]["Authorization"] == "me"
    assert "X-Forwarded-For" not in seen["headers"]
    assert seen["headers"]["Livepeer-Runner-Route"] == runner["runner_id"]
    assert seen["headers"]["Livepeer-Session-Id"].startswith("session_")
    async with http.post(f"{orchestrator.url}/apps/{runner['runner_id']}/session") as answer:
        assert (answer.status, await answer.text()) == (400, "only persistent runners have sessions\n")


async def test_a_session_and_its_callbacks(
    orchestrator: Orchestrator, http: aiohttp.ClientSession, register: Register, worker: str
) -> None:
    runner = await register(worker, mode="persistent", capacity=1)
    base = f"{orchestrator.url}/apps/{runner['runner_id']}"
    async with http.get(f"{base}/app/") as answer:
        assert (answer.status, await answer.text()) == (400, "runner is not single-shot\n")
    async with http.post(f"{base}/session") as answer:
        session = await answer.json()
    async with http.post(f"{base}/session") as answer:
        assert (answer.status, await answer.text()) == (503, "no capacity available for runner\n")
    async with http.get(session["app_url"] + "/x") as answer:
        seen = (await answer.json())["headers"]
    control = seen["Livepeer-Session-Control"]
    token = {"Livepeer-Session-Token": seen["Livepeer-Session-Token"]}

    async def call(
        method: str, path: str, body: Any, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        async with http.request(method, control + path, json=body, headers=headers or token) as answer:
            text = await answer.text()
            return answer.status, await answer.json() if "json" in answer.content_type else text

    assert await call("POST", "/channels", {}, {"Livepeer-Session-Token": "x"}) == (
        401,
        "invalid authorization\n",
    )
    assert await call("POST", "/channels", {}) == (400, "channels is required\n")
    too_many = {"channels": [{"name": f"c{number}"} for number in range(26)]}
    assert await call("POST", "/channels", too_many) == (
        400,
        "channels cannot contain more than 25 entries\n",
    )
    status, made = await call("POST", "/channels", {"channels": [{"name": "in", "mime_type": "video/MP2T"}]})
    assert status == 200
    (channel,) = made["channels"]
    assert list(channel) == ["name", "channel_name", "url", "internal_url", "mime_type"]
    async with http.post(channel["url"] + "/0", data=b"media") as answer:
        assert answer.status == 200
    async with http.get(channel["url"] + "/0") as answer:
        assert (await answer.read(), answer.headers["Content-Type"]) == (b"media", "video/MP2T")
    status, proxy = await call("POST", "/proxy", {"target_url": worker + "/deep"})
    async with http.get(proxy["url"] + "/x?y") as answer:
        assert (await answer.json())["path"] == "/deep/x?y"
    assert await call("DELETE", "/channels", {"channels": ["in"]}) == (200, {"deleted": ["in"]})
    assert await call("DELETE", "/channels", {"channels": ["in"]}) == (404, "trickle channel not found\n")
    assert await call("POST", "/stop", None) == (204, "")
    assert await call("POST", "/stop", None) == (404, "runner session not found\n")
    async with http.get(proxy["url"] + "/x") as answer:
        assert answer.status == 404
    async with http.post(session["control_url"] + "/stop") as answer:
        assert answer.status == 204
    async with http.get(session["app_url"] + "/x") as answer:
        assert (answer.status, await answer.text()) == (404, "runner session not found\n")


async def test_the_runner_hears_of_its_sessions(
    orchestrator: Orchestrator, http: aiohttp.ClientSession, register: Register, worker: str
) -> None:
    runner = await register(worker, mode="persistent")
    async with http.post(f"{orchestrator.url}/apps/{runner['runner_id']}/session") as answer:
        session = await answer.json()
    async with http.get(runner["o2r"]["url"] + "/0") as answer:
        heard = await answer.json()
    assert (heard["event"], heard["session"]) == ("reserved", session["session_id"])
    async with http.post(
        f"{orchestrator.url}/runners/{runner['runner_id']}/unregister",
        headers={"Authorization": runner["heartbeat_secret"]},
    ) as answer:
        assert answer.status == 204
    async with http.get(runner["o2r"]["url"] + "/1") as answer:
        assert answer.status == 404


async def test_a_proxied_single_shot_runner(
    orchestrator: Orchestrator, http: aiohttp.ClientSession, register: Register, worker: str
) -> None:
    runner = await register(worker, proxy=True)
    async with http.get(f"{orchestrator.url}/discovery") as answer:
        listed = (await answer.json())[0]["runners"][0]["url"]
    assert listed == f"{orchestrator.url}/run/{runner['runner_id']}"
    async with http.get(listed + "/x") as answer:
        assert (await answer.json())["path"] == "/x"
    async with http.get(listed, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (307, f"/apps/{runner['runner_id']}/app/")
    async with http.get(listed, headers={"Host": "elsewhere"}) as answer:
        assert answer.status == 404


async def test_without_tls() -> None:
    async with Orchestrator(listen(), secret="", tls=False) as plain, aiohttp.ClientSession() as session:
        assert plain.url.startswith("http://")
        async with session.get(plain.url + "/discovery") as answer:
            assert answer.status == 200
