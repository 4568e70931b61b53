"""BYOC: capabilities that register by name and URL, and the calls to them (``byoc/``, go-livepeer v0.9.1).

``/capability/register`` and ``unregister`` are the worker's side, ``/process/token`` and
``/process/request/`` the caller's; `byoc_accounts` says who may call, and who pays. What a caller sees of a
worker's answer is its body and little else.
`byoc_streams` has the streams that go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import aiohttp
from aiohttp import web

from . import answers, uploading
from .byoc_accounts import Account, Accounts, BadPayment, Free, admitted
from .byoc_events import EventLines
from .byoc_jobs import parse_sender
from .byoc_registry import Capabilities, Capability, UnknownCurrency
from .byoc_workers import WorkerFailed, Workers, authorization, worker_url
from .gojson import GoJSONError
from .mux import Mux
from .validation import Refused

__all__ = ["Byoc"]

_NOT_ABLE = "job not able to be processed, removing capability err="
_NO_FUNDS = b'event: insufficient balance\ndata: {"balance": 0}\n\ndata: [DONE]\n\n'
_INTERVAL = 5.0  # seconds that a stream is charged for at a time
_FLOOD = (b"\n" * 64, 0.01)  # what is written after the worker's end, and the seconds between two such pieces


class Byoc:
    """The BYOC calls of an orchestrator, except its streams.

    Args:
        secret: What workers register with.
        capabilities: Which there are.
        workers: The way to them.
        public_url: The orchestrator's address.
        accounts: Who may have a job done, and on whose account.
        interval: Seconds from charge to charge of a stream; each is for 5 s.
    """

    def __init__(
        self,
        secret: str,
        capabilities: Capabilities,
        workers: Workers,
        public_url: str,
        *,
        accounts: Accounts | None = None,
        interval: float | None = None,
    ) -> None:
        self._secret = secret
        self._capabilities = capabilities
        self._workers = workers
        self._public_url = public_url
        self._accounts: Accounts = accounts or Free()
        self._interval = interval or _INTERVAL

    def add_routes(self, mux: Mux) -> None:
        """Serve these calls; each says itself that a method is wrong."""
        mux.handle("/capability/register", self.register)
        mux.handle("/capability/unregister", self.unregister)
        mux.handle("/process/token", self.token)
        mux.handle("/process/request/{route...}", self.process)

    # ------------------------------------------------------------------ the worker's side

    async def register(self, request: web.Request, _: Mapping[str, bytes]) -> web.StreamResponse:
        """Know a capability."""
        body = await self._authorized(request)
        try:
            self._capabilities.register(body)
        except GoJSONError as error:
            text = f"Error registering capability: {error}"
            return web.Response(body=text.encode(), status=400, headers={"Content-Type": "application/json"})
        except UnknownCurrency:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        return _ok()

    async def unregister(self, request: web.Request, _: Mapping[str, bytes]) -> web.StreamResponse:
        """Know it no longer; the body is its bare name."""
        self._capabilities.forget((await self._authorized(request)).decode("utf-8", "surrogateescape"))
        return _ok()

    async def _authorized(self, request: web.Request) -> bytes:
        _want("POST", request)
        if request.headers.get("Authorization", "") != self._secret:
            raise Refused("invalid authorization", 400)
        return await uploading.whole(request)

    # ------------------------------------------------------------------ the caller's side

    async def token(self, request: web.Request, _: Mapping[str, bytes]) -> web.StreamResponse:
        """Tell a price and what is free; an unknown capability's are told just so."""
        _want("GET", request)
        sender = parse_sender(request.headers.get("Livepeer-Eth-Address", ""))
        self._accounts.check_sender(sender)
        name = request.headers.get("Livepeer-Capability", "")
        if not name:
            text = "must provide comma separated capabilities in Livepeer-Capability header"
            raise Refused(f"Job capabilities not provided, {text}", 400)
        told = {"sender_address": sender} | self._accounts.offer(sender, self._capabilities.get(name))
        told["service_addr"] = self._public_url
        if free := self._capabilities.free(name):
            told["available_capacity"] = free
        return answers.json_answer(told | {"LastNonce": 0})

    async def process(self, request: web.Request, values: Mapping[str, bytes]) -> web.StreamResponse:
        """Carry one request to a worker, and its answer back."""
        _want("POST", request)
        try:
            job, capability, account = admitted(
                request.headers, self._capabilities, self._accounts, unknown=503, poor=400
            )
        except BadPayment:
            return answers.dropped(request)
        # Whatever ends the call from here to the worker's headers keeps the unit reserved, as in go-livepeer.
        job.stream_id()
        body = await uploading.whole(request)
        route = values["route"]
        url = worker_url(capability, b"/" + route if route else b"")
        headers = {"Content-Type": request.headers.get("Content-Type", "")} | authorization(capability)
        began = time.monotonic()
        try:
            answer = await self._workers.post(url, body, headers, job.timeout)
        except WorkerFailed as failed:
            account.charge(time.monotonic() - began)
            return self._failed(str(failed), capability, account, forget=not failed.late)
        async with answer:
            if answer.status == 401:
                account.charge(time.monotonic() - began)
                return self._failed("worker auth token failed", capability, account, forget=True)
            try:
                if "text/event-stream" in answer.headers.get("Content-Type", ""):
                    return await self._events(request, answer, job.timeout, account)
                return await _whole_answer(answer, account, began)
            finally:
                self._capabilities.release(job.capability)

    def _failed(self, text: str, capability: Capability, account: Account, *, forget: bool) -> web.Response:
        if forget:
            self._capabilities.forget(capability.name)
        return answers.error(_NOT_ABLE + text, 500, **_balance(account))

    async def _events(
        self, request: web.Request, answer: aiohttp.ClientResponse, timeout: int, account: Account
    ) -> web.StreamResponse:
        """Events: line by line, for as long as the job's timeout once more, or as the account lasts."""
        headers = {
            "Content-Type": "text/event-stream",
            "X-Metadata": answer.headers.get("X-Metadata", ""),
            "Cache-Control": "no-cache",
            "Connection": "keep-alive",
            "Livepeer-Payment-Balance": account.balance(0),
        }
        response = answers.BareStream(headers=headers)
        response.enable_chunked_encoding()
        forwarding = asyncio.create_task(_forward(request, answer, response, account))
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            while (left := deadline - asyncio.get_running_loop().time()) > 0:
                pause = min(left, self._interval) if account.costs else left
                done, _ = await asyncio.wait({forwarding}, timeout=pause)
                if done:
                    break
                if account.costs and pause == self._interval:
                    account.charge(_INTERVAL)
                    if account.empty:
                        await _cancelled(forwarding)
                        if not response.prepared:
                            await response.prepare(request)
                        await response.write(_NO_FUNDS)
                        break
        finally:
            await _cancelled(forwarding)
        return response


def _balance(account: Account) -> dict[str, str]:
    return {"Livepeer-Balance": account.balance(0)}


async def _cancelled(task: asyncio.Task[None]) -> None:
    """End a task; what it failed with, such as a client that has left, is raised."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error


def _want(method: str, request: web.Request) -> None:
    if request.method != method:
        raise Refused("Method not allowed", 405)


def _ok() -> web.Response:
    return web.Response(body=b"ok", headers={"Content-Type": "application/json"})


async def _whole_answer(answer: aiohttp.ClientResponse, account: Account, began: float) -> web.Response:
    """Any answer but events: read to its end first, whatever it is."""
    try:
        body = await answer.read()
    except aiohttp.ClientError:
        body = None
    account.charge(time.monotonic() - began)
    kept = _balance(account) | {"X-Metadata": answer.headers.get("X-Metadata", "")}
    if body is None:
        return answers.error("unexpected EOF", 500, **kept)
    if answer.status >= 400:
        # As bytes: it may be no text, in spite of what the answer then says.
        refusal = answers.error("", answer.status, **kept)
        refusal.body = body + b"\n"
        return refusal
    return web.Response(body=body, headers=kept | {"Content-Type": answer.headers.get("Content-Type", "")})


async def _forward(
    request: web.Request, answer: aiohttp.ClientResponse, response: web.StreamResponse, account: Account
) -> None:
    lines = EventLines(lambda: account.balance(3))

    async def send(data: bytes) -> None:
        if data:
            if not response.prepared:  # the head comes with the first line
                await response.prepare(request)
            await response.write(data)

    reading = aiter(answer.content.iter_any())
    while not lines.too_long:
        try:
            data = await anext(reading)
        except (StopAsyncIteration, aiohttp.ClientError):  # a worker's death looks like its end
            break
        await send(lines.feed(data))
    await send(lines.end())
    answer.close()
    # go-livepeer now writes newlines as fast as it can, half a million in a second, until the timeout. So
    # many would only heat the machine that somebody develops on: these are enough to be noticed by any
    # reader, and cost next to nothing.
    newlines, pause = _FLOOD
    while True:
        await send(newlines)
        await asyncio.sleep(pause)
