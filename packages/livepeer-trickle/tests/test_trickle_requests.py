"""`Transport.send`: what goes out, what is made of the answer, and which URLs it goes to."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import itertools
import pickle
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from livepeer.trickle import Transport
from livepeer.trickle._fields import Fields
from livepeer.trickle._inflating import Inflater
from livepeer.trickle._requests import request_head
from livepeer.trickle._targets import target_of
from livepeer.trickle.transport import (
    BodyBroken,
    ConnectFailed,
    ConnectTimedOut,
    ExchangeClosed,
    InvalidURL,
    MalformedAnswer,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Bare:
    """A server that keeps what it is sent, and answers each request with the same bytes.

    With `early`, it answers when the head is there, and doesn't read the body; it waits until it is `over`.
    """

    def __init__(self, answer: bytes, *, early: bool = False) -> None:
        self.answer = answer
        self.early = early
        self.over = asyncio.Event()
        self.requests: list[bytes] = []
        self.connections = 0
        self.url = ""
        self._writers: list[asyncio.StreamWriter] = []

    def hang_up(self) -> None:
        self.over.set()
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = int(field(head, "Content-Length") or 0)
                body = b"" if self.early else await reader.readexactly(size)
                self.requests.append(head + body)
                writer.write(self.answer)
                await writer.drain()
                if self.early:
                    await self.over.wait()
                    break
                if b"Connection: close" in self.answer or b"Length" not in self.answer:
                    break


def field(head: bytes, name: str) -> str | None:
    for line in head.decode().split("\r\n")[1:]:
        if line.lower().startswith(name.lower() + ":"):
            return line.partition(":")[2].strip()
    return None


@contextlib.asynccontextmanager
async def bare(answer: bytes, *, early: bool = False) -> AsyncIterator[Bare]:
    server = Bare(answer, early=early)
    started = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{started.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        started.close()
        server.hang_up()  # or the end of the server would wait for connections that are kept
        await started.wait_closed()


async def test_what_is_sent(transport: Transport) -> None:
    async with bare(OK) as server:
        for method, body in (("GET", None), ("POST", None), ("POST", b"abc"), ("DELETE", None)):
            async with await transport.send(method, f"{server.url}/a?b=c#d", body=body) as reply:
                assert (reply.status, await reply.read()) == (200, b"ok")
        assert server.connections == 1
    assert [one.split(b" HTTP")[0] for one in server.requests] == [
        b"GET /a?b=c", b"POST /a?b=c", b"POST /a?b=c", b"DELETE /a?b=c",
    ]  # fmt: skip
    assert [field(one, "Content-Length") for one in server.requests] == [None, "0", "3", None]
    assert server.requests[2].endswith(b"\r\n\r\nabc")
    for one in server.requests:
        assert field(one, "Host") == server.url.partition("//")[2]
        assert (field(one, "User-Agent") or "").startswith("livepeer-trickle/")
        assert field(one, "Accept-Encoding") == "gzip, deflate"


async def test_the_callers_headers_come_before_ours(transport: Transport) -> None:
    async with bare(OK) as server:
        headers = {"user-agent": "mine", "HOST": "there", "content-length": "99", "X": "ä"}
        await (await transport.send("POST", server.url, headers=headers, body=b"x")).read()
    head = server.requests[0].decode()
    lines = [line.lower() for line in head.split("\r\n")]
    assert [line for line in lines if line.startswith("user-agent")] == ["user-agent: mine"]
    assert [line for line in lines if line.startswith("host")] == ["host: there"]
    assert [line for line in lines if line.startswith("content-length")] == ["content-length: 1"]
    assert "X: ä" in head


async def test_credentials_go_to_their_origin_alone() -> None:
    async with bare(OK) as mine, bare(OK) as other:
        known = {mine.url: "Basic known"}
        async with Transport(credentials=known) as transport:
            for url, own in ((mine.url, {}), (other.url, {}), (mine.url, {"authorization": "own"})):
                await (await transport.send("GET", url, headers=own)).read()
    assert [field(one, "Authorization") for one in mine.requests] == ["Basic known", "own"]
    assert field(other.requests[0], "Authorization") is None


@pytest.mark.parametrize("value", ["a\r\nX: b", "a\nb", "a\rb", "a\0b"])
def test_a_header_can_not_end_its_line(value: str) -> None:
    for headers in ({"X": value}, {value: "x"}, {"authorization": value}):
        with pytest.raises(ValueError, match="line break"):
            request_head("GET", target_of("http://h/"), "agent", headers, size=None)


async def test_a_proxy_takes_plain_requests_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    async with bare(OK) as proxy, Transport() as transport:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//me:pass@"))
        for _ in range(2):
            assert await (await transport.send("GET", "http://host.example/a?b")).read() == b"ok"
        assert proxy.connections == 1
    secret = base64.b64encode(b"me:pass").decode()
    for one in proxy.requests:
        assert one.startswith(b"GET http://host.example/a?b HTTP/1.1\r\nHost: host.example\r\n")
        assert field(one, "Proxy-Authorization") == f"Basic {secret}"


async def test_a_large_body_is_sent_while_its_answer_comes(transport: Transport) -> None:
    large = bytes(range(256)) * 40_000
    async with bare(OK) as server:
        async with await transport.send("POST", server.url, body=large) as reply:
            assert await reply.read() == b"ok"
        assert server.requests[0].endswith(large)
        assert len(server.requests[0]) < len(large) + 1000
    async with bare(OK, early=True) as server:
        for number in range(2):
            async with await transport.send("POST", server.url, body=large) as reply:
                assert await reply.read() == b"ok"
            assert server.connections == number + 1, "the connection of a half body isn't used again"


async def test_the_answer_to_head_has_no_body(transport: Transport) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    async with bare(answer) as server, await transport.send("HEAD", server.url) as reply:
        assert reply.headers["content-length"] == "1000"
        assert await reply.read() == b""
        assert reply.at_eof()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"no HTTP\r\n\r\n", MalformedAnswer),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", MalformedAnswer),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", MalformedAnswer),
        (b"HTTP/1.1 200 O", ConnectionError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz", BodyBroken),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nok\r\n",
            BodyBroken,
        ),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nok", BodyBroken),
    ],
)
async def test_what_breaks(transport: Transport, answer: bytes, kind: type[Exception]) -> None:
    async with bare(answer) as server:
        with pytest.raises(kind) as caught:
            await (await transport.send("POST", server.url)).read()
        assert not isinstance(caught.value, ConnectFailed)


async def test_what_came_is_read_before_the_failure(transport: Transport) -> None:
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nok"
    async with bare(answer) as server, await transport.send("POST", server.url) as reply:
        assert await reply.read(2) == b"ok"
        assert not reply.at_eof()
        with pytest.raises(BodyBroken):
            await reply.readany()


async def test_no_connection(transport: Transport) -> None:
    async with bare(OK) as server:
        url = server.url
    with pytest.raises(ConnectFailed):
        await transport.send("POST", url)
    with pytest.raises(ConnectFailed):
        await transport.send("POST", "http://no-such-host.invalid/")
    await transport.aclose()
    with pytest.raises(ExchangeClosed):
        await transport.send("POST", url)
    with pytest.raises(RuntimeError, match="closed"):
        _ = transport.session


async def test_a_connection_that_takes_too_long(
    transport: Transport, until: Callable[..., Awaitable[None]]
) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(mute, "127.0.0.1", 0) as started:
        port = started.sockets[0].getsockname()[1]
        with pytest.raises(ConnectTimedOut, match=r"0\.05 s"):
            await transport.send("POST", f"https://127.0.0.1:{port}", connect=0.05)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await transport.send("POST", f"http://127.0.0.1:{port}")
        await until(lambda: transport.connections.busy == 0)


# Compressed bodies


def compressed(data: bytes, coding: str) -> bytes:
    if coding == "gzip":
        return gzip.compress(data)
    bits = -15 if coding == "bare" else 15
    machine = zlib.compressobj(wbits=bits)
    return machine.compress(data) + machine.flush()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "bare"])
@given(data=st.binary(max_size=2000), cuts=st.lists(st.integers(0, 2000), max_size=5))
@settings(max_examples=60, deadline=None)
def test_compressed_bodies_in_any_pieces(coding: str, data: bytes, cuts: list[int]) -> None:
    packed = compressed(data, coding)
    edges = [0, *sorted(min(cut, len(packed)) for cut in cuts), len(packed)]
    pieces = [packed[start:end] for start, end in itertools.pairwise(edges)]
    assert unpacked("gzip" if coding == "gzip" else "deflate", pieces) == data


def unpacked(coding: str, pieces: list[bytes]) -> bytes:
    inflater, found = Inflater(coding), b""
    for piece in filter(None, pieces):
        inflater.feed(piece)
        while inflater.waiting:
            found += inflater.next()
    inflater.finish()
    return found


def test_several_gzip_streams_are_one_body() -> None:
    packed = gzip.compress(b"one ") + gzip.compress(b"two") + b"\0\0"
    for cut in range(len(packed)):
        assert unpacked("gzip", [packed[:cut], packed[cut:]]) == b"one two"


def test_a_cut_body_is_an_error_wherever_it_is_cut() -> None:
    packed = gzip.compress(b"hello hello hello")
    for cut in range(1, len(packed)):
        with pytest.raises(zlib.error):
            unpacked("gzip", [packed[:cut]])


def test_much_that_was_little_comes_in_pieces() -> None:
    inflater = Inflater("gzip")
    inflater.feed(gzip.compress(bytes(50_000_000)))
    size = 0
    while inflater.waiting:
        piece = inflater.next()
        assert len(piece) <= 256 * 1024
        size += len(piece)
    inflater.finish()
    assert size == 50_000_000


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "deflate", "identity", "unknown"])
async def test_an_answer_is_unpacked(transport: Transport, coding: str) -> None:
    text = b"hello " * 10_000
    body = {"gzip": gzip.compress(text), "deflate": zlib.compress(text)}.get(
        coding.lower().removeprefix("x-"), text
    )
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with bare(head + body) as server:
        for _ in range(2):
            async with await transport.send("GET", server.url) as reply:
                assert await reply.read() == text
                assert reply.at_eof()
        assert server.connections == 1


async def test_a_packed_answer_without_a_body_is_empty(transport: Transport) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n"
    async with bare(answer) as server, await transport.send("GET", server.url) as reply:
        assert await reply.read() == b""


async def test_media_types(transport: Transport) -> None:
    for told, kind, charset in (
        ("application/json", "application/json", None),
        ("Text/HTML; Charset=UTF-8", "text/html", "UTF-8"),
        ('text/plain;charset="latin-1" ; x=y', "text/plain", "latin-1"),
        ("nonsense", "application/octet-stream", None),
        ("", "application/octet-stream", None),
    ):
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: 0\r\n\r\n" % told.encode()
        async with bare(answer) as server, await transport.send("GET", server.url) as reply:
            assert (reply.content_type, reply.charset) == (kind, charset), told


# URLs

TEXT = st.text(
    st.sampled_from("abcXYZ019-._~:/?#[]@!$&'()*+,;=%{}|^` \\\"<>äß☃"), max_size=20
)  # fmt: skip


@given(TEXT)
@settings(max_examples=400, deadline=None)
def test_paths_are_read_as_yarl_reads_them(rest: str) -> None:
    for text in (f"http://Host.example/{rest}", f"https://127.0.0.1:8443/{rest}"):
        url = URL(text)
        target = target_of(text)
        assert (target.scheme, target.host, target.port) == (url.scheme, url.host, url.port)
        assert target.path == url.raw_path_qs
        assert target.origin == str(url.origin())


@pytest.mark.parametrize(
    ("text", "origin", "host", "path"),
    [
        ("HTTP://EXAMPLE.org", "http://example.org", "example.org", "/"),
        ("http://example.org:80?x=1", "http://example.org", "example.org", "/?x=1"),
        ("https://[::1]:8935/a#b", "https://[::1]:8935", "::1", "/a"),
        ("https://h:443/a/../b", "https://h", "h", "/b"),
        ("https://bücher.example/ä b", "https://xn--bcher-kva.example", "bücher.example", "/%C3%A4%20b"),
    ],
)
def test_urls(text: str, origin: str, host: str, path: str) -> None:
    target = target_of(text)
    assert (target.origin, target.host, target.path) == (origin, host, path)
    assert "/a" not in repr(target)


def test_an_escaped_path_goes_as_it_is() -> None:
    assert target_of("http://h/a%2Fb/../c?d=%2F", escaped=True).path == "/a%2Fb/../c?d=%2F"


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize(
    "text", ["", "h", "ftp://h/", "http://", "http:///x", "http://h:99999/", "http://[bad/", "mailto:a@b"]
)
def test_what_is_no_url(text: str, escaped: bool) -> None:
    with pytest.raises(InvalidURL):
        target_of(text, escaped=escaped)


@pytest.mark.parametrize("text", ["http://h/a b", "http://h/a\r\nX: y", "http://h/?a\tb", "http://h/\x7f"])
def test_an_escaped_path_can_not_end_the_first_line(text: str) -> None:
    with pytest.raises(InvalidURL, match="white space"):
        target_of(text, escaped=True)
    assert not set(target_of(text).path) & set(" \r\n\t\x7f")


# Headers


def test_headers_are_found_in_any_case() -> None:
    fields = Fields([("Content-Type", "a"), ("X", "1"), ("x", "2")])
    assert fields["content-type"] == fields.get("CONTENT-TYPE") == "a"
    assert fields.getall("X") == ["1", "2"]
    assert (fields["x"], fields.get("y"), fields.get("y", "")) == ("1", None, "")
    assert "x" in fields
    assert "y" not in fields
    assert 1 not in fields
    assert dict(fields) == {"Content-Type": "a", "X": "1"}
    assert len(fields) == 2
    assert pickle.loads(pickle.dumps(fields)) == fields
    with pytest.raises(KeyError):
        fields["y"]
