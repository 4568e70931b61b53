"""Networks on a chain with a gateway node: the embedded one, and go-livepeer on a development chain."""

from __future__ import annotations

import base64
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp import web
from byoc_harness import ByocWorker, Reply
from harness import UNVERIFIED, Network, Worker
from multidict import CIMultiDict
from paidnet import PaidNet, status_of

from livepeer.devkit import LocalNetwork, PaidMode

__all__ = ["PRICE", "EmbeddedNode", "GoNode", "NodeNetwork", "Through", "answer", "events"]

PRICE = 1000  # wei per second: one ticket pays for three months of it

SIGNERS: dict[str, dict[str, int]] = {
    "main": {},
    "poor": {"deposit": 10**14},
    "bare": {"deposit": 0, "reserve": 0},
}


class NodeNetwork(Network):
    """An orchestrator on a chain, a signer, and a gateway node that knows the orchestrator twice.

    Attributes:
        gateway: The node's URL.
        signer: The signer's URL; it is rich.
        signers: The URLs of all: ``main``, ``poor``, whose deposit is below a ticket's face value, and
            ``bare``, whose wallet has nothing.
        other: A second orchestrator that the node knows.
    """

    gateway: str
    signer: str
    signers: Mapping[str, str]
    other: str

    @contextlib.asynccontextmanager
    async def job_signer(self) -> AsyncIterator[str]:
        """The URL of a signer that offers ``/sign-byoc-job``."""
        yield self.signers["jobs"]

    def kill(self) -> None:
        """Nobody's test needs that."""
        raise AssertionError

    async def register_at_other(self, worker: Worker, name: str, **fields: Any) -> None:
        """Register a worker's capability at the second orchestrator, too."""
        body = {"name": name, "url": await worker.start(), "capacity": 4} | fields
        headers = {"Authorization": self.secret}
        status, text = await worker.ask(
            "POST", f"{self.other}/capability/register", data=json.dumps(body), headers=headers
        )
        assert (status, text) == (200, "ok")

    async def unregister_at_other(self, worker: Worker, name: str) -> None:
        """Take it away again."""
        headers = {"Authorization": self.secret}
        await worker.ask("POST", f"{self.other}/capability/unregister", data=name, headers=headers)


class EmbeddedNode(NodeNetwork):
    """`LocalNetwork` with payments. Its one orchestrator has two addresses, which are two to its node."""

    kind = "embedded"

    def __init__(self) -> None:
        super().__init__()
        self._network = LocalNetwork(samples=False, paid=PaidMode(signers=SIGNERS | {"jobs": {"byoc": True}}))

    def start(self) -> None:
        self._network.start()
        self.url, self.secret = self._network.orch_url, self._network.orch_secret
        self.signer, self.gateway = self._network.signer_url, self._network.gateway_url
        self.signers = {name: signer.url for name, signer in self._network.signers.items()}
        self.other = self.url.replace("127.0.0.1", "localhost")
        next(iter(self._network.gateways.values())).know([self.url, self.other])

    def stop(self) -> None:
        self._network.stop()


class _Net(PaidNet):
    """A paid network with a second orchestrator and a gateway node."""

    other: str
    gateway: str

    def _before_blocks(self) -> None:
        self._other_port, self._gateway_port = self._port(), self._port()
        self.other = f"https://localhost:{self._other_port}"
        self.gateway = f"http://127.0.0.1:{self._gateway_port}"
        self._other_account, self._gateway_account = self.account(), self.account()
        self.chain.register(self._other_account, self.other)
        self.chain.fund(self._gateway_account, 10**18, 10**18)

    def _start(self) -> None:
        super()._start()
        flags = [flag for flag in self._flags if not flag.startswith("-serviceAddr")]
        flags.append(f"-serviceAddr=localhost:{self._other_port}")
        discovery = f"https://127.0.0.1:{self._other_port}/discovery"
        other = self._node(
            "other", self._other_account, self._other_port, self.contract, flags,
            lambda: status_of(discovery) == 200, {},
        )  # fmt: skip
        self._begin(other)
        other.wait()
        flags = ["-gateway", f"-orchAddr={self.url},{self.other}", f"-rtmpAddr=127.0.0.1:{self._port()}"]
        node = self._node(
            "gateway", self._gateway_account, self._gateway_port, self.contract,
            [*flags, "-httpIngest=true", "-localVerify=false"],
            lambda: status_of(f"{self.gateway}/process/request/") > 0, {},
        )  # fmt: skip
        self._begin(node)
        node.wait()


class GoNode(NodeNetwork):
    """Two real orchestrators, real signers and a real gateway node, on a chain of their own."""

    kind = "go-livepeer"

    def __init__(self, binary: Path) -> None:
        super().__init__()
        self.secret = uuid.uuid4().hex
        self._net = _Net(binary, self._ports.take, self.secret, SIGNERS)

    def start(self) -> None:
        self._net.start()
        self.url, self.other, self.gateway = self._net.url, self._net.other, self._net.gateway
        self.signers = {name: signer.url for name, signer in self._net.signers.items()}
        self.signer = self.signers["main"]

    @contextlib.asynccontextmanager
    async def job_signer(self) -> AsyncIterator[str]:
        """The real signer behind a server that has the call which no released one has.

        Its wallet signs all the same: by ``/signMessage``, which its operator may use.
        """
        async with aiohttp.ClientSession() as http:

            async def sign(request: web.Request) -> web.Response:
                job = await request.json()
                told = (job["request"] + job["parameters"]).encode()
                asked = {"jsonrpc": "2.0", "id": 1, "method": "web3_sha3", "params": [f"0x{told.hex()}"]}
                async with http.post(self._net.chain.url, json=asked) as answer:
                    digest = bytes.fromhex((await answer.json())["result"][2:])
                form = {"Content-Type": "application/x-www-form-urlencoded"}
                body = f"message={quote(digest)}"
                async with http.post(
                    f"{self._net.command('main')}/signMessage", data=body, headers=form
                ) as answer:
                    assert answer.status == 200, await answer.text()
                    signature = (await answer.read()).hex()
                async with http.post(f"{self.signer}/sign-orchestrator-info", data=b"{}") as answer:
                    sender = (await answer.json())["address"]
                return web.json_response({"sender": sender, "signature": f"0x{signature}"})

            async def forward(request: web.Request) -> web.Response:
                async with http.request(
                    request.method, f"{self.signer}{request.path_qs}", data=await request.read()
                ) as answer:
                    return web.Response(status=answer.status, body=await answer.read())

            app = web.Application()
            app.router.add_post("/sign-byoc-job", sign)
            app.router.add_route("*", "/{path:.*}", forward)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            try:
                yield f"http://127.0.0.1:{runner.addresses[0][1]}"
            finally:
                await runner.cleanup()

    def stop(self) -> None:
        self._net.stop()
        self._ports.release()


class Through:
    """Jobs through a gateway node by hand.

    Args:
        byoc: The worker.
        network: Where.
    """

    def __init__(self, byoc: ByocWorker, network: NodeNetwork) -> None:
        self.byoc = byoc
        self.network = network

    def header(self, include: list[str] | None = None, *, timeout: Any = 60, **fields: Any) -> dict[str, str]:
        """The ``Livepeer`` header of a job."""
        wanted = [self.network.url] if include is None else include
        parameters = {"orchestrators": {"include": wanted}} if wanted else {}
        job = {
            "id": uuid.uuid4().hex,
            "request": "{}",
            "parameters": json.dumps(parameters),
            "capability": self.byoc.capability,
            "timeout_seconds": timeout,
        } | fields
        return {"Livepeer": base64.b64encode(json.dumps(job).encode()).decode()}

    async def call(
        self,
        route: str = "run",
        include: list[str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        most: int = 1 << 20,
        **options: Any,
    ) -> Reply:
        """``POST {gateway}/process/request/{route}``, read to its end or so many bytes.

        Args:
            route: The worker's.
            include: The orchestrators; the first one when absent, all of them when empty.
            headers: Instead of the job's.
            most: Bytes of the answer.
            options: Fields of the job; `method`, `data` and `kind`, the body and its type.
        """
        method, data = options.pop("method", "POST"), options.pop("data", b"{}")
        kind = {"Content-Type": options.pop("kind", "application/json")}
        sent = self.header(include, **options) if headers is None else headers
        url = f"{self.network.gateway}/process/request/{route}"
        http = self.byoc.worker.http
        async with http.request(method, url, headers={**sent, **kind}, data=data, ssl=UNVERIFIED) as answer:
            body = bytearray()
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) >= most:
                    break
            return Reply(answer.status, CIMultiDict(answer.headers), bytes(body[:most]))


def answer(status: int = 200, body: bytes = b"", kind: str = "text/plain") -> Callable[..., Awaitable[Any]]:
    """A worker that answers so, with metadata."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, content_type=kind, headers={"X-Metadata": "told"})

    return handle


def events(*pieces: bytes) -> Callable[..., Awaitable[Any]]:
    """A worker that sends these pieces of an event stream, and ends."""

    async def handle(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Metadata": "told"})
        await stream.prepare(request)
        for piece in pieces:
            await stream.write(piece)
        return stream

    return handle
