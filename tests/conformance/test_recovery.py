"""Recovery that hammers nobody: how often a bare server is asked while it refuses, fails, or hangs up.

| what is asked | while the server | how often |
|---|---|---|
| registration, heartbeats | answers 500, or hangs up | after 0.25, 0.5, 1, 2, 4, 5, 5 … s, each a quarter more or less |
| registration | answers 400, 401, 403, 404 | again after half a minute |
| registration of a chosen id | says that it is taken | every 2.5 s, for 40 s; then every half minute |
| registration and heartbeat in turns | forgets the runner with each heartbeat | up to 5 s apart |
| `o2r` | answers 404 | after 1, 2, 4, 8, 10 s; each time a heartbeat comes at once |
| `o2r` | answers 500, or hangs up | the same, six requests within 1.2 s each time (with the sixteen that a reader begins with) |
| BYOC registration | answers 400 or 500, or hangs up | once; the next try comes after 20 s at least |
| whether a BYOC capability is known | answers 500, or hangs up | as heartbeats; registrations wait for an answer |
| a session's channels | answers 500, or hangs up | once for each start |
| a session's end | answers 500, or hangs up | once more with each answer to a heartbeat that names the session |
| discovery and BYOC offers, by fifty calls at once | answers 500, or hangs up | once for all of them, and once more |
| a client's session: events | answers 500, or hangs up | six requests within 1.2 s (and those sixteen); then its worker is asked |
| a client's session: worker | hangs up | three times; then the session is over |
| a client's session: its end | answers 500, or hangs up | three times |
"""  # noqa: E501

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from bare_orchestrator import HANG_UP, BareOrchestrator, always
from harness import until
from restart_worker import Talking

from livepeer.client import Gateway, LivepeerError, NoOrchestratorError
from livepeer.runner import RunningServer, running
from livepeer.runner.options import RunnerOptions

SECONDS = 6.0  # that each case takes, all of them at once
BAD = (500, HANG_UP)


@asynccontextmanager
async def runner(server: BareOrchestrator, **options: Any) -> AsyncIterator[RunningServer]:
    """A runner that is told of this orchestrator, for some seconds."""
    given: RunnerOptions = {"orch_url": server.url, "secret": "secret", "name": "talking", "grace": 1.0}
    async with running(Talking(), **(given | options)) as made:
        yield made
        await asyncio.sleep(SECONDS)


def backed_off(times: list[float], *, first: float = 0.25, each: int = 1) -> None:
    """Between tries of `each` requests are pauses that double up to five seconds, a quarter more or less."""
    for number, time in enumerate(times):
        pauses = [min(5.0, first * 2**pause) for pause in range(number // each)]
        assert time - times[0] >= 0.7 * sum(pauses), [time - times[0] for time in times]


async def registration_fails(status: int) -> None:
    async with BareOrchestrator(register=always(status)) as server, runner(server):
        await until(lambda: server.count("register") > 3, 30)
    backed_off(server.times["register"])
    assert server.count("o2r") == 0


async def heartbeats_fail(status: int) -> None:
    async with BareOrchestrator() as server:
        good = server.usual("heartbeat")
        server.answers["heartbeat"] = lambda number: good(number) if number < 2 else (status, "no")
        async with runner(server):
            await until(lambda: server.count("heartbeat") > 5, 30)
    backed_off(server.times["heartbeat"][2:])
    assert (server.count("register"), server.count("o2r")) == (1, 1)


async def registration_is_refused(status: int) -> None:
    async with BareOrchestrator(register=always(status, "a reason")) as server, runner(server):
        pass
    assert server.times.keys() == {"register"}
    assert server.count("register") == 1


async def chosen_id_is_taken() -> None:
    taken = always(401, "invalid heartbeat authorization")
    async with BareOrchestrator(register=taken) as server, runner(server, runner_id="mine"):
        pass
    assert all(gap > 1.9 for gap in server.gaps("register"))
    assert server.count("register") <= 4


async def every_heartbeat_forgets() -> None:
    """As two orchestrators behind one address do, and the channel is always at the other one."""
    answers = {"heartbeat": always(401, "invalid registration authorization"), "o2r": always(404)}
    async with BareOrchestrator(**answers) as server, runner(server):
        pass
    for number, gap in enumerate(server.gaps("register")):
        assert gap > 0.7 * 0.5 * 2**number, server.gaps("register")
    assert server.count("heartbeat") <= server.count("register") <= 6


async def messages_fail(status: int, tries: int) -> None:
    async with BareOrchestrator(interval="60s", o2r=always(status)) as server, runner(server):
        await until(lambda: server.count("heartbeat") > 1, 30)
    assert server.count("register") == 1
    assert server.count("heartbeat") <= 5  # at once, and after about 1, 3 and 7 s
    assert server.count("o2r") <= 16 + tries * 5
    pauses = [gap for gap in server.gaps("o2r") if gap > 0.7]
    assert len(pauses) <= 4


async def byoc_registration_fails(status: int) -> None:
    """Each registration counts the running jobs anew there, and many at once have crashed orchestrators."""
    async with BareOrchestrator(register=always(status)) as server, runner(server, register="byoc"):
        pass
    assert server.count("register") == 1  # the next one comes after 20 s
    assert server.count("token") <= 2


async def byoc_orchestrator_is_down(status: int) -> None:
    answers = {"register": always(status), "token": always(status)}
    async with BareOrchestrator(**answers) as server, runner(server, register="byoc"):
        await until(lambda: server.count("token") > 2, 30)
    assert server.count("register") == 1
    # The pause of a quarter second comes before the first look; aiohttp repeats a GET at once, once.
    backed_off(server.times["token"], first=0.5, each=2 if status == HANG_UP else 1)


async def callbacks_fail(status: int) -> None:
    """A start fails with its first callback; a session that can't be stopped is tried again, with time."""
    answers = {"channels": always(status), "stop": always(status), "events": always(404)}
    async with (
        BareOrchestrator(interval="1s", **answers) as server,
        runner(server, idle_timeout=0.5) as made,
        aiohttp.ClientSession() as http,
    ):
        await made.registered()
        headers = {f"Livepeer-Session-{name}": "s" for name in ("Id", "Token")}
        headers["Livepeer-Session-Control"] = f"{server.url}/apps/r/session/s"
        for started in (False, True):
            async with http.post(f"{made.url}/live", json={}, headers=headers) as answer:
                assert answer.status == (200 if started else 502)
            assert server.count("channels") == 1 + started
            server.answers.pop("channels", None)
        await until(lambda: server.count("stop") > 2, 30)
    assert server.count("stop") <= server.count("heartbeat") + 1


async def discovery_fails(status: int) -> None:
    async with BareOrchestrator(discovery=always(status)) as server, Gateway(orch_url=server.url) as gateway:
        calls = [gateway.run_async("talking") for _ in range(50)]
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(failure) for failure in failures} == {NoOrchestratorError}
        assert server.times.keys() == {"discovery"}
        assert server.count("discovery") <= 2


async def offers_fail(status: int) -> None:
    """It lists runners, and can't be asked for what else it has."""
    async with BareOrchestrator(token=always(status)) as server, Gateway(orch_url=server.url) as gateway:
        calls = [gateway.run_async("something-else") for _ in range(50)]
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(failure) for failure in failures} == {NoOrchestratorError}
        assert server.count("discovery") <= 4
        assert server.count("token") <= 4


async def session_fails(status: int) -> None:
    """Everything of a session that had begun."""
    async with BareOrchestrator() as server, Gateway(orch_url=server.url) as gateway:
        session = await gateway.live("talking")
        server.answers |= {kind: always(status) for kind in ("health", "events", "control", "stop")}
        server.hang_up()
        with contextlib.suppress(LivepeerError):
            async for _ in session.events:
                pass
        await asyncio.sleep(SECONDS)
        with pytest.raises(LivepeerError):
            await session.control.write({})
        await session.close()
    assert server.count("events") <= 16 + 7
    assert server.count("health") <= 6
    assert server.count("control") <= 4 + 1
    assert server.count("stop") <= 3


@pytest.mark.timeout(60)
async def test_nobody_is_hammered() -> None:
    cases = [
        *(case(status) for status in BAD for case in (registration_fails, heartbeats_fail)),
        *(case(status) for status in BAD for case in (byoc_registration_fails, byoc_orchestrator_is_down)),
        *(case(status) for status in BAD for case in (callbacks_fail, session_fails)),
        *(case(status) for status in BAD for case in (discovery_fails, offers_fail)),
        byoc_registration_fails(400),
        *(registration_is_refused(status) for status in (400, 401, 403, 404)),
        chosen_id_is_taken(),
        every_heartbeat_forgets(),
        messages_fail(404, 1),
        *(messages_fail(status, 6) for status in BAD),
    ]
    results = await asyncio.gather(*cases, return_exceptions=True)
    if failed := [result for result in results if isinstance(result, Exception)]:
        raise ExceptionGroup("these cases failed", failed)
