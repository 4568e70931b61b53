from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from pydantic import BaseModel

from livepeer.runner import Blob, ConfigurationError, Event, HTTPError, Pipeline, running


class Echo(Pipeline):
    """Gives back what it gets."""

    def run(self, data: Blob) -> Blob:
        return data


class Reverse(Pipeline):
    version = "1.2"

    def run(self, text: str) -> dict[str, str]:
        return {"text": text[::-1]}


async def test_the_paths_of_a_pipeline(http: aiohttp.ClientSession) -> None:
    async with running(Reverse()) as server:
        for path in ("/run", "/reverse"):
            async with http.post(server.url + path, json={"text": "abc", "model": "m"}) as response:
                assert (response.status, await response.json()) == (200, {"text": "cba"})
        for method in ("GET", "POST"):
            async with http.request(method, server.url + "/schema") as response:
                schema = await response.json()
            async with http.request(method, server.url + "/health") as response:
                assert (response.status, (await response.json())["status"]) == (200, "IDLE")
        assert (schema["run"], schema["version"], schema["stream"]) == ("/run", "1.2", False)
        assert schema["input"]["required"] == ["text"]
        async with http.get(server.url + "/openapi.json") as response:
            openapi = await response.json()
        body = openapi["paths"]["/reverse"]["post"]["requestBody"]["content"]["application/json"]
        assert body["schema"]["properties"]["text"]["type"] == "string"
        async with http.get(server.url + "/docs") as response:
            assert response.status == 200
        async with http.get(server.url + "/nowhere") as response:
            assert response.status == 404
            assert "POST /run" in (await response.json())["error"]["message"]
        async with http.get(server.url + "/run") as response:
            assert response.status == 405


async def test_wrong_input_is_a_422_that_names_the_field(http: aiohttp.ClientSession) -> None:
    async with running(Reverse()) as server, http.post(server.url + "/run", json={"txt": "a"}) as response:
        assert response.status == 422
        error = (await response.json())["error"]
        assert [field["field"] for field in error["fields"]] == ["text", "txt"]


async def test_bytes_keep_their_content_type_and_may_be_large(http: aiohttp.ClientSession) -> None:
    data = bytes(range(256)) * 20_000
    async with running(Echo()) as server:
        headers = {"Content-Type": "audio/wav", "Livepeer-Payment": "x" * 60_000}
        async with http.post(server.url + "/run", data=io.BytesIO(data), headers=headers) as response:
            assert (await response.read(), response.content_type) == (data, "audio/wav")
        async with http.post(server.url + "/run", json={"a": 1}) as response:
            assert await response.json() == {"a": 1}


async def test_images_come_and_go(http: aiohttp.ClientSession) -> None:
    image_module = pytest.importorskip("PIL.Image")
    ops = pytest.importorskip("PIL.ImageOps")

    class Invert(Pipeline):
        def run(self, image: image_module.Image) -> image_module.Image:
            return ops.invert(image)

    buffer = io.BytesIO()
    image_module.new("RGB", (2, 1), (255, 0, 10)).save(buffer, "PNG")
    async with running(Invert()) as server:
        async with http.post(server.url + "/run", data=buffer.getvalue()) as response:
            assert response.content_type == "image/png"
            back = image_module.open(io.BytesIO(await response.read()))
            assert back.getpixel((0, 0)) == (0, 255, 245)
        async with http.post(server.url + "/run", data=b"no image") as response:
            assert response.status == 422
            assert "not an image" in (await response.json())["error"]["message"]


class Failing(Pipeline):
    def run(self, how: str) -> Any:
        if how == "http":
            raise HTTPError(418, "no coffee", headers={"X-Pot": "tea"})
        if how == "stop":
            raise StopIteration("x")
        if how == "exit":
            raise SystemExit(3)
        if how == "result":
            return {"a": object()}
        raise ValueError("secret text")


@pytest.mark.parametrize(
    ("how", "status", "kind"),
    [
        ("http", 418, "HTTPError"),
        ("value", 500, "ValueError"),
        ("stop", 500, "RuntimeError"),
        ("exit", 500, "RuntimeError"),
        ("result", 500, "TypeError"),
    ],
)
async def test_errors_of_run(
    http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture, how: str, status: int, kind: str
) -> None:
    async with running(Failing()) as server:
        async with http.post(server.url + "/run", json={"how": how}) as response:
            text = await response.text()
            error = json.loads(text)["error"]
            assert (response.status, error["type"], error["status"]) == (status, kind, status)
            assert "secret text" not in text
            assert "Traceback" not in text
        logged = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(logged) == (0 if how == "http" else 1)
        async with http.get(server.url + "/health") as response:
            assert (await response.json())["status"] == "IDLE"


class Chat(Pipeline):
    def __init__(self) -> None:
        self.closed = threading.Event()
        self.go = threading.Event()

    def run(self, words: list[str], fail: str | None = None) -> Iterator[Any]:
        if fail == "early":
            raise HTTPError(409, "not now")
        thread = threading.get_ident()
        try:
            for word in words:
                yield word
                assert threading.get_ident() == thread
            if fail == "late":
                raise KeyError("hidden")
            if fail == "wait":
                while not self.go.wait(0.01):
                    yield "tick"
            yield Event({"n": len(words)}, event="usage", id="7")
        finally:
            self.closed.set()


async def test_a_generator_answers_with_events(http: aiohttp.ClientSession) -> None:
    async with running(Chat()) as server:
        for _ in range(20):  # one place, and each call finds it free
            async with http.post(server.url + "/run", json={"words": ["Hel", "lo\nyou"]}) as response:
                assert response.content_type == "text/event-stream"
                *events, usage, end = (await response.text()).split("\n\n")[:-1]
                assert events == ["data: Hel", "data: lo\ndata: you"]
                assert (usage, end) == ('event: usage\nid: 7\ndata: {"n":2}', "data: [DONE]")


class Large(Pipeline):
    closed = False

    def run(self, lines: int, width: int) -> Any:
        try:
            yield "before"
            yield "\n".join(["x" * width] * lines)
            yield "after"
        finally:
            Large.closed = True


@pytest.mark.parametrize(
    ("headers", "lines", "width", "passes"),
    [
        ({}, 1, 60 * 1024 - 6, True),
        ({}, 3, 60 * 1024 - 6, True),  # the limit is that of a line
        ({}, 1, 60 * 1024 - 5, False),
        ({"Livepeer-Runner-Route": "runner_1"}, 1, 70_000, True),
    ],
)
async def test_what_an_orchestrator_would_cut_off_is_an_error_instead(
    headers: dict[str, str], lines: int, width: int, passes: bool, http: aiohttp.ClientSession
) -> None:
    async with (
        running(Large()) as server,
        http.post(server.url + "/run", json={"lines": lines, "width": width}, headers=headers) as response,
    ):
        events = (await response.text()).split("\n\n")
        assert events[0] == "data: before"
        if passes:
            assert events[2:] == ["data: after", "data: [DONE]", ""]
        else:
            assert events[1].startswith("event: error\ndata: ")
            error = json.loads(events[1].partition("data: ")[2])["error"]
            assert "a line of 61441 bytes" in error["message"]
            assert "60 KiB" in error["message"]
            assert events[2:] == [""]
        async with asyncio.timeout(30):
            while server.health()["in_use"]:
                await asyncio.sleep(0.01)
    assert Large.closed


async def test_an_error_before_the_first_event_has_its_status(http: aiohttp.ClientSession) -> None:
    async with (
        running(Chat()) as server,
        http.post(server.url + "/run", json={"words": [], "fail": "early"}) as response,
    ):
        assert (response.status, (await response.json())["error"]["message"]) == (409, "not now")


async def test_an_error_in_mid_stream_is_the_last_event(http: aiohttp.ClientSession) -> None:
    async with (
        running(Chat()) as server,
        http.post(server.url + "/run", json={"words": ["a"], "fail": "late"}) as response,
    ):
        first, second, rest = (await response.text()).split("\n\n")
        assert (first, rest) == ("data: a", "")
        name, data = second.split("\n")
        assert name == "event: error"
        error = json.loads(data.removeprefix("data: "))["error"]
        assert (error["type"], error["status"]) == ("KeyError", 500)
        assert "hidden" not in second


async def test_a_client_that_leaves_closes_the_generator_and_frees_the_place(
    http: aiohttp.ClientSession,
) -> None:
    chat = Chat()
    async with running(chat) as server:
        response = await http.post(server.url + "/run", json={"words": ["a"], "fail": "wait"})
        await response.content.readuntil(b"\n\n")
        async with http.get(server.url + "/health") as health:
            assert (await health.json())["status"] == "OK"
        async with http.post(server.url + "/run", json={"words": []}) as full:
            assert (full.status, full.headers["Retry-After"]) == (503, "1")
        response.close()
        assert await asyncio.to_thread(chat.closed.wait, 5)
        while server.health()["in_use"]:
            await asyncio.sleep(0.01)
        async with http.post(server.url + "/run", json={"words": []}) as again:
            assert again.status == 200


class Slow(Pipeline):
    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def run(self) -> str:
        self.began.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "late"


async def test_a_client_that_leaves_cancels_an_async_run(http: aiohttp.ClientSession) -> None:
    slow = Slow()
    async with running(slow) as server:
        call = asyncio.ensure_future(http.post(server.url + "/run"))
        await asyncio.wait_for(slow.began.wait(), 20)
        call.cancel()
        await asyncio.wait_for(slow.cancelled.wait(), 20)
        while server.health()["in_use"]:
            await asyncio.sleep(0.01)


class Blocking(Pipeline):
    capacity = 2

    def __init__(self) -> None:
        self.go = threading.Event()
        self.began = threading.Semaphore(0)

    def run(self) -> int:
        self.began.release()
        self.go.wait(10)
        return 1


async def test_an_abandoned_thread_holds_its_place_until_it_returns(http: aiohttp.ClientSession) -> None:
    blocking = Blocking()
    async with running(blocking) as server:
        calls = [asyncio.ensure_future(http.post(server.url + "/run")) for _ in range(2)]
        for _ in calls:
            assert await asyncio.to_thread(blocking.began.acquire, True, 5)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        async with http.post(server.url + "/run") as response:
            assert response.status == 503
        blocking.go.set()
        while server.health()["in_use"]:
            await asyncio.sleep(0.01)
        async with http.post(server.url + "/run") as response:
            assert (response.status, await response.json()) == (200, 1)


class AsyncChat(Pipeline):
    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def run(self, n: int) -> AsyncIterator[dict[str, int]]:
        try:
            for i in range(n):
                yield {"i": i}
            if n == 1:
                await asyncio.sleep(30)
        finally:
            self.closed.set()


async def test_an_async_generator_streams_and_is_closed(http: aiohttp.ClientSession) -> None:
    chat = AsyncChat()
    async with running(chat) as server:
        async with http.post(server.url + "/run", json={"n": 2}) as response:
            assert await response.text() == 'data: {"i":0}\n\ndata: {"i":1}\n\ndata: [DONE]\n\n'
        chat.closed.clear()
        response = await http.post(server.url + "/run", json={"n": 1})
        assert await response.content.readuntil(b"\n\n") == b'data: {"i":0}\n\n'
        response.close()
        await asyncio.wait_for(chat.closed.wait(), 20)


class Loading(Pipeline):
    def __init__(self) -> None:
        self.go = threading.Event()

    def setup(self) -> None:
        if not self.go.wait(10):
            raise TimeoutError
        self.word = "ready"

    def run(self) -> str:
        return self.word


async def test_health_follows_setup(http: aiohttp.ClientSession) -> None:
    loading = Loading()
    async with running(loading, wait=False, name="models/load") as server:
        async with http.get(server.url + "/health") as response:
            assert (response.status, (await response.json())["status"]) == (503, "LOADING")
        async with http.post(server.url + "/run") as response:
            assert response.status == 503
            assert "loading" in (await response.json())["error"]["message"]
        loading.go.set()
        await server.ready()
        async with http.get(server.url + "/health") as response:
            assert (response.status, (await response.json())["status"]) == (200, "IDLE")
        async with http.post(server.url + "/models/load") as response:
            assert (await response.text(), response.content_type) == ("ready", "text/plain")


class Broken(Pipeline):
    async def setup(self) -> None:
        raise OSError("no weights at /secret/path")

    def run(self) -> str:
        return ""


async def test_a_failed_setup_is_an_error(
    http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(Broken(), wait=False) as server:
        with pytest.raises(ConfigurationError, match="no weights"):
            await server.ready()
        async with http.get(server.url + "/health") as response:
            text = await response.text()
            assert (response.status, json.loads(text)["status"]) == (503, "ERROR")
            assert "/secret/path" not in text
    assert "Broken.setup raised OSError" in caplog.text


class Item(BaseModel):
    tags: list[str] = []


class Nested(Pipeline):
    def run(self, item: Item, extra: int = 0) -> list[Item]:
        return [item]


async def test_openapi_finds_nested_models(http: aiohttp.ClientSession) -> None:
    async with running(Nested()) as server, http.get(server.url + "/openapi.json") as response:
        openapi = await response.json()
    text = json.dumps(openapi)
    assert "#/$defs" not in text
    references = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert references
    assert references <= set(openapi["components"]["schemas"])


async def test_several_pipelines_serve_in_one_process(http: aiohttp.ClientSession) -> None:
    async with running(Reverse()) as one, running(Reverse(), name="two") as two:
        assert one.url != two.url
        async with http.post(two.url + "/two", json={"text": "ab"}) as response:
            assert await response.json() == {"text": "ba"}


async def test_what_cannot_be_served_says_so() -> None:
    for bad, says in ((Reverse, "is a class"), (object(), "can't be served")):
        with pytest.raises(ConfigurationError, match=says):
            async with running(bad):  # type: ignore[arg-type]
                pass
    with pytest.raises(ConfigurationError, match="secret"):
        async with running(Reverse(), orch_url="https://127.0.0.1:1"):
            pass
    async with running(Reverse()) as server:
        with pytest.raises(ConfigurationError, match="Can't listen"):
            async with running(Reverse(), port=int(server.url.rsplit(":", 1)[1])):
                pass
        with pytest.raises(ConfigurationError, match="no orchestrator"):
            await server.registered()
