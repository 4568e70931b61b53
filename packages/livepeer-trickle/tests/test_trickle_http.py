"""The HTTP under channels: framing cut at every byte, connections that are kept, and a proxy on the way."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livepeer.trickle import Transport, TrickleConnectionError, TricklePublisher, TrickleServer
from livepeer.trickle import _connections as connections
from livepeer.trickle import _exchange as exchanges
from livepeer.trickle import _proxies as proxies
from livepeer.trickle._sockets import open_socket
from livepeer.trickle._targets import target_of
from livepeer.trickle.subscriber import TrickleSubscriber

ANSWERS = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello", b"hello"),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
        b"hello world",
    ),
    "to the connection's end": (b"HTTP/1.0 200 OK\r\nX-A: b\r\n\r\nhello", b"hello"),
    "provisional ones first": (
        b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + b"HTTP/1.1 470 \r\nContent-Length: 2\r\n\r\nno",
        b"no",
    ),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
}


class Scripted:
    """A server that answers every request with the same pieces, one send for each, and then hangs up."""

    def __init__(self, pieces: list[bytes], *, keep: bool = False) -> None:
        self.pieces = pieces
        self.keep = keep
        self.requests = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if not self.keep:
                    break
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        async with await asyncio.start_server(self.serve, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{self.port}"


async def ask(transport: Transport, url: str) -> exchanges.Exchange:
    origin = connections.Origin(target_of(url), "test")
    request = b"GET /c/0" + origin.fields + b"\r\n"
    return transport.connections.start(origin, request, whole=True, replay=True)


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_cut_at_every_byte(transport: Transport, name: str) -> None:
    sent, body = ANSWERS[name]
    for cut in range(1, len(sent)):
        async with Scripted([sent[:cut], sent[cut:]]).running() as url:
            exchange = await ask(transport, url)
            assert await exchange.finish() == body, cut
            assert exchange.status in (200, 204, 470)


@pytest.mark.parametrize("name", ["length", "chunked", "provisional ones first"])
async def test_an_answer_that_breaks_off_anywhere_is_an_error(transport: Transport, name: str) -> None:
    sent, _ = ANSWERS[name]
    for cut in range(len(sent)):
        async with Scripted([sent[:cut]]).running() as url:
            exchange = await ask(transport, url)
            with pytest.raises(OSError, match="closed"):
                await exchange.finish()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 80))
def test_any_bytes_are_an_answer_or_an_error(data: bytes, at: int) -> None:
    sent = ANSWERS["chunked"][0]
    at = min(at, len(sent))

    async def run() -> None:
        async with Transport() as transport, Scripted([sent[:at] + data]).running() as url:
            exchange = await ask(transport, url)
            with contextlib.suppress(OSError):
                await asyncio.wait_for(exchange.finish(), 20)

    asyncio.run(run())


async def test_headers_without_end_are_given_up(transport: Transport) -> None:
    endless = [b"HTTP/1.1 200 OK\r\nX: ", *[b"a" * 65536] * 20]
    async with Scripted(endless).running() as url:
        exchange = await ask(transport, url)
        with pytest.raises(exchanges.MalformedAnswer, match="no end"):
            await exchange.answer()


async def test_an_idle_connection_that_the_server_closed_is_replaced(transport: Transport) -> None:
    """Seen or not yet seen by us when the next request goes out: the answer comes all the same."""
    server = Scripted([ANSWERS["length"][0]])  # says keep-alive, and closes
    async with server.running() as url:
        for count in range(1, 6):
            exchange = await ask(transport, url)
            assert await exchange.finish() == b"hello"
            assert server.requests == count


async def test_a_reader_that_does_not_read_holds_the_sender_up(
    server: TrickleServer, transport: Transport
) -> None:
    """What waits for a slow reader is bounded: the rest stays at the server."""
    server.create("c")
    data = bytes(8 * 1024 * 1024)
    server.publish("c", data)
    async with TrickleSubscriber(server.channel_url("c"), transport=transport) as subscriber:
        segment = await anext(subscriber)
        await asyncio.sleep(0.1)
        assert segment._exchange is not None
        assert segment._exchange._size < 1024 * 1024
        assert await segment.read() == data


async def test_many_small_writes_travel_together(
    server: TrickleServer, transport: Transport, until: Any
) -> None:
    server.create("c")
    async with (
        TricklePublisher(server.channel_url("c"), transport=transport) as publisher,
        publisher.segment() as segment,
    ):
        for number in range(100):
            await segment.write(b"%03d" % number)
        channel = server._channels["c"]
        await until(lambda: (begun := channel.segment(0)) and sum(map(len, begun.chunks)) == 300)
        written = channel.segment(0)
        assert written is not None
        assert b"".join(written.chunks) == b"".join(b"%03d" % number for number in range(100))
        assert len(written.chunks) < 5


class Proxy:
    """An HTTP proxy that opens connections on CONNECT, when the password is right."""

    def __init__(self, status: bytes = b"200 Connection established") -> None:
        self.asked: list[bytes] = []
        self.status = status

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        writer.write(b"HTTP/1.1 " + self.status + b"\r\n\r\n")
        if self.status.startswith(b"200"):
            host, _, port = head.split(b" ")[1].decode().rpartition(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_channels_go_through_the_systems_proxy(
    server: TrickleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy()
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as listening:
        address = f"http://user:secret@127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        monkeypatch.setattr(connections, "proxy_for", lambda url: address)  # loopback never has one
        async with Transport() as transport:
            server.create("c")
            publisher = TricklePublisher(server.channel_url("c"), transport=transport)
            await publisher.write(b"x")
            await publisher.close()
    assert proxy.asked[0].startswith(b"CONNECT 127.0.0.1:")
    assert base64.b64encode(b"user:secret") in proxy.asked[0]


async def test_a_proxy_that_refuses_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Proxy(b"407 Proxy Authentication Required")
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(exchanges.ConnectFailed, match="407 Proxy Authentication Required"):
            await proxies.open_tunnel(
                proxies.Proxy.of(f"http://127.0.0.1:{port}"), "example.com", 443, open_socket
            )
        monkeypatch.setattr(connections, "proxy_for", lambda url: f"http://127.0.0.1:{port}")
        async with Transport() as transport:
            with pytest.raises(TrickleConnectionError, match=r"refused: .* 407"):
                await TricklePublisher("http://example.com/c", transport=transport, start=0).write(b"x")


async def test_a_finished_segment_is_followed_before_it_is_answered(transport: Transport) -> None:
    """A slow link costs no round trip between two segments, and the second can't overtake the first."""
    seen: list[bytes] = []
    go_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            for _ in range(2):
                head = await reader.readuntil(b"\r\n\r\n")
                body = b""
                if b"chunked" in head:
                    while size := int(await reader.readline(), 16):
                        body += (await reader.readexactly(size + 2))[:-2]
                    await reader.readline()
                else:
                    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    body = await reader.readexactly(length)
                seen.append(head.split(b" ")[1] + b" " + body)
            await go_on.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 2)
            await reader.read(1)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/c"
        publisher = TricklePublisher(url, transport=transport, start=0)
        first = publisher.segment()
        await first.write(b"a")
        await asyncio.sleep(0)  # its head is on its way
        await first.write(b"b")
        first.finish()
        second = publisher.segment()
        await second.write(b"c")
        second.finish()
        async with asyncio.timeout(20):
            while len(seen) < 2:
                await asyncio.sleep(0.001)
        assert seen == [b"/c/0 ab", b"/c/1 c"]
        go_on.set()
        await first.close()
        await second.close()
        await publisher.close(delete=False)
        await transport.aclose()


async def test_finished_segments_arrive_in_order(server: TrickleServer, transport: Transport) -> None:
    server.create("c")
    url = server.channel_url("c")
    async with TrickleSubscriber(url, transport=transport) as subscriber:
        publisher = TricklePublisher(url, transport=transport, start=0)
        before = None
        for number in range(200):
            segment = publisher.segment()
            await segment.write(b"%d" % number)
            segment.finish()
            assert await (await anext(subscriber)).read() == b"%d" % number
            if before is not None:
                await before.close()
            before = segment
        await publisher.close(delete=False)
        assert publisher.seq == 200
        assert subscriber.missed == 0


async def test_a_cut_with_two_segments_on_their_way_is_told_for_both(
    server: TrickleServer, wire: Any, transport: Transport
) -> None:
    server.create("c")
    publisher = TricklePublisher(wire.url(server.channel_url("c")), transport=transport, start=0)
    await publisher.write(b"0")
    first = publisher.segment()
    await first.write(b"1")
    first.finish()
    second = publisher.segment()
    await second.write(b"2")
    await wire.refuse()
    with contextlib.suppress(TrickleConnectionError):
        await first.close()  # its answer may have been faster than the cut
    with pytest.raises(TrickleConnectionError):
        await second.close()
    await wire.start()
    await publisher.write(b"3")
    assert publisher.seq == 4
    channel = server._channels["c"]
    assert all(segment.closed for segment in channel)  # nobody hangs on the broken ones
    await publisher.close()
