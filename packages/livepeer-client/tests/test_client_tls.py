"""TLS beyond pins at first use (test_client_http.py): authorities of one's own, and kept connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livepeer.client import (
    ConfigurationError,
    ConnectionFailed,
    Gateway,
    LivepeerError,
    NoOrchestratorError,
)

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode has no other way to share a module

from client_places import Asked, Place

Sign = Callable[[str], Path]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sign]:
    """A certificate authority; its certificate, and what signs one for a name (as in `IP:127.0.0.1`)."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command to make certificates with")
    folder = tmp_path_factory.mktemp("authority")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")

    def run(*words: str) -> None:
        subprocess.run([openssl, "req", "-x509", *key, *words], check=True, capture_output=True, cwd=folder)

    run(
        "-subj", "/CN=Ours", "-addext", "keyUsage=critical,keyCertSign", "-keyout", "ca.key", "-out", "ca.pem"
    )

    def sign(name: str) -> Path:
        path = folder / f"{uuid.uuid4().hex}.pem"
        run("-subj", "/CN=it", "-addext", f"subjectAltName={name}", "-addext", "basicConstraints=CA:FALSE",
            "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "key.pem", "-out", path.name)  # fmt: skip
        path.write_text(path.read_text() + (folder / "key.pem").read_text())
        return path

    return folder / "ca.pem", sign


def test_verify_accepts_what_its_authority_has_signed(
    tls_orch: Any, authority: tuple[Path, Sign], certificates: Any
) -> None:
    """Calls, sessions and streams; a renewed certificate needs no pin, and another name is refused."""
    ca, sign = authority
    tls_orch.tls_context.load_cert_chain(sign("IP:127.0.0.1"))
    gateway = Gateway(orch_url=tls_orch.url, tls="verify", tls_ca=ca)
    for gw in (gateway, pickle.loads(pickle.dumps(gateway))):
        with gw:
            assert gw.run("echo", input=1) == 1
            assert gw.run("p-echo", input=2) == 2
            assert [event.data for event in gw.stream("tokens")] == ["0", "1", "2"]
            tls_orch.tls_context.load_cert_chain(sign("IP:127.0.0.1"))
            gw.close()
            assert gw.run("echo", input=3) == 3
    for refused in (sign("DNS:elsewhere.example"), certificates()):
        tls_orch.tls_context.load_cert_chain(refused)
        before = len(tls_orch.seen)
        with (
            Gateway(orch_url=tls_orch.url, tls="verify", tls_ca=ca) as gw,
            pytest.raises(NoOrchestratorError, match="TLS"),
        ):
            gw.run("echo")
        assert len(tls_orch.seen) == before


async def test_verify_over_grpc(authority: tuple[Path, Sign], certificates: Any) -> None:
    from livepeer.client._grpc.orchestrator import get_orchestrator

    ca, sign = authority
    for pem, good in ((sign("IP:127.0.0.1"), True), (sign("IP:127.0.0.9"), False), (certificates(), False)):
        place = await Place("lv2v", pem=pem).start()
        async with Gateway(orch_url=place.url, tls="verify", tls_ca=ca) as gateway:
            if good:
                assert (await get_orchestrator(place.url, gateway._pool)).transcoder == place.url
            else:
                with pytest.raises(ConnectionFailed, match=r"TLS.*certificate verify failed"):
                    await get_orchestrator(place.url, gateway._pool)
        await place.stop()


def test_what_is_no_authority(tmp_path: Path, authority: tuple[Path, Sign]) -> None:
    (tmp_path / "empty.pem").write_text("")
    for wrong in (tmp_path / "none.pem", tmp_path / "empty.pem"):
        with pytest.raises(ConfigurationError, match=r"no file with the certificates.*PEM"):
            Gateway(orch_url="https://o:1", tls="verify", tls_ca=wrong)
    with pytest.raises(ConfigurationError, match="goes with tls='verify'"):
        Gateway(orch_url="https://o:1", tls_ca=authority[0])


# Kept connections


class Keeping:
    """An orchestrator on TLS that counts the work of each id, and closes what it kept as its plan says.

    After a number of requests on a connection it closes that: before it reads the next one, when it has read
    some or all of it, or when it has done the work.
    """

    MOMENTS = ("idle", "at once", "head read", "body read", "worked")

    def __init__(self, pem: Path, moment: str, how: str) -> None:
        self.moment, self.how = moment, how
        self.done: dict[str, int] = {}
        self.connections = 0
        self.url = ""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        self._server: asyncio.Server | None = None
        self.closed = asyncio.Event()

    async def __aenter__(self) -> Keeping:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            await self._requests(reader, writer)
        if self.how == "reset":
            opened = writer.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        else:
            writer.close()  # with TLS's goodbye
        self.closed.set()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls = 0
        while True:
            closing = calls == 1
            if closing and self.moment == "idle":
                return
            if closing and self.moment == "at once":
                await reader.readexactly(1)
                return
            head = await reader.readuntil(b"\r\n\r\n")
            if b"GET /discovery" in head:
                runner = {"url": f"{self.url}/apps/it/app", "app": "it", "mode": "single-shot", "capacity": 9}
                await self._answer(writer, [{"address": self.url, "runners": [runner]}])
                continue
            if closing and self.moment == "head read":
                return
            size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            name = json.loads(await reader.readexactly(size))
            if closing and self.moment == "body read":
                return
            self.done[name] = self.done.get(name, 0) + 1
            if closing:
                return
            calls += 1
            await self._answer(writer, name)

    async def _answer(self, writer: asyncio.StreamWriter, value: Any) -> None:
        body = json.dumps(value).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        writer.write(body)
        await writer.drain()


@pytest.mark.parametrize("how", ["goodbye", "reset"])
@pytest.mark.parametrize("moment", Keeping.MOMENTS)
async def test_a_stale_connection_makes_no_call_run_twice(certificate: Path, moment: str, how: str) -> None:
    """Each second call meets a connection that its server closes; however it ends, it ran once at most."""
    async with Keeping(certificate, moment, how) as server, Gateway(orch_url=server.url) as gateway:
        for number in range(30):
            name = f"{moment} {number}"
            server.closed.clear()
            failure: LivepeerError | None = None
            try:
                assert await gateway.run_async("it", input=name) == name
            except LivepeerError as error:
                failure = error
            if failure is None:
                assert server.done[name] == 1
            else:
                assert type(failure) is ConnectionFailed, failure
                assert failure.attempts[0].begun
                assert server.done.get(name, 0) <= 1
            if moment == "idle":
                await server.closed.wait()
    assert max(server.done.values()) == 1
    assert server.connections > 10


@pytest.mark.parametrize("how", ["runner", "byoc", "session"])
async def test_nobody_else_is_called_for_one_that_broke_on_a_kept_connection(
    certificate: Path, how: str
) -> None:
    async def leave(_place: Place, asked: Asked) -> None:
        await asked.read()
        if len(_place.counted) == 2:
            asked.headers["connection"] = "gone"
            asked.writer.close()
            return
        await _place.answer(asked)

    first, second = await Place(how, leave, certificate).start(), await Place(how, None, certificate).start()
    async with Gateway(orch_url=[first.url, second.url]) as gateway:
        assert await gateway.run_async("it", input="1") == {"got": 3}
        with pytest.raises(ConnectionFailed):
            await gateway.run_async("it", input="2")
    assert (len(first.counted), len(second.counted)) == (2, 0)
    assert first.counted[1].number > 1
    for place in (first, second):
        await place.stop()
