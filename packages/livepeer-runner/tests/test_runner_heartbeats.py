"""The decisions of the registration, without a network."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from livepeer.runner import ConfigurationError
from livepeer.runner.registration.heartbeats import Description, Heartbeats, go_duration

FIRST = {
    "runner_id": "runner_1",
    "orchestrator": "https://o:8935",
    "heartbeat_interval": "5s",
    "heartbeat_ttl": "20s",
    "heartbeat_secret": "later",
    "o2r": {"url": "https://o:8935/ai/trickle/x"},
    "session_ids": [],
}


def machine(runner_id: str | None = None, clock: Callable[[], float] = time.monotonic) -> Heartbeats:
    description = Description(
        "sentiment",
        "http://10.0.0.5:8000",
        capacity=2,
        metadata='{"livepeer":1}',
        version="1",
        price=0.5,
        runner_id=runner_id,
    )
    return Heartbeats("https://o:8935/", "secret", description, uniform=lambda low, high: high, clock=clock)


def answer(content: object) -> bytes:
    return json.dumps(content).encode()


def test_a_registration_and_its_heartbeats() -> None:
    heartbeats = machine()
    request = heartbeats.request()
    assert (request.url, request.authorization) == ("https://o:8935/runners/heartbeat", "secret")
    assert request.body == {
        "runner_url": "http://10.0.0.5:8000",
        "app": "sentiment",
        "mode": "single-shot",
        "status": "ready",
        "capacity": 2,
        "price_info": {"price": 0.5, "currency": "usd", "unit": "hour"},
        "session_ids": [],
        "metadata": '{"livepeer":1}',
        "version": "1",
    }
    assert "secret" not in repr(request)
    step = heartbeats.answered(200, answer(FIRST))
    assert (step.delay, step.o2r, step.session_ids) == (5.0, FIRST["o2r"]["url"], frozenset())  # type: ignore[index]

    again = heartbeats.request(["s2", "s1"])
    assert again.authorization == "later"
    assert again.body == {**request.body, "runner_id": "runner_1", "session_ids": ["s1", "s2"]}
    step = heartbeats.answered(
        200, answer({**FIRST, "heartbeat_secret": "", "o2r": None, "session_ids": ["s1"]})
    )
    assert (step.o2r, step.session_ids) == (None, frozenset({"s1"}))
    assert heartbeats.request().authorization == "later"

    last = heartbeats.unregistration()
    assert last
    assert (last.url, last.authorization) == ("https://o:8935/runners/runner_1/unregister", "later")


@pytest.mark.parametrize("status", [401, 404])
def test_a_forgotten_runner_asks_for_a_new_id(status: int) -> None:
    now = 0.0
    heartbeats = machine(clock=lambda: now)
    heartbeats.answered(200, answer(FIRST))
    now = 60.0
    step = heartbeats.answered(status, b"runner not found\n")
    assert (step.lost, step.delay) == (True, 0.5)
    request = heartbeats.request()
    assert request.authorization == "secret"
    assert request.body
    assert "runner_id" not in request.body
    assert heartbeats.unregistration() is None


def test_a_runner_that_is_forgotten_again_and_again_registers_ever_more_slowly() -> None:
    """Two orchestrators behind one address each know only what the other doesn't."""
    now = 0.0
    heartbeats, delays = machine(clock=lambda: now), []
    for _ in range(7):
        heartbeats.answered(200, answer(FIRST))
        now += 1.0
        step = heartbeats.answered(401, b"invalid registration authorization\n")
        assert (step.lost, step.firm) == (True, True)
        delays.append(step.delay)
    assert delays == [0.625, 1.25, 2.5, 5.0, 6.25, 6.25, 6.25]
    heartbeats.answered(200, answer(FIRST))
    now += 60.0
    assert heartbeats.answered(404, b"runner not found\n").delay == 0.5


def test_a_chosen_id_is_waited_for() -> None:
    """It is taken by this runner's life before, which the orchestrator needs 25 s to forget."""
    now = 0.0
    heartbeats = machine("gpu-7", clock=lambda: now)
    body = heartbeats.request().body
    assert body
    assert body["runner_id"] == "gpu-7"
    for _ in range(7):
        step = heartbeats.answered(401, b"invalid heartbeat authorization\n")
        assert (step.delay, step.firm, step.warning, heartbeats.refusal) == (3.0, True, None, None)
        now += step.delay
    heartbeats.answered(404, b"runner not found\n")
    assert heartbeats.answered(200, answer({**FIRST, "runner_id": "gpu-7"})).o2r
    assert heartbeats.request().authorization == "later"
    heartbeats.answered(401, b"invalid registration authorization\n")
    body = heartbeats.request().body
    assert body
    assert body["runner_id"] == "gpu-7"
    assert heartbeats.answered(404, b"runner not found\n").delay == 3.0


def test_a_chosen_id_that_another_runner_has_is_told() -> None:
    now = 0.0
    heartbeats = machine("gpu-7", clock=lambda: now)
    warnings = []
    for _ in range(20):
        step = heartbeats.answered(401, b"invalid heartbeat authorization\n")
        now += step.delay
        warnings.append(step.warning)
    assert sum(warning is not None for warning in warnings) == 1
    assert step.delay == 36.0
    assert heartbeats.refusal
    assert "registered at the orchestrator as 'gpu-7'" in heartbeats.refusal.message


def test_a_wrong_secret_is_no_chosen_id_that_is_taken() -> None:
    heartbeats = machine("gpu-7")
    assert heartbeats.answered(401, b"invalid registration authorization\n").warning
    assert heartbeats.answered(404, b"live runners are not supported\n").warning


@pytest.mark.parametrize("runner_id", ["", "a/b", "ü", "a b", "x" * 65])
def test_ids_that_can_be_no_part_of_a_url(runner_id: str) -> None:
    with pytest.raises(ConfigurationError, match="letters, digits, hyphens and underscores"):
        machine(runner_id)


def test_an_orchestrator_that_is_down_is_asked_again_with_patience() -> None:
    heartbeats = machine()
    assert [heartbeats.failed().delay for _ in range(7)] == [0.3125, 0.625, 1.25, 2.5, 5.0, 6.25, 6.25]
    heartbeats.answered(200, answer(FIRST))
    assert heartbeats.failed().delay == 0.3125
    assert heartbeats.registered
    assert heartbeats.answered(500, b"").lost is False


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, b"invalid registration authorization\n", "secret (invalid registration"),
        (400, b'{"error": {"message": "invalid runner_url"}}', "says of itself: invalid runner_url"),
        (404, b"live runners are not supported", "no live runners (live runners are not"),
    ],
)
def test_a_refusal_is_told_once_and_tried_again_slowly(status: int, body: bytes, says: str) -> None:
    heartbeats = machine()
    step = heartbeats.answered(status, body)
    assert step.warning
    assert says in step.warning
    assert step.delay == 36
    assert heartbeats.refusal
    assert (heartbeats.refusal.status, heartbeats.refusal.orchestrator) == (status, "https://o:8935")
    assert heartbeats.answered(status, body).warning is None
    heartbeats.answered(200, answer(FIRST))
    assert heartbeats.refusal is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"runner_id": "r"}', b"<html>", b"[" * 100_000])
def test_an_answer_that_says_nothing_is_a_failure(body: bytes) -> None:
    heartbeats = machine()
    heartbeats.answered(200, body)
    assert not heartbeats.registered


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("1m30s", 90),
        ("500ms", 0.5),
        ("1h0m0.5s", 3600.5),
        ("", None),
        ("5", None),
        (5, None),
        ("5s!", None),
    ],
)
def test_go_durations(text: object, seconds: float | None) -> None:
    assert go_duration(text) == seconds


@pytest.mark.parametrize(
    ("asked", "seconds"), [("5s", 5), ("1ns", 0.05), ("0s", 5), ("24h", 60), (None, 5), (7, 5)]
)
def test_heartbeats_neither_hammer_nor_stay_away(asked: object, seconds: float) -> None:
    assert machine().answered(200, answer(FIRST | {"heartbeat_interval": asked})).delay == seconds


@pytest.mark.parametrize("o2r", [None, "https://o:8935/x", {}, {"url": 7}])
def test_messages_that_have_no_channel(o2r: object) -> None:
    assert machine().answered(200, answer(FIRST | {"o2r": o2r})).o2r is None


def test_descriptions_that_no_orchestrator_takes() -> None:
    with pytest.raises(ConfigurationError, match="1024 are allowed"):
        Description("a", "http://h", metadata="é" * 600)
    with pytest.raises(ConfigurationError, match="0 or more"):
        Description("a", "http://h", price=-1)
