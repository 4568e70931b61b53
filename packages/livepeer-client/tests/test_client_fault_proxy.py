"""A small exchange with one fault in it, at each byte in turn: cut, reset, delayed, corrupted; out and back.

Whatever happens, the call has its result or a typed error, and no work is done twice. Two orchestrators have
each capability; whoever is called first for it has the fault, so that a second try would be seen.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from livepeer.client import (
    ConnectionFailed,
    Gateway,
    LivepeerError,
    StreamError,
    Timeout,
)

Fault = Literal["cut", "reset", "delay", "corrupt"]
INPUT = {"prompt": "hello"}
WORDS = ["one", "two", "three"]
AT_ONCE = 64


@dataclass(frozen=True)
class Plan:
    """What goes wrong: which side's bytes, and after how many of them."""

    side: Literal["out", "back"]
    at: int


class Faulty:
    """An orchestrator with its workers on two ports, and the faults between it and its client."""

    def __init__(self, route: str, verb: str, fault: Fault) -> None:
        self.route, self.verb, self.fault = route, verb, fault
        self.plans: dict[str, Plan] = {}
        self.done: collections.Counter[str] = collections.Counter()  # work, by the name of the capability
        self.asked: collections.Counter[str] = collections.Counter()  # requests for it, whole or not
        self.urls: list[str] = []
        self.lengths = (0, 0, 0)  # of a request, of its answer, of that one's head
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> Faulty:
        for _ in range(2):
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
            self._servers.append(server)
            self.urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for server in self._servers:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._exchange(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        if path == "/discovery":
            host = head.partition(b"Host: ")[2].split(b"\r\n")[0].decode()
            runners = [
                {"url": f"http://{host}/apps/{name}/app", "app": name, "mode": "single-shot", "capacity": 9}
                for name in (self.plans if self.route == "runner" else ())
            ]
            writer.write(answer(json.dumps([{"address": f"http://{host}", "runners": runners}])))
            return
        if path == "/process/token":
            writer.write(answer('{"available_capacity": 9}'))
            return
        request = head + await reader.readexactly(length_of(head))
        name = path.split("/")[2 if self.route == "runner" else 3]
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
            if self.fault != "delay":
                self._break(writer)
                return
            await asyncio.sleep(0.01)
            writer.write(reply[plan.at :])

    def _work(self, name: str, request: bytes) -> bytes:
        """What the server does that gets these bytes; what follows a request is none that it does."""
        if not is_whole(request):
            return b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        self.done[name] += 1
        if self.verb == "run":
            return answer('{"reply": "good bye"}')
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
            and head.startswith((b"POST /apps/", b"POST /process/request/"))
            and (len(body) >= length_of(head))
        )
    except ValueError:
        return False


def corrupted(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


async def outcome(gateway: Gateway, verb: str, name: str) -> Any:
    """The result, or the error; of a stream its events, the error last."""
    limits = Timeout(total=60)
    if verb == "run":
        try:
            return [await gateway.run_async(name, input=INPUT, timeout=limits)]
        except LivepeerError as error:
            return [error]
    found: list[Any] = []
    try:
        async with gateway.stream_async(name, input=INPUT, timeout=limits) as stream:
            async for event in stream:
                found.append(event.data)
    except LivepeerError as error:
        found.append(error)
    return found


@contextlib.asynccontextmanager
async def planned(route: str, verb: str, fault: Fault) -> AsyncIterator[tuple[Faulty, Gateway]]:
    async with Faulty(route, verb, fault) as faulty:
        faulty.plans["x00000"] = Plan("back", 1 << 20)
        async with Gateway(orch_url=faulty.urls) as gateway:
            await outcome(gateway, verb, "x00000")  # to learn how long it is
        out, back, _ = faulty.lengths
        plans = [Plan("back", at) for at in range(back)]
        # The client sees nothing of a delay of its request, and of a cut the same for each route and verb.
        if fault == "corrupt" or (fault != "delay" and (route, verb) == ("runner", "run")):
            plans += [Plan("out", at) for at in range(out)]
        faulty.plans = {f"x{number:05}": plan for number, plan in enumerate(plans)}
        faulty.asked.clear()
        faulty.done.clear()
        async with Gateway(orch_url=faulty.urls) as gateway:
            yield faulty, gateway


@pytest.mark.parametrize("verb", ["run", "stream"])
@pytest.mark.parametrize(
    ("route", "fault"),
    [
        ("runner", "cut"), ("runner", "reset"), ("runner", "delay"), ("runner", "corrupt"),
        ("byoc", "cut"), ("byoc", "corrupt"),
    ],
)  # fmt: skip
async def test_a_fault_at_each_byte(route: str, verb: str, fault: Fault) -> None:
    async with planned(route, verb, fault) as (faulty, gateway):
        limit = asyncio.Semaphore(AT_ONCE)
        head = faulty.lengths[2]
        good = [{"reply": "good bye"}] if verb == "run" else WORDS

        async def one(name: str, plan: Plan) -> None:
            async with limit:
                found = await outcome(gateway, verb, name)
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
        assert len(names) > 100
