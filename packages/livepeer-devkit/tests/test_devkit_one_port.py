"""HTTP/1.1 and gRPC on the orchestrator's one port."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import grpc
import pytest

from livepeer.client._grpc import GET_ORCHESTRATOR
from livepeer.client._grpc import lp_rpc_pb2 as net
from livepeer.devkit.network.orchestrator import Orchestrator, listen

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000 04 00 00000000")
SETTINGS = 4  # the type of the frame that a server begins with


@pytest.fixture
async def plain() -> AsyncIterator[Orchestrator]:
    """One that speaks no TLS."""
    async with Orchestrator(listen(), secret="", tls=False) as running:
        yield running


@contextlib.asynccontextmanager
async def connect(
    orchestrator: Orchestrator, *offered: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    address = urlsplit(orchestrator.url)
    context = None
    if address.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(list(offered))
    reader, writer = await asyncio.open_connection(address.hostname, address.port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def http_status(reader: asyncio.StreamReader) -> int:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    return int(head.split(b" ")[1])


async def test_a_client_that_offers_both_is_given_http_1(orchestrator: Orchestrator) -> None:
    """As curl and others do: HTTP/2 is for gRPC only here, and not what they would do with it."""
    for offered in (["h2", "http/1.1"], ["http/1.1", "h2"]):
        async with connect(orchestrator, *offered) as (reader, writer):
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            writer.write(b"GET /discovery HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await http_status(reader) == 200


async def test_http_2_begins_with_settings(orchestrator: Orchestrator) -> None:
    async with connect(orchestrator, "h2") as (reader, writer):
        writer.write(PREFACE)
        frame = await asyncio.wait_for(reader.readexactly(9), 30)
        assert frame[3] == SETTINGS


async def test_without_tls_the_first_bytes_tell(plain: Orchestrator) -> None:
    """Also when they come one by one."""
    async with connect(plain) as (reader, writer):
        for byte in PREFACE[:20]:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        writer.write(PREFACE[20:])
        frame = await asyncio.wait_for(reader.readexactly(9), 30)
        assert frame[3] == SETTINGS
    for method in ("GET", "POST", "PROPFIND"):
        async with connect(plain) as (reader, writer):
            for byte in f"{method} /discovery HTTP/1.1\r\nHost: x\r\n\r\n".encode():
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            assert await http_status(reader) == (200 if method == "GET" else 405)


async def test_connections_that_say_nothing_end_with_the_orchestrator() -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with Orchestrator(listen(), secret="", tls=False) as plain:
            silent, _ = await stack.enter_async_context(connect(plain))
            http, writer = await stack.enter_async_context(connect(plain))
            writer.write(b"GET /discovery HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await http_status(http) == 200
            rpc, writer = await stack.enter_async_context(connect(plain))
            writer.write(PREFACE)
            await asyncio.wait_for(rpc.readexactly(9), 30)
            async with connect(plain):
                pass  # and one that leaves first
        for reader in (silent, http, rpc):
            with contextlib.suppress(ConnectionResetError):
                await asyncio.wait_for(reader.read(), 30)


async def test_long_messages_pass(plain: Orchestrator) -> None:
    async with grpc.aio.insecure_channel(urlsplit(plain.url).netloc) as channel:
        call = channel.unary_unary(
            GET_ORCHESTRATOR,
            request_serializer=net.OrchestratorRequest.SerializeToString,
            response_deserializer=net.OrchestratorInfo.FromString,
        )
        info = await call(net.OrchestratorRequest(sig=b"x" * 3_000_000), timeout=10)
    assert info.transcoder == plain.url
