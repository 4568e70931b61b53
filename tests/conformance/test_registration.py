"""How a runner becomes known, stays so, learns of its sessions, and leaves."""

from __future__ import annotations

import asyncio
import re
import uuid
from datetime import datetime
from typing import Any

import pytest
from aiohttp import web
from harness import Worker, dial

NOT_REGISTERED = (401, "invalid registration authorization\n")
NOT_YOURS = (401, "invalid heartbeat authorization\n")
UNKNOWN = (404, "runner not found\n")


async def again(worker: Worker, runner: dict[str, Any], **fields: Any) -> tuple[int, Any]:
    """The next heartbeat of a runner, with all its fields."""
    body = {**runner["body"], "runner_id": runner["runner_id"], **fields}
    return await worker.heartbeat(body, runner["heartbeat_secret"])


async def renew(worker: Worker, runner: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The same, which has to be accepted; the answer."""
    status, answer = await again(worker, runner, **fields)
    assert status == 200, answer
    return dict(answer)


async def listed(worker: Worker, app: str) -> list[dict[str, Any]]:
    async with worker.request("GET", f"{worker.network.url}/discovery") as answer:
        [entry] = await answer.json()
    return [runner for runner in entry.get("runners", []) if runner["app"] == app]


def minimal(**fields: Any) -> dict[str, Any]:
    return {"runner_url": "http://127.0.0.1:9/", "app": f"test-{uuid.uuid4().hex}", **fields}


# What the answers say


async def test_the_first_answer(worker: Worker) -> None:
    app = f"test-{uuid.uuid4().hex}"
    answer = await worker.register(app)
    answer = {name: value for name, value in answer.items() if name not in ("app", "body", "url")}
    runner_id, secret, o2r = answer.pop("runner_id"), answer.pop("heartbeat_secret"), answer.pop("o2r")
    assert answer == {
        "orchestrator": worker.network.url,
        "heartbeat_interval": "5s",
        "heartbeat_ttl": "20s",
        "session_ids": [],
    }
    assert re.fullmatch(r"runner_[a-z2-7]{8}", runner_id)
    assert re.fullmatch(r"[a-z2-7]{52}", secret)
    assert re.fullmatch(rf"{runner_id}-[a-z2-7]{{16}}-o2r", o2r["channel_name"])
    assert o2r == {
        "name": "o2r",
        "channel_name": o2r["channel_name"],
        "url": f"{worker.network.url}/ai/trickle/{o2r['channel_name']}",
        "mime_type": "application/json",
    }


async def test_later_answers_keep_the_secrets_to_themselves(worker: Worker) -> None:
    runner = await worker.register()
    assert await renew(worker, runner) == {
        "runner_id": runner["runner_id"],
        "orchestrator": worker.network.url,
        "heartbeat_interval": "5s",
        "heartbeat_ttl": "20s",
        "session_ids": [],
    }


async def test_answers_are_json(worker: Worker) -> None:
    url, headers = f"{worker.network.url}/runners/heartbeat", {"Authorization": worker.network.secret}
    async with worker.request("POST", url, json=minimal(), headers=headers) as answer:
        assert answer.headers["Content-Type"] == "application/json"
        assert "X-Content-Type-Options" not in answer.headers
        given = await answer.json()
    assert await worker.unregister(given) == 204


async def test_a_runner_may_choose_its_id(worker: Worker) -> None:
    name = f"my-{uuid.uuid4().hex}"
    runner = await worker.register(runner_id=f"  {name} ")
    assert runner["runner_id"] == name
    assert runner["o2r"]["channel_name"].startswith(f"{name}-")


# Fields


async def test_every_heartbeat_replaces_every_field(worker: Worker) -> None:
    runner = await worker.register(
        mode="single-shot", capacity=3, version="1", metadata="text", gpu={"name": "A"}, status="ready"
    )
    app, base = runner["app"], runner["url"]
    assert [one["mode"] for one in await listed(worker, app)] == ["single-shot"]
    bare = {"runner_id": runner["runner_id"], "app": app, "runner_url": runner["body"]["runner_url"]}
    status, _ = await worker.heartbeat(bare, runner["heartbeat_secret"])
    assert status == 200
    assert await listed(worker, app) == [
        {
            "url": f"{base}/session",
            "app": app,
            "mode": "persistent",
            "capacity": 1,
            "capacity_used": 0,
            "capacity_available": 1,
        }
    ]
    assert await worker.ask("GET", f"{base}/app/x") == (400, "runner is not single-shot\n")


async def test_app_and_address_are_replaced_too(worker: Worker) -> None:
    async def where(request: web.Request) -> web.Response:
        return web.Response(text=request.path)

    worker.routes.add_get("/{path:.*}", where)
    runner = await worker.register()
    address, other = runner["body"]["runner_url"], f"test-{uuid.uuid4().hex}"
    assert (await worker.ask("GET", f"{runner['url']}/app/x"))[1] == "/x"
    await renew(worker, runner, app=other, runner_url=f"{address}/below/")
    assert (await worker.ask("GET", f"{runner['url']}/app/x"))[1] == "/below/x"
    assert await listed(worker, runner["app"]) == []
    assert len(await listed(worker, other)) == 1


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", "persistent"),
        ("persistent", "persistent"),
        ("single-shot", "single-shot"),
        ("single_shot", "single-shot"),
    ],
)
async def test_modes(worker: Worker, given: str, kept: str) -> None:
    runner = await worker.register(mode=given)
    assert [one["mode"] for one in await listed(worker, runner["app"])] == [kept]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"runner_url": ""}, "invalid runner_url"),
        ({"runner_url": None}, "invalid runner_url"),
        ({"runner_url": "127.0.0.1:9"}, "invalid runner_url"),
        ({"runner_url": "/path"}, "invalid runner_url"),
        ({"runner_url": "ftp://127.0.0.1/"}, "invalid runner_url"),
        ({"runner_url": "http:///path"}, "invalid runner_url"),
        ({"runner_url": "http://127.0.0.1:x/"}, "invalid runner_url"),
        ({"app": ""}, "app must be trimmed"),
        ({"app": None}, "app must be trimmed"),
        ({"app": " padded"}, "app must be trimmed"),
        ({"app": "padded\n"}, "app must be trimmed"),
        ({"mode": "forever"}, 'mode must be "persistent" or "single-shot"'),
        ({"mode": "Persistent"}, 'mode must be "persistent" or "single-shot"'),
        ({"capacity": -1}, "capacity must be >= 0"),
        ({"metadata": "x" * 1025}, "metadata must be at most 1024 bytes"),
        ({"metadata": "ü" * 513}, "metadata must be at most 1024 bytes"),
        (
            {"metadata": "\ufffd"},
            "metadata must not contain Unicode replacement character U+FFFD",
        ),
        ({"status": "Ready"}, "status must be lowercase and trimmed"),
        ({"status": "ready "}, "status must be lowercase and trimmed"),
    ],
)
async def test_what_is_refused(worker: Worker, fields: dict[str, Any], text: str) -> None:
    body = {name: value for name, value in minimal(**fields).items() if value is not None}
    assert await worker.heartbeat(body) == (400, text + "\n")


async def test_the_fields_are_looked_at_before_the_secret(worker: Worker) -> None:
    assert await worker.heartbeat({}, "wrong") == (400, "invalid runner_url\n")


async def test_a_refused_heartbeat_changes_nothing(worker: Worker) -> None:
    runner = await worker.register(capacity=3)
    assert await again(worker, runner, capacity=-1) == (400, "capacity must be >= 0\n")
    assert [one["capacity"] for one in await listed(worker, runner["app"])] == [3]


@pytest.mark.parametrize("metadata", ["x" * 1024, "ü" * 512])
async def test_a_whole_kibibyte_of_metadata(worker: Worker, metadata: str) -> None:
    runner = await worker.register(metadata=metadata)
    assert [one["metadata"] for one in await listed(worker, runner["app"])] == [metadata]


async def test_unknown_fields_are_ignored(worker: Worker) -> None:
    runner = await worker.register(something="else", capabilities=[1, 2])
    assert len(await listed(worker, runner["app"])) == 1


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "EOF"),
        (b"nonsense", "invalid character"),
        (b"[]", "cannot unmarshal array"),
        (b'{"capacity": "4"}', "capacity of type int"),
        (b'{"capacity": 1.5}', "capacity of type int"),
        (b'{"app": 1}', "app of type string"),
        (b'{"price_info": {"price": "much"}}', "invalid number literal"),
    ],
)
async def test_bodies_that_mean_nothing(worker: Worker, body: bytes, part: str) -> None:
    url, headers = f"{worker.network.url}/runners/heartbeat", {"Authorization": worker.network.secret}
    async with worker.request("POST", url, data=body, headers=headers) as answer:
        assert answer.status == 400
        assert part in await answer.text()
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_other_methods(worker: Worker) -> None:
    async with worker.request("GET", f"{worker.network.url}/runners/heartbeat") as answer:
        assert (answer.status, await answer.text()) == (405, "Method Not Allowed\n")
        assert answer.headers["Allow"] == "POST"


# Secrets


@pytest.mark.parametrize("form", ["{}x", "Bearer {}", "bearer {}", ""])
async def test_a_wrong_secret(worker: Worker, form: str) -> None:
    assert await worker.heartbeat(minimal(), form.format(worker.network.secret)) == NOT_REGISTERED


async def test_no_secret(worker: Worker) -> None:
    url = f"{worker.network.url}/runners/heartbeat"
    assert await worker.ask("POST", url, json=minimal()) == NOT_REGISTERED


async def test_heartbeats_need_the_runners_own_secret(worker: Worker) -> None:
    runner = await worker.register()
    body = {**runner["body"], "runner_id": runner["runner_id"]}
    assert await worker.heartbeat(body) == NOT_YOURS
    assert await worker.heartbeat(body, "") == NOT_YOURS
    assert await worker.heartbeat(body, runner["heartbeat_secret"] + "x") == NOT_YOURS
    assert (await again(worker, runner))[0] == 200


async def test_a_heartbeat_of_an_unknown_runner(worker: Worker) -> None:
    """What a runner gets after the orchestrator's restart."""
    runner = await worker.register()
    gone = minimal(runner_id=f"runner_{uuid.uuid4().hex[:8]}")
    assert await worker.heartbeat(gone, runner["heartbeat_secret"]) == NOT_REGISTERED


# Leaving


async def test_unregistering(worker: Worker) -> None:
    runner = await worker.register(mode="persistent")
    session = await worker.reserve(runner)
    url = f"{worker.network.url}/runners/{runner['runner_id']}/unregister"
    own = {"Authorization": runner["heartbeat_secret"]}
    for wrong in {}, {"Authorization": worker.network.secret}, {"Authorization": "x"}:
        assert await worker.ask("POST", url, headers=wrong) == (401, "invalid authorization\n")
    async with worker.request("POST", url, headers=own) as answer:
        assert (answer.status, await answer.read()) == (204, b"")
        assert "Content-Type" not in answer.headers
    assert await listed(worker, runner["app"]) == []
    assert await worker.ask("POST", f"{runner['url']}/session") == UNKNOWN
    assert await worker.ask("GET", f"{session.app_url}/x") == UNKNOWN
    assert await worker.ask("POST", f"{session.control_url}/stop") == UNKNOWN
    assert await worker.ask("POST", url, headers=own) == UNKNOWN


async def test_unregistering_an_unknown_runner(worker: Worker) -> None:
    url = f"{worker.network.url}/runners/no-such-runner/unregister"
    assert await worker.ask("POST", url, headers={"Authorization": worker.network.secret}) == UNKNOWN


async def test_an_id_is_free_after_unregistration(worker: Worker) -> None:
    runner = await worker.register()
    assert await worker.unregister(runner) == 204
    assert await again(worker, runner) == NOT_REGISTERED
    back = await worker.register(runner["app"], runner_id=runner["runner_id"])
    assert back["runner_id"] == runner["runner_id"]
    assert back["heartbeat_secret"] != runner["heartbeat_secret"]
    assert back["o2r"]["url"] != runner["o2r"]["url"]


# The orchestrator's channel to the runner


async def message(worker: Worker, runner: dict[str, Any], number: int) -> dict[str, Any]:
    async with worker.request("GET", f"{runner['o2r']['url']}/{number}") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Lp-Trickle-Seq"] == str(number)
        return dict(await answer.json())


async def test_sessions_are_announced(worker: Worker) -> None:
    runner = await worker.register(mode="persistent")
    waiting = asyncio.create_task(message(worker, runner, 0))
    first, second = await worker.reserve(runner), await worker.reserve(runner)
    await worker.ask("POST", f"{first.control_url}/stop")
    await worker.callback(second, "POST", "stop")
    await worker.ask("POST", f"{second.control_url}/stop")  # over already: no message
    messages = [await waiting, *[await message(worker, runner, number) for number in (1, 2, 3)]]
    for one in messages:
        datetime.fromisoformat(re.sub(r"(\.\d{1,6})\d*Z", r"\1+00:00", one.pop("timestamp")))
    assert messages == [
        {"event": "reserved", "session": first.id},
        {"event": "reserved", "session": second.id},
        {"event": "released", "session": first.id},
        {"event": "released", "session": second.id},
    ]
    assert await worker.ask("GET", f"{runner['o2r']['url']}/next") == (200, "4")


async def test_a_single_shot_call_is_a_session(worker: Worker) -> None:
    async def run(request: web.Request) -> web.Response:
        return web.Response(text=request.headers["Livepeer-Session-Id"])

    worker.routes.add_get("/run", run)
    runner = await worker.register()
    _, session = await worker.ask("GET", f"{runner['url']}/app/run")
    told = [await message(worker, runner, number) for number in (0, 1)]
    assert [(one["event"], one["session"]) for one in told] == [("reserved", session), ("released", session)]


async def test_the_channel_ends_at_unregistration(worker: Worker) -> None:
    runner = await worker.register()
    async with dial(worker.network) as wire:
        await wire.ask("GET", runner["o2r"]["url"] + "/0")
        assert await wire.silent()
        assert await worker.unregister(runner) == 204
        status, headers, body = await wire.answer()
    assert (status, body) == (200, b"")
    assert headers["Lp-Trickle-Closed"] == "terminated"
    assert await worker.ask("GET", runner["o2r"]["url"] + "/0") == (404, "Stream not found\n")


# Sessions and states


async def test_the_answers_sessions_are_the_truth(worker: Worker) -> None:
    runner = await worker.register(mode="persistent")
    first, second = await worker.reserve(runner), await worker.reserve(runner)
    told = await renew(worker, runner, session_ids=["session_of_mine"])
    assert told["session_ids"] == [first.id, second.id]
    assert (await renew(worker, runner, session_ids=[]))["session_ids"] == [first.id, second.id]
    await worker.ask("POST", f"{first.control_url}/stop")
    told = await renew(worker, runner, session_ids=[first.id, second.id])
    assert told["session_ids"] == [second.id]
    assert await worker.ask("GET", f"{first.app_url}/x") == (404, "runner session not found\n")


@pytest.mark.parametrize("mode", ["single-shot", "persistent"])
@pytest.mark.parametrize("state", ["loading", "busy", "unavailable"])
async def test_a_runner_that_is_not_ready_gets_nothing(worker: Worker, mode: str, state: str) -> None:
    runner = await worker.register(mode=mode, status=state)
    assert await listed(worker, runner["app"]) == []
    assert await worker.ask("POST", f"{runner['url']}/session") == UNKNOWN
    assert await worker.ask("POST", f"{runner['url']}/app/x") == UNKNOWN
    await renew(worker, runner, status="ready")
    assert len(await listed(worker, runner["app"])) == 1


async def test_an_absent_status_is_ready(worker: Worker) -> None:
    runner = await worker.register(status="")
    assert len(await listed(worker, runner["app"])) == 1


async def test_sessions_outlive_a_time_of_not_being_ready(worker: Worker) -> None:
    runner = await worker.register(mode="persistent")
    session, other = await worker.reserve(runner), await worker.reserve(runner)
    told = await renew(worker, runner, status="busy")
    assert told["session_ids"] == [session.id, other.id]
    assert await worker.ask("GET", f"{session.app_url}/_who") == UNKNOWN
    assert await worker.callback(session, "POST", "proxy", {}) == UNKNOWN
    assert await worker.ask("POST", f"{other.control_url}/stop") == (204, "")
    assert (await renew(worker, runner))["session_ids"] == [session.id]
    assert (await worker.ask("GET", f"{session.app_url}/_who"))[0] == 200


async def test_two_runners_of_one_app(worker: Worker) -> None:
    app = f"pipeline/{uuid.uuid4().hex}"
    async with Worker(worker.network) as second:
        for one, name in (worker, "a"), (second, "b"):

            async def run(_: web.Request, name: str = name) -> web.Response:
                return web.Response(text=name)

            one.routes.add_get("/run", run)
        runners = [await one.register(app) for one in (worker, second)]
        urls = {f"{runner['url']}/app" for runner in runners}
        assert {one["url"] for one in await listed(worker, app)} == urls
        answers = [await worker.ask("GET", f"{runner['url']}/app/run") for runner in runners]
        assert answers == [(200, "a"), (200, "b")]
    assert len(await listed(worker, app)) == 1


# The intervals


@pytest.mark.slow
async def test_what_time_does(worker: Worker) -> None:
    """Twenty seconds without a heartbeat: two messages on the channel, then the runner is no more."""
    runner = await worker.register(mode="persistent")
    session = await worker.reserve(runner)
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert await message(worker, runner, 1) == {"keep": "alive"}
    assert 9 < loop.time() - start < 12
    assert len(await listed(worker, runner["app"])) == 1
    await asyncio.sleep(start + 18 - loop.time())
    assert (await worker.ask("GET", f"{session.app_url}/_who"))[0] == 200
    await asyncio.sleep(start + 20.5 - loop.time())
    assert await listed(worker, runner["app"]) == []
    assert await worker.ask("GET", f"{session.app_url}/_who") == UNKNOWN
    # known to nobody, but its id is taken until the next sweep, at most five seconds later
    assert await again(worker, runner) in (UNKNOWN, NOT_REGISTERED)
