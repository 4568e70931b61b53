"""What becomes of calls and sessions when something is started anew: each case, for client and runner.

On both networks. The client's errors come within two seconds of being knowable, are typed, and nothing is logged
above DEBUG but one WARNING for each changed certificate that is accepted, and a runner's INFO when it was forgotten. "Retryable" is `LivepeerError.retryable`.

| case | what the client sees | what the runner does |
|---|---|---|
| client started before its orchestrator | each verb fails at once: `NoOrchestratorError`, retryable, with each place's reason; the same gateway works when the orchestrator and a runner are there | waits for it: a look every 5 s at most |
| orchestrator started anew in mid-call | `run`: `ConnectionFailed`, not retryable, for nobody knows whether the work was done; `stream`: its events, then `StreamError` | the call is cancelled |
| the same in mid-session | readers, writers and events: `SessionLost`, "orchestrator gone" (a `ConnectionFailed`); `close` takes no second | the session ends when the runner has found out |
| the next calls on the same gateway | retryable errors until the runner is back: the changed certificate once (`ConnectionFailed`, nothing was sent), `CapabilityNotFound` that says how long ago it was there; then it works. ``tls="pin-strict"``: `ConnectionFailed`, not retryable, for ever | registers again within 30 s: notices by the end of its `o2r` channel (BYOC: by looking every 10 s), accepts the certificate, keeps a `runner_id` of its own, reads the new `o2r`, and ends sessions that the orchestrator doesn't know |
| a second time within a minute | `ConnectionFailed`, retryable, which says in how many seconds the certificate is accepted; then it works | the same: it accepts a certificate 10 s after the last one |
| runner killed in mid-call | `run`: `OrchestratorError` (502, BYOC: 500) that says that the work may have begun; `stream`: its events, then `StreamError` | - |
| runner killed in mid-session | `SessionEnded`, "worker gone" | - |
| it is started again, with its own `runner_id` | `OrchestratorError` (502), retryable, while the orchestrator believes in the dead one; then it works | is refused for up to 25 s, waits, registers |
| a runner that stood still for longer than 20 s | `CapabilityNotFound`, retryable; in its sessions readers and events end, writers get `SessionEnded`, "ended" | registers again as soon as it moves, and ends its sessions |
| the orchestrator forgets a runner | the same, for a moment | registers again at once |
| BYOC worker down for one request | `OrchestratorError` (500), retryable; then `CapabilityNotFound`, retryable, until it is registered again | registers again after two looks that say nothing, 10 s apart, at most once in 20 s |
"""  # noqa: E501

from __future__ import annotations

import asyncio
import logging
import signal
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest
from harness import Network, Worker, free_port, until
from live_harness import FPS, picture
from relay import Relay
from restart_worker import RunnerProcess, Waiting, runners

from livepeer.client import (
    CapabilityNotFound,
    ConnectionFailed,
    Gateway,
    LivepeerError,
    NoOrchestratorError,
    OrchestratorError,
    SessionEnded,
    SessionLost,
    StreamError,
)
from livepeer.runner import running
from livepeer.runner.registration import capability
from livepeer.trickle import _tls

SOON = 8.0  # seconds; 2 are promised, and the machine may be busy
BACK = 30.0  # seconds within which a runner comes back
SECONDS = 300  # of work, which nobody waits for


class Broken:
    """Work in flight, which has to end in an error: what came of it before, and when it ended."""

    def __init__(self, work: Callable[[list[Any]], Coroutine[Any, Any, Any]]) -> None:
        self.came: list[Any] = []
        self._work = work
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> tuple[LivepeerError, float]:
        try:
            await self._work(self.came)
        except LivepeerError as error:
            return error, time.monotonic()
        raise AssertionError("it did not fail")

    async def error(self, since: float) -> LivepeerError:
        """The error, which has to come soon after this time."""
        error, at = await asyncio.wait_for(self.task, BACK)
        assert at - since < SOON, error
        return error


def run(gateway: Gateway, name: str) -> Broken:
    async def work(came: list[Any]) -> None:
        came.append(await gateway.run_async(name, input={"number": 1, "seconds": SECONDS}))

    return Broken(work)


def stream(gateway: Gateway, name: str) -> Broken:
    async def work(came: list[Any]) -> None:
        async for event in gateway.stream_async(name, input={"count": 20 * SECONDS}):
            came.append(event.json())

    return Broken(work)


def events(session: Any) -> Broken:
    async def work(came: list[Any]) -> None:
        async for event in session.events:
            came.append(event)

    return Broken(work)


def frames(session: Any) -> Broken:
    async def work(came: list[Any]) -> None:
        async for frame in session.subscribe().frames():
            came.append(frame.timestamp)

    return Broken(work)


def pictures(session: Any) -> Broken:
    async def work(came: list[Any]) -> None:
        publish = session.publish(fps=FPS)
        while True:
            await publish.write_frame(picture(len(came)))
            came.append(True)
            await asyncio.sleep(1 / FPS)

    return Broken(work)


def writes(session: Any) -> Broken:
    async def work(came: list[Any]) -> None:
        while True:
            await session.control.write({"number": len(came)})
            came.append(True)
            await asyncio.sleep(0.1)

    return Broken(work)


async def works(gateway: Gateway, name: str, patience: float = BACK) -> list[LivepeerError]:
    """Call until an answer comes; the errors until then, all of them retryable."""
    errors: list[LivepeerError] = []

    async def answered() -> bool:
        try:
            return bool(await gateway.run_async(name, input={"number": 4}) == 8)
        except LivepeerError as error:
            if not error.retryable:
                raise
            errors.append(error)
            await asyncio.sleep(0.1)
            return False

    await until(answered, patience)
    return errors


@pytest.fixture
def loud(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged above DEBUG so far, but for a runner's INFO that it was forgotten."""
    caplog.set_level(logging.DEBUG, logger="livepeer")

    def told() -> list[str]:
        return [
            record.getMessage()
            for record in caplog.records
            if record.name.startswith("livepeer")
            and record.levelno > logging.DEBUG
            and not (record.levelno == logging.INFO and "which registers again" in record.getMessage())
        ]

    return told


@pytest.mark.timeout(120)
async def test_an_orchestrator_that_comes_late_and_is_started_anew(
    fresh_network: Network,
    loud: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capability, "_LOOK", 1.0)  # 10 s and 20 s: too long for a test
    monkeypatch.setattr(capability, "_PACE", 2.0)
    url, secret = fresh_network.url, fresh_network.secret
    kinds = ("waiting", "ticking", "talking", "passing")
    names = {kind: kind for kind in (*kinds, *(f"byoc-{kind}" for kind in kinds))}
    await asyncio.to_thread(fresh_network.stop)
    async with (
        Gateway(orch_url=url) as gateway,
        Gateway(orch_url=url, tls="pin-strict") as strict,
        runners(url, secret, names, {"waiting": "my-runner"}) as servers,
    ):
        await _nobody_is_there(gateway)
        await asyncio.to_thread(fresh_network.start)
        for server in servers.values():
            await server.registered(BACK)
        ids = {kind: server.runner_id for kind, server in servers.items()}
        assert await works(gateway, "waiting", 5) == []
        assert await works(gateway, "byoc-waiting", 5) == []
        assert await works(strict, "waiting", 5) == []

        sessions, broken = [], {}
        for way in ("", "byoc-"):
            talking, passing = await gateway.live(f"{way}talking"), await gateway.live(f"{way}passing")
            sessions += [talking, passing]
            broken |= {
                f"{way}run": run(gateway, f"{way}waiting"),
                f"{way}stream": stream(gateway, f"{way}ticking"),
                f"{way}events": events(talking),
                f"{way}writes": writes(talking),
                f"{way}frames": frames(passing),
                f"{way}pictures": pictures(passing),
            }
        begun = [one.came for name, one in broken.items() if not name.endswith("run")]
        waiting = servers["waiting"], servers["byoc-waiting"]
        await until(lambda: all(begun) and all(server.health()["in_use"] for server in waiting))
        assert loud() == []

        since = time.monotonic()
        await asyncio.to_thread(fresh_network.restart)
        up = time.monotonic()
        errors = {name: await one.error(since) for name, one in broken.items()}
        for way in ("", "byoc-"):
            error, events_of_it = errors.pop(f"{way}run"), broken[f"{way}stream"].came
            assert type(error) is ConnectionFailed
            assert not error.retryable
            assert error.request_id
            assert type(errors.pop(f"{way}stream")) is StreamError
            assert events_of_it == list(range(len(events_of_it)))
        assert {name: type(error) for name, error in errors.items()} == dict.fromkeys(errors, SessionLost)
        for lost in sessions:
            assert (lost.status, lost.reason) == ("ended", "orchestrator gone")
            await asyncio.wait_for(lost.close(), SOON)

        for name in ("waiting", "byoc-waiting"):
            for error in await works(gateway, name):
                assert isinstance(error, ConnectionFailed | CapabilityNotFound | NoOrchestratorError)
        for server in servers.values():
            await server.registered(BACK)
        assert time.monotonic() - up < BACK
        assert servers["waiting"].runner_id == ids["waiting"] == "my-runner"
        assert servers["talking"].runner_id != ids["talking"]
        await until(lambda: not any(server.health()["in_use"] for server in servers.values()), BACK)
        assert [event.json() async for event in gateway.stream_async("ticking", input={"count": 3})] == [
            0,
            1,
            2,
        ]
        async with gateway.live("talking") as session:
            assert await anext(session.events) == {"type": "begun"}
            held = session.raw["manifest_id"]
        # The runner's new channel of the orchestrator's messages is read.
        await until(lambda: f"released session {held}" in caplog.text)
        # One memory of certificates here, and one that the runners share.
        assert [text.startswith("The certificate of") for text in loud()] == [True, True]
        for _ in range(2):
            with pytest.raises((ConnectionFailed, NoOrchestratorError), match="pin-strict") as refused:
                await strict.run_async("waiting", input={"number": 1})
            assert not refused.value.retryable

        await asyncio.to_thread(fresh_network.restart)
        for _ in range(2):
            with pytest.raises((ConnectionFailed, NoOrchestratorError), match="accepted again in") as soon:
                await gateway.run_async("waiting", input={"number": 1})
            assert soon.value.retryable
        async with Gateway(orch_url=url) as another:
            # Runners, which have to be back soon, wait for no minute.
            await until(lambda: _listed(another, ["waiting"]), BACK)
        monkeypatch.setattr(_tls, "_REPIN_INTERVAL", 0.0)
        await works(gateway, "waiting")
        assert len(loud()) == 4


async def _nobody_is_there(gateway: Gateway) -> None:
    """Each verb fails at once, and says that it may be tried again."""

    async def live() -> None:
        async with gateway.live("talking"):
            pass

    async def streamed() -> None:
        async with gateway.stream_async("ticking", input={"count": 1}):
            pass

    for verb in (lambda: gateway.run_async("waiting"), streamed, live, gateway.capabilities_async):
        began = time.monotonic()
        with pytest.raises(NoOrchestratorError, match="Connection refused") as raised:
            await verb()
        assert raised.value.retryable
        assert time.monotonic() - began < SOON


async def test_a_runner_that_the_orchestrator_forgets(
    network: Network, worker: Worker, loud: Callable[[], list[str]]
) -> None:
    """Somebody unregisters it: it comes back, under its own id, and ends its sessions."""
    names, ids = {"talking": f"talking-{uuid.uuid4().hex[:6]}"}, {"talking": f"id-{uuid.uuid4().hex[:6]}"}
    async with (
        Gateway(orch_url=network.url) as gateway,
        runners(network.url, network.secret, names, ids) as made,
    ):
        server = made["talking"]
        await server.registered()
        session = await gateway.live(names["talking"])
        writing = writes(session)
        await until(lambda: writing.came)
        request = server._registrations[0]._machine.unregistration()  # type: ignore[union-attr]
        since = time.monotonic()
        headers = {"Authorization": request.authorization}
        assert await worker.ask("POST", request.url, headers=headers) == (204, "")
        error = await writing.error(since)
        assert isinstance(error, SessionEnded)
        assert error.reason == "ended"
        await session.close()
        await until(lambda: not server.health()["in_use"])
        await until(lambda: _listed(gateway, names.values()), SOON)
        assert server.runner_id == ids["talking"]
        async with gateway.live(names["talking"]) as session:
            assert await anext(session.events) == {"type": "begun"}
    assert loud() == []


async def test_a_byoc_worker_that_is_down_for_one_request(
    network: Network, loud: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The orchestrator forgets its capability then, and says so to nobody."""
    monkeypatch.setattr(capability, "_LOOK", 0.5)  # 10 s and 20 s: too long for a test
    monkeypatch.setattr(capability, "_PACE", 1.0)
    name, port = f"waiting-{uuid.uuid4().hex[:6]}", free_port()
    async with (
        Relay(f"http://127.0.0.1:{port}") as relay,
        Gateway(orch_url=network.url) as gateway,
        running(
            Waiting(),
            name=name,
            port=port,
            register="byoc",
            runner_url=relay.url(f"http://127.0.0.1:{port}"),
            orch_url=network.url,
            secret=network.secret,
        ) as server,
    ):
        await server.registered()
        assert await works(gateway, name) == []
        await relay.refuse()
        with pytest.raises(OrchestratorError) as gone:
            await gateway.run_async(name, input={"number": 1})
        assert gone.value.status == 500
        # A node that hasn't noticed the end of its connection to the worker tries that one.
        assert gone.value.retryable or "reset" in str(gone.value) or "broken pipe" in str(gone.value)
        await relay.listen()
        with pytest.raises(CapabilityNotFound) as missing:
            await gateway.run_async(name, input={"number": 1})
        assert missing.value.retryable
        for error in await works(gateway, name):
            assert isinstance(error, CapabilityNotFound)
    assert loud() == []


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_runners_that_die_or_stand_still(network: Network, loud: Callable[[], list[str]]) -> None:
    """Together, for an orchestrator needs 25 s to forget each of them."""
    async with Gateway(orch_url=network.url) as gateway:
        await asyncio.gather(_killed(network, gateway), _stood_still(network, gateway))
    assert loud() == []


async def _killed(network: Network, gateway: Gateway) -> None:
    kinds = ("waiting", "ticking", "talking", "byoc-waiting", "byoc-ticking")
    names = {kind: f"{kind}-{uuid.uuid4().hex[:6]}" for kind in kinds}
    ids = {kind: f"id-{uuid.uuid4().hex[:6]}" for kind in kinds if not kind.startswith("byoc")}
    with RunnerProcess(network.url, network.secret, names, ids) as process:
        await asyncio.to_thread(process.registered)
        session = await gateway.live(names["talking"])
        broken = {
            "run": run(gateway, names["waiting"]),
            "stream": stream(gateway, names["ticking"]),
            "events": events(session),
            "writes": writes(session),
            "byoc run": run(gateway, names["byoc-waiting"]),
            "byoc stream": stream(gateway, names["byoc-ticking"]),
        }
        begun = [broken[name].came for name in ("stream", "events", "writes", "byoc stream")]
        await until(lambda: all(begun))
        for kind in ("waiting", "byoc-waiting"):
            await until(lambda kind=kind: process.in_use(kind))
        since = time.monotonic()
        process.process.kill()
        errors = {name: await one.error(since) for name, one in broken.items()}
    for name, status in (("run", 502), ("byoc run", 500)):
        error = errors[name]
        assert isinstance(error, OrchestratorError)
        assert error.status == status
    for name in ("stream", "byoc stream"):
        assert type(errors[name]) is StreamError
        assert broken[name].came == list(range(len(broken[name].came)))
    for name in ("events", "writes"):
        assert type(errors[name]) is SessionEnded
    assert session.reason == "worker gone"
    await asyncio.wait_for(session.close(), SOON)

    with RunnerProcess(network.url, network.secret, names, ids) as again:
        for error in await works(gateway, names["waiting"], 2 * BACK):
            assert isinstance(error, OrchestratorError | CapabilityNotFound)
        assert time.monotonic() - since < BACK + SOON  # with the start of a process
        await asyncio.to_thread(again.registered)


async def _stood_still(network: Network, gateway: Gateway) -> None:
    names = {kind: f"{kind}-{uuid.uuid4().hex[:6]}" for kind in ("waiting", "talking")}
    with RunnerProcess(
        network.url, network.secret, names, {"waiting": f"id-{uuid.uuid4().hex[:6]}"}
    ) as process:
        await asyncio.to_thread(process.registered)
        session = await gateway.live(names["talking"])
        writing = writes(session)
        await until(lambda: writing.came)
        process.process.send_signal(signal.SIGSTOP)

        await until(lambda: _gone(gateway, names.values()), BACK)
        error, _ = await asyncio.wait_for(writing.task, SOON)
        assert isinstance(error, SessionEnded)
        with pytest.raises(CapabilityNotFound, match="was there") as missing:
            await gateway.run_async(names["waiting"], input={"number": 1})
        assert missing.value.retryable
        process.process.send_signal(signal.SIGCONT)
        await works(gateway, names["waiting"])
        await until(lambda: _idle(process, "talking"))
        await session.close()


async def _idle(process: RunnerProcess, kind: str) -> bool:
    return not await process.in_use(kind)


async def _listed(gateway: Gateway, names: Iterable[str]) -> bool:
    return {one.name for one in await gateway.capabilities_async()} >= set(names)


async def _gone(gateway: Gateway, names: Iterable[str]) -> bool:
    return {one.name for one in await gateway.capabilities_async()}.isdisjoint(names)
