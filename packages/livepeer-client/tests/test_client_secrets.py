"""Secrets stay out of messages, reprs, logs and records, and of what tracebacks show of our variables."""

from __future__ import annotations

import base64
import json
import logging
import pickle
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import livepeer.client
import livepeer.trickle
from livepeer.client import ConfigurationError, Gateway, LivepeerError, RequestRecord

SECRET = "s3cr3t-k3y"
FOLDERS = tuple(
    str(Path(package.__file__).parent) for package in (livepeer.client, livepeer.trickle) if package.__file__
)


def shown(error: BaseException) -> str:
    """What a traceback with variables shows: those of our frames, and each error's text."""
    text = ""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        pending += [one.__cause__, one.__context__]
        text += f"{one}\n{one!r}\n"
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if frame.f_code.co_filename.startswith(FOLDERS):
                text += f"{frame.f_code.co_qualname if hasattr(frame.f_code, 'co_qualname') else ''}: "
                text += f"{dict(frame.f_locals)!r}\n"
    return text


def token(**fields: Any) -> str:
    return base64.b64encode(json.dumps(fields).encode()).decode()


def spellings(secret: str = SECRET) -> Iterator[str]:
    yield secret
    yield base64.b64encode(secret.encode()).decode().rstrip("=")


def assert_hidden(text: str) -> None:
    for spelling in spellings():
        assert spelling not in text, text[max(0, text.index(spelling) - 300) : text.index(spelling) + 80]


@pytest.mark.parametrize(
    "options",
    [
        {"token": SECRET},
        {"token": base64.b64encode(SECRET.encode()).decode()},
        {"token": token(orchestrators=[1], signer_headers={"A": SECRET})},
        {"token": token(discovery=7, discovery_headers={"A": SECRET})},
        {"token": token(discovery="https://x", discovery_headers={"A": f"{SECRET}\n"})},
        {"token": token(discovery="http://x.example", discovery_headers={"A": SECRET})},
        {"token": token(orchestrators="nowhere", discovery_headers={"A": SECRET})},
        {"discovery_headers": {"A": SECRET}, "orch_url": "https://x"},
        {"discovery_headers": {"A": f"{SECRET}\r"}, "discovery_url": "https://x"},
        {"discovery_headers": [SECRET], "discovery_url": "https://x"},
        {"discovery_headers": {"A": SECRET}, "discovery_url": f"ftp://user:{SECRET}@x?key={SECRET}"},
        {"signer_headers": {"A": SECRET, "B": 7}, "signer_url": "https://x"},
        {"orch_url": ["https://x", f"https://{SECRET}@x:99999"]},
        {"orch_url": f"https://user:{SECRET}@[::1"},
        {"token": token(discovery="https://x", discovery_headers={"A": SECRET}), "tls": "no"},
        {"token": token(discovery="https://x", discovery_headers={"A": SECRET}), "on_request": 1},
    ],
    ids=str,
)
def test_a_configuration_that_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Gateway(**options)
    assert_hidden(shown(caught.value))


def test_the_environment_is_nobodys_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMETHING_ELSE", SECRET)
    monkeypatch.setenv("LIVEPEER_TOKEN", SECRET)
    with pytest.raises(ConfigurationError) as caught:
        Gateway()
    assert_hidden(shown(caught.value))
    monkeypatch.delenv("LIVEPEER_TOKEN")
    with pytest.raises(ConfigurationError) as caught:
        Gateway()
    assert_hidden(shown(caught.value))


def headers() -> dict[str, str]:
    return {"Authorization": SECRET}


async def later() -> tuple[dict[str, str], float]:
    return headers(), time.time() + 100


def wrong() -> Any:
    return headers(), "tomorrow"


def more_wrong() -> Any:
    return {"Authorization": SECRET, "B": 7}


@pytest.mark.parametrize(
    "given", [headers(), headers, later, wrong, more_wrong], ids=lambda one: str(one)[:9]
)
@pytest.mark.parametrize("how", ["refused", "unreachable", "broken", "no list"])
def test_a_discovery_that_fails(
    orch: Any, make_verbs: Any, caplog: pytest.LogCaptureFixture, given: Any, how: str
) -> None:
    caplog.set_level(logging.DEBUG, logger="livepeer")
    records: list[RequestRecord] = []

    async def answer(_orch: Any, request: web.Request) -> web.Response:
        if how == "broken":
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=401 if how == "refused" else 200, text="no")

    orch.discovery = answer
    url = "http://127.0.0.1:1" if how == "unreachable" else orch.url
    verbs = make_verbs(
        discovery_url=f"{url}/discovery?key={SECRET}", discovery_headers=given, on_request=records.append
    )
    with pytest.raises(LivepeerError) as caught:
        verbs.run("echo", input=1)
    told = [repr(record) for record in records] + [shown(one.error) for one in records if one.error]
    assert_hidden(shown(caught.value) + caplog.text + "".join(told) + repr(verbs.gateway))
    assert_hidden(repr(verbs.gateway._config))


def test_a_password_in_a_url_goes_to_its_origin_and_nowhere_else(
    orch: Any, make_verbs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="livepeer")
    gateway = pickle.loads(pickle.dumps(Gateway(orch_url=f"http://user:{SECRET}@127.0.0.1:{orch.port}")))
    with gateway:
        response = gateway.call("echo", input=1)
        with pytest.raises(LivepeerError) as caught:
            gateway.run("answer", input={"status": 500})
    sent = {seen.headers["Authorization"] for seen in orch.seen}
    assert sent == {"Basic " + base64.b64encode(f"user:{SECRET}".encode()).decode()}
    assert_hidden(shown(caught.value) + caplog.text + repr(gateway) + repr(gateway._config) + repr(response))
    assert response.orchestrator == caught.value.orchestrator == orch.url


def test_headers_of_ones_own_come_before_a_password(orch: Any, make_verbs: Any) -> None:
    verbs = make_verbs(
        discovery_url=f"http://user:pw@127.0.0.1:{orch.port}/discovery",
        discovery_headers={"authorization": SECRET},
    )
    assert verbs.run("echo", input=1) == 1
    assert orch.seen[0].headers.getall("Authorization") == [SECRET]
