"""What a worker may ask of the orchestrator during a session: channels, public addresses, the end."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from harness import Session, Worker, dial, free_port

DENIED = (401, "invalid authorization\n")
NO_SESSION = (404, "runner session not found\n")
NO_RUNNER = (404, "runner not found\n")
NO_CHANNEL = (404, "Stream not found\n")
BAD_NAME = (400, "trickle channel name may only contain alphanumerics, underscores, or hyphens\n")


@pytest.fixture
async def runner(worker: Worker) -> dict[str, Any]:
    """A registered persistent runner that answers with the path it was asked for."""

    async def where(request: web.Request) -> web.Response:
        return web.json_response({"path": request.path_qs, "session": request.headers["Livepeer-Session-Id"]})

    worker.routes.add_route("*", "/{path:.*}", where)
    return await worker.register(mode="persistent")


@pytest.fixture
async def session(worker: Worker, runner: dict[str, Any]) -> Session:
    """A session of that runner."""
    return await worker.reserve(runner)


async def create(worker: Worker, session: Session, *names: str, **fields: Any) -> tuple[int, Any]:
    channels = [{"name": name, **fields} for name in names]
    return await worker.callback(session, "POST", "channels", {"channels": channels})


async def remove(worker: Worker, session: Session, *names: str) -> tuple[int, Any]:
    return await worker.callback(session, "DELETE", "channels", {"channels": list(names)})


def described(worker: Worker, session: Session, name: str, mime_type: str) -> dict[str, str]:
    url = f"{worker.network.url}/ai/trickle/{session.id}-{name}"
    return {
        "name": name,
        "channel_name": f"{session.id}-{name}",
        "url": url,
        "internal_url": url,
        "mime_type": mime_type,
    }


async def next_number(worker: Worker, session: Session, name: str) -> tuple[int, str]:
    return await worker.ask("GET", f"{worker.network.url}/ai/trickle/{session.id}-{name}/next")


# Channels


async def test_making_channels(worker: Worker, session: Session) -> None:
    wanted = [{"name": "in", "mime_type": "video/MP2T"}, {"name": "Events_2-x"}]
    status, answer = await worker.callback(session, "POST", "channels", {"channels": wanted})
    assert status == 200
    assert answer == {
        "channels": [
            described(worker, session, "in", "video/MP2T"),
            described(worker, session, "Events_2-x", "application/octet-stream"),
        ]
    }
    for name in "in", "Events_2-x":
        assert await next_number(worker, session, name) == (200, "0")


async def test_a_second_request_for_a_channel_gives_the_first(worker: Worker, session: Session) -> None:
    first = await create(worker, session, "out", mime_type="application/json")
    assert await create(worker, session, "out", mime_type="video/MP2T") == first
    assert first[1]["channels"] == [described(worker, session, "out", "application/json")]


@pytest.mark.parametrize(("given", "kept"), [(" padded ", "padded"), ("a/b", "a-b"), ("/", "-")])
async def test_names_are_tidied(worker: Worker, session: Session, given: str, kept: str) -> None:
    status, answer = await create(worker, session, given)
    assert (status, answer["channels"][0]["name"]) == (200, kept)
    assert await remove(worker, session, given) == (200, {"deleted": [given]})


@pytest.mark.parametrize("name", ["a.b", "a b", "ä", "a:b", "a%20b"])
async def test_names_that_are_refused(worker: Worker, session: Session, name: str) -> None:
    assert await create(worker, session, name) == BAD_NAME
    assert await remove(worker, session, name) == BAD_NAME


@pytest.mark.parametrize("name", ["", "  "])
async def test_a_channel_needs_a_name(worker: Worker, session: Session, name: str) -> None:
    assert await create(worker, session, name) == (400, "trickle channel name is required\n")


async def test_a_wrong_name_leaves_those_before_it(worker: Worker, session: Session) -> None:
    assert await create(worker, session, "good", "b.ad", "never") == BAD_NAME
    assert await next_number(worker, session, "good") == (200, "0")
    assert await next_number(worker, session, "never") == NO_CHANNEL


async def test_how_many_channels_a_call_may_make(worker: Worker, session: Session) -> None:
    names = [f"channel-{number}" for number in range(26)]
    refusal = (400, "channels cannot contain more than 25 entries\n")
    assert await create(worker, session, *names) == refusal
    assert await next_number(worker, session, names[0]) == NO_CHANNEL
    assert await remove(worker, session, *names) == refusal
    status, answer = await create(worker, session, *names[:25])
    assert (status, len(answer["channels"])) == (200, 25)
    assert (await create(worker, session, names[25]))[0] == 200  # the limit is the call's, not the session's
    assert await remove(worker, session, *names[:25]) == (200, {"deleted": names[:25]})


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_channels_have_to_be_named(worker: Worker, session: Session, method: str) -> None:
    for body in {}, {"channels": []}, {"channels": None}:
        assert await worker.callback(session, method, "channels", body) == (400, "channels is required\n")


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "EOF"),
        (b"nonsense", "invalid character"),
        (b'{"channels": "in"}', "cannot unmarshal string"),
        (b'{"channels": [1]}', "cannot unmarshal number"),
    ],
)
async def test_bodies_that_mean_nothing(
    worker: Worker, session: Session, method: str, body: bytes, part: str
) -> None:
    status, text = await worker.callback(session, method, "channels", body)
    assert status == 400
    assert part in text


async def test_removing_channels(worker: Worker, session: Session) -> None:
    await create(worker, session, "a", "b", "c")
    assert await remove(worker, session, "a", "b") == (200, {"deleted": ["a", "b"]})
    assert await next_number(worker, session, "a") == NO_CHANNEL
    assert await next_number(worker, session, "c") == (200, "0")
    unknown = (404, "trickle channel not found\n")
    assert await remove(worker, session, "a") == unknown
    assert await remove(worker, session, "c", "never-was") == unknown
    assert await next_number(worker, session, "c") == NO_CHANNEL  # those before the wrong one are gone


async def test_a_removed_channel_can_be_made_again(worker: Worker, session: Session) -> None:
    await create(worker, session, "a")
    url = described(worker, session, "a", "")["url"]
    assert (await worker.ask("POST", f"{url}/0", data=b"x"))[0] == 200
    await remove(worker, session, "a")
    await create(worker, session, "a")
    assert await next_number(worker, session, "a") == (200, "0")


async def test_a_channel_that_somebody_closed_stays_listed(worker: Worker, session: Session) -> None:
    first = await create(worker, session, "a")
    assert await worker.ask("DELETE", first[1]["channels"][0]["url"]) == (200, "")
    assert await create(worker, session, "a") == first  # though it isn't made anew
    assert await next_number(worker, session, "a") == NO_CHANNEL
    assert await remove(worker, session, "a") == (500, "Invalid stream\n")


# Addresses


async def run_url(worker: Worker, session: Session, body: Any) -> str:
    status, answer = await worker.callback(session, "POST", "proxy", body)
    assert status == 200, answer
    assert answer["url"] == f"{worker.network.url}/run/{answer['proxy_id']}"
    return str(answer["url"])


@pytest.mark.parametrize("body", [b"", {}, {"target_url": ""}, {"target_url": "  "}])
async def test_an_address_of_the_runner(worker: Worker, session: Session, body: Any) -> None:
    url = await run_url(worker, session, body)
    assert session.id not in url
    for path, arrived in ("", "/"), ("/", "/"), ("/a/b?c=1", "/a/b?c=1"), ("?c=1", "/?c=1"):
        async with worker.request("GET", url + path) as answer:
            assert await answer.json() == {"path": arrived, "session": session.id}


async def test_an_address_beside_the_runner(worker: Worker, session: Session) -> None:
    async def other(request: web.Request) -> web.Response:
        return web.json_response([request.path_qs, request.headers["Livepeer-Session-Token"]])

    async with Worker(worker.network) as beside:
        beside.routes.add_get("/{path:.*}", other)
        url = await run_url(worker, session, {"target_url": f"{await beside.start()}/ui"})
        async with worker.request("GET", f"{url}/page?q=1") as answer:
            assert await answer.json() == ["/ui/page?q=1", session.token]


async def test_an_address_takes_what_an_app_takes(worker: Worker, session: Session) -> None:
    url = await run_url(worker, session, {})
    async with worker.request("PUT", f"{url}/x", data=b"body") as answer:
        assert answer.status == 200
    nowhere = await run_url(worker, session, {"target_url": f"http://127.0.0.1:{free_port()}/"})
    status, text = await worker.ask("PUT", f"{nowhere}/x", data=b"body")
    assert status == 502
    assert text.endswith("connect: connection refused\n")


async def test_targets_that_are_refused(worker: Worker, session: Session) -> None:
    port = urlsplit(await worker.start()).port
    for target, text in {
        f"http://localhost:{port}/": "target_url hostname must match registered runner_url hostname",
        "http://example.com/": "target_url hostname must match registered runner_url hostname",
        "ftp://127.0.0.1/": "target_url scheme must be http or https",
        "ws://127.0.0.1/": "target_url scheme must be http or https",
        "/relative": "target_url must be an absolute URL",
        "127.0.0.1": "target_url must be an absolute URL",
    }.items():
        refusal = (400, text + "\n")
        assert await worker.callback(session, "POST", "proxy", {"target_url": target}) == refusal, target
    status, text = await worker.callback(session, "POST", "proxy", b"nonsense")
    assert status == 400
    assert "invalid character" in text


async def test_addresses_that_lead_nowhere(worker: Worker, runner: dict[str, Any], session: Session) -> None:
    unknown = (404, "live runner proxy not found\n")
    for name in "nothing", session.id, runner["runner_id"]:
        assert await worker.ask("GET", f"{worker.network.url}/run/{name}/x") == unknown
    assert await worker.ask("GET", f"{worker.network.url}/run/") == (404, "404 page not found\n")


async def test_a_proxied_runners_sessions_have_such_an_address(worker: Worker) -> None:
    async def where(request: web.Request) -> web.Response:
        return web.Response(text=request.path_qs)

    worker.routes.add_get("/{path:.*}", where)
    runner = await worker.register(mode="persistent", proxy=True)
    session = await worker.reserve(runner)
    assert session.app_url.startswith(f"{worker.network.url}/run/")
    assert session.control_url == f"{runner['url']}/session/{session.id}"
    assert await worker.ask("GET", f"{session.app_url}/a?b=1") == (200, "/a?b=1")
    assert await worker.ask("GET", session.app_url) == (200, "/")  # no slash is needed here
    assert await worker.ask("GET", f"{session.control_url}/app/a") == (200, "/a")  # the ordinary way too
    assert await worker.ask("POST", f"{session.control_url}/stop") == (204, "")
    assert await worker.ask("GET", f"{session.app_url}/a") == (404, "live runner proxy not found\n")


async def test_a_proxied_single_shot_runner(worker: Worker) -> None:
    async def where(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.method} {request.path_qs} {await request.text()}")

    worker.routes.add_route("*", "/{path:.*}", where)
    runner = await worker.register(proxy=True)
    url = f"{worker.network.url}/run/{runner['runner_id']}"
    assert await worker.ask("POST", f"{url}/a/b?c=1", data=b"body") == (200, "POST /a/b?c=1 body")
    for root in url, f"{url}/":  # of nothing behind the id, the slash is lost on the way
        async with worker.request("POST", f"{root}?c=1", data=b"body") as answer:
            assert answer.status == 307
            assert answer.headers["Location"] == f"/apps/{runner['runner_id']}/app/?c=1"
    assert await worker.ask("POST", f"{runner['url']}/app/a", data=b"body") == (200, "POST /a body")


# Who may ask


@pytest.mark.parametrize(
    ("method", "name"), [("POST", "channels"), ("DELETE", "channels"), ("POST", "proxy"), ("POST", "stop")]
)
async def test_the_token_is_needed(
    worker: Worker, runner: dict[str, Any], session: Session, method: str, name: str
) -> None:
    other = await worker.reserve(runner)
    for token in "", "x", session.token + "x", other.token, runner["heartbeat_secret"]:
        assert await worker.callback(session, method, name, {}, token=token) == DENIED
    assert await worker.ask(method, f"{session.callbacks}/{name}", json={}) == DENIED
    assert (await worker.ask("GET", f"{session.app_url}/x"))[0] == 200


async def test_unknown_sessions_and_runners(worker: Worker, session: Session) -> None:
    headers = {"Livepeer-Session-Token": session.token}
    for base, answer in {
        session.callbacks.replace(session.id, "session_unknown"): NO_SESSION,
        f"{worker.network.url}/runner/unknown/session/{session.id}": NO_RUNNER,
    }.items():
        for name in "channels", "proxy", "stop":
            assert await worker.ask("POST", f"{base}/{name}", json={}, headers=headers) == answer


# The end


async def test_the_worker_ends_its_session(worker: Worker, session: Session) -> None:
    assert await worker.callback(session, "POST", "stop") == (204, "")
    assert await worker.callback(session, "POST", "stop") == NO_SESSION
    assert await worker.ask("GET", f"{session.app_url}/x") == NO_SESSION
    assert await worker.ask("POST", f"{session.control_url}/stop") == (204, "")


@pytest.mark.parametrize("how", ["client", "worker", "unregister"])
async def test_channels_and_addresses_end_with_the_session(
    worker: Worker, runner: dict[str, Any], session: Session, how: str
) -> None:
    _, made = await create(worker, session, "a", "b")
    url = await run_url(worker, session, {})
    channel = made["channels"][0]["url"]
    async with dial(worker.network) as wire:
        await wire.ask("GET", f"{channel}/0")
        assert await wire.silent(0.05)
        if how == "client":
            assert await worker.ask("POST", f"{session.control_url}/stop") == (204, "")
        elif how == "worker":
            assert await worker.callback(session, "POST", "stop") == (204, "")
        else:
            assert await worker.unregister(runner) == 204
        status, headers, body = await wire.answer()
    assert (status, body, headers["Lp-Trickle-Closed"]) == (200, b"", "terminated")
    for name in "a", "b":
        assert await next_number(worker, session, name) == NO_CHANNEL
    assert await worker.ask("POST", f"{channel}/0", data=b"late") == NO_CHANNEL
    assert await worker.ask("GET", f"{url}/x") == (404, "live runner proxy not found\n")
    gone = NO_RUNNER if how == "unregister" else NO_SESSION
    assert await create(worker, session, uuid.uuid4().hex) == gone
