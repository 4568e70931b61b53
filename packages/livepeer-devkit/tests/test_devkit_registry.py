from __future__ import annotations

from typing import Any

import pytest

from livepeer.devkit.network.registry import Registry
from livepeer.devkit.network.validation import Refused
from livepeer.trickle.errors import ChannelNotFound

FIELDS: dict[str, Any] = {
    "runner_id": "",
    "label": "",
    "proxy": False,
    "runner_url": "http://127.0.0.1:1/base",
    "version": "",
    "metadata": "",
    "status": "",
    "mode": "",
    "gpu": None,
    "app": "echo",
    "capacity": 0,
    "price_info": None,
    "session_ids": [],
}


class Channels:
    def __init__(self) -> None:
        self.open: dict[str, list[bytes]] = {}

    def create(self, name: str, mime_type: str = "") -> None:
        self.open[name] = []

    def close_channel(self, name: str) -> bool:
        return self.open.pop(name, None) is not None

    def publish(self, name: str, data: bytes) -> int:
        if name not in self.open:
            raise ChannelNotFound(name)
        self.open[name].append(data)
        return len(self.open[name]) - 1


class World:
    def __init__(self, secret: str = "s") -> None:
        self.now = 1000.0
        self.channels = Channels()
        self.registry = Registry(
            secret, self.channels, "https://orch:1", clock=lambda: self.now, utc=lambda: "then"
        )

    def beat(self, authorization: str = "s", **fields: Any) -> dict[str, Any]:
        return self.registry.heartbeat(FIELDS | fields, authorization)

    def refusal(self, authorization: str = "s", **fields: Any) -> tuple[int, str]:
        with pytest.raises(Refused) as caught:
            self.beat(authorization, **fields)
        return caught.value.status, caught.value.text


def status_of(error: pytest.ExceptionInfo[Refused]) -> tuple[int, str]:
    return error.value.status, error.value.text


def test_first_heartbeat_alone_hands_out_secret_and_channel() -> None:
    world = World()
    first = world.beat()
    assert list(first) == [
        "runner_id",
        "orchestrator",
        "heartbeat_interval",
        "heartbeat_ttl",
        "heartbeat_secret",
        "o2r",
        "session_ids",
    ]
    assert (first["heartbeat_interval"], first["heartbeat_ttl"]) == ("5s", "20s")
    later = world.beat(first["heartbeat_secret"], runner_id=first["runner_id"])
    assert "heartbeat_secret" not in later
    assert "o2r" not in later


def test_each_heartbeat_replaces_every_field() -> None:
    world = World()
    first = world.beat(mode="single_shot", capacity=7, version="1")
    assert (
        world.registry.listing()[0] | {"capacity": 7, "mode": "single-shot", "version": "1"}
        == (world.registry.listing()[0])
    )
    world.beat(first["heartbeat_secret"], runner_id=first["runner_id"])
    listed = world.registry.listing()[0]
    assert (listed["mode"], listed["capacity"]) == ("persistent", 1)
    assert "version" not in listed


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"app": ""}, "app must be trimmed"),
        ({"app": " a"}, "app must be trimmed"),
        ({"runner_url": "nope"}, "invalid runner_url"),
        ({"runner_url": "ftp://a"}, "invalid runner_url"),
        ({"runner_url": "http://a b/"}, "invalid runner_url"),
        ({"mode": "x"}, 'mode must be "persistent" or "single-shot"'),
        ({"capacity": -1}, "capacity must be >= 0"),
        ({"metadata": "x" * 1025}, "metadata must be at most 1024 bytes"),
        ({"status": "Ready"}, "status must be lowercase and trimmed"),
    ],
)
def test_validation_comes_before_the_secret(fields: dict[str, Any], text: str) -> None:
    assert World().refusal("wrong", **fields) == (400, text)


def test_wrong_secrets() -> None:
    world = World()
    assert world.refusal("Bearer s") == (401, "invalid registration authorization")
    first = world.beat()
    assert world.refusal("s", runner_id=first["runner_id"]) == (401, "invalid heartbeat authorization")
    assert World(secret="").refusal("") == (404, "dynamic live runner registration is disabled")


def test_a_silent_runner_leaves_after_20_s_and_its_id_is_free_after_the_sweep() -> None:
    world = World()
    first = world.beat(runner_id="mine")
    world.now += 20
    assert world.registry.listing()
    world.now += 0.1
    assert world.registry.listing() == []
    # until a sweep the id is taken, whichever secret comes with it
    assert world.refusal(first["heartbeat_secret"], runner_id="mine") == (404, "runner not found")
    assert world.refusal("s", runner_id="mine") == (404, "runner not found")
    world.registry.sweep()
    assert world.channels.open == {}
    assert world.beat(runner_id="mine")["heartbeat_secret"] != first["heartbeat_secret"]


def test_capacity_is_given_back_and_the_runner_is_told() -> None:
    world = World()
    first = world.beat(capacity=1)
    runner, session, app_url = world.registry.reserve(first["runner_id"])
    assert app_url == f"https://orch:1/apps/{runner.id}/session/{session.id}/app"
    assert world.registry.listing()[0]["capacity_available"] == 0
    with pytest.raises(Refused) as full:
        world.registry.reserve(runner.id)
    assert status_of(full) == (503, "no capacity available for runner")
    world.registry.add_channel(session, "in", "video/MP2T")
    assert f"{session.id}-in" in world.channels.open
    assert world.beat(first["heartbeat_secret"], runner_id=runner.id)["session_ids"] == [session.id]
    world.registry.release(runner.id, session.id)
    world.registry.release(runner.id, session.id)
    world.registry.release(runner.id, "never was")
    assert world.channels.open[runner.o2r] == [
        f'{{"event":"{what}","session":"{session.id}","timestamp":"then"}}'.encode()
        for what in ("reserved", "released")
    ]
    assert list(world.channels.open) == [runner.o2r]


def test_keep_alive_every_10_s() -> None:
    world = World()
    first = world.beat()
    for _ in range(3):
        world.now += 5
        world.beat(first["heartbeat_secret"], runner_id=first["runner_id"])
        world.registry.keep_alive()
    assert world.channels.open[first["o2r"]["channel_name"]] == [b'{"keep":"alive"}']


def test_a_runner_that_is_not_ready_is_not_listed_and_not_called() -> None:
    world = World()
    first = world.beat(status="loading")
    assert world.registry.listing() == []
    with pytest.raises(Refused) as refused:
        world.registry.reserve(first["runner_id"])
    assert status_of(refused) == (404, "runner not found")


def test_unregistering_ends_sessions_and_channels() -> None:
    world = World()
    first = world.beat()
    _, session, _ = world.registry.reserve(first["runner_id"])
    world.registry.add_channel(session, "in", "")
    with pytest.raises(Refused) as refused:
        world.registry.unregister(first["runner_id"], "s")
    assert status_of(refused) == (401, "invalid authorization")
    world.registry.unregister(first["runner_id"], first["heartbeat_secret"])
    assert world.channels.open == {}
    with pytest.raises(Refused) as refused:
        world.registry.unregister(first["runner_id"], first["heartbeat_secret"])
    assert status_of(refused) == (404, "runner not found")


def test_channel_names() -> None:
    world = World()
    first = world.beat()
    _, session, _ = world.registry.reserve(first["runner_id"])
    made = world.registry.add_channel(session, "a/b", " ")
    assert made["name"] == "a-b"
    assert made["mime_type"] == "application/octet-stream"
    assert world.registry.add_channel(session, "a-b", "other/type") == made
    for name, text in [
        (" ", "trickle channel name is required"),
        ("a b", "trickle channel name may only contain alphanumerics, underscores, or hyphens"),
    ]:
        with pytest.raises(Refused) as refused:
            world.registry.add_channel(session, name, "")
        assert status_of(refused) == (400, text)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("nope", "target_url must be an absolute URL"),
        ("ftp://127.0.0.1/", "target_url scheme must be http or https"),
        ("http://elsewhere/", "target_url hostname must match registered runner_url hostname"),
    ],
)
def test_proxy_targets(target: str, text: str) -> None:
    world = World()
    first = world.beat()
    runner, session, _ = world.registry.reserve(first["runner_id"])
    with pytest.raises(Refused) as refused:
        world.registry.add_proxy(runner, session, target)
    assert status_of(refused) == (400, text)
    made = world.registry.add_proxy(runner, session, "http://127.0.0.1:9/deep")
    assert world.registry.proxy_target(made["proxy_id"]) == (runner, session, "http://127.0.0.1:9/deep")
    world.registry.release(runner.id, session.id)
    with pytest.raises(Refused) as refused:
        world.registry.proxy_target(made["proxy_id"])
    assert status_of(refused) == (404, "live runner proxy not found")
