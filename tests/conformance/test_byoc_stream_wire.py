"""BYOC streams by hand: a bare caller starts them, a bare worker is told of them (PROTOCOL section 3)."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest
from aiohttp import web
from byoc_harness import Asked, ByocWorker, Reply, job
from harness import Network, Worker, until
from multidict import CIMultiDict
from yarl import URL

FLAGS = ("enable_video_ingress", "enable_video_egress", "enable_data_output")
NO_ANSWER = "Error sending request to worker\n"
# the caller's header, the channel's ending, what the worker's body calls it, its type
CHANNELS = (
    ("X-Control-Url", "-control", "control_url", "application/json"),
    ("X-Events-Url", "-events", "events_url", "application/json"),
    ("X-Publish-Url", "", "subscribe_url", "video/MP2T"),
    ("X-Subscribe-Url", "-out", "publish_url", "video/MP2T"),
    ("X-Data-Url", "-data", "data_url", "application/jsonl"),
)


class Streams:
    """A caller of one worker's streams."""

    def __init__(self, byoc: ByocWorker) -> None:
        self.byoc = byoc
        self.capability = byoc.capability
        self.timeout = 10

    @property
    def asked(self) -> Asked:
        """What the worker was asked last."""
        return self.byoc.asked[-1]

    async def ask(self, verb: str, body: Any = None, *, method: str = "POST", **fields: Any) -> Reply:
        """``/ai/stream/{verb}``; the fields are the job's."""
        url = f"{self.byoc.network.url}/ai/stream/{verb}"
        headers = job(self.capability, timeout=self.timeout, **fields)
        sent: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body or {}}
        async with self.byoc.worker.request(method, url, headers=headers, **sent) as answer:
            return Reply(answer.status, CIMultiDict(answer.headers), await answer.read())

    async def start(self, stream_id: str | None = None, flags: Any = FLAGS, **options: Any) -> Reply:
        """Start a stream, with every channel unless other flags are given."""
        options.setdefault("parameters", json.dumps(dict.fromkeys(flags, True)))
        return await self.ask("start", id=unused() if stream_id is None else stream_id, **options)

    async def about(self, verb: str, stream_id: str, body: Any = None, **options: Any) -> Reply:
        """Update or stop a stream, or pay for it."""
        return await self.ask(verb, body, request=json.dumps({"stream_id": stream_id}), **options)

    async def open_channels(self, stream_id: str) -> list[str]:
        """The endings of the stream's channels that are there."""
        base = f"{self.byoc.network.url}/ai/trickle/{stream_id}"
        found = []
        for _, ending, *_ in CHANNELS:
            if (await self.byoc.worker.ask("GET", f"{base}{ending}/next"))[0] == 200:
                found.append(ending)
        return found


ALL = [ending for _, ending, *_ in CHANNELS]


def unused() -> str:
    """An id that no stream has."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def streams(worker: Worker) -> Streams:
    """A bare worker with one capability of capacity 3, and its caller."""
    return Streams(await ByocWorker.make(worker, capacity=3))


def answering(status: int, text: str = "", **headers: str) -> Any:
    """A handler with one answer."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers=headers)

    return answer


class TestStart:
    async def test_both_ends_are_told_of_the_channels(self, streams: Streams, network: Network) -> None:
        stream_id = unused()
        reply = await streams.start(stream_id, body={"stream": "x", "params": {"prompt": "a cat"}})
        assert (reply.status, reply.body) == (200, b"")
        base = f"{network.url}/ai/trickle/{stream_id}"
        reply.headers.pop("Date")
        assert dict(reply.headers) == {
            "X-Control-Url": f"{base}-control",
            "X-Events-Url": f"{base}-events",
            "X-Publish-Url": base,
            "X-Subscribe-Url": f"{base}-out",
            "X-Data-Url": f"{base}-data",
            "Livepeer-Balance": "0",
            "Content-Length": "0",
        }
        assert (streams.asked.method, streams.asked.path) == ("POST", "/stream/start")
        assert streams.asked.json() == {
            "gateway_request_id": stream_id,
            "control_url": f"{base}-control",
            "events_url": f"{base}-events",
            "subscribe_url": base,
            "publish_url": f"{base}-out",
            "data_url": f"{base}-data",
            "stream": "x",
            "params": {"prompt": "a cat"},
        }
        headers = dict(streams.asked.headers)
        assert headers == {
            "Host": headers["Host"],
            "User-Agent": "Go-http-client/1.1",
            "Content-Length": str(len(streams.asked.body)),
            "Content-Type": "application/json",
            "X-Stream-Id": stream_id,
            "Accept-Encoding": "gzip",
        }

    @pytest.mark.parametrize("flag", [None, *FLAGS])
    async def test_flags_ask_for_the_other_channels(self, streams: Streams, flag: str | None) -> None:
        endings = {"enable_video_ingress": "", "enable_video_egress": "-out", "enable_data_output": "-data"}
        wanted = ["-control", "-events", *([endings[flag]] if flag else [])]
        stream_id = unused()
        reply = await streams.start(stream_id, flags=[flag] if flag else [])
        assert await streams.open_channels(stream_id) == wanted
        told = streams.asked.json()
        for header, ending, key, _ in CHANNELS:
            assert (header in reply.headers) == (key in told) == (ending in wanted)

    async def test_the_channels_carry_what_either_end_writes(self, streams: Streams) -> None:
        reply = await streams.start()
        worker, told = streams.byoc.worker, streams.asked.json()
        for header, _, key, mime_type in CHANNELS:
            body, length = f"for {key}".encode(), len(f"for {key}")
            writer, reader = reply.headers[header], told[key]
            if key in ("publish_url", "events_url", "data_url"):
                writer, reader = reader, writer
            assert (await worker.ask("POST", f"{writer}/0", data=body))[0] == 200
            async with worker.request("GET", f"{reader}/0") as answer:
                assert (answer.status, answer.headers["Content-Type"]) == (200, mime_type)
                assert await answer.content.readexactly(length) == body

    @pytest.mark.parametrize(
        ("stream_id", "path", "open_to_all"),
        [
            ("a b", "/ai/trickle/a%20b", True),
            ("é", "/ai/trickle/%C3%A9", True),
            ("a%41", "/ai/trickle/a%41", False),  # a channel that the URL doesn't name
            ("a/b", "/ai/trickle/a/b", False),
            ("../b", "/ai/b", False),
            ("", "/ai/trickle", False),
        ],
    )
    async def test_an_id_is_taken_as_it_is(
        self, streams: Streams, stream_id: str, path: str, open_to_all: bool
    ) -> None:
        reply = await streams.start(stream_id)
        url = reply.headers["X-Publish-Url"]
        assert url == streams.byoc.network.url + path
        async with streams.byoc.worker.request("GET", URL(f"{url}/next", encoded=True)) as answer:
            assert (answer.status == 200) == open_to_all
        assert ("X-Stream-Id" in streams.asked.headers) == bool(stream_id)
        await streams.about("stop", stream_id)

    async def test_keys_of_the_body_replace_the_orchestrators(self, streams: Streams) -> None:
        stream_id = unused()
        await streams.start(stream_id, body={"control_url": "mine", "gateway_request_id": None})
        told = streams.asked.json()
        assert (told["control_url"], told["gateway_request_id"]) == ("mine", None)
        assert streams.asked.headers["X-Stream-Id"] == stream_id

    async def test_whole_numbers_beyond_a_double_arrive_as_others(self, streams: Streams) -> None:
        body = b'{"seed": 12345678901234567891, "small": 12, "half": 0.5, "list": [9007199254740993]}'
        await streams.start(flags=[], body=body)
        told = streams.asked.json()
        assert {name: told[name] for name in ("seed", "small", "half", "list")} == {
            "seed": 12345678901234567000,
            "small": 12,
            "half": 0.5,
            "list": [9007199254740992],
        }

    async def test_no_body_is_as_good_as_null_but_not_as_none(self, streams: Streams) -> None:
        assert (await streams.start(body=b"null")).status == 200

    async def test_the_method_is_anyones_choice(self, streams: Streams) -> None:
        assert (await streams.start(method="PUT")).status == 200
        assert streams.asked.method == "POST"

    async def test_a_worker_that_knows_its_caller(self, worker: Worker) -> None:
        streams = Streams(await ByocWorker.make(worker, token="let me in"))
        await streams.start()
        assert streams.asked.headers["Authorization"] == "Bearer let me in"

    async def test_it_takes_a_unit_of_capacity_until_the_stop(self, streams: Streams) -> None:
        stream_id = unused()
        await streams.start(stream_id)
        assert await streams.byoc.free() == 2
        await streams.about("stop", stream_id)

        async def freed() -> bool:
            return await streams.byoc.free() == 3

        await until(freed)


class TestRefusedStarts:
    async def test_an_unknown_capability_is_a_400_here(self, streams: Streams) -> None:
        streams.capability = "never-was"
        reply = await streams.start()
        assert (reply.status, reply.text) == (400, "No capacity available for capability\n")

    async def test_no_timeout(self, streams: Streams) -> None:
        streams.timeout = 0
        reply = await streams.start()
        text = "no timeout_seconds set with request, timeout_seconds is required\n"
        assert (reply.status, reply.text) == (400, text)

    @pytest.mark.parametrize(
        ("parameters", "complaint"),
        [
            ("", "unexpected end of JSON input"),
            (None, "unexpected end of JSON input"),
            (
                '{"enable_video_ingress": 1}',
                "json: cannot unmarshal number into Go struct field"
                " JobParameters.enable_video_ingress of type bool",
            ),
            (
                '{"orchestrators": {"include": "me"}}',
                "json: cannot unmarshal string into Go struct field"
                " JobOrchestratorsFilter.orchestrators.include of type []string",
            ),
        ],
    )
    async def test_parameters_that_are_none(
        self, streams: Streams, parameters: str | None, complaint: str
    ) -> None:
        stream_id = unused()
        reply = await streams.start(stream_id, parameters=parameters)
        assert (reply.status, reply.text) == (400, complaint + "\n")
        assert await streams.open_channels(stream_id) == []
        assert await streams.byoc.free() == 2  # and a unit of capacity is lost with it

    @pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"text"'])
    async def test_a_body_that_is_no_object(self, streams: Streams, body: bytes) -> None:
        stream_id = unused()
        reply = await streams.start(stream_id, body=body)
        assert (reply.status, reply.text) == (400, "Invalid JSON body\n")
        assert "X-Control-Url" in reply.headers
        assert await streams.open_channels(stream_id) == []
        assert await streams.byoc.free() == 3

    @pytest.mark.parametrize(
        ("status", "text", "kind"),
        [
            (400, '{"detail": "bad"}', "text/plain; charset=utf-8"),
            (422, "<html>bad</html>", "text/html; charset=utf-8"),
            (503, "", None),
            (500, "full", "text/plain; charset=utf-8"),
        ],
    )
    async def test_a_worker_that_refuses(
        self, streams: Streams, status: int, text: str, kind: str | None
    ) -> None:
        streams.byoc.answer = answering(status, text)
        stream_id = unused()
        reply = await streams.start(stream_id)
        assert (reply.status, reply.text, reply.headers.get("Content-Type")) == (status, text, kind)
        assert reply.headers["Livepeer-Balance"] == "0"
        assert "X-Control-Url" in reply.headers
        assert await streams.open_channels(stream_id) == []
        assert await streams.byoc.free() == 3

    async def test_a_worker_that_is_gone_is_not_forgotten(self, streams: Streams) -> None:
        await streams.byoc.worker.stop()
        stream_id = unused()
        reply = await streams.start(stream_id)
        assert (reply.status, reply.text) == (500, NO_ANSWER)
        assert "X-Control-Url" in reply.headers
        assert await streams.open_channels(stream_id) == []
        assert await streams.byoc.free() == 3

    async def test_one_that_takes_too_long(self, streams: Streams) -> None:
        never = asyncio.Event()

        async def wait(_: web.Request) -> web.Response:
            await never.wait()
            raise AssertionError

        streams.byoc.answer = wait
        streams.timeout = 1
        stream_id = unused()
        reply = await streams.start(stream_id)
        assert (reply.status, reply.text) == (500, NO_ANSWER)
        assert await streams.open_channels(stream_id) == []
        assert await streams.byoc.free() == 3

    async def test_one_that_knows_no_such_caller_is_forgotten(self, streams: Streams) -> None:
        streams.byoc.answer = answering(401, "who are you?")
        reply = await streams.start()
        assert (reply.status, reply.text) == (500, "Orchestrator worker failure")
        assert not await streams.byoc.known()

    async def test_a_caller_who_leaves_takes_the_stream_along(self, streams: Streams) -> None:
        never = asyncio.Event()

        async def wait(_: web.Request) -> web.Response:
            await never.wait()
            raise AssertionError

        streams.byoc.answer = wait
        stream_id = unused()
        starting = asyncio.create_task(streams.start(stream_id))
        await until(lambda: streams.byoc.asked)
        assert await streams.open_channels(stream_id) == ALL
        starting.cancel()
        await asyncio.wait_for(streams.byoc.gone.wait(), 30)

        async def over() -> bool:
            return not await streams.open_channels(stream_id)

        await until(over)


class TestIdInUse:
    async def test_starting_it_again_destroys_the_running_stream(self, streams: Streams) -> None:
        stream_id = unused()
        await streams.start(stream_id)
        reply = await streams.start(stream_id)
        text = "Error adding stream to external capabilities\n"
        assert (reply.status, reply.text) == (500, text)
        assert "X-Control-Url" in reply.headers
        assert [asked.path for asked in streams.byoc.asked] == ["/stream/start"] * 2
        assert await streams.open_channels(stream_id) == []
        assert await streams.byoc.free() == 2  # the first is still counted
        assert (await streams.start(stream_id)).status == 500  # and still in the way
        assert (await streams.about("stop", stream_id)).status == 200
        assert (await streams.start(stream_id)).status == 200

    async def test_so_does_a_start_that_the_worker_refuses(self, streams: Streams) -> None:
        stream_id = unused()
        await streams.start(stream_id)
        streams.byoc.answer = answering(503, "busy")
        assert (await streams.start(stream_id)).status == 503
        assert await streams.open_channels(stream_id) == []


class TestUpdate:
    async def test_it_reaches_the_worker(self, streams: Streams) -> None:
        stream_id = unused()
        await streams.start(stream_id)
        streams.byoc.answer = answering(202, '{"ok": true}', **{"X-Mine": "1"})
        reply = await streams.about("update", stream_id, {"params": {"prompt": "a dog"}})
        assert (reply.status, reply.text) == (202, '{"ok": true}')
        reply.headers.pop("Date")
        assert dict(reply.headers) == {"Content-Type": "text/plain; charset=utf-8", "Content-Length": "12"}
        assert (streams.asked.method, streams.asked.path) == ("POST", "/stream/params")
        assert streams.asked.json() == {"params": {"prompt": "a dog"}}
        headers = dict(streams.asked.headers)
        assert headers == {
            "Host": headers["Host"],
            "User-Agent": "Go-http-client/1.1",
            "Content-Length": str(len(streams.asked.body)),
            "Content-Type": "application/json",
            "X-Stream-Id": stream_id,
            "Accept-Encoding": "gzip",
        }

    async def test_the_body_is_the_workers_business(self, streams: Streams) -> None:
        await streams.about("update", unused(), b"no json")
        assert (streams.asked.body, streams.asked.headers["Content-Type"]) == (b"no json", "application/json")

    async def test_a_refusal_comes_back_as_it_is(self, streams: Streams) -> None:
        streams.byoc.answer = answering(422, "bad")
        reply = await streams.about("update", unused())
        assert (reply.status, reply.text) == (422, "bad")

    async def test_a_worker_that_is_gone_is_not_forgotten(self, streams: Streams) -> None:
        await streams.byoc.worker.stop()
        reply = await streams.about("update", unused())
        assert (reply.status, reply.text) == (500, NO_ANSWER)
        assert await streams.byoc.free() == 3

    async def test_an_unknown_capability_is_a_worker_that_is_gone(self, streams: Streams) -> None:
        streams.capability = "never-was"
        reply = await streams.about("update", unused())
        assert (reply.status, reply.text) == (500, NO_ANSWER)

    async def test_a_401_is_forgotten(self, streams: Streams) -> None:
        streams.byoc.answer = answering(401)
        reply = await streams.about("update", unused())
        assert (reply.status, reply.text) == (500, "Orchestrator worker failure")
        assert not await streams.byoc.known()

    async def test_no_stream_named_is_no_error(self, streams: Streams) -> None:
        assert (await streams.ask("update", {"a": 1})).status == 200
        assert "X-Stream-Id" not in streams.asked.headers


class TestStop:
    async def test_it_reaches_the_worker_and_ends_the_channels(self, streams: Streams) -> None:
        stream_id = unused()
        await streams.start(stream_id)
        streams.byoc.answer = answering(200, '{"bye": 1}')
        reply = await streams.about("stop", stream_id, {"why": "enough"})
        assert (reply.status, reply.text) == (200, '{"bye": 1}')
        assert (streams.asked.method, streams.asked.path) == ("POST", "/stream/stop")
        assert streams.asked.json() == {"why": "enough"}
        assert "Content-Type" not in streams.asked.headers
        assert streams.asked.headers["X-Stream-Id"] == stream_id

        async def over() -> bool:
            return not await streams.open_channels(stream_id)

        await until(over)

    async def test_whatever_the_worker_says(self, streams: Streams) -> None:
        stream_id = unused()
        await streams.start(stream_id)
        streams.byoc.answer = answering(500, "no")
        reply = await streams.about("stop", stream_id)
        assert (reply.status, reply.text) == (500, "no")

        async def over() -> bool:
            return not await streams.open_channels(stream_id)

        await until(over)

    async def test_even_when_it_is_gone(self, streams: Streams) -> None:
        stream_id = unused()
        await streams.start(stream_id)
        await streams.byoc.worker.stop()
        reply = await streams.about("stop", stream_id)
        assert (reply.status, reply.text) == (200, "")

        async def over() -> bool:
            return not await streams.open_channels(stream_id) and await streams.byoc.free() == 3

        await until(over)

    async def test_an_unknown_one_is_told_to_the_worker(self, streams: Streams) -> None:
        streams.byoc.answer = answering(404, "no such stream")
        reply = await streams.about("stop", unused())
        assert (reply.status, reply.text) == (404, "no such stream")

    async def test_an_unknown_capability_is_a_200(self, streams: Streams) -> None:
        streams.capability = "never-was"
        reply = await streams.about("stop", unused())
        assert (reply.status, reply.text) == (200, "")


class TestPayment:
    async def test_offchain_the_balance_is_0(self, streams: Streams) -> None:
        reply = await streams.about("payment", unused())
        assert (reply.status, reply.text, reply.headers["Livepeer-Balance"]) == (200, "", "0")

    async def test_nobody_looks_for_the_capability(self, streams: Streams) -> None:
        streams.capability = "never-was"
        assert (await streams.about("payment", unused())).status == 200


@pytest.mark.parametrize(
    ("verb", "beginning"),
    [
        ("update", "Failed to stop stream, request not valid err="),
        ("stop", "Failed to stop stream, request not valid err="),
        ("payment", "Failed to process payment, request not valid err="),
    ],
)
class TestRefusedWords:
    async def test_no_header(self, worker: Worker, verb: str, beginning: str) -> None:
        status, text = await worker.ask("POST", f"{worker.network.url}/ai/stream/{verb}")
        assert (status, text) == (400, f"{beginning}Could not verify job creds\n")

    async def test_a_request_that_is_none(self, streams: Streams, verb: str, beginning: str) -> None:
        reply = await streams.ask(verb, request='{"stream_id": 5}')
        complaint = (
            "Unable to unmarshal job request details err=json: cannot unmarshal number into"
            " Go struct field JobRequestDetails.stream_id of type string"
        )
        assert (reply.status, reply.text) == (400, f"{beginning}{complaint}\n")


async def test_a_stream_goes_on_when_caller_and_worker_are_gone(streams: Streams) -> None:
    stream_id = unused()
    reply = await streams.start(stream_id)
    await streams.byoc.worker.stop()
    assert await streams.open_channels(stream_id) == ALL
    url = reply.headers["X-Events-Url"]
    assert (await streams.byoc.worker.ask("DELETE", url))[0] == 200  # a channel may end before its stream
    assert await streams.open_channels(stream_id) == [one for one in ALL if one != "-events"]
    assert (await streams.about("stop", stream_id)).status == 200


async def test_a_job_of_another_stream_is_not_looked_at(streams: Streams) -> None:
    stream_id = unused()
    await streams.start(stream_id)
    streams.capability = await streams.byoc.worker.register_byoc(capacity=1)
    assert (await streams.about("stop", stream_id)).status == 200  # by the wrong capability's name

    async def over() -> bool:
        return not await streams.open_channels(stream_id)

    await until(over)
