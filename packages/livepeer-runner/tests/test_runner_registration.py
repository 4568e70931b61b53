"""The registration against a server that answers as an orchestrator does."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from livepeer.runner import LivePipeline, Pipeline, RegistrationError, _stream, running
from livepeer.runner.registration import heartbeats


class Reverse(Pipeline):
    version = "3"

    def run(self, text: str) -> str:
        return text[::-1]


class Gated(Pipeline):
    def __init__(self) -> None:
        self.go = threading.Event()

    def setup(self) -> None:
        self.go.wait(10)

    def run(self) -> str:
        return ""


class Remote(LivePipeline):
    """No video: what its sessions do is seen through events."""

    def on_stream_start(self, params: Any) -> None:
        self.emit_event({"started": params})

    def on_params_update(self, params: Any) -> None:
        self.emit_event({"updated": params})

    def on_stream_stop(self) -> None:
        self.emit_event({"stopped": True})


async def test_it_registers_with_every_field_and_unregisters(orchestrator: Any) -> None:
    orchestrator.interval = "50ms"
    async with running(
        Reverse(), orch_url=orchestrator.url, secret=orchestrator.secret, capacity=3, label="gpu-7"
    ) as server:
        runner_id = await server.registered()
        await orchestrator.until(lambda: len(orchestrator.heartbeats) >= 3)
        first, second = orchestrator.heartbeats[:2]
        assert "runner_id" not in first
        assert second == {**first, "runner_id": runner_id}
        assert first | {"metadata": None} == {
            "runner_url": server.url,
            "app": "reverse",
            "mode": "single-shot",
            "status": "ready",
            "capacity": 3,
            "price_info": {"price": 0.0, "currency": "usd", "unit": "hour"},
            "session_ids": [],
            "label": "gpu-7",
            "version": "3",
            "metadata": None,
        }
        assert json.loads(first["metadata"]) == {"livepeer": 1, "run": "/run"}
        assert orchestrator.authorizations[0] == orchestrator.secret
        assert orchestrator.authorizations[1] == orchestrator.secrets[runner_id]
    assert orchestrator.unregistered == [runner_id]


async def test_it_registers_when_setup_is_done(orchestrator: Any) -> None:
    gated = Gated()
    async with running(gated, wait=False, orch_url=orchestrator.url, secret=orchestrator.secret) as server:
        with pytest.raises(TimeoutError):
            await server.registered(timeout=0.2)
        assert orchestrator.heartbeats == []
        gated.go.set()
        await server.registered()


async def test_it_registers_again_under_a_new_id_when_it_was_forgotten(orchestrator: Any) -> None:
    orchestrator.interval = "50ms"
    async with running(Reverse(), orch_url=orchestrator.url, secret=orchestrator.secret) as server:
        first = await server.registered()
        orchestrator.forget(first)
        await orchestrator.until(lambda: orchestrator.runners)
        await orchestrator.until(lambda: 401 in orchestrator.answers)
        await orchestrator.until(lambda: set(orchestrator.runners) - {first})
        assert server.runner_id != first


async def test_it_notices_a_restart_by_the_end_of_o2r(orchestrator: Any) -> None:
    orchestrator.interval = "60s"
    async with running(Reverse(), orch_url=orchestrator.url, secret=orchestrator.secret) as server:
        first = await server.registered()
        seen = len(orchestrator.heartbeats)
        await orchestrator.restart()
        # The next heartbeat is far away; the end of its channel tells the runner at once.
        await orchestrator.until(lambda: orchestrator.runners)
        assert first not in orchestrator.runners
        assert len(orchestrator.heartbeats) - seen < 10
        await server.registered()


async def test_it_waits_for_an_orchestrator_that_is_down_at_the_start(orchestrator: Any) -> None:
    await orchestrator.stop()
    async with running(Reverse(), orch_url=orchestrator.url, secret=orchestrator.secret) as server:
        with pytest.raises(TimeoutError):
            await server.registered(timeout=0.3)
        assert server.health()["status"] == "IDLE"
        await orchestrator.start(orchestrator.port)
        await server.registered()


async def test_a_wrong_secret_is_a_typed_error_and_in_health(
    orchestrator: Any,
    http: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeats, "_REFUSED", 0.05)
    async with running(Reverse(), orch_url=orchestrator.url, secret="wrong-one") as server:
        with pytest.raises(RegistrationError, match="refuses the secret") as raised:
            await server.registered()
        assert raised.value.status == 401
        await orchestrator.until(lambda: len(orchestrator.answers) >= 3)
        async with http.get(server.url + "/health") as response:
            text = await response.text()
            assert (response.status, json.loads(text)["status"]) == (503, "ERROR")
        assert "wrong-one" not in text + caplog.text
        assert sum(record.levelno >= logging.WARNING for record in caplog.records) == 1
        orchestrator.secret = "wrong-one"
        await orchestrator.until(lambda: 200 in orchestrator.answers)
        async with asyncio.timeout(20):
            while server.health()["status"] != "IDLE":
                await asyncio.sleep(0.01)


async def open_session(orchestrator: Any, server: Any, http: aiohttp.ClientSession) -> dict[str, Any]:
    async with http.post(f"{orchestrator.url}/apps/{server.runner_id}/session") as response:
        session: dict[str, Any] = await response.json()
    async with http.post(f"{session['app_url']}/live", json={"params": {"a": 1}}) as response:
        assert response.status == 200, await response.text()
        return session | await response.json()


@pytest.mark.parametrize("how", ["released", "session_ids", "restart"])
async def test_sessions_end_with_the_orchestrators(
    orchestrator: Any, http: aiohttp.ClientSession, how: str
) -> None:
    if how == "session_ids":
        orchestrator.interval = "100ms"
    async with running(Remote(), orch_url=orchestrator.url, secret=orchestrator.secret) as server:
        await server.registered()
        session = await open_session(orchestrator, server, http)
        assert server.health() == {"status": "OK", "name": "remote", "capacity": 1, "in_use": 1}
        if how == "released":
            orchestrator.release(session["session_id"])
        elif how == "session_ids":
            del orchestrator.sessions[session["session_id"]]
        else:
            await orchestrator.restart()
        async with asyncio.timeout(30):
            while server.health()["in_use"]:
                await asyncio.sleep(0.01)


async def test_a_lost_session_waits_for_no_orchestrator(
    orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    """Its last events go to an orchestrator that takes them and doesn't answer; its place is free anyway."""
    orchestrator.interval = "50ms"
    async with running(Remote(), orch_url=orchestrator.url, secret=orchestrator.secret) as server:
        await server.registered()
        session = await open_session(orchestrator, server, http)
        orchestrator.hold_writers()
        del orchestrator.sessions[session["session_id"]]
        await orchestrator.until(lambda: orchestrator.held)
        began = time.monotonic()
        while server.health()["in_use"]:
            await asyncio.sleep(0.01)
        assert time.monotonic() - began < _stream._PATIENCE
        orchestrator.release_writers()


async def test_a_session_that_could_not_be_stopped_is_stopped_with_a_later_heartbeat(
    orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    """Else it would hold its place at the orchestrator for ever, where nobody pays for it."""
    orchestrator.interval = "50ms"
    orchestrator.stop_failures = 2
    async with running(
        Remote(), orch_url=orchestrator.url, secret=orchestrator.secret, idle_timeout=0.2
    ) as server:
        await server.registered()
        session = await open_session(orchestrator, server, http)
        await orchestrator.until(lambda: orchestrator.stopped == [session["session_id"]])
        assert orchestrator.sessions == {}


def certificate(folder: Path, name: str) -> ssl.SSLContext:
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("127.0.0.1")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / name
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def test_a_restart_with_a_new_certificate(
    orchestrator: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await orchestrator.restart(certificate=certificate(tmp_path, "one"))
    async with running(Reverse(), orch_url=orchestrator.url, secret=orchestrator.secret) as server:
        first = await server.registered()
        await orchestrator.restart(certificate=certificate(tmp_path, "two"))
        await orchestrator.until(lambda: orchestrator.runners)
        assert first not in orchestrator.runners
        await server.registered()
    assert [record.name for record in caplog.records if record.levelno >= logging.WARNING] == [
        "livepeer.trickle"  # which names both fingerprints
    ]
