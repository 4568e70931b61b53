"""Live video-to-video on the wire: a bare HTTP client on one side, a bare HTTP container on the other."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from ai_harness import Caller, Container
from aiohttp import web
from harness import UNVERIFIED, Network, Worker, until
from silence import SWEPT_AFTER

from livepeer.client._grpc import lp_rpc_pb2 as net

Answer = tuple[int, str]
DROPPED: Answer = (0, "dropped")
JOB = {"model_id": "noop"}
UNREADABLE = "cannot parse invalid wire-format data"


class Client:
    """A caller with a token."""

    def __init__(self, network: Network, http: aiohttp.ClientSession, token: net.AuthToken) -> None:
        self.network = network
        self.url = network.url
        self.token = token
        self._http = http

    async def request(self, method: str, path: str, **options: Any) -> tuple[int, Any, bytes]:
        """A status, headers and body; 0 when the connection drops instead."""
        url = path if "://" in path else self.url + path
        try:
            async with self._http.request(
                method, url, ssl=UNVERIFIED, allow_redirects=False, **options
            ) as answer:
                return answer.status, answer.headers, await answer.read()
        except aiohttp.ServerDisconnectedError:
            return 0, {}, b"dropped"

    async def ask(self, body: Any = None, *, segment: str | None = None, **headers: str) -> Answer:
        """Ask for a job; the status and the text, without the newline at its end."""
        if segment is None:
            segment = header(auth_token=self.token)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, _, text = await self.request(
            "POST", "/live-video-to-video", data=data, headers={"Livepeer-Segment": segment} | named
        )
        return status, text.decode().removesuffix("\n")

    async def start(self, **fields: Any) -> dict[str, str]:
        """Start a job, and expect it to be taken."""
        status, text = await self.ask(JOB | fields)
        assert status == 200, text
        found: dict[str, str] = json.loads(text)
        return found

    async def there(self, url: str) -> bool:
        """Whether a channel exists."""
        status, _, _ = await self.request("GET", f"{url}/next")
        assert status in (200, 404)
        return status == 200


def header(**fields: Any) -> str:
    """A segment header."""
    return base64.b64encode(net.SegData(**fields).SerializeToString()).decode()


def channels(told: dict[str, str]) -> list[str]:
    """The URLs of a job's channels, as client or container are told of them."""
    return [told[name] for name in ("publish_url", "subscribe_url", "control_url", "events_url")]


@pytest.fixture
async def client(ai_network: Network) -> AsyncIterator[Client]:
    async with Caller(ai_network.url) as caller, aiohttp.ClientSession() as http:
        yield Client(ai_network, http, (await caller.ask()).auth_token)


@pytest.fixture
async def container(ai_network: Network) -> AsyncIterator[Container]:
    async with Container(ai_network.models, "noop") as made:
        yield made


def answers_with(status: int, body: str, content_type: str = "application/json") -> Any:
    async def start(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=body, content_type=content_type)

    return start


# A job


async def test_both_sides_are_told_of_four_channels(client: Client, container: Container) -> None:
    told = await client.start()
    manifest_id = told["manifest_id"]
    assert re.fullmatch("[0-9a-f]{8}", manifest_id)
    base = f"{client.url}/ai/trickle/{manifest_id}"
    assert told == {
        "manifest_id": manifest_id,
        "publish_url": base,
        "subscribe_url": f"{base}-out",
        "control_url": f"{base}-control",
        "events_url": f"{base}-events",
    }
    assert container.started == [
        {
            "manifest_id": manifest_id,
            "model_id": "noop",
            "gateway_request_id": "",
            "stream_id": "",
            "subscribe_url": base,
            "publish_url": f"{base}-out",
            "control_url": f"{base}-control",
            "events_url": f"{base}-events",
        }
    ]
    assert [await client.there(url) for url in channels(told)] == [True] * 4


async def test_the_callers_fields_reach_the_container(client: Client, container: Container) -> None:
    params = {"z": [1, {"b": None, "a": "é<\U0001f600"}], "a": True}
    await client.start(params=params, gateway_request_id="g", stream_id="s", manifest_id="m", more=1)
    found = container.started[-1]
    assert (found["params"], found["gateway_request_id"], found["stream_id"]) == (params, "g", "s")
    assert found["manifest_id"] != "m"
    assert "more" not in found
    await client.start(params=None)
    assert "params" not in container.started[-1]


async def test_ids_come_from_headers_too(client: Client, container: Container) -> None:
    assert (await client.ask(JOB, requestID="r", streamID="s"))[0] == 200
    assert (container.started[-1]["gateway_request_id"], container.started[-1]["stream_id"]) == ("r", "s")
    assert (await client.ask({**JOB, "gateway_request_id": "b"}, requestID="r"))[0] == 200
    assert container.started[-1]["gateway_request_id"] == "b"


async def test_numbers_of_params_become_floats(client: Client, container: Container) -> None:
    """The orchestrator reads and writes them: what a float does not hold is lost."""
    seen: list[str] = []

    async def start(request: web.Request) -> web.Response:
        seen.append(await request.text())
        return web.json_response({})

    container.start = start
    body = (
        b'{"model_id":"noop","params":{"b":12345678901234567890,"a":9007199254740993,"c":1.0,"d":0.1,"e":-5}}'
    )
    assert (await client.ask(body))[0] == 200
    (sent,) = re.findall(r'"params":(\{.*?\})', seen[0])
    assert sent == '{"a":9007199254740992,"b":12345678901234567000,"c":1,"d":0.1,"e":-5}'


async def test_media_and_messages_go_both_ways(client: Client, container: Container) -> None:
    told = await client.start()
    theirs = container.started[-1]
    kinds = {}
    for write, read in (
        (told["publish_url"], theirs["subscribe_url"]),
        (theirs["publish_url"], told["subscribe_url"]),
        (told["control_url"], theirs["control_url"]),
        (theirs["events_url"], told["events_url"]),
    ):
        assert (await client.request("POST", f"{write}/0", data=b"some bytes"))[0] == 200
        status, headers, data = await client.request("GET", f"{read}/0")
        assert (status, data) == (200, b"some bytes")
        kinds[read.removeprefix(told["publish_url"])] = headers["Content-Type"]
    assert kinds == {
        "": "video/MP2T",
        "-out": "video/MP2T",
        "-control": "application/json",
        "-events": "application/json",
    }


async def test_the_orchestrator_reads_along(client: Client, container: Container) -> None:
    """It waits for the next segment of the media, which takes one of the ring's five places."""
    told = await client.start()
    media = told["publish_url"]
    for number in range(6):
        assert (await client.request("POST", f"{media}/{number}", data=b"x"))[0] == 200

    async def first() -> bool:
        return (await client.request("GET", f"{media}/1"))[0] == 470

    await until(first)
    assert (await client.request("GET", f"{media}/2"))[0] == 200
    out = told["subscribe_url"]  # here nobody waits
    for number in range(6):
        assert (await client.request("POST", f"{out}/{number}", data=b"x"))[0] == 200
    assert (await client.request("GET", f"{out}/1"))[0] == 200


async def test_a_container_takes_any_number_of_jobs_of_one_token(
    client: Client, container: Container
) -> None:
    assert client.network.models[0]["capacity"] == 2
    told = [await client.start() for _ in range(4)]
    assert len({one["manifest_id"] for one in told}) == len(container.started) == 4


async def test_the_end_of_the_input_ends_all_four(client: Client, container: Container) -> None:
    told = await client.start()
    other = await client.start()
    assert (await client.request("DELETE", told["publish_url"]))[0] == 200

    async def gone() -> bool:
        return not any([await client.there(url) for url in channels(told)])

    await until(gone)
    assert [await client.there(url) for url in channels(other)] == [True] * 4


async def test_readers_that_wait_are_told_of_the_end(client: Client, container: Container) -> None:
    for pause in (0.05, 0.5, 5.0):  # a reader that has not arrived when the channel ends is told 404
        told = await client.start()
        waiting = [
            asyncio.create_task(client.request("GET", f"{url}/0"))
            for url in (told["subscribe_url"], told["events_url"])
        ]
        await asyncio.sleep(pause)
        assert (await client.request("DELETE", told["publish_url"]))[0] == 200
        answers = await asyncio.gather(*waiting)
        if 404 not in [status for status, _, _ in answers]:
            break
    for status, headers, data in answers:
        assert (status, headers.get("Lp-Trickle-Closed"), data) == (200, "terminated", b"")


@pytest.mark.parametrize("name", ["subscribe_url", "control_url", "events_url"])
async def test_the_end_of_another_channel_is_its_own(name: str, client: Client, container: Container) -> None:
    told = await client.start()
    assert (await client.request("DELETE", told[name]))[0] == 200
    assert not await client.there(told[name])
    assert await client.there(told["publish_url"])
    assert sum([await client.there(url) for url in channels(told)]) == 3


@pytest.mark.slow
@pytest.mark.timeout(1000)
async def test_abandoned_jobs_are_swept_after_five_minutes(
    client: Client, container: Container, request: pytest.FixtureRequest
) -> None:
    """`--silence 400` waits for it. A job whose input goes on keeps that one and loses the silent ones."""
    seconds = request.config.getoption("--silence")
    abandoned, kept = await client.start(), await client.start()
    if seconds < SWEPT_AFTER:
        assert [await client.there(url) for url in (*channels(abandoned), *channels(kept))] == [True] * 8
        return
    for number in range(int(SWEPT_AFTER // 60) + 1):
        assert (await client.request("POST", f"{kept['publish_url']}/{number}", data=b"x"))[0] == 200
        if number < 4:
            assert [await client.there(url) for url in channels(abandoned)] == [True] * 4
        await asyncio.sleep(60)
    assert [await client.there(url) for url in channels(abandoned)] == [False] * 4
    assert [await client.there(url) for url in channels(kept)] == [True, False, False, False]


# A start that takes its time


async def test_a_client_that_gives_up_leaves_a_job(client: Client, container: Container) -> None:
    """Nobody knows its id but the container, which is not told either."""
    asked, go = asyncio.Event(), asyncio.Event()
    outcome: list[str] = []

    async def start(_request: web.Request) -> web.Response:
        asked.set()
        try:
            await asyncio.wait_for(go.wait(), 30)
            outcome.append("went on")
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise
        return web.json_response({})

    container.start = start
    asking = asyncio.create_task(client.start())
    await asyncio.wait_for(asked.wait(), 30)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.sleep(0.3)  # were it cancelled, it would be by now
    go.set()
    await until(lambda: outcome == ["went on"])
    assert [await client.there(url) for url in channels(container.started[-1])] == [True] * 4


async def test_an_input_that_ends_meanwhile_ends_the_start(client: Client, container: Container) -> None:
    left = asyncio.Event()

    async def start(_request: web.Request) -> web.Response:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            left.set()
            raise
        return web.json_response({})

    container.start = start
    asking = asyncio.create_task(client.ask(JOB))
    await until(lambda: bool(container.started))
    told = container.started[-1]
    assert (await client.request("DELETE", told["subscribe_url"]))[0] == 200
    status, text = await asking
    assert (status, text) == (500, f'Post "{url_of(client, "noop")}": context canceled')
    await asyncio.wait_for(left.wait(), 30)


def url_of(client: Client, model_id: str) -> str:
    return f"http://127.0.0.1:{client.network.port_of(model_id)}/live-video-to-video"


# Refusals: nothing begins


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "unexpected EOF"),
        (b"", "EOF"),
        (b"[1]", "json: cannot unmarshal array into Go value of type worker.LiveVideoToVideoParams"),
        (
            b'{"model_id":1}',
            "json: cannot unmarshal number into Go struct field LiveVideoToVideoParams.model_id "
            "of type string",
        ),
        *(
            (
                f'{{"model_id":"noop","params":{value}}}'.encode(),
                f"json: cannot unmarshal {kind} into Go struct field LiveVideoToVideoParams.params "
                "of type map[string]interface {}",
            )
            for value, kind in (("[1]", "array"), ('"text"', "string"), ("5", "number"))
        ),
    ],
)
async def test_bodies_that_are_no_job(body: bytes, text: str, client: Client, container: Container) -> None:
    assert await client.ask(body) == (400, text)
    assert not container.started


async def test_segment_headers_that_are_not_taken(client: Client, container: Container) -> None:
    token = client.token
    for segment, text in (
        ("", "missing auth token"),
        (header(sig=b"x"), "missing auth token"),
        ("!!!", "ErrorSegEncoding"),
        (header(auth_token=token).rstrip("=") + "=", "ErrorSegEncoding"),
        (
            header(auth_token=net.AuthToken(token=token.token, session_id="s", expiration=token.expiration)),
            "invalid auth token",
        ),
        (
            header(
                auth_token=net.AuthToken(
                    token=token.token, session_id=token.session_id, expiration=token.expiration + 1
                )
            ),
            "invalid auth token",
        ),
    ):
        assert await client.ask(JOB, segment=segment) == (403, text)
    status, text = await client.ask(JOB, segment=base64.b64encode(b"\xff\xff\xff").decode())
    assert (status, text[-len(UNREADABLE) :]) == (403, UNREADABLE)
    assert not container.started


async def test_capabilities_of_a_segment_must_be_there(client: Client, container: Container) -> None:
    for names, bits, status in ((["noop"], 1 << 35, 200), (["noop", "never"], 0, 403), ([], 1 << 37, 403)):
        wanted = net.Capabilities(bitstring=[bits])
        for name in names:
            wanted.constraints.PerCapability[35].models[name].warm = True
        found, text = await client.ask(JOB, segment=header(auth_token=client.token, capabilities=wanted))
        assert found == status
        assert status == 200 or text == "incompatible capabilities"
    assert len(container.started) == 1


async def test_payments_are_read_and_not_counted(client: Client, container: Container) -> None:
    payment = net.Payment(sender=b"\1" * 20, expected_price=net.PriceInfo(pixelsPerUnit=1))
    for sent in ("", base64.b64encode(payment.SerializeToString()).decode()):
        assert (await client.ask(JOB, Livepeer_Payment=sent))[0] == 200
    assert len(container.started) == 2
    status, text = await client.ask(JOB, Livepeer_Payment="!!!")
    assert (status, text) == (402, "base64 decode error: illegal base64 data at input byte 0")
    status, text = await client.ask(JOB, Livepeer_Payment=base64.b64encode(b"\xff\xff\xff").decode())
    assert (status, text[:26], text[-len(UNREADABLE) :]) == (402, "protobuf unmarshal error: ", UNREADABLE)
    assert (await client.ask(JOB, Livepeer_Payment="!!!", segment=""))[0] == 402, "it is looked at first"
    assert len(container.started) == 2


async def test_other_methods_get_an_empty_answer(client: Client, container: Container) -> None:
    for method in ("GET", "PUT", "DELETE"):
        status, headers, data = await client.request(method, "/live-video-to-video", json=JOB)
        assert (status, data, "Content-Type" in headers) == (200, b"", False)
    status, _, data = await client.request("POST", "/live-video-to-video/", json=JOB)
    assert (status, data) == (404, b"404 page not found\n")
    assert not container.started


async def test_without_an_ai_worker_there_is_no_capacity(worker: Worker) -> None:
    url = f"{worker.network.url}/live-video-to-video"
    assert await worker.ask("POST", url, json=JOB) == (503, "insufficient capacity\n")
    assert (await worker.ask("POST", url, data=b"{"))[0] == 400, "it is read first"


# Containers that fail


async def test_a_model_without_a_container(client: Client) -> None:
    assert await client.ask({"model_id": "never"}) == (
        500,
        "no container image found for live pipeline never",
    )
    assert await client.ask({"model_id": ""}) == (500, "no container image found for live pipeline ")


async def test_a_job_without_a_model_gets_no_answer(client: Client, container: Container) -> None:
    for body in (b"{}", b"null", b'{"model_id":null}'):
        assert await client.ask(body) == DROPPED
    assert not container.started


async def test_a_container_that_is_down(client: Client) -> None:
    port = client.network.port_of("noop")
    assert await client.ask(JOB) == (
        500,
        f'Post "{url_of(client, "noop")}": dial tcp 127.0.0.1:{port}: connect: connection refused',
    )


async def test_a_container_that_hangs_up(client: Client, container: Container) -> None:
    async def start(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    container.start = start
    assert await client.ask(JOB) == (500, f'Post "{url_of(client, "noop")}": EOF')


RETURNED = "live-video-to-video container returned"
PLAIN = json.dumps({"detail": {"msg": "why"}})
PROBLEMS = json.dumps({"detail": [{"type": "t", "loc": ["body", 1], "msg": "m", "input": {}, "url": "u"}]})
FIELD = "json: cannot unmarshal {} into Go struct field {}"


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (400, PLAIN, f"{RETURNED} 400: why"),
        (401, PLAIN, f"{RETURNED} 401: why"),
        (500, PLAIN, f"{RETURNED} 500: why"),
        (500, "{}", f"{RETURNED} 500: "),
        (422, PROBLEMS, f'{RETURNED} 422: {{"detail":[{{"loc":["body",1],"msg":"m","type":"t"}}]}}'),
        (422, "{}", f"{RETURNED} 422: {{}}"),
        (422, PLAIN, FIELD.format("object", "HTTPValidationError.detail of type []worker.ValidationError")),
        (500, '{"detail":"why"}', FIELD.format("string", "HTTPError.detail of type worker.APIError")),
        (500, "nonsense", "invalid character 'o' in literal null (expecting 'u')"),
        (200, "", "unexpected end of JSON input"),
        (200, "{", "unexpected end of JSON input"),
        (
            200,
            "[]",
            "json: cannot unmarshal array into Go value of type worker.LiveVideoToVideoResponse",
        ),
    ],
)
async def test_a_container_that_refuses(
    status: int, body: str, text: str, client: Client, container: Container
) -> None:
    """The answer is 500 with its words, and the job's channels are gone."""
    container.start = answers_with(status, body)
    assert await client.ask(JOB) == (500, text)
    assert [await client.there(url) for url in channels(container.started[-1])] == [False] * 4


async def test_answers_that_nobody_foresaw_drop_the_connection(client: Client, container: Container) -> None:
    """A status beside 200, 400, 401, 422 and 500, or text instead of JSON. The channels stay, for nobody."""
    for status, kind in (
        *((status, "application/json") for status in (201, 202, 204, 301, 403, 404, 409, 429, 502, 503)),
        *((status, "text/plain") for status in (200, 400, 401, 422, 500)),
    ):
        container.start = answers_with(status, PLAIN, kind)
        assert await client.ask(JOB) == DROPPED, status
    assert [await client.there(url) for url in channels(container.started[-1])] == [True] * 4
    container.start = answers_with(200, "{}")
    await client.start()


async def test_the_containers_own_answer_is_not_passed_on(client: Client, container: Container) -> None:
    container.start = answers_with(200, '{"publish_url": "http://elsewhere", "manifest_id": "m", "more": 1}')
    told = await client.start()
    assert told["publish_url"] == f"{client.url}/ai/trickle/{told['manifest_id']}"
    assert "more" not in told


# The start of a node


async def test_containers_are_asked_how_they_are_when_the_node_starts(ai_network: Network) -> None:
    asked = ai_network.stand_in.asked
    for model in ("noop", "other"):
        paths = [path for name, path in asked if name == model]
        assert paths == ["/health", "/hardware/info", "/version"]
