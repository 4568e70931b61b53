"""No error of a library below comes through: each class has its error here, or can't surface."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import pickle
import pkgutil
import random
import re
import socket
import ssl
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import h2.config
import h2.connection
import h2.exceptions
import pytest
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

import livepeer.client
from livepeer.client import ConnectionFailed, LivepeerError, ResponseError, StreamError
from livepeer.client._grpc.unary import BadAnswer, Unary
from livepeer.client._http import translated

LIBRARIES = {
    "aiohttp", "asyncio", "binascii", "h2", "hpack", "hyperframe", "json", "multidict", "socket",
    "ssl", "struct", "yarl", "zlib", "google.protobuf.message",
}  # fmt: skip

# Why a class can't come out of a call, by its full name or its module; everything else is mapped.
CANNOT_SURFACE = {
    "aiohttp.web_": "servers raise it",
    "aiohttp.multipart.": "it is a warning of multipart bodies, which aren't sent or read here",
    "aiohttp.payload.LookupError": "bodies are bytes and files, whose payloads aiohttp knows",
    "aiohttp.streams.EofStream": "aiohttp uses it between its own tasks, for the end of a WebSocket",
    "aiohttp._websocket.models.WSHandshakeError": "aiohttp makes a WSServerHandshakeError of it",
    "aiohttp._websocket.models.WebSocketError": "aiohttp makes a message of the type ERROR of it",
    "aiohttp.client_exceptions.WSMessageTypeError": "it says that aiohttp's own socket, which "
    "`LiveSession.websocket` hands out, was asked for another type than came",
    "asyncio.exceptions.CancelledError": "it is the caller's, and passes",
    "asyncio.exceptions.InvalidStateError": "nobody sets or reads a future's result before its time",
    "asyncio.exceptions.LimitOverrunError": "no line is read through asyncio's streams",
    "asyncio.queues.": "queues are waited for",
    "binascii.Incomplete": "it is of an encoding that isn't used",
    "google.protobuf.message.EncodeError": "every message that is sent has all its fields",
    "google.protobuf.message.Error": "it is raised as one of its subclasses",
    "google.protobuf.message.FrozenInstanceError": "no message is frozen",
    "hpack.exceptions.": "h2 makes a ProtocolError of it",
    "hyperframe.exceptions.": "h2 makes a ProtocolError of it",
    "socket._GiveupOnSendfile": "socket.py keeps it to itself",
    "struct.error": "what is unpacked has its length checked before",
}
# Where another place than `translated` makes our error of it, which the tests of that place show.
ELSEWHERE = {
    "google.protobuf.message.DecodeError": "get_orchestrator: ResponseError",
    "h2.": "Unary.feed: BadAnswer",
}


def _classes() -> list[type[BaseException]]:
    """Every exception class of the libraries."""
    for name in ("aiohttp", "asyncio", "h2", "hpack", "hyperframe"):
        library = importlib.import_module(name)
        for module in pkgutil.iter_modules(library.__path__):
            if module.name not in ("__main__", "pytest_plugin", "test_utils", "worker"):
                with contextlib.suppress(ImportError):  # of another system
                    importlib.import_module(f"{name}.{module.name}")
    importlib.import_module("google.protobuf.message")
    found: dict[type[BaseException], None] = {}

    def gather(kind: type[BaseException]) -> None:
        for below in kind.__subclasses__():
            if below not in found:
                found[below] = None
                gather(below)

    gather(BaseException)
    kinds = [kind for kind in found if {kind.__module__, kind.__module__.partition(".")[0]} & LIBRARIES]
    return sorted({*kinds, ssl.SSLError, zlib.error}, key=_name)


def _name(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _reason(kind: type[BaseException], table: dict[str, str]) -> str | None:
    name = _name(kind)
    return next((why for start, why in table.items() if name == start or (
        start.endswith((".", "_")) and name.startswith(start))), None)  # fmt: skip


SURFACING = [kind for kind in _classes() if not (_reason(kind, CANNOT_SURFACE) or _reason(kind, ELSEWHERE))]
KEY = ConnectionKey("h", 1, False, True, None, None, None)
INFO = aiohttp.RequestInfo(URL("http://h:1/"), "GET", CIMultiDictProxy(CIMultiDict()), URL("http://h:1/"))


def _made(kind: type[BaseException]) -> BaseException:
    """An instance of a class, by whichever arguments it takes."""
    shapes: tuple[tuple[Any, ...], ...] = (
        ("no",), (INFO, ()), (KEY, OSError(1, "no")), (KEY, ssl.SSLCertVerificationError("no")),
        ("/x", KEY, OSError(1, "no")), (b"a", b"b", "h", 1), ("no", "x", 0), (b"", 5), ("no", b""), (),
    )  # fmt: skip
    if kind is json.JSONDecodeError:
        return kind("no", "x", 0)
    if kind is UnixClientConnectorError:
        return kind("/x", KEY, OSError(1, "no"))
    if kind is aiohttp.ClientConnectorCertificateError:
        return kind(KEY, ssl.SSLCertVerificationError("no"))
    if kind is asyncio.IncompleteReadError:
        return kind(b"", 5)
    if issubclass(kind, aiohttp.ServerFingerprintMismatch):
        return kind(b"a", b"b", "h", 1)
    if issubclass(kind, aiohttp.ClientConnectorError):
        return kind(KEY, OSError(1, "no"))
    for shape in shapes:
        with contextlib.suppress(TypeError):
            return kind(*shape)
    raise AssertionError(f"how is a {_name(kind)} made?")


def test_the_libraries_are_looked_through() -> None:
    names = {_name(kind) for kind in SURFACING}
    assert len(names) > 50
    assert {
        "aiohttp.client_exceptions.ClientConnectorDNSError",
        "aiohttp.http_exceptions.TransferEncodingError",
        "asyncio.exceptions.IncompleteReadError",
        "json.decoder.JSONDecodeError",
        "socket.gaierror",
        "ssl.SSLCertVerificationError",
        "zlib.error",
    } <= names


def test_no_reason_is_out_of_date() -> None:
    names = {_name(kind) for kind in _classes()}
    for start in (*CANNOT_SURFACE, *ELSEWHERE):
        assert any(name.startswith(start) for name in names), start


@pytest.mark.parametrize("kind", SURFACING, ids=_name)
def test_whatever_may_surface_has_an_error_here(kind: type[BaseException]) -> None:
    error = _made(kind)
    with pytest.raises(LivepeerError) as caught, translated("http://u:pw@h:1/x?key=pw", request_id="id"):
        raise error
    assert caught.value.__cause__ is error
    assert caught.value.request_id == "id"
    assert "pw" not in str(caught.value)
    assert caught.value.message.endswith(".")
    assert type(caught.value) is not LivepeerError
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert vars(again) == vars(caught.value)
    assert str(again.__cause__) == f"{_name(kind)}: {error}".removesuffix(": ")


@pytest.mark.parametrize(
    "error",
    [OSError(5, "no"), ConnectionResetError(104, "no"), BrokenPipeError(), TimeoutError(), ValueError("no"),
     UnicodeError("no"), RuntimeError("Session is closed"), RecursionError("no"), OSError("no", b"odd")],
    ids=repr,
)  # fmt: skip
def test_so_has_what_is_built_in(error: Exception) -> None:
    with pytest.raises(LivepeerError) as caught, translated("http://h:1/x"):
        raise error
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again.__cause__).endswith(str(error))
    if all(isinstance(one, str | int) for one in error.args):
        assert type(again.__cause__) is type(error)


def _answer_of_a_server() -> bytes:
    """What a gRPC server sends, from its preface to its trailers."""
    call = Unary(URL("https://h:1"), "/m", b"", user_agent="x", timeout=1.0)
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.initiate_connection()
    server.receive_data(call.to_send())
    server.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
    server.send_data(1, b"\0\0\0\0\5hello", pad_length=3)
    server.ping(b"12345678")
    server.send_headers(1, [("grpc-status", "0"), ("grpc-message", "fine")], end_stream=True)
    return server.data_to_send()


def test_whatever_h2_raises_is_no_answer() -> None:
    """With bytes changed, left out and put in at random, and their ends cut off."""
    kinds = [kind for kind in _classes() if kind.__module__.startswith("h2.")]
    assert all(issubclass(kind, h2.exceptions.H2Error) for kind in kinds)
    good, rng = _answer_of_a_server(), random.Random(6)
    refused = 0
    for _ in range(1500):
        data = bytearray(good)
        for _ in range(rng.randint(0, 3)):
            where = rng.randrange(len(data))
            data[where : where + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
        call = Unary(URL("https://h:1"), "/m", b"", user_agent="x", timeout=1.0)
        try:
            call.feed(bytes(data[: rng.choice((len(data), rng.randrange(len(data))))]))
            _ = call.status, call.text, call.http_status
            if call.done:
                call.message()
        except BadAnswer:
            refused += 1
    assert refused > 100


def test_grpc_itself_is_not_used() -> None:
    folder = Path(livepeer.client.__file__).parent
    for path in folder.rglob("*.py"):
        assert not re.search(r"^\s*(import|from) grpc\b", path.read_text(), re.MULTILINE), path


def test_our_own_errors_pass() -> None:
    mine = ConnectionFailed("mine")
    with pytest.raises(ConnectionFailed) as caught, translated("x"):
        raise mine
    assert caught.value is mine


def test_a_cause_stays_in_a_pickle_as_far_as_it_can() -> None:
    first = aiohttp.ClientConnectorError(KEY, OSError(111, "refused"))
    second = ConnectionFailed("second", hint="h")
    second.__cause__ = first
    third = StreamError("third", orchestrator="https://o")
    third.__cause__ = second
    again = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(third))))
    assert isinstance(again.__cause__, ConnectionFailed)
    assert vars(again.__cause__) == vars(second)
    assert str(again.__cause__.__cause__) == f"aiohttp.client_exceptions.ClientConnectorError: {first}"
    shown = "".join(traceback.format_exception(again))
    assert shown.index("refused") < shown.index("second") < shown.index("third")
    alone = pickle.loads(pickle.dumps(StreamError("alone")))
    assert alone.__cause__ is None
    assert not alone.__suppress_context__


ANSWERS = {
    "a chunk without a size": (b"Transfer-Encoding: chunked\r\n\r\n", b"zz\r\nx"),
    "a chunk without its end": (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nxy\r\n"),
    "a short body": (b"Content-Length: 100\r\n\r\n", b"x"),
    "what is no gzip": (b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\n", b"nope!"),
    "what is no deflate": (
        b"Content-Encoding: deflate\r\nContent-Length: 5\r\n\r\n",
        b"\xff\xff\xff\xff\xff",
    ),
    "a bad header": (b"bad header\r\n\r\n", b""),
    "two lengths": (b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", b"x"),
    "a long header": (b"X: " + b"x" * 100_000 + b"\r\n\r\n", b""),
}
CALLS = """
import json, sys, time
import aiohttp.http_parser
from livepeer.client import Gateway, LivepeerError
assert (aiohttp.http_parser.HttpResponseParser is aiohttp.http_parser.HttpResponseParserPy) == bool({pure})
gateway = Gateway(orch_url=sys.argv[1])
for name in json.loads(sys.argv[2]):
    for verb in (gateway.run, lambda name: list(gateway.stream(name))):
        try:
            verb(name)
            print(name, "nothing")
        except LivepeerError as error:
            print(name, type(error).__name__)
gateway.close()
"""


@pytest.mark.parametrize("pure", [False, True], ids=["extensions", "pure"])
def test_either_parser_of_aiohttp(
    orch: Any, raw_server: Callable[..., str], script: Callable[..., Any], pure: bool
) -> None:
    """aiohttp has two, which fail in different ways; each byte arrives while the body is waited for."""
    if not pure and importlib.util.find_spec("aiohttp._http_parser") is None:
        pytest.skip("aiohttp has no extensions here")

    def serve(connection: socket.socket) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked:
            if not (more := connection.recv(65536)):
                return
            asked += more
        name = re.search(rb"/apps/([^/]+)/", asked)
        if name is None:
            listing = json.dumps([{"address": url, "runners": [
                {"url": f"{url}/apps/{index}/app", "app": text, "mode": "single-shot", "capacity": 9}
                for index, text in enumerate(ANSWERS)
            ]}]).encode()  # fmt: skip
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(listing) + listing
            )
            return
        head, body = list(ANSWERS.values())[int(name[1])]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + head)
        for byte in body:
            with contextlib.suppress(TimeoutError):
                connection.settimeout(0.02)
                if not connection.recv(1):
                    return
            connection.sendall(bytes([byte]))

    url = raw_server(serve)
    before = 'import os; os.environ["AIOHTTP_NO_EXTENSIONS"] = "1"\n' if pure else ""
    done = script(before + CALLS.format(pure=pure), url, json.dumps(list(ANSWERS)), fresh=True).finish()
    assert done.code == 0, done.err
    told = [line.rsplit(" ", 1) for line in done.out.splitlines()]
    assert len(told) == 2 * len(ANSWERS)
    kinds = {StreamError.__name__, ResponseError.__name__, ConnectionFailed.__name__}
    assert {kind for _, kind in told} <= kinds, told
    assert "Error in" not in done.err


@pytest.fixture(autouse=True)
def _no_unraisable() -> Iterator[None]:
    """A failure behind a caller's back would be printed and not raised."""
    told: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, told.append
    yield
    sys.unraisablehook = before
    assert not told
