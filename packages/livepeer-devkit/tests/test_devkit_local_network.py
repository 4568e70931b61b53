"""`LocalNetwork` and its processes, which must never be left behind."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from livepeer.devkit import LocalNetwork, SampleRunners
from livepeer.trickle.errors import ConfigurationError, LivepeerError

Gone = Callable[[int], bool]


def get(network: LocalNetwork, path: str) -> Any:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(network.orch_url + path, context=context, timeout=20) as answer:
        return json.load(answer)


def address_of(url: str) -> tuple[str, int]:
    host, _, port = url.partition("://")[2].partition(":")
    return host, int(port)


def fingerprint(network: LocalNetwork) -> str:
    pem = ssl.get_server_certificate(address_of(network.orch_url), timeout=20)
    return hashlib.sha256(pem.encode()).hexdigest()


def refuses(url: str) -> bool:
    try:
        socket.create_connection(address_of(url), timeout=1).close()
    except OSError:
        return True
    return False


def until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_sync(gone: Gone) -> None:
    with LocalNetwork(samples=["echo"]) as network:
        assert network.orch_url.startswith("https://127.0.0.1:")
        assert get(network, "/discovery")[0]["runners"][0]["app"] == "echo"
        assert network.env() == {
            "LIVEPEER_ORCH_URL": network.orch_url,
            "LIVEPEER_ORCH_SECRET": network.orch_secret,
        }
        assert network.samples is not None
        pids, url = [network.pid, network.samples.pid], network.orch_url
    assert all(gone(pid) for pid in pids)
    assert refuses(url)
    network.stop()
    with pytest.raises(ConfigurationError, match="isn't running"):
        _ = network.orch_url


async def test_async(gone: Gone) -> None:
    async with LocalNetwork(samples=False) as network:
        pid = network.pid
        assert await asyncio.to_thread(get, network, "/discovery") == [{"address": network.orch_url}]
    assert gone(pid)


async def test_cancelled_while_it_starts(gone: Gone) -> None:
    network = LocalNetwork(samples=False)
    starting = asyncio.create_task(network.__aenter__())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    with pytest.raises(ConfigurationError):
        _ = network.pid


def test_it_outlives_the_thread_that_started_it() -> None:
    network = LocalNetwork(samples=False)
    starter = threading.Thread(target=network.start)
    starter.start()
    starter.join()
    try:
        assert get(network, "/discovery")
    finally:
        network.stop()


def test_restart_keeps_the_port_and_forgets_the_rest(gone: Gone) -> None:
    with LocalNetwork(samples=["echo"]) as network:
        url, pid, certificate = network.orch_url, network.pid, fingerprint(network)
        before = get(network, "/discovery")[0]["runners"][0]["url"]
        network.restart()
        assert gone(pid)
        assert network.orch_url == url
        assert fingerprint(network) != certificate
        network.wait_for("echo", 20)
        assert get(network, "/discovery")[0]["runners"][0]["url"] != before
        network.restart()
        network.wait_for("echo", 20)


def test_wait_for_says_what_is_there() -> None:
    with LocalNetwork(samples=["echo"]) as network:
        network.wait_for("echo")
        with pytest.raises(LivepeerError, match=r"No runner registered 'nothing' .*\['echo'\]"):
            network.wait_for("nothing", 0.1)


def test_wait_for_names_of_every_kind() -> None:
    with LocalNetwork(samples=False) as network:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        registration = {"name": "wörter/🎉", "url": "http://127.0.0.1:1", "capacity": 1, "currency": "wei"}
        request = urllib.request.Request(
            f"{network.orch_url}/capability/register",
            json.dumps(registration).encode(),
            {"Authorization": network.orch_secret},
        )
        with urllib.request.urlopen(request, context=context, timeout=20) as answer:
            assert answer.read() == b"ok"
        network.wait_for("wörter/🎉", 5)
        for name in ("wörter", "", "two\nlines"):
            with pytest.raises(LivepeerError, match="No runner registered"):
                network.wait_for(name, 0.0)


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LivepeerError, match="in use"), LocalNetwork(samples=False, port=port):
            pass


def test_unknown_samples() -> None:
    with pytest.raises(ConfigurationError, match="There is no sample 'nope'; the samples are echo,"):
        LocalNetwork(samples=["nope"])


def test_without_tls() -> None:
    with LocalNetwork(samples=["echo"], tls=False) as network:
        assert network.orch_url.startswith("http://")
        network.wait_for("echo")


def test_a_wrong_secret_is_said_at_once() -> None:
    with (
        LocalNetwork(samples=False) as network,
        pytest.raises(LivepeerError, match="refuses the secret"),
        SampleRunners(["echo"], orch_url=network.orch_url, secret="wrong"),
    ):
        pass


def test_an_orchestrator_that_is_not_there() -> None:
    with (
        pytest.raises(LivepeerError, match="can't be reached"),
        SampleRunners(["echo"], orch_url="https://127.0.0.1:9", secret="x"),
    ):
        pass


CALLER = """
import os, sys, time
from livepeer.devkit import LocalNetwork
network = LocalNetwork(samples=["echo"]).start()
if "fork" in sys.argv and os.fork() == 0:
    time.sleep(60)
print(network.pid, network.samples.pid, network.orch_url, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    "how",
    [
        "SIGKILL",
        "SIGTERM",
        pytest.param(
            "fork", marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
        ),
    ],
)
def test_nothing_outlives_a_killed_caller(gone: Gone, how: str) -> None:
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, how],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert caller.stdout is not None
    with caller.stdout:
        orchestrator, samples, url = caller.stdout.readline().split()
        if how == "SIGTERM":
            caller.terminate()
        else:
            caller.kill()
        caller.wait()
        try:
            assert until(lambda: gone(int(orchestrator)) and gone(int(samples)), 20)
            assert refuses(url)
        finally:
            if how == "fork":
                os.killpg(caller.pid, signal.SIGKILL)


def test_it_answers_while_the_caller_is_blocked() -> None:
    blocked = """
import subprocess, sys
from livepeer.devkit import LocalNetwork
probe = "import ssl, sys, urllib.request as u; c = ssl._create_unverified_context();" \\
    "print(u.urlopen(sys.argv[1] + '/discovery', context=c, timeout=20).status)"
with LocalNetwork(samples=False) as network:
    print(subprocess.run([sys.executable, "-c", probe, network.orch_url], capture_output=True).stdout)
"""
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=True)
    assert "200" in done.stdout


def test_silent_under_every_warning() -> None:
    script = "from livepeer.devkit import LocalNetwork\nwith LocalNetwork(samples=['echo']): pass"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_a_caller_that_never_stops_it_leaves_nothing(gone: Gone) -> None:
    script = (
        "from livepeer.devkit import LocalNetwork\nn = LocalNetwork(samples=['echo']).start()\nprint(n.pid)"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert gone(int(done.stdout))
