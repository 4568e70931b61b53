"""Every way in which `GetOrchestrator` can fail is a typed error; against a server of HTTP/2 frames."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from livepeer.client import (
    CapacityError,
    ConfigurationError,
    ConnectionFailed,
    FirstByteTimeout,
    Gateway,
    LivepeerError,
    OrchestratorError,
    ResponseError,
)
from livepeer.client._grpc import GET_ORCHESTRATOR, asking
from livepeer.client._grpc.lp_rpc_pb2 import OrchestratorInfo, OrchestratorRequest
from livepeer.client._grpc.orchestrator import get_orchestrator

Answer = Callable[[h2.connection.H2Connection, int], Any]
OK = [(":status", "200"), ("content-type", "application/grpc")]


@contextlib.asynccontextmanager
async def server(answer: Answer, seen: list[Any] | None = None) -> AsyncIterator[str]:
    """Answers every call; `answer` gets the connection and the stream's id, and may give bytes to send."""
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        body = b""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived) and seen is not None:
                        seen.append(dict(event.headers))
                    elif isinstance(event, h2.events.DataReceived):
                        body += event.data
                    elif isinstance(event, h2.events.StreamEnded):
                        if seen is not None:
                            seen.append(body)
                        raw = answer(connection, event.stream_id)
                        if raw is not None:
                            writer.write(raw)
                            if not raw:
                                writer.transport.abort()
                writer.write(connection.data_to_send())

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        for writer in writers:
            writer.transport.abort()


async def ask(url: str, **wanted: Any) -> OrchestratorInfo:
    async with Gateway(orch_url=url) as gateway:
        return await get_orchestrator(url, gateway._pool, **wanted)


def message(body: bytes, flag: int = 0, status: str = "0") -> Answer:
    def answer(connection: h2.connection.H2Connection, stream: int) -> None:
        connection.send_headers(stream, OK)
        connection.send_data(stream, struct.pack(">BI", flag, len(body)) + body)
        connection.send_headers(stream, [("grpc-status", status)], end_stream=True)

    return answer


def refused(status: int, text: str = "") -> Answer:
    def answer(connection: h2.connection.H2Connection, stream: int) -> None:
        headers = [*OK, ("grpc-status", str(status)), ("grpc-message", text)]
        connection.send_headers(stream, headers, end_stream=True)

    return answer


async def test_an_answer() -> None:
    seen: list[Any] = []
    info = OrchestratorInfo(transcoder="https://o:1")
    info.auth_token.session_id = "abc"
    async with server(message(info.SerializeToString()), seen) as url:
        assert await ask(url) == info
        assert await ask(url, capability=35, model="noop") == info
    headers, body, _, wanted = seen
    assert headers[b":path"] == GET_ORCHESTRATOR.encode()
    assert (headers[b"te"], headers[b"content-type"]) == (b"trailers", b"application/grpc")
    assert OrchestratorRequest.FromString(body[5:]) == OrchestratorRequest(ignoreCapacityCheck=True)
    request = OrchestratorRequest.FromString(wanted[5:])
    assert list(request.capabilities.bitstring) == [1 << 35]
    assert list(request.capabilities.constraints.PerCapability[35].models) == ["noop"]


STATUSES = {
    **dict.fromkeys(range(1, 18), OrchestratorError),
    4: FirstByteTimeout,
    8: CapacityError,
}


@pytest.mark.parametrize("status", STATUSES)
async def test_each_status_of_grpc(status: int) -> None:
    async with server(refused(status, "because%20of%0Athis")) as url:
        with pytest.raises(LivepeerError, match="because of this") as failed:
            await ask(url, request_id="r")
    assert type(failed.value) is STATUSES[status]
    assert (failed.value.orchestrator, failed.value.request_id) == (url, "r")
    assert failed.value.retryable == (status in (4, 8, 14))
    if isinstance(failed.value, OrchestratorError):
        assert failed.value.status >= 400
    assert str(pickle.loads(pickle.dumps(failed.value))) == str(failed.value)


async def test_a_full_orchestrator() -> None:
    async with server(refused(2, "OrchestratorCapped")) as url:
        with pytest.raises(CapacityError):
            await ask(url)


def http_404(connection: h2.connection.H2Connection, stream: int) -> None:
    connection.send_headers(stream, [(":status", "404")])
    connection.send_data(stream, b"no such page", end_stream=True)


def reset(connection: h2.connection.H2Connection, stream: int) -> None:
    connection.reset_stream(stream, 2)


def goodbye(connection: h2.connection.H2Connection, stream: int) -> None:
    connection.close_connection(11)


def too_long(connection: h2.connection.H2Connection, stream: int) -> bytes:
    connection.send_headers(stream, OK)
    frames = b"".join(b"\0\x40\0\0\0" + struct.pack(">I", stream) + bytes(16384) for _ in range(300))
    return connection.data_to_send() + frames


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (http_404, OrchestratorError, "HTTP 404"),
        (reset, OrchestratorError, "gave the call up"),
        (goodbye, OrchestratorError, "ended the connection"),
        (too_long, OrchestratorError, "longer|no HTTP/2"),
        (lambda *_: b"", ConnectionFailed, "closed the connection"),
        (message(b"\xff\xff\xff"), ResponseError, "can't be read"),
        (message(b"abc", flag=1), ResponseError, "uncompressed"),
        (
            lambda c, s: c.send_headers(s, [*OK, ("grpc-status", "0")], end_stream=True),
            ResponseError,
            "no message",
        ),
        (message(b"", status="x"), OrchestratorError, "no answer of gRPC"),
    ],
)
async def test_answers_that_are_none(answer: Answer, error: type[LivepeerError], text: str) -> None:
    async with server(answer) as url:
        with pytest.raises(error, match=text):
            await ask(url)


async def test_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async with server(lambda *_: None) as url:
        monkeypatch.setattr(asking, "_ANSWER", 0.2)
        with pytest.raises(FirstByteTimeout, match=r"within 0\.2 s"):
            await ask(url)
    with pytest.raises(ConnectionFailed, match="refused") as failed:
        await ask(url)
    assert failed.value.retryable
    with pytest.raises(ConnectionFailed, match="no address"):
        await ask("https://nobody.invalid")
    with pytest.raises(ConfigurationError, match="longer than"):
        await ask(url, capability=35, model="m" * 5000)


async def test_servers_of_other_protocols() -> None:
    async def http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.transport.abort()

    async with await asyncio.start_server(http1, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        with pytest.raises(OrchestratorError, match=r"HTTP/1\.1"):
            await ask(url)
    async with server(lambda *_: None) as url:
        with pytest.raises(ConnectionFailed, match=r"TLS|No connection"):
            await ask(url.replace("http:", "https:"))
