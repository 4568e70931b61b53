"""The client's `GetOrchestrator`: its certificate is that of HTTP, any loop and process will do."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from harness import Network

from livepeer.client import ConnectionFailed, Gateway
from livepeer.client._grpc.orchestrator import get_orchestrator


async def ask(gateway: Gateway, **wanted: Any) -> Any:
    return await get_orchestrator(gateway._config.orchestrators[0], gateway._pool, **wanted)


async def test_what_an_orchestrator_has(ai_network: Network) -> None:
    async with Gateway(orch_url=ai_network.url) as gw:
        for wanted in ({}, {"capability": 35}, {"capability": 35, "model": "never"}):
            info = await ask(gw, **wanted)
            assert info.transcoder == ai_network.url
            assert info.auth_token.session_id
            assert set(info.capabilities.constraints.PerCapability[35].models) == {"noop", "other"}


async def test_the_certificate_is_that_of_http(
    fresh_network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    """What one of them has pinned the other expects; a change fails once, before anything is sent."""
    url = fresh_network.url
    async with (
        Gateway(orch_url=url) as http_first,
        Gateway(orch_url=url) as grpc_first,
        Gateway(orch_url=url, tls="pin-strict") as strict,
        Gateway(orch_url=url, tls="insecure") as insecure,
        Gateway(orch_url=url, tls="verify") as verifying,
    ):
        await http_first.capabilities_async()
        for gateway in (grpc_first, strict, insecure):
            assert (await ask(gateway)).transcoder == url
        with pytest.raises(ConnectionFailed, match="TLS"):
            await ask(verifying)
        host, port = url.removeprefix("https://").split(":")
        pins = {gw._pool.tls.pinned(host, int(port)) for gw in (http_first, grpc_first, strict)}
        assert len(pins) == 1
        assert None not in pins

        await asyncio.to_thread(fresh_network.restart)
        for gateway in (http_first, grpc_first):
            with pytest.raises(ConnectionFailed, match="not the one that was pinned") as changed:
                await ask(gateway)
            assert changed.value.retryable
            assert (await ask(gateway)).transcoder == url
            await gateway.capabilities_async()  # HTTP expects it now, too
        for _ in range(2):
            with pytest.raises(ConnectionFailed, match="not the one that was pinned"):
                await ask(strict)
        assert (await ask(insecure)).transcoder == url
        assert sum("changed from" in record.message for record in caplog.records) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_any_loop_and_any_process(network: Network) -> None:
    """Many loops in many threads, and children forked meanwhile; nothing is printed."""
    script = """
        import asyncio, os, signal, sys, threading, warnings
        from livepeer.client import Gateway
        from livepeer.client._grpc.orchestrator import get_orchestrator

        warnings.simplefilter("ignore")  # later Pythons warn of threads in a process that forks
        url = sys.argv[1]
        gateway = Gateway(orch_url=url)

        async def ask(times):
            for _ in range(times):
                assert (await get_orchestrator(url, gateway._pool)).transcoder == url

        async def many():
            await asyncio.gather(*(ask(2) for _ in range(10)))

        asyncio.run(many())  # a child that is forked in the middle of an import would wait for ever
        threads = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(4)]
        for thread in threads:
            thread.start()
        children = []
        for _ in range(3):
            child = os.fork()
            if not child:
                signal.alarm(20)
                asyncio.run(many())
                os._exit(7)
            children.append(child)
        for thread in threads:
            thread.join()
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [7, 7, 7]
        asyncio.run(many())
        assert "grpc" not in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), network.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
