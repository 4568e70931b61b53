"""The BYOC registration against a server that answers as an orchestrator does."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from livepeer.runner import ConfigurationError, HTTPError, Pipeline, RegistrationError, running
from livepeer.runner.registration import capability

PACE, LOOK = 0.4, 0.05


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same decisions, in a fiftieth of the time."""
    monkeypatch.setattr(capability, "_PACE", PACE)
    monkeypatch.setattr(capability, "_LOOK", LOOK)
    monkeypatch.setattr(capability, "_SPREAD", 0.02)
    monkeypatch.setattr(capability, "_RETRY_MIN", 0.02)
    monkeypatch.setattr(capability, "_RETRY_MAX", 0.1)
    monkeypatch.setattr(capability, "_REFUSED", PACE)


class Reverse(Pipeline):
    """Turns a text round.

    And says no more than that to the orchestrator.
    """

    capacity = 3

    def run(self, text: str) -> str:
        if text == "401":
            raise HTTPError(401, "who are you?")
        return text[::-1]


class Gated(Pipeline):
    def __init__(self) -> None:
        self.go = threading.Event()

    def setup(self) -> None:
        self.go.wait(10)

    def run(self) -> str:
        self.go.wait(10)
        return ""


def serving(orchestrator: Any, pipeline: Pipeline | None = None, **options: Any) -> Any:
    where = {"orch_url": orchestrator.url, "secret": orchestrator.secret, "register": "byoc"}
    return running(pipeline or Reverse(), **{**where, **options})


def pauses(orchestrator: Any) -> Iterator[float]:
    times = [at for at, _ in orchestrator.offers]
    return (later - earlier for earlier, later in itertools.pairwise(times))


async def test_it_registers_looks_and_unregisters(orchestrator: Any) -> None:
    async with serving(orchestrator) as server:
        assert await server.registered() == "reverse"
        assert server.runner_id is None
        await orchestrator.until(lambda: orchestrator.looks >= 3)
        ((_, offer),) = orchestrator.offers
        assert offer == {
            "name": "reverse",
            "description": "Turns a text round.",
            "url": server.url,
            "capacity": 3,
            "price_per_unit": 0,
            "price_scaling": 1,
            "currency": "wei",
        }
        assert orchestrator.heartbeats == []
    assert orchestrator.capabilities == {}


async def test_it_registers_in_both_ways(orchestrator: Any) -> None:
    options = {
        "register": ("byoc", "live-runner"),
        "name": "text/reverse",
        "runner_url": "http://10.0.0.5:80/",
    }
    async with serving(orchestrator, **options) as server:
        runner_id = await server.registered()
        assert runner_id == server.runner_id
        assert orchestrator.runners[runner_id]["app"] == "text/reverse"
        assert orchestrator.capabilities["text/reverse"]["url"] == "http://10.0.0.5:80"
    assert (orchestrator.capabilities, orchestrator.unregistered) == ({}, [runner_id])


async def test_it_registers_when_setup_is_done(orchestrator: Any) -> None:
    gated = Gated()
    async with serving(orchestrator, gated, wait=False) as server:
        with pytest.raises(TimeoutError):
            await server.registered(timeout=0.2)
        assert (orchestrator.offers, orchestrator.looks) == ([], 0)
        gated.go.set()
        await server.registered()


async def test_a_forgotten_capability_comes_back_and_never_in_a_hurry(orchestrator: Any) -> None:
    async with serving(orchestrator) as server:
        await server.registered()
        for count in (2, 3, 4):
            orchestrator.capabilities.clear()
            await orchestrator.until(lambda count=count: len(orchestrator.offers) >= count)
        await server.registered()
    assert min(pauses(orchestrator)) >= PACE - 0.1  # they are told apart at the other end of a connection


async def test_it_is_not_forgotten_while_a_request_is_in_flight(
    orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    gated = Gated()
    gated.go.set()
    async with serving(orchestrator, gated) as server:
        await server.registered()
        gated.go.clear()
        calling = asyncio.create_task(http.post(server.url + "/run"))
        async with asyncio.timeout(30):
            while not server.health()["in_use"]:
                await asyncio.sleep(0.01)
        orchestrator.capabilities.clear()  # as when every place of it is taken
        seen = orchestrator.looks
        await orchestrator.until(lambda: orchestrator.looks > seen + 10)
        assert len(orchestrator.offers) == 1
        gated.go.set()
        (await calling).close()
        await orchestrator.until(lambda: len(orchestrator.offers) == 2)


async def test_a_restarted_orchestrator_has_it_again(
    orchestrator: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(orchestrator) as server:
        await server.registered()
        await orchestrator.restart()
        await orchestrator.until(lambda: orchestrator.capabilities)
        await server.registered()
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_it_waits_for_an_orchestrator_that_is_down_at_the_start(orchestrator: Any) -> None:
    await orchestrator.stop()
    async with serving(orchestrator) as server:
        with pytest.raises(TimeoutError):
            await server.registered(timeout=0.3)
        await orchestrator.start(orchestrator.port)
        await server.registered()
        assert len(orchestrator.offers) == 1


async def test_a_wrong_secret_is_a_typed_error_and_in_health(
    orchestrator: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(orchestrator, secret="wrong-one") as server:
        with pytest.raises(RegistrationError, match="refuses the secret") as raised:
            await server.registered()
        assert raised.value.status == 400
        assert server.health()["status"] == "ERROR"
        assert "wrong-one" not in caplog.text
        orchestrator.secret = "wrong-one"
        async with asyncio.timeout(30):
            while server.health()["status"] != "IDLE":
                await asyncio.sleep(0.01)
        await server.registered()
    assert [record.levelname for record in caplog.records if "refuses" in record.message] == ["ERROR"]


async def test_a_401_of_the_authors_does_not_unregister_it(
    orchestrator: Any, http: aiohttp.ClientSession
) -> None:
    route = {"Livepeer-Runner-Route": "runner_1"}
    async with serving(orchestrator) as server:
        for headers, status in ({}, 403), (route, 401):
            async with http.post(server.url + "/run", json={"text": "401"}, headers=headers) as response:
                assert response.status == status
                assert (await response.json())["error"]["message"] == "who are you?"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"price": 1.5}, "price=1.5: a BYOC registration has no price"),
        ({"register": "boyc"}, "register='boyc'"),
        ({"register": ()}, "register="),
        ({"host": "0.0.0.0"}, "runner_url="),
        ({"secret": None}, "secret"),
    ],
)
async def test_options_that_can_not_work(options: dict[str, Any], says: str, orchestrator: Any) -> None:
    with pytest.raises(ConfigurationError, match=says):
        async with serving(orchestrator, **options):
            pass
