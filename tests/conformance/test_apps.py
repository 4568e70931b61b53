"""Calls through an orchestrator to a worker: what arrives, what comes back, who notices when an end is gone.

Nearly every test runs on both ways to a worker: a single-shot call, and a request of a session.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from harness import Session, Wire, Worker, dial, free_port, until
from yarl import URL

from livepeer.devkit.network.certificate import server_context

FULL = (503, "no capacity available for runner\n")
NO_RUNNER = (404, "runner not found\n")
NO_SESSION = (404, "runner session not found\n")
MIB = 1 << 20

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class App:
    """A registered worker. `url` leads to it and ends in a slash; `session` is there for a persistent one."""

    worker: Worker
    runner: dict[str, Any]
    url: str
    session: Session | None

    async def used(self) -> int:
        """How much of its capacity discovery says is used by calls."""
        async with self.worker.request("GET", f"{self.worker.network.url}/discovery") as answer:
            [entry] = await answer.json()
        [shown] = [one for one in entry["runners"] if one["app"] == self.runner["app"]]
        return int(shown["capacity_used"]) - (self.session is not None)

    async def idle(self) -> None:
        """Wait until its capacity is given back."""

        async def unused() -> bool:
            return await self.used() == 0

        await until(unused)

    def ask(self, method: str, path: str = "", **options: Any) -> Any:
        return self.worker.ask(method, self.url + path, **options)

    def request(self, method: str, path: str = "", **options: Any) -> Any:
        return self.worker.request(method, self.url + path, **options)


Opener = Callable[..., Awaitable[App]]


@pytest.fixture(params=["single-shot", "persistent"])
def mode(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def serve(worker: Worker, mode: str) -> Opener:
    """Register the worker with one handler for everything: `await serve(handler)`."""

    async def open_app(handler: Handler | None = None, **fields: Any) -> App:
        if handler is not None:
            worker.routes.add_route("*", "/{path:.*}", handler)
        runner = await worker.register(mode=mode, **fields)
        if mode == "single-shot":
            return App(worker, runner, f"{runner['url']}/app/", None)
        session = await worker.reserve(runner)
        return App(worker, runner, f"{session.app_url}/", session)

    return open_app


class Stage:
    """Where a handler is, and when it may go on: `reached` and `go_on` are events, `left` counts ends."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        self.over = asyncio.Event()
        self.cancelled = False

    @contextlib.asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        try:
            yield
        except (asyncio.CancelledError, ConnectionError, web.RequestPayloadError):
            self.cancelled = True
            raise
        finally:
            self.over.set()

    async def gone(self) -> None:
        """Wait until the worker noticed that its client left."""
        async with asyncio.timeout(20):
            await self.over.wait()
        assert self.cancelled


async def read_whole(request: web.Request) -> bytes:
    """The body, and a moment in which the orchestrator may notice that it is over.

    A real one can lose the rest of a streamed answer that begins before: to write its head it takes what is
    left of the request's body away from its proxy. That cut one streamed answer of ten when the worker began
    it before it had read the body, and one of 400 when it began it in the same millisecond.
    """
    data = await request.read()
    await asyncio.sleep(0.005)
    return data


async def echo(request: web.Request) -> web.Response:
    """What arrived, as JSON."""
    return web.json_response(
        {
            "method": request.method,
            "target": request.raw_path,
            "headers": [[name.title(), value] for name, value in request.headers.items()],
            "body": (await request.read()).decode("latin-1"),
        }
    )


def named(arrived: dict[str, Any], name: str) -> list[str]:
    return [value for key, value in arrived["headers"] if key == name]


# The way there


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_method_query_and_body(serve: Opener, method: str) -> None:
    app = await serve(echo)
    query = "a=1&a=2&b=%20x%2f;y&c&=&d=%C3%BC+z&e=%zz"
    body = (
        {} if method in ("GET", "OPTIONS") else {"data": b"\x00body\xff", "headers": {"Content-Type": "a/b"}}
    )
    async with app.worker.request(method, URL(f"{app.url}x/y?{query}", encoded=True), **body) as answer:
        assert answer.status == 200
        arrived = await answer.json()
    assert (arrived["method"], arrived["target"]) == (method, f"/x/y?{query}")
    assert arrived["body"] == ("\x00body\xff" if body else "")
    assert named(arrived, "Content-Type") == (["a/b"] if body else [])


async def test_head_is_head(serve: Opener) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(
            headers={"X-Method": request.method, "Content-Length": "5", "Content-Type": "a/b"}
        )

    app = await serve(handler)
    async with app.request("HEAD", "x") as answer:
        assert (answer.status, answer.headers["X-Method"]) == (200, "HEAD")
        assert answer.headers["Content-Length"] == "5"
        assert await answer.read() == b""


async def test_what_the_worker_is_told(serve: Opener) -> None:
    app = await serve(echo)
    network, runner = app.worker.network, app.runner
    forged = {"Livepeer-Session-Token": "mine", "Livepeer-Runner-Route": "mine"}
    told = []
    for _ in range(2):
        async with app.request("GET", "x", headers=forged) as answer:
            arrived = await answer.json()
        [route], [session], [token], [control] = (
            named(arrived, f"Livepeer-{name}")
            for name in ("Runner-Route", "Session-Id", "Session-Token", "Session-Control")
        )
        assert route == runner["runner_id"]
        assert session.startswith("session_")
        assert control == f"{network.url}/runner/{route}/session/{session}"
        assert len(token) == 52
        [host] = named(arrived, "Host")
        assert f"http://{host}" == runner["body"]["runner_url"]
        told.append((session, token))
    if app.session is not None:
        assert told == [(app.session.id, app.session.token)] * 2
    else:  # each call is a session of its own
        assert told[0][0] != told[1][0]
        assert told[0][1] != told[1][1]


async def test_headers_that_are_dropped(serve: Opener) -> None:
    app = await serve(echo)
    dropped = {
        "Forwarded": "for=1.2.3.4",
        "X-Forwarded-For": "1.2.3.4",
        "X-Forwarded-Host": "example.com",
        "X-Forwarded-Proto": "http",
        "Connection": "keep-alive, X-Mine",
        "X-Mine": "1",
        "Keep-Alive": "timeout=5",
        "Proxy-Authorization": "Basic eA==",
        "Proxy-Authenticate": "Basic",
        "Te": "gzip",
    }
    async with app.request("GET", "x", headers=dropped) as answer:
        arrived = await answer.json()
    names = {name for name, _ in arrived["headers"]}
    assert names.isdisjoint(dropped), names


async def test_headers_that_are_forwarded(serve: Opener) -> None:
    app = await serve(echo)
    headers = [
        ("Authorization", "Bearer key"),
        ("Cookie", "a=b"),
        ("Accept", "text/event-stream"),
        ("User-Agent", "me/1"),
        ("X-Real-Ip", "1.2.3.4"),
        ("X-Twice", "1"),
        ("X-Twice", "2"),
        ("Livepeer", "e30="),
    ]
    async with app.request("GET", "x", headers=headers) as answer:
        arrived = await answer.json()
    for name, _ in headers:
        assert named(arrived, name) == [value for key, value in headers if key == name]


async def test_no_header_is_made_up(serve: Opener) -> None:
    app = await serve(echo)
    async with dial(app.worker.network) as wire:
        await wire.ask("GET", f"{app.url}x")
        _, _, body = await wire.answer()
    names = {name for name, _ in json.loads(body)["headers"]}
    session = {
        f"Livepeer-{name}" for name in ("Runner-Route", "Session-Id", "Session-Token", "Session-Control")
    }
    assert names == {"Host", "Accept-Encoding", *session}


async def test_a_missing_slash(serve: Opener) -> None:
    app = await serve(echo)
    bare, path = app.url[:-1], "/" + app.url.split("/", 3)[3]
    for method in "GET", "POST":
        for query in "", "?a=b":
            async with app.worker.request(method, bare + query) as answer:
                assert answer.status == 307
                assert answer.headers["Location"] == path + query
    async with app.request("POST", data=b"x") as answer:
        assert (await answer.json())["target"] == "/"


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("a/b-c_d.e~f/0", "a/b-c_d.e~f/0"),
        ("a/b/", "a/b/"),
        ("$&+,:;=@", "$&+,:;=@"),
        ("a%20b", "a%2520b"),
        ("%C3%BC", "%25C3%25BC"),
        ("a!b", "a%21b"),
        ("a(b)", "a%28b%29"),
        ("a'b*", "a%27b%2A"),
        ("a%2Fb", "a/b"),
        ("a%41b", "aAb"),
        ("%2541", "%2541"),
        ("a%3Fb", "a%253Fb"),
        ("a%3Bb", "a;b"),
    ],
)
async def test_paths_are_escaped_twice(serve: Opener, sent: str, arrives: str) -> None:
    app = await serve(echo)
    async with dial(app.worker.network) as wire:
        await wire.ask("GET", f"{app.url}{sent}?q=%20!")
        status, _, body = await wire.answer()
    assert status == 200
    assert json.loads(body)["target"] == f"/{arrives}?q=%20!"


async def test_a_percent_sign_in_a_path(serve: Opener) -> None:
    app = await serve(echo)
    async with dial(app.worker.network) as wire:
        await wire.ask("GET", f"{app.url}100%25")
        status, _, body = await wire.answer()
    assert status == 502
    assert b"invalid URL escape" in body


@pytest.mark.parametrize(("sent", "cleaned"), [("a//b", "a/b"), ("a/./b/", "a/b/"), ("a/../b", "b")])
async def test_unclean_paths(serve: Opener, sent: str, cleaned: str) -> None:
    app = await serve(echo)
    async with dial(app.worker.network) as wire:
        await wire.ask("GET", f"{app.url}{sent}?q")
        status, headers, _ = await wire.answer()
    assert status == 307
    assert headers["Location"] == "/" + app.url.split("/", 3)[3] + cleaned + "?q"


@pytest.mark.parametrize("below", ["/below", "/below/"])
async def test_a_runner_below_a_path(worker: Worker, below: str) -> None:
    worker.routes.add_get("/{path:.*}", echo)
    address = await worker.start()
    runner = await worker.register(runner_url=address + below)
    for path, arrives in ("", "/below"), ("a/b", "/below/a/b"), ("a/", "/below/a/"):
        async with worker.request("GET", f"{runner['url']}/app/{path}") as answer:
            assert (await answer.json())["target"] == arrives


async def test_a_chunked_upload_arrives_as_it_is_written(serve: Opener) -> None:
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def handler(request: web.Request) -> web.Response:
        data = b""
        async for chunk in request.content.iter_any():
            data += chunk
            await seen.put(chunk)
        return web.Response(text=f"{request.headers.get('Transfer-Encoding')} {data.decode()}")

    async def upload() -> AsyncIterator[bytes]:
        for number in range(3):
            chunk = f"part {number};".encode()
            yield chunk
            assert await asyncio.wait_for(seen.get(), 20) == chunk

    app = await serve(handler)
    assert await app.ask("POST", "x", data=upload()) == (200, "chunked part 0;part 1;part 2;")


async def test_a_long_upload_and_a_long_answer(serve: Opener) -> None:
    data = bytes(range(256)) * (20 * MIB // 256)

    async def handler(request: web.Request) -> web.Response:
        assert request.content_length == len(data)
        return web.Response(body=await read_whole(request), content_type="application/x-data")

    app = await serve(handler)
    async with app.request("POST", "x", data=io.BytesIO(data)) as answer:
        back = await answer.read()
        assert answer.headers["Content-Length"] == str(len(data))
    assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()


async def test_large_headers_pass(serve: Opener) -> None:
    app = await serve(echo)
    async with app.request("GET", "x", headers={"X-Large": "x" * 9000}, params={"q": "y" * 9000}) as answer:
        arrived = await answer.json()
    assert named(arrived, "X-Large") == ["x" * 9000]
    assert arrived["target"].endswith("y" * 9000)


async def test_headers_over_a_mebibyte(serve: Opener) -> None:
    app = await serve(echo)
    async with dial(app.worker.network) as wire:
        with contextlib.suppress(OSError):  # it may stop reading before we stop writing
            await wire.ask("GET", f"{app.url}x", "X-Large: " + "x" * (MIB + 8192))
        status, headers = await wire.head()
        assert status == 431
        assert headers["Connection"] == "close"
        assert await wire.reader.read() in (b"", b"431 Request Header Fields Too Large")
    await app.idle()


async def test_a_refusal_comes_before_the_body_is_read(worker: Worker) -> None:
    async with dial(worker.network) as wire:
        await wire.ask("POST", "/apps/nobody/app/x", f"Content-Length: {20 * MIB}", "Expect: 100-continue")
        status, _, body = await wire.answer()
    assert (status, body.decode()) == NO_RUNNER


# The way back


@pytest.mark.parametrize(
    "status", [200, 201, 202, 207, 400, 401, 402, 403, 404, 409, 418, 422, 429, 470, 500, 501, 502, 503, 504]
)
async def test_answers_come_back_unchanged(serve: Opener, status: int) -> None:
    async def handler(request: web.Request) -> web.Response:
        await request.read()
        answer = web.Response(
            status=status, body=b'{"detail": "\xc3\xbc"}', content_type="application/problem+json"
        )
        answer.headers.add("Set-Cookie", "a=1")
        answer.headers.add("Set-Cookie", "b=2")
        answer.headers["X-Own"] = "yes"
        answer.headers["Server"] = "worker/1"
        answer.headers["WWW-Authenticate"] = "Bearer"
        answer.headers["Retry-After"] = "3"
        return answer

    app = await serve(handler)
    async with app.request("POST", "x", data=b"body") as answer:
        assert answer.status == status
        assert await answer.read() == b'{"detail": "\xc3\xbc"}'
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers.getall("Set-Cookie") == ["a=1", "b=2"]
        assert [answer.headers[name] for name in ("X-Own", "Server", "WWW-Authenticate", "Retry-After")] == [
            "yes",
            "worker/1",
            "Bearer",
            "3",
        ]
        assert "X-Content-Type-Options" not in answer.headers
    await app.idle()


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body(serve: Opener, status: int) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"ETag": '"x"'})

    app = await serve(handler)
    async with app.request("GET", "x") as answer:
        assert (answer.status, await answer.read()) == (status, b"")
        assert answer.headers["ETag"] == '"x"'


@pytest.mark.parametrize(
    "location", ["/elsewhere", "relative?a=b", "https://example.com/x", "http://127.0.0.1:9/"]
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_come_back_unchanged(serve: Opener, status: int, location: str) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": location})

    app = await serve(handler)
    async with app.request("POST", "x") as answer:
        assert (answer.status, answer.headers["Location"]) == (status, location)


@pytest.mark.parametrize(
    ("body", "guessed"),
    [
        (b"words", "text/plain; charset=utf-8"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\0\1", "application/octet-stream"),
    ],
)
async def test_a_missing_content_type_is_guessed(worker: Worker, body: bytes, guessed: str) -> None:
    async def answer_bare(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
        )
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer_bare, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        runner = await worker.register(runner_url=f"http://127.0.0.1:{port}")
        async with worker.request("GET", f"{runner['url']}/app/x") as answer:
            assert answer.headers["Content-Type"] == guessed
            assert await answer.read() == body


async def test_gzip_is_asked_for_and_undone(serve: Opener) -> None:
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.headers.get("Accept-Encoding"))
        return web.Response(
            body=gzip.compress(b"text" * 1000), headers={"Content-Encoding": "gzip", "Content-Type": "text/x"}
        )

    app = await serve(handler)
    async with dial(app.worker.network) as wire:
        await wire.ask("GET", f"{app.url}x")
        status, headers, body = await wire.answer()
    assert (status, body) == (200, b"text" * 1000)
    assert "Content-Encoding" not in headers
    assert headers["Content-Type"] == "text/x"
    async with dial(app.worker.network) as wire:
        await wire.ask("GET", f"{app.url}x", "Accept-Encoding: gzip, br")
        status, headers, body = await wire.answer()
    assert headers["Content-Encoding"] == "gzip"  # who asks for it gets it
    assert gzip.decompress(body) == b"text" * 1000
    assert asked == ["gzip", "gzip, br"]


async def test_a_compressed_upload_stays_compressed(serve: Opener) -> None:
    app, data = await serve(echo), gzip.compress(b"text" * 100)
    headers = {"Content-Encoding": "gzip"}
    async with app.request("POST", "x", data=data, headers=headers) as answer:
        arrived = await answer.json()
    assert arrived["body"].encode("latin-1") == data
    assert named(arrived, "Content-Encoding") == ["gzip"]


@pytest.mark.parametrize(
    "content_type", ["text/event-stream", "application/x-ndjson", "application/octet-stream", "text/plain"]
)
async def test_each_write_is_flushed(serve: Opener, content_type: str) -> None:
    """The worker writes the next event only when the client has read the one before."""
    was_read = asyncio.Semaphore(0)
    events = [b'data: {"n": %d}\n\n' % number for number in range(5)]

    async def handler(request: web.Request) -> web.StreamResponse:
        await read_whole(request)
        answer = web.StreamResponse(headers={"Content-Type": content_type})
        await answer.prepare(request)
        await was_read.acquire()  # the head comes before any event, too
        for event in events:
            await answer.write(event)
            await was_read.acquire()
        await answer.write_eof()
        return answer

    app = await serve(handler)
    async with asyncio.timeout(30), app.request("POST", "x", data=b"body") as answer:
        assert answer.headers["Content-Type"] == content_type
        was_read.release()
        for event in events:
            assert await answer.content.readany() == event
            was_read.release()
        assert await answer.content.read() == b""
    await app.idle()


async def test_an_answer_waits_for_the_end_of_the_upload(serve: Opener) -> None:
    """Over HTTP/1.1 nothing comes back, not even the status, while a body is still on its way there."""
    stage = Stage()

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/x-echo"})
        assert await request.content.readany() == b"first"
        await answer.prepare(request)
        await answer.write(b"FIRST")
        stage.reached.set()
        return answer

    app = await serve(handler)
    async with dial(app.worker.network) as wire:
        await wire.ask("POST", f"{app.url}x", "Transfer-Encoding: chunked")
        await wire.chunk(b"first")
        await stage.reached.wait()
        assert await wire.silent()
        await wire.chunk(b"")
        status, _, body = await wire.answer()
        assert (status, body) == (200, b"FIRST")


@pytest.mark.parametrize("length", [100_000, 20 * MIB])
async def test_a_worker_answers_without_reading_the_upload(serve: Opener, length: int) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=413, text="too much")

    async def upload(wire: Wire) -> None:
        with contextlib.suppress(OSError):  # nobody has to take all of it
            await wire.ask("POST", f"{app.url}x", f"Content-Length: {length}")
            await wire.send(bytes(length))

    app = await serve(handler)
    async with dial(app.worker.network) as wire:
        uploading = asyncio.create_task(upload(wire))
        status, _, body = await wire.answer()
        assert (status, body) == (413, b"too much")
        wire.abort()
        await uploading
    await app.idle()


# WebSockets


async def test_a_websocket(serve: Opener) -> None:
    heads = []

    async def handler(request: web.Request) -> web.WebSocketResponse:
        heads.append(request.headers)
        socket = web.WebSocketResponse(protocols=["chat"], max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.data == "bye":
                await socket.close(code=4001, message=b"as you wish")
            elif message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data.upper())
            else:
                await socket.send_bytes(message.data[::-1])
        return socket

    app = await serve(handler)
    async with app.worker.http.ws_connect(
        f"{app.url}ws?q=1", ssl=False, protocols=["chat"], max_msg_size=0, headers={"X-Mine": "1"}
    ) as socket:
        assert socket.protocol == "chat"
        await socket.send_str("hello")
        assert await socket.receive_str(timeout=5) == "HELLO"
        data = bytes(range(256)) * 4096
        await socket.send_bytes(data)
        assert await socket.receive_bytes(timeout=5) == data[::-1]
        await socket.ping()
        await socket.send_str("bye")
        last = await socket.receive(timeout=5)
        assert (last.type, last.data, last.extra) == (aiohttp.WSMsgType.CLOSE, 4001, "as you wish")
    [head] = heads
    assert head["X-Mine"] == "1"
    assert len(head["Livepeer-Session-Token"]) == 52
    await app.idle()


async def test_a_websockets_client_closes(serve: Opener) -> None:
    codes: asyncio.Queue[int | None] = asyncio.Queue()

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _ in socket:
            pass
        await codes.put(socket.close_code)
        return socket

    app = await serve(handler)
    async with app.worker.http.ws_connect(f"{app.url}ws", ssl=False) as socket:
        await socket.close(code=4002)
    assert await asyncio.wait_for(codes.get(), 20) == 4002
    await app.idle()


async def test_a_websockets_client_is_gone(serve: Opener) -> None:
    stage = Stage()

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        stage.reached.set()
        async with stage.watch():
            async for _ in socket:
                pass
        return socket

    app = await serve(handler)
    async with dial(app.worker.network) as wire:
        await upgrade(wire, app)
        assert (await wire.head())[0] == 101
        await stage.reached.wait()
    async with asyncio.timeout(20):
        await stage.over.wait()
    await app.idle()


async def test_a_websockets_worker_is_gone(serve: Opener) -> None:
    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        hang_up(request)
        return socket

    app = await serve(handler)
    async with app.worker.http.ws_connect(f"{app.url}ws", ssl=False) as socket:
        await socket.send_str("die")
        last = await socket.receive(timeout=5)
        assert last.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING)
        assert socket.close_code == 1006
    await app.idle()


async def test_a_refused_websocket(serve: Opener) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"error": "not you"}, status=403, headers={"X-Own": "1"})

    app = await serve(handler)
    async with dial(app.worker.network) as wire:
        await upgrade(wire, app)
        status, headers, body = await wire.answer()
    assert (status, body, headers["X-Own"]) == (403, b'{"error": "not you"}', "1")
    await app.idle()


async def upgrade(wire: Wire, app: App) -> None:
    await wire.ask(
        "GET",
        f"{app.url}ws",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )


# Capacity, and what can't be reached


async def test_a_full_single_shot_runner(worker: Worker) -> None:
    stage = Stage()

    async def handler(request: web.Request) -> web.Response:
        stage.reached.set()
        await stage.go_on.wait()
        return web.Response(text="done")

    worker.routes.add_post("/run", handler)
    runner = await worker.register(capacity=1)
    first = asyncio.create_task(worker.ask("POST", f"{runner['url']}/app/run"))
    await stage.reached.wait()
    assert await worker.ask("POST", f"{runner['url']}/app/run") == FULL
    stage.go_on.set()
    assert await first == (200, "done")

    async def again() -> bool:
        return bool(await worker.ask("POST", f"{runner['url']}/app/run") == (200, "done"))

    await until(again)


async def test_a_full_persistent_runner(worker: Worker) -> None:
    runner = await worker.register(mode="persistent", capacity=2)
    first, _ = await worker.reserve(runner), await worker.reserve(runner)
    assert await worker.ask("POST", f"{runner['url']}/session") == FULL
    assert await worker.ask("POST", f"{first.control_url}/stop") == (204, "")
    await worker.reserve(runner)
    assert await worker.ask("POST", f"{runner['url']}/session") == FULL


async def test_the_answer_to_a_reservation(worker: Worker) -> None:
    runner = await worker.register(mode="persistent")
    async with worker.request("POST", f"{runner['url']}/session", data=b"ignored") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
        given = await answer.json()
    session = given["session_id"]
    assert given == {
        "session_id": session,
        "app_url": f"{runner['url']}/session/{session}/app",
        "control_url": f"{runner['url']}/session/{session}",
    }


async def test_the_wrong_mode(worker: Worker) -> None:
    shot, lasting = await worker.register(mode="single-shot"), await worker.register(mode="persistent")
    assert await worker.ask("POST", f"{shot['url']}/session") == (
        400,
        "only persistent runners have sessions\n",
    )
    assert await worker.ask("POST", f"{lasting['url']}/app/x") == (400, "runner is not single-shot\n")


async def test_what_is_unknown(worker: Worker) -> None:
    runner = await worker.register(mode="persistent")
    other = await worker.register(mode="persistent")
    session = await worker.reserve(runner)
    base = f"{worker.network.url}/apps/nobody"
    assert await worker.ask("POST", f"{base}/session") == NO_RUNNER
    assert await worker.ask("POST", f"{base}/app/x") == NO_RUNNER
    assert await worker.ask("POST", f"{base}/session/{session.id}/app/x") == NO_RUNNER
    assert await worker.ask("POST", f"{base}/session/{session.id}/stop") == NO_RUNNER
    assert await worker.ask("GET", f"{runner['url']}/session/session_none/app/x") == NO_SESSION
    assert await worker.ask("GET", f"{other['url']}/session/{session.id}/app/x") == NO_SESSION


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/apps/nobody/app/x", NO_RUNNER),
        ("/apps/nobody", (404, "404 page not found\n")),
        ("/apps/nobody/session", (405, "Method Not Allowed\n")),
    ],
)
async def test_the_orchestrators_own_errors(worker: Worker, path: str, answer: tuple[int, str]) -> None:
    async with worker.request("GET", worker.network.url + path) as given:
        assert (given.status, await given.text()) == answer
        assert given.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert given.headers["X-Content-Type-Options"] == "nosniff"


async def test_stopping_a_session(worker: Worker) -> None:
    runner = await worker.register(mode="persistent")
    session = await worker.reserve(runner)
    for _ in range(2):
        async with worker.request("POST", f"{session.control_url}/stop") as answer:
            assert (answer.status, await answer.read()) == (204, b"")
            assert "Content-Type" not in answer.headers
    assert await worker.ask("POST", f"{runner['url']}/session/session_none/stop") == (204, "")
    assert await worker.ask("GET", f"{session.app_url}/_who") == NO_SESSION
    assert (await worker.ask("GET", f"{session.control_url}/stop"))[0] == 405
    assert (await worker.ask("DELETE", session.control_url))[0] == 404


async def test_a_request_under_way_outlives_its_session(worker: Worker) -> None:
    stage = Stage()

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b"one")
        await stage.go_on.wait()
        await answer.write(b"two")
        return answer

    worker.routes.add_get("/run", handler)
    runner = await worker.register(mode="persistent")
    session = await worker.reserve(runner)
    async with worker.request("GET", f"{session.app_url}/run") as answer:
        assert await answer.content.readany() == b"one"
        assert await worker.ask("POST", f"{session.control_url}/stop") == (204, "")
        assert await worker.unregister(runner) == 204
        assert await worker.ask("GET", f"{session.app_url}/run") == NO_RUNNER
        stage.go_on.set()
        assert await answer.content.read() == b"two"


async def test_a_worker_that_is_not_there(serve: Opener) -> None:
    app = await serve(echo)
    address = f"127.0.0.1:{free_port()}"  # the worker moves there, where no connection has been before
    moved = {**app.runner["body"], "runner_id": app.runner["runner_id"], "runner_url": f"http://{address}"}
    assert (await app.worker.heartbeat(moved, app.runner["heartbeat_secret"]))[0] == 200
    async with app.request("POST", "x", data=b"body") as answer:
        assert answer.status == 502
        assert await answer.text() == f"dial tcp {address}: connect: connection refused\n"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    await app.idle()  # and it is listed all the same


async def test_a_name_that_nobody_has(worker: Worker) -> None:
    runner = await worker.register(runner_url="http://nobody.invalid:80/")
    status, text = await worker.ask("GET", f"{runner['url']}/app/x")
    assert status == 502
    assert text.startswith("dial tcp: lookup nobody.invalid")


async def test_a_workers_certificate_is_verified(worker: Worker) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    context = server_context("127.0.0.1")
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        runner = await worker.register(runner_url=f"https://127.0.0.1:{port}")
        status, text = await worker.ask("GET", f"{runner['url']}/app/x")
    assert status == 502
    assert text.startswith("tls: failed to verify certificate: x509: ")


# Workers that die


def hang_up(request: web.Request) -> None:
    """Close the worker's connection as its process's death does."""
    assert request.transport is not None
    request.transport.close()


async def die_before_answering(request: web.Request) -> web.StreamResponse:
    await request.read()
    hang_up(request)
    return web.Response()


async def die_in_a_stream(request: web.Request) -> web.StreamResponse:
    await read_whole(request)
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    await answer.write(b"data: 1\n\n")
    await asyncio.sleep(0.05)
    hang_up(request)
    return answer


async def die_in_a_long_body(request: web.Request) -> web.StreamResponse:
    await read_whole(request)
    answer = web.StreamResponse(headers={"Content-Length": "100000", "Content-Type": "a/b"})
    await answer.prepare(request)
    await answer.write(b"x" * 50_000)
    await asyncio.sleep(0.05)
    hang_up(request)
    return answer


async def die_in_a_short_body(request: web.Request) -> web.StreamResponse:
    await read_whole(request)
    answer = web.StreamResponse(headers={"Content-Length": "100", "Content-Type": "a/b"})
    await answer.prepare(request)
    await answer.write(b"x" * 50)
    await asyncio.sleep(0.05)
    hang_up(request)
    return answer


async def test_a_worker_dies_before_answering(serve: Opener) -> None:
    app = await serve(die_before_answering)
    assert await app.ask("POST", "x", data=b"body") == (502, "EOF\n")
    await app.idle()


async def test_a_worker_dies_in_a_stream(serve: Opener) -> None:
    app = await serve(die_in_a_stream)
    async with app.request("POST", "x", data=b"body") as answer:
        assert answer.status == 200
        assert await answer.content.readany() == b"data: 1\n\n"
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.readany()
    await app.idle()


async def test_a_worker_dies_in_a_long_body(serve: Opener) -> None:
    app = await serve(die_in_a_long_body)
    async with app.request("POST", "x", data=b"body") as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, "100000")
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    await app.idle()


async def test_a_worker_dies_in_a_short_body(serve: Opener) -> None:
    """So little was held back, with the status: the connection just ends."""
    app = await serve(die_in_a_short_body)
    async with dial(app.worker.network) as wire:
        await wire.ask("POST", f"{app.url}x", "Content-Length: 0")
        assert await wire.closed()
    await app.idle()


# Clients that leave


async def test_a_client_leaves_before_the_answer(serve: Opener) -> None:
    stage = Stage()

    async def handler(request: web.Request) -> web.Response:
        async with stage.watch():
            await request.read()
            stage.reached.set()
            await stage.go_on.wait()
        return web.Response()

    app = await serve(handler)
    call = asyncio.create_task(app.ask("POST", "x", data=b"body"))
    await stage.reached.wait()
    call.cancel()
    await stage.gone()
    await app.idle()


async def test_a_client_leaves_a_stream(serve: Opener) -> None:
    stage = Stage()

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        async with stage.watch():
            await answer.prepare(request)
            await answer.write(b"data: 1\n\n")
            await stage.go_on.wait()
        return answer

    app = await serve(handler)
    async with app.request("GET", "x") as answer:
        assert await answer.content.readany() == b"data: 1\n\n"
        answer.close()
    await stage.gone()
    await app.idle()


async def test_a_client_leaves_an_upload(serve: Opener) -> None:
    stage = Stage()

    async def handler(request: web.Request) -> web.Response:
        async with stage.watch():
            await request.content.readany()
            stage.reached.set()
            await request.read()
        return web.Response()

    app = await serve(handler)
    async with dial(app.worker.network) as wire:
        await wire.ask("POST", f"{app.url}x", "Transfer-Encoding: chunked")
        await wire.chunk(b"first")
        await stage.reached.wait()
    await stage.gone()
    await app.idle()
