"""WebSockets and other upgrades: once the runner agreed, bytes go both ways as they are.

Frames, masks, extensions and close codes stay what the two ends made of them, as with Go's reverse proxy.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from . import answers

__all__ = ["carry"]

_CHUNK = 64 * 1024


async def carry(request: web.Request, url: URL, headers: CIMultiDict[str]) -> web.StreamResponse:
    """Ask the runner for the upgrade; carry bytes until either end leaves, or its refusal back."""
    context = ssl.create_default_context() if url.scheme == "https" else None
    try:
        reader, writer = await asyncio.open_connection(url.host, url.port, ssl=context, limit=1 << 20)
    except OSError as error:
        text = "connection refused" if isinstance(error, ConnectionRefusedError) else str(error)
        return answers.error(f"dial tcp {url.host}:{url.port}: connect: {text}", 502)
    try:
        lines = [f"{request.method} {url.raw_path_qs} HTTP/1.1", f"Host: {url.authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape"))
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError):
            return answers.error("EOF", 502)
        status, agreed = _parse(head)
        if status != 101:
            return await _refusal(reader, status, agreed)
        await _both_ways(request, head, reader, writer)
        return _Switched()
    finally:
        writer.close()


def _parse(head: bytes) -> tuple[int, CIMultiDict[str]]:
    first, *rest = head.decode("utf-8", "surrogateescape").split("\r\n")
    headers: CIMultiDict[str] = CIMultiDict()
    for line in rest:
        name, colon, value = line.partition(":")
        if colon:
            headers.add(name.strip(), value.strip())
    return int(first.split(" ")[1]), headers


async def _refusal(
    reader: asyncio.StreamReader, status: int, headers: CIMultiDict[str]
) -> web.StreamResponse:
    length = headers.popall("Content-Length", ["0"])[0]
    body = b""
    if headers.pop("Transfer-Encoding", "").lower() == "chunked":
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
    elif int(length):
        body = await reader.readexactly(int(length))
    for name in ("Connection", "Keep-Alive", "Upgrade"):
        headers.popall(name, None)
    return answers.BareResponse(status=status, body=body, headers=headers)


class _Incoming:
    """What aiohttp feeds the client's bytes to, in the place of a WebSocket's parser."""

    def __init__(self, writer: asyncio.StreamWriter, gone: asyncio.Event) -> None:
        self._writer = writer
        self._gone = gone

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        if not self._writer.is_closing():
            self._writer.write(data)
        return False, b""

    def feed_eof(self) -> None:
        self._gone.set()


async def _both_ways(
    request: web.Request, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    transport, protocol = request.transport, request.protocol
    if transport is None:
        return
    gone = asyncio.Event()
    incoming: Any = _Incoming(writer, gone)
    transport.write(head)
    protocol.set_parser(incoming)
    leaving = asyncio.create_task(gone.wait())
    returning = asyncio.create_task(_pump(reader, protocol, transport))
    try:
        await asyncio.wait({leaving, returning}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        returning.cancel()
        await asyncio.gather(leaving, returning, return_exceptions=True)
        transport.close()


async def _pump(reader: asyncio.StreamReader, protocol: Any, transport: asyncio.Transport) -> None:
    while data := await reader.read(_CHUNK):
        if transport.is_closing():
            return
        transport.write(data)
        await protocol._drain_helper()


class _Switched(web.StreamResponse):
    """The answer of a connection that no longer speaks HTTP: nothing more is written to it."""

    async def prepare(self, request: web.BaseRequest) -> aiohttp.abc.AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None
