"""A small exchange with a fault in it, at each byte in turn: cut, reset, delayed, corrupted, dropped.

Whatever happens, the call has its result or a typed error, and no work is done twice. Two orchestrators have
each capability; whoever is called first for it has the fault, so that a second try would be seen.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import re
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from livepeer.client import (
    ConnectionFailed,
    DeadlineExceeded,
    Gateway,
    LivepeerError,
    StreamError,
    Timeout,
)
from livepeer.client.routes import LiveCall

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode has no other way to share a module

from client_places import Place

Fault = Literal["cut", "reset", "delay", "corrupt", "drop"]
INPUT = {"prompt": "hello"}
WORDS = ["one", "two", "three"]
AT_ONCE = 64
STEP = 7  # bytes from one fault to the next, over TLS


@dataclass(frozen=True)
class Plan:
    """What goes wrong: which side's bytes, and after how many of them."""

    side: Literal["out", "back"]
    at: int


class Faulty:
    """An orchestrator with its workers on two ports, and the faults between it and its client."""

    def __init__(self, route: str, verb: str, fault: Fault, pem: Path | None = None) -> None:
        self.route, self.verb, self.fault = route, verb, fault
        self.scheme, self._tls = "http", None
        if pem is not None:
            self.scheme, self._tls = "https", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(pem)
        self.stopped: collections.Counter[str] = collections.Counter()  # sessions, by the same name
        self.plans: dict[str, Plan] = {}
        self.done: collections.Counter[str] = collections.Counter()  # work, by the name of the capability
        self.asked: collections.Counter[str] = collections.Counter()  # requests for it, whole or not
        self.urls: list[str] = []
        self.lengths = (0, 0, 0)  # of a request, of its answer, of that one's head
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Faulty:
        for _ in range(2):
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512, ssl=self._tls)
            self._servers.append(server)
            self.urls.append(f"{self.scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for server in self._servers:
            server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._exchange(reader, writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        except asyncio.CancelledError:
            pass
        finally:
            writer.transport.abort()
            self._open.discard(task)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"PRI * HTTP/2"):
            orchestrator = Place("lv2v")
            orchestrator.port = writer.get_extra_info("sockname")[1]
            await orchestrator.grpc(head, reader, writer)
            return
        request = head + await reader.readexactly(length_of(head))
        path = head.split(b" ")[1].decode()
        host = re.search(rb"(?i)host: (.*)\r\n", head)
        if (usual := self._usual(path, f"{self.scheme}://{host[1].decode() if host else ''}")) is not None:
            writer.write(answer(usual))
            return
        name = self._named(path, request)
        self.asked[name] += 1
        plan = self.plans[name] if self.asked[name] == 1 else None
        if plan is not None and plan.side == "out":
            if self.fault in ("cut", "reset"):
                assert not is_whole(request[: plan.at])
                self._break(writer)
                return
            if self.fault == "corrupt":
                request = corrupted(request, plan.at)
        reply = self._work(name, request)
        self.lengths = len(request), len(reply), reply.index(b"\r\n\r\n") + 4
        if plan is None or plan.side == "out":
            writer.write(reply)
        elif self.fault == "corrupt":
            writer.write(corrupted(reply, plan.at))
        else:
            writer.write(reply[: plan.at])
            await writer.drain()
            if self.fault == "drop":
                await reader.read()  # until the client gives up
                return
            if self.fault != "delay":
                self._break(writer)
                return
            await asyncio.sleep(0.01)
            writer.write(reply[plan.at :])

    def _usual(self, path: str, base: str) -> str | None:
        """The answer to what has no faults; None for the request that has."""
        if path == "/discovery":
            end, mode = ("app", "single-shot") if self.route == "runner" else ("session", "persistent")
            runners = [
                {"url": f"{base}/apps/{name}/{end}", "app": name, "mode": mode, "capacity": 9}
                for name in (self.plans if self.route in ("runner", "session") else ())
            ]
            return json.dumps([{"address": base, "runners": runners}])
        if path == "/process/token":
            return '{"available_capacity": 9}'
        if path.endswith("/session"):
            return json.dumps(
                {"session_id": "s", "app_url": f"{base}{path}/s/app", "control_url": f"{base}{path}/s"}
            )
        if path.endswith("/s/stop"):
            self.stopped[path.split("/")[2]] += 1
            return "{}"
        return "0" if path.startswith("/ai/") else None

    def _named(self, path: str, request: bytes) -> str:
        """The name of the capability that a request is for."""
        if self.route == "lv2v":
            return str(json.loads(request.partition(b"\r\n\r\n")[2])["model_id"])
        return path.split("/")[3 if self.route == "byoc" else 2]

    def _work(self, name: str, request: bytes) -> bytes:
        """What the server does that gets these bytes; what follows a request is none that it does."""
        if not is_whole(request):
            return b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        self.done[name] += 1
        if self.verb == "run":
            return answer('{"reply": "good bye"}')
        if self.verb == "live":
            return answer('{"manifest_id": "m"}')
        events = [f"data: {word}\n\n".encode() for word in [*WORDS, "[DONE]"]]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"
        return (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Metadata: \r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + chunks
        )

    def _break(self, writer: asyncio.StreamWriter) -> None:
        if self.fault == "reset":
            opened = writer.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


def answer(text: str) -> bytes:
    fields = f"Content-Type: application/json\r\nX-Metadata: \r\nContent-Length: {len(text)}\r\n"
    return f"HTTP/1.1 200 OK\r\n{fields}\r\n{text}".encode()


def length_of(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def is_whole(request: bytes) -> bool:
    """Whether a server would take it for a request to a worker, all of it there."""
    head, ended, body = request.partition(b"\r\n\r\n")
    try:
        return (
            bool(ended)
            and head.startswith((b"POST /apps/", b"POST /process/request/", b"POST /live-video-to-video"))
            and (len(body) >= length_of(head))
        )
    except ValueError:
        return False


def corrupted(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


async def outcome(gateway: Gateway, route: str, verb: str, name: str, *, patient: bool = True) -> Any:
    """The result, or the error; of a stream its events, the error last."""
    limits = Timeout(total=60 if patient else 2)
    if verb == "run":
        try:
            return [await gateway.run_async(name, input=INPUT, timeout=limits)]
        except LivepeerError as error:
            return [error]
    if verb == "live":
        lv2v = LiveCall("live-video-to-video", "an id", name)
        call = lv2v if route == "lv2v" else LiveCall(name, "an id")
        try:
            started = await gateway._calls.open_live(call)
        except LivepeerError as error:
            return [error]
        await started.stop()
        return [started.raw]
    found: list[Any] = []
    try:
        async with gateway.stream_async(name, input=INPUT, timeout=limits) as stream:
            async for event in stream:
                found.append(event.data)
    except LivepeerError as error:
        found.append(error)
    return found


@contextlib.asynccontextmanager
async def planned(
    route: str, verb: str, fault: Fault, pem: Path | None = None
) -> AsyncIterator[tuple[Faulty, Gateway]]:
    async with Faulty(route, verb, fault, pem) as faulty:
        faulty.plans["x00000"] = Plan("back", 1 << 20)
        async with Gateway(orch_url=faulty.urls) as gateway:
            await outcome(gateway, route, verb, "x00000")  # to learn how long it is
        out, back, _ = faulty.lengths
        plans = [Plan("back", at) for at in range(back)]
        # The client sees nothing of a delay of its request, and of a cut the same for each route and verb.
        if fault == "corrupt" or (fault not in ("delay", "drop") and (route, verb) == ("runner", "run")):
            plans += [Plan("out", at) for at in range(out)]
        plans = plans[:: STEP if pem is not None else 1]
        faulty.plans = {f"x{number:05}": plan for number, plan in enumerate(plans)}
        faulty.asked.clear()
        faulty.done.clear()
        faulty.stopped.clear()
        async with Gateway(orch_url=faulty.urls) as gateway:
            yield faulty, gateway


FAULTS: tuple[Fault, ...] = ("cut", "reset", "delay", "corrupt")
WAYS = [("runner", "run"), ("runner", "stream"), ("byoc", "run"), ("byoc", "stream"), ("session", "live")]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("route", "verb"), [*WAYS, ("lv2v", "live")])
async def test_a_fault_at_each_byte(route: str, verb: str, fault: Fault) -> None:
    await check(route, verb, fault)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("route", "verb"), WAYS)
async def test_the_same_over_tls(certificate: Path, route: str, verb: str, fault: Fault) -> None:
    """At some bytes, as each call shakes hands."""
    await check(route, verb, fault, certificate)


@pytest.mark.parametrize(("route", "verb"), WAYS[:4])
async def test_what_is_dropped_ends_in_time(route: str, verb: str) -> None:
    """The rest of an answer never comes: the call ends with its own limit, and nobody else is asked."""
    async with planned(route, verb, "drop") as (faulty, gateway):
        good = [{"reply": "good bye"}] if verb == "run" else WORDS

        async def one(name: str) -> None:
            found = await outcome(gateway, route, verb, name, patient=False)
            assert faulty.done[name] <= faulty.asked[name] <= 1
            if found != good:  # as when no more than the end of the framing was dropped
                assert type(found[-1]) is DeadlineExceeded, found
                assert found[:-1] == good[: len(found) - 1]

        names = list(faulty.plans)[::5]
        await asyncio.gather(*map(one, names))
        assert len(names) >= 20


async def check(route: str, verb: str, fault: Fault, pem: Path | None = None) -> None:
    async with planned(route, verb, fault, pem) as (faulty, gateway):
        limit = asyncio.Semaphore(AT_ONCE)
        head = faulty.lengths[2]
        good = {"run": [{"reply": "good bye"}], "stream": WORDS, "live": [{"manifest_id": "m"}]}[verb]

        async def one(name: str, plan: Plan) -> None:
            async with limit:
                found = await outcome(gateway, route, verb, name)
            error = found[-1] if isinstance(found[-1], LivepeerError) else None
            where = f"{plan} -> {found}"
            assert faulty.asked[name] == 1, where
            assert faulty.done[name] <= 1, where
            if error is not None:
                assert error.request_id, where
                assert len(error.attempts) == 1, where
                assert error.attempts[0].begun, where
                assert error.orchestrator in faulty.urls, where
            else:
                assert faulty.done[name] == 1, where
            if fault == "delay":
                assert found == good, where
            elif fault != "corrupt" and plan.side == "out":
                assert type(error) is ConnectionFailed, where
                assert faulty.done[name] == 0, where
            elif fault != "corrupt":
                assert faulty.done[name] == 1, where
                if plan.at < head:
                    assert type(error) is ConnectionFailed, where
                elif error is not None:
                    assert type(error) is StreamError, where
                    assert found[:-1] == good[: len(found) - 1], where
                else:
                    assert found == good, where  # cut behind [DONE]

        names = list(faulty.plans.items())
        await asyncio.gather(*(one(name, plan) for name, plan in names))
        assert len(names) >= 10
        await gateway.aclose()
        assert route != "session" or all(faulty.stopped[name] == 1 for name, _ in names), "all are given back"
