"""The decisions of the registration, without a network."""

from __future__ import annotations

import json

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


def machine() -> Heartbeats:
    description = Description(
        "sentiment", "http://10.0.0.5:8000", capacity=2, metadata='{"livepeer":1}', version="1", price=0.5
    )
    return Heartbeats("https://o:8935/", "secret", description, uniform=lambda low, high: high)


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
    heartbeats = machine()
    heartbeats.answered(200, answer(FIRST))
    step = heartbeats.answered(status, b"runner not found\n")
    assert (step.lost, step.delay) == (True, 0.5)
    request = heartbeats.request()
    assert request.authorization == "secret"
    assert request.body
    assert "runner_id" not in request.body
    assert heartbeats.unregistration() is None


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


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"runner_id": "r"}', b"<html>"])
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


def test_descriptions_that_no_orchestrator_takes() -> None:
    with pytest.raises(ConfigurationError, match="1024 are allowed"):
        Description("a", "http://h", metadata="é" * 600)
    with pytest.raises(ConfigurationError, match="0 or more"):
        Description("a", "http://h", price=-1)
