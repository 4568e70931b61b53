"""The BYOC registration's decisions, without I/O."""

from __future__ import annotations

import base64
import itertools
import json

import pytest

from livepeer.runner.registration.capability import Ask, Capability, Look, Offer


class Clock:
    """A capability and its orchestrator's answers, with a clock that follows what the machine asks for."""

    def __init__(self) -> None:
        offer = Offer("echo", "http://10.0.0.5:8000", 2, "Echoes.")
        self.machine = Capability("https://o:8935/", "secret", offer, uniform=lambda low, high: high)
        self.now = 1000.0
        self.registrations: list[float] = []

    def ask(self) -> Ask:
        ask = self.machine.ask(self.now)
        if ask.kind == "register":
            self.registrations.append(self.now)
        return ask

    def answered(self, status: int = 200, body: object = "ok", *, busy: bool = False) -> Look:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        return self._after(self.machine.answered(self.ask(), status, content, now=self.now, busy=busy))

    def failed(self, *, sent: bool = True) -> Look:
        return self._after(self.machine.failed(self.ask(), sent=sent))

    def _after(self, look: Look) -> Look:
        self.now += look.delay
        return look


FREE, NONE = {"available_capacity": 2}, {"service_addr": "https://o:8935"}


def test_a_registration_and_its_end() -> None:
    clock = Clock()
    assert clock.machine.unregistration() is None
    ask = clock.machine.ask(clock.now)
    assert (ask.kind, ask.method, ask.url) == ("register", "POST", "https://o:8935/capability/register")
    assert ask.headers["Authorization"] == "secret"
    assert json.loads(ask.body) == {
        "name": "echo",
        "description": "Echoes.",
        "url": "http://10.0.0.5:8000",
        "capacity": 2,
        "price_per_unit": 0,
        "price_scaling": 1,
        "currency": "wei",
    }
    assert "secret" not in repr(ask)
    assert clock.machine.unregistration()  # it may have arrived
    assert clock.machine.answered(ask, 200, b"ok", now=clock.now, busy=False).delay == 11
    last = clock.machine.unregistration()
    assert last
    assert (last.url, last.body) == ("https://o:8935/capability/unregister", b"echo")


def test_a_look_says_who_asks_and_for_what() -> None:
    clock = Clock()
    clock.answered()
    ask = clock.ask()
    assert (ask.kind, ask.method, ask.url) == ("look", "GET", "https://o:8935/process/token")
    assert ask.headers["Livepeer-Capability"] == "echo"
    sender = json.loads(base64.b64decode(ask.headers["Livepeer-Eth-Address"]))
    assert sender == {"addr": "0x" + "0" * 40, "sig": ""}


def test_two_empty_answers_mean_that_it_was_forgotten() -> None:
    clock = Clock()
    clock.answered()
    clock.answered(200, FREE)
    clock.answered(200, NONE)
    assert clock.machine.registered
    clock.answered(200, NONE)
    assert not clock.machine.registered
    clock.answered()
    assert clock.machine.registered
    assert len(clock.registrations) == 2


@pytest.mark.parametrize("body", ["", "<html>", "[]", "7", '{"available_capacity": "2"}', "[" * 100_000])
def test_what_can_not_be_read_is_an_empty_answer(body: str) -> None:
    clock = Clock()
    clock.answered()
    for _ in range(2):
        assert clock.machine.registered
        clock.answered(200, body)
    assert not clock.machine.registered


def test_empty_answers_during_requests_mean_nothing() -> None:
    clock = Clock()
    clock.answered()
    for busy in (False, True, False, True, True, False):
        clock.answered(200, NONE, busy=busy)
    assert clock.machine.registered
    clock.answered(200, FREE)
    clock.answered(200, NONE)
    assert clock.machine.registered


def test_registrations_are_never_less_than_20_seconds_apart() -> None:
    clock = Clock()
    for _ in range(200):  # it forgets us at once, again and again
        clock.answered(200, "ok" if clock.ask().kind == "register" else NONE)
    pauses = [later - earlier for earlier, later in itertools.pairwise(clock.registrations)]
    assert min(pauses) >= 20
    assert len(pauses) > 20


def test_an_orchestrator_that_is_down_is_looked_at_with_patience() -> None:
    clock = Clock()
    assert [clock.failed(sent=False).delay for _ in range(7)] == [0.3125, 0.625, 1.25, 2.5, 5.0, 6.25, 6.25]
    assert clock.machine.unregistration() is None
    assert clock.registrations == [1000.0]
    clock.answered(200, NONE)  # it is up, and the first registration never left
    clock.answered()
    assert clock.machine.registered
    assert len(clock.registrations) == 2


def test_a_registration_that_may_have_arrived_counts_for_the_pace() -> None:
    clock = Clock()
    clock.failed()
    assert clock.machine.unregistration()
    clock.answered(200, FREE)
    assert clock.now >= 1020
    clock.answered()
    assert clock.machine.registered


def test_after_a_restart_one_empty_answer_is_enough() -> None:
    clock = Clock()
    clock.answered()
    for _ in range(3):
        clock.answered(200, FREE)
    clock.failed(sent=False)
    clock.answered(200, NONE, busy=True)
    assert not clock.machine.registered
    clock.answered()
    assert clock.machine.registered


def test_a_connection_that_broke_is_no_restart_when_the_capability_is_still_there() -> None:
    clock = Clock()
    clock.answered()
    clock.failed()
    clock.answered(200, FREE)
    clock.answered(200, NONE)
    assert clock.machine.registered


def test_where_it_can_not_look_it_registers_again_in_quiet_moments() -> None:
    clock = Clock()
    clock.answered()
    while clock.now < 1290:
        clock.answered(400, "Invalid eth address header \n")
    assert len(clock.registrations) == 1
    while clock.now < 1400:
        clock.answered(400, "Invalid eth address header \n", busy=True)
    assert len(clock.registrations) == 1
    clock.answered(400, "Invalid eth address header \n")
    clock.answered()
    assert len(clock.registrations) == 2


def test_where_it_can_not_look_a_restart_is_seen_by_the_broken_connection() -> None:
    clock = Clock()
    clock.answered()
    clock.answered(400, "Invalid eth address header \n")
    clock.answered(503, "")
    clock.answered(400, "Invalid eth address header \n", busy=True)
    assert not clock.machine.registered


@pytest.mark.parametrize(
    ("status", "body", "says", "hint"),
    [
        (400, "invalid authorization\n", "refuses the secret (invalid authorization)", "-orchSecret"),
        (400, "Error registering capability: bad", "refuses the capability 'echo': Error reg", None),
        (404, "404 page not found\n", "registers no capabilities (404 page not found)", "-serviceAddr"),
    ],
)
def test_a_refusal_is_told_once_and_tried_again_slowly(
    status: int, body: str, says: str, hint: str | None
) -> None:
    clock = Clock()
    look = clock.answered(status, body)
    assert look.delay == 36
    assert look.warning
    assert says in look.warning
    refusal = clock.machine.refusal
    assert refusal
    assert (refusal.status, refusal.orchestrator) == (status, "https://o:8935")
    assert (refusal.hint is None) if hint is None else (hint in str(refusal.hint))
    assert clock.answered(status, body).warning is None
    assert clock.machine.unregistration() is None
    clock.answered()
    assert clock.machine.registered
    assert clock.machine.refusal is None
