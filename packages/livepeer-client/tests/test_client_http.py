"""HTTP hygiene, and certificates that are pinned at first use."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from livepeer.client import CapabilityError, ConnectionFailed, Gateway, NoOrchestratorError, __version__


def test_what_a_request_says_of_itself(orch: Any, verbs: Any) -> None:
    response = verbs.call("inspect", input={})
    headers = response.data["headers"]
    assert headers["User-Agent"] == f"livepeer-client/{__version__}"
    assert orch.last("inspect").headers["X-Request-Id"] == response.request_id
    assert headers["Content-Type"] == "application/json"
    assert not {"Cookie", "Authorization", "Referer"} & set(headers)
    assert orch.seen[0].headers["User-Agent"] == f"livepeer-client/{__version__}"


def test_connections_are_used_again(orch: Any, verbs: Any) -> None:
    for _ in range(5):
        verbs.run("echo")
        verbs.run("p-echo")
        verbs.call("inspect")
    assert len({seen.peer for seen in orch.seen}) == 1


def test_no_cookies_are_kept(verbs: Any) -> None:
    for path in ("/", "/other"):
        verbs.run("answer", input={"headers": {"Set-Cookie": f"worker=1; Path={path}"}, "text": "1"})
    assert "Cookie" not in verbs.run("inspect")["headers"]


def test_no_password_of_netrc_is_sent(verbs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\ndefault login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "Authorization" not in verbs.run("inspect")["headers"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "/elsewhere", "http://127.0.0.1:1/", "//127.0.0.1:1/run/", "/run?x=1", "", "::",
        "mailto:x@y", "http://[bad", "http:///run/", "http://127.0.0.1:99999999/run/",
    ],
)  # fmt: skip
def test_redirects_are_not_followed(orch: Any, verbs: Any, status: int, location: str) -> None:
    with pytest.raises(CapabilityError, match="not followed") as caught:
        verbs.run("answer", input={"status": status, "headers": {"Location": location}})
    assert caught.value.status == status
    assert len(orch.calls("answer")) == 1


def test_only_the_missing_slash_is_added(orch: Any, verbs: Any) -> None:
    async def slashed(orch: Any, request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/"):
            to = request.path + "/" + (f"?{request.query_string}" if request.query_string else "")
            absolute = {"absolute": f"{request.scheme}://{request.host}{to}"}.get(request.query_string, to)
            return web.Response(status=307, headers={"Location": absolute})
        return web.json_response([request.path.rpartition("/app")[2], await request.json()])

    orch.add("slashed", slashed)
    orch.add("p-slashed", slashed, mode="persistent")
    for name in ("slashed", "p-slashed"):
        assert verbs.run(name, input={"a": 1}) == ["/run/", {"a": 1}]
        assert verbs.run(name, input={"a": 1}, path="/x?absolute") == ["/x/", {"a": 1}]


def test_a_redirect_that_never_ends(orch: Any, verbs: Any) -> None:
    async def more(_orch: Any, request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": request.path + "/"})

    orch.add("more", more)
    with pytest.raises(CapabilityError, match="not followed"):
        verbs.run("more")
    assert len(orch.calls("more")) == 2


def test_a_proxy_of_the_environment_is_used(
    orch: Any, make_verbs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", orch.url)
    verbs = make_verbs(orch_url="http://orchestrator.example")
    assert verbs.run("echo", input=1) == 1
    assert verbs.run("p-echo", input=2) == 2
    assert [event.data for event in verbs.stream("tokens")] == ["0", "1", "2"]
    assert orch.seen
    assert all(seen.raw_path.startswith("http://orchestrator.example/") for seen in orch.seen)
    assert all(seen.headers["Host"] == "orchestrator.example" for seen in orch.seen)


def test_a_proxy_is_not_used_for_loopback(
    orch: Any, make_verbs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert make_verbs(orch_url=orch.url).run("echo", input=1) == 1
    assert make_verbs(orch_url=orch.url.replace("127.0.0.1", "localhost")).run("echo", input=1) == 1
    with pytest.raises(NoOrchestratorError, match="refused"):
        make_verbs(orch_url="http://orchestrator.example").run("echo")


def test_a_proxy_is_not_used_where_the_environment_says_so(
    orch: Any, make_verbs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", orch.url)
    monkeypatch.setenv("no_proxy", ".example")
    with pytest.raises(NoOrchestratorError):
        # A name that no resolver knows: without the proxy there is no way to it.
        make_verbs(orch_url="http://no-such-host.example").capabilities()
    assert orch.seen == []


async def test_a_hundred_and_thirty_calls_at_once(orch: Any) -> None:
    async with Gateway(orch_url=orch.url) as gateway:
        calls = [asyncio.ensure_future(gateway.run_async("slow")) for _ in range(130)]
        await orch.wait_async(lambda: orch.notes.count("slow begun") == 130, "every call is with its worker")
        orch.gate("slow").open()
        assert await asyncio.gather(*calls) == [{"slow": True}] * 130


def test_large_headers_of_a_worker(verbs: Any) -> None:
    response = verbs.call("answer", input={"text": "1", "headers": {"X-Large": "x" * 30_000}})
    assert len(response.headers["X-Large"]) == 30_000


# TLS


def change(server: Any, path: Path, verbs: Any) -> None:
    """Give the orchestrator another certificate, as its restart does, and the client need of a connection."""
    server.tls_context.load_cert_chain(path)
    verbs.disconnect()


def digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(
        ssl.PEM_cert_to_DER_cert(
            path.read_text().partition("-----BEGIN EC")[0].partition("-----BEGIN PRIVATE")[0]
        )
    ).hexdigest()


def test_a_self_signed_certificate_is_accepted_at_first_use(tls_orch: Any, make_verbs: Any) -> None:
    verbs = make_verbs(orch_url=tls_orch.url)
    assert verbs.run("echo", input=1) == 1
    assert verbs.run("p-echo", input=2) == 2
    assert [event.data for event in verbs.stream("tokens")] == ["0", "1", "2"]


def test_a_changed_certificate_is_noticed_before_a_byte_of_the_request(
    tls_orch: Any, certificate: Path, certificates: Any, make_verbs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    verbs = make_verbs(orch_url=tls_orch.url)
    verbs.run("echo")
    other = certificates()
    change(tls_orch, other, verbs)
    before = len(tls_orch.seen)
    with pytest.raises(ConnectionFailed, match=r"not the one that was pinned; nothing was sent") as caught:
        verbs.run("echo", input=SECRET)
    assert caught.value.retryable
    assert "pin-strict" in str(caught.value)
    assert len(tls_orch.seen) == before
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert digest(certificate) in warnings[0]
    assert digest(other) in warnings[0]
    assert verbs.run("echo", input=3) == 3, "a later call pins the new one"
    change(tls_orch, certificates(), verbs)
    for _ in range(2):
        with pytest.raises(ConnectionFailed):  # a second change within the minute is not believed
            verbs.run("echo")


SECRET = "not for the wrong peer"


def test_strict_pins_stay(tls_orch: Any, certificate: Path, certificates: Any, make_verbs: Any) -> None:
    verbs = make_verbs(orch_url=tls_orch.url, tls="pin-strict")
    verbs.run("echo")
    change(tls_orch, certificates(), verbs)
    before = len(tls_orch.seen)
    for _ in range(3):
        with pytest.raises(ConnectionFailed, match="pinned"):
            verbs.run("echo")
    assert len(tls_orch.seen) == before
    change(tls_orch, certificate, verbs)
    assert verbs.run("echo", input=1) == 1


def test_a_certificate_that_changed_before_discovery(
    tls_orch: Any, certificates: Any, make_verbs: Any
) -> None:
    verbs = make_verbs(orch_url=tls_orch.url)
    verbs.capabilities()
    change(tls_orch, certificates(), verbs)
    with pytest.raises(NoOrchestratorError, match="pinned") as caught:
        verbs.capabilities()
    assert caught.value.retryable
    assert verbs.capabilities()


def test_verify_refuses_a_self_signed_certificate(tls_orch: Any, make_verbs: Any) -> None:
    with pytest.raises(NoOrchestratorError, match=r"TLS.*tls='verify'"):
        make_verbs(orch_url=tls_orch.url, tls="verify").run("echo")
    assert tls_orch.seen == []


def test_insecure_accepts_anything(tls_orch: Any, certificates: Any, make_verbs: Any) -> None:
    verbs = make_verbs(orch_url=tls_orch.url, tls="insecure")
    verbs.run("echo")
    change(tls_orch, certificates(), verbs)
    assert verbs.run("echo", input=1) == 1


def test_pins_are_shared_by_loops_and_threads(tls_orch: Any, certificates: Any) -> None:
    with Gateway(orch_url=tls_orch.url) as gateway:
        gateway.run("echo")
        tls_orch.tls_context.load_cert_chain(certificates())
        gateway.close()

        async def call() -> Any:
            return await gateway.run_async("echo", input=1)

        with pytest.raises(ConnectionFailed, match="pinned"):
            asyncio.run(call())
        assert gateway.run("echo", input=2) == 2
        assert asyncio.run(call()) == 1


def test_http_called_as_https_says_so(orch: Any, make_verbs: Any) -> None:
    with pytest.raises(NoOrchestratorError, match="http:// orchestrator called as https://"):
        make_verbs(orch_url=orch.url.replace("http", "https")).run("echo")
