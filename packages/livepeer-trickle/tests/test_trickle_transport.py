"""What a transport sends, to whom, and what it keeps to itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from livepeer.trickle import (
    ChannelNotFound,
    ConfigurationError,
    TLSPolicy,
    Transport,
    TrickleConnectionError,
    TricklePublisher,
    TrickleServer,
    TrickleSubscriber,
)
from livepeer.trickle.transport import CertificateChanged, proxy_for

Certificate = Callable[[str], Path]


def context(path: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(path)
    return made


@contextlib.asynccontextmanager
async def secure(path: Path, port: int = 0, seen: list[web.Request] | None = None) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        if seen is not None:
            seen.append(request)
        return web.Response(text="hello")

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=context(path), reuse_address=True)
        await site.start()
        yield f"https://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def get(transport: Transport, url: str) -> str:
    async with transport.request("GET", url) as response:
        return str(await response.text())


def port_of(url: str) -> int:
    return int(url.split(":")[2].strip("/"))


@pytest.mark.parametrize("mode", ["pin", "pin-strict"])
async def test_a_changed_certificate_is_refused_before_any_byte_of_the_request(
    certificate: Certificate, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    tls = TLSPolicy(mode)  # type: ignore[arg-type]
    async with secure(certificate("a")) as url:
        async with Transport(tls=tls) as transport:
            assert await get(transport, url) == "hello"
            assert tls.pinned("127.0.0.1", port_of(url))
        async with Transport(tls=tls) as transport:
            assert await get(transport, url) == "hello"
    seen: list[web.Request] = []
    with caplog.at_level(logging.WARNING, "livepeer.trickle"):
        async with secure(certificate("b"), port_of(url), seen), Transport(tls=tls) as transport:
            with pytest.raises(CertificateChanged):
                await get(transport, url)
            assert seen == []
            if mode == "pin":  # new calls take the new one
                assert await get(transport, url) == "hello"
                assert "changed from" in caplog.text
            else:
                with pytest.raises(CertificateChanged):
                    await get(transport, url)
    if mode == "pin":
        # Once a minute: who changes it again right away is refused.
        async with secure(certificate("a"), port_of(url), seen), Transport(tls=tls) as transport:
            for _ in range(2):
                with pytest.raises(CertificateChanged):
                    await get(transport, url)


async def test_verify_takes_no_self_signed_certificate(
    certificate: Certificate,
) -> None:
    async with secure(certificate("a")) as url:
        async with Transport(tls=TLSPolicy("verify")) as transport:
            with pytest.raises(OSError, match="certificate"):
                await get(transport, url)
        async with Transport(tls=TLSPolicy("insecure")) as transport:
            assert await get(transport, url) == "hello"


def test_an_unknown_mode() -> None:
    with pytest.raises(ConfigurationError, match="pin-strict"):
        TLSPolicy("maybe")  # type: ignore[arg-type]


async def test_a_changed_certificate_ends_a_channel(certificate: Certificate) -> None:
    tls = TLSPolicy()
    async with TrickleServer.serve(ssl_context=context(certificate("a"))) as server:
        server.create("c")
        server.publish("c", b"x")
        url, port = server.channel_url("c"), int(server.url.split(":")[2].split("/")[0])
        async with Transport(tls=tls) as transport:
            subscriber = TrickleSubscriber(url, transport=transport)
            assert await (await anext(subscriber)).read() == b"x"
            await subscriber.aclose()
    async with (
        TrickleServer.serve(port=port, ssl_context=context(certificate("b"))) as server,
        Transport(tls=tls) as transport,
    ):
        server.create("c")
        with pytest.raises(TrickleConnectionError, match="certificate changed") as caught:
            await TricklePublisher(url, transport=transport).write(b"x")
        assert not caught.value.retryable


async def test_a_channel_does_not_survive_its_server(certificate: Certificate) -> None:
    """Who comes second finds the certificate accepted; that is no reason to take a 404 for an orderly end."""
    async with Transport() as transport:
        async with TrickleServer.serve(ssl_context=context(certificate("a"))) as server:
            url, port = server.channel_url("c"), int(server.url.split(":")[2].split("/")[0])
            writers = [TricklePublisher(url, transport=transport) for _ in range(3)]
            for writer in writers:
                await writer.write(b"x")
        async with TrickleServer.serve(port=port, ssl_context=context(certificate("b")), autocreate=False):
            for writer in writers:
                with pytest.raises(TrickleConnectionError, match="certificate changed"):
                    await writer.write(b"y")
            with pytest.raises(ChannelNotFound):
                await TricklePublisher(url, transport=transport).write(b"x")
            with pytest.raises(TrickleConnectionError, match="certificate changed"):
                await writers[0].write(b"z")  # over the idle connection of the one before


async def test_no_cookies_no_netrc_no_redirects(
    transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request)
        headers = {"Set-Cookie": "a=b; Path=/"}
        if request.path == "/moved":
            return web.Response(status=307, headers={**headers, "Location": "/elsewhere"})
        return web.Response(headers=headers)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        for path in ("/a", "/moved", "/b"):
            async with transport.request("GET", base + path) as response:
                assert response.status == (307 if path == "/moved" else 200)
    finally:
        await runner.cleanup()
    assert [request.path for request in seen] == ["/a", "/moved", "/b"]
    for request in seen:
        assert "Cookie" not in request.headers
        assert "Authorization" not in request.headers
        assert request.headers["User-Agent"].startswith("livepeer-trickle/")


async def test_more_than_100_long_polls_at_once(server: TrickleServer, transport: Transport) -> None:
    server.create("c")
    subscribers = [TrickleSubscriber(server.channel_url("c"), transport=transport) for _ in range(130)]
    reading = [asyncio.ensure_future(anext(subscriber)) for subscriber in subscribers]
    async with asyncio.timeout(30):
        while (s := server._channels["c"].segment(0)) is None or len(s._watchers) < 130:
            await asyncio.sleep(0.005)
        server.publish("c", b"x")
        segments = await asyncio.gather(*reading)
        assert [await segment.read() for segment in segments] == [b"x"] * 130
        for subscriber in subscribers:
            await subscriber.aclose()


@pytest.mark.parametrize(
    ("url", "proxied"),
    [("http://example.org/", True), ("http://127.0.0.1:1/", False), ("http://localhost/", False)],
)
def test_proxies_come_from_the_system_and_never_for_loopback(
    url: str, proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from yarl import URL

    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    assert proxy_for(URL(url)) == ("http://proxy.example:3128" if proxied else None)


async def test_a_connection_is_used_again(
    server: TrickleServer, wire: object, transport: Transport, until: Callable[..., Awaitable[None]]
) -> None:
    server.create("c")
    url = wire.url(server.channel_url("c"))  # type: ignore[attr-defined]
    publisher = TricklePublisher(url, transport=transport)
    for _ in range(5):
        await publisher.write(b"x")
    await publisher.close()
    assert wire.connections == 1  # type: ignore[attr-defined]
