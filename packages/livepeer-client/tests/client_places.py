"""Orchestrators that are bare sockets, with workers: HTTP, gRPC and TLS, and one request that goes wrong."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events

# The ways to call, by the path of the request that counts and of the one before it.
WAYS = {
    "runner": ("/apps/one/app/run", "/discovery"),
    "reserve": ("/apps/many/session", "/discovery"),
    "session": ("/apps/many/session/s/app/run", "/apps/many/session"),
    "live": ("/apps/many/session/s/app/live", "/apps/many/session"),
    "byoc": ("/process/request/it", "/process/token"),
    "byoc-live": ("/ai/stream/start", "/process/token"),
    "lv2v": ("/live-video-to-video", "GetOrchestrator"),
}


class Asked:
    """A request: its head is read, and its body when it is asked for."""

    def __init__(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int
    ) -> None:
        line, *fields = head.decode().split("\r\n")
        self.method, self.path, _ = line.split(" ")
        self.headers = {
            name.lower(): value.strip()
            for name, _, value in (field.partition(":") for field in fields if field)
        }
        self.writer = writer
        self.number = n  # of the request on its connection, from 1 on
        self.body = b""
        self._reader = reader

    @property
    def route(self) -> str:
        return self.path.rstrip("/")

    async def read(self, share: float = 1.0) -> bytes:
        size = int(int(self.headers.get("content-length", "0")) * share)
        self.body += await self._reader.readexactly(size - len(self.body))
        return self.body

    async def answer(self, status: int, text: str = "", fields: str = "", *, keep: bool = True) -> None:
        body = text.encode()
        if not keep:
            fields += "Connection: close\r\n"
        self.writer.write(
            f"HTTP/1.1 {status} It\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body
        )
        await self.writer.drain()

    @property
    def tells_id(self) -> bool:
        """Whether enough was read of it to know its id."""
        return bool({"livepeer", "x-request-id"} & self.headers.keys()) or self.body.endswith(b"}")

    def request_id(self) -> str | None:
        if "livepeer" in self.headers:
            return str(json.loads(base64.b64decode(self.headers["livepeer"]))["id"])
        if "x-request-id" in self.headers:
            return self.headers["x-request-id"]
        return str(json.loads(self.body)["gateway_request_id"])


Failing = Callable[["Place", Asked], Awaitable[None]]


class Place:
    """An orchestrator, and its workers.

    Args:
        how: How it will be called.
        failing: What it does with the request that counts; None answers.
        pem: Its certificate, for TLS.
        turning: What becomes of it before the answer of the request before that.
    """

    def __init__(
        self,
        how: str,
        failing: Failing | None = None,
        pem: Path | None = None,
        turning: Callable[[Place], None] | None = None,
    ) -> None:
        self.route, self.before = WAYS[how]
        self.how = how
        self.failing = failing
        self.turning = turning
        self.pem = pem
        self.port = 0
        self.keeps = turning is None
        self.counted: list[Asked] = []
        self.stopped = 0
        self.gate = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self.pem else 'http'}://127.0.0.1:{self.port}"

    async def start(self) -> Place:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._context())
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        self.gate.set()
        await self.leave()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def leave(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _context(self) -> ssl.SSLContext | None:
        if self.pem is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pem)
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._requests(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            writer.transport.abort()
            self._open.discard(task)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while head := await reader.readuntil(b"\r\n\r\n"):
            if head.startswith(b"PRI * HTTP/2"):
                await self.grpc(head, reader, writer)
                return
            number += 1
            asked = Asked(head, reader, writer, number)
            if asked.route.removesuffix("/run") == self.route.removesuffix("/run") or (
                self.how == "byoc" and asked.route.startswith("/process/request/")
            ):
                self.counted.append(asked)
                if self.failing is not None:
                    await self.failing(self, asked)
                    if asked.headers.get("connection") == "gone":
                        return
                    continue
            await asked.read()
            if asked.route == self.before and self.turning is not None:
                await self._turn()
            await self.answer(asked)
            if not self.keeps:
                return

    async def _turn(self) -> None:
        assert self.turning is not None
        await self.leave()
        turning, self.turning = self.turning, None
        turning(self)
        if self.port:
            if self.pem is not None and self.pem.name == "garbage":
                self._server = await asyncio.start_server(_garbage, "127.0.0.1", self.port)
            elif self.pem is not None and self.pem.name == "silence":
                self._server = await asyncio.start_server(self._silence, "127.0.0.1", self.port)
            elif self.pem is not None:
                await self.start()

    async def _silence(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.gate.wait()
        writer.transport.abort()

    async def answer(self, asked: Asked) -> None:
        base = "/apps/many/session/s"
        match asked.route:
            case "/discovery":
                found = (
                    []
                    if self.how in ("byoc", "byoc-live", "lv2v")
                    else [
                        {"url": f"{self.url}/apps/one/app", "app": "it", "mode": "single-shot"}
                        if self.how == "runner"
                        else {"url": f"{self.url}/apps/many/session", "app": "it", "mode": "persistent"}
                    ]
                )
                answer: Any = [{"address": self.url, "runners": found}]
            case "/process/token":
                answer = {"available_capacity": 1}
            case "/apps/many/session":
                answer = {
                    "session_id": "s",
                    "app_url": f"{self.url}{base}/app",
                    "control_url": f"{self.url}{base}",
                }
            case "/apps/many/session/s/stop" | "/ai/stream/stop":
                self.stopped += 1
                answer = {}
            case _:
                answer = {"got": len(asked.body)}
        fields = "Content-Type: application/json\r\n" + (
            "X-Metadata: \r\n" if "process" in asked.path else ""
        )
        await asked.answer(200, json.dumps(answer), fields, keep=self.keeps)

    async def grpc(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from livepeer.client._grpc.lp_rpc_pb2 import OrchestratorInfo

        info = OrchestratorInfo(transcoder=self.url)
        info.capabilities.bitstring.append(1 << 35)
        info.capabilities.constraints.PerCapability[35].models["noop"].warm = True
        message = info.SerializeToString()
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        data = head
        while data:
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.StreamEnded):
                    if self.turning is not None:
                        await self._turn()
                    ok = [(":status", "200"), ("content-type", "application/grpc")]
                    connection.send_headers(1, ok)
                    connection.send_data(1, struct.pack(">BI", 0, len(message)) + message)
                    connection.send_headers(1, [("grpc-status", "0")], end_stream=True)
            writer.write(connection.data_to_send())
            data = await reader.read(65536)


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.0 400 Client sent an HTTP request to an HTTPS server.\r\n\r\n")
    await writer.drain()
    writer.close()
