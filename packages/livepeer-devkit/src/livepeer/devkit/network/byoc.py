"""BYOC: capabilities that register by name and URL, and the calls to them (``byoc/``, go-livepeer v0.9.1).

``/capability/register`` and ``unregister`` are the worker's side, ``/process/token`` and
``/process/request/`` the caller's. What a caller sees of a worker's answer is its body and little else.
`byoc_streams` has the streams that go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp
from aiohttp import web

from . import answers, uploading
from .byoc_events import EventLines
from .byoc_jobs import HEADER, parse_job, parse_sender
from .byoc_registry import UNKNOWN, Capabilities, Capability, UnknownCurrency
from .byoc_workers import WorkerFailed, Workers, authorization, worker_url
from .gojson import GoJSONError
from .mux import Mux
from .validation import Refused

__all__ = ["Byoc"]

_BALANCE = {"Livepeer-Balance": "0"}
_NOT_ABLE = "job not able to be processed, removing capability err="
_FLOOD = (b"\n" * 64, 0.01)  # what is written after the worker's end, and the seconds between two such pieces


class Byoc:
    """The BYOC calls of an orchestrator, except its streams.

    Args:
        secret: What workers register with.
        capabilities: Which there are.
        workers: The way to them.
        public_url: The orchestrator's address.
    """

    def __init__(self, secret: str, capabilities: Capabilities, workers: Workers, public_url: str) -> None:
        self._secret = secret
        self._capabilities = capabilities
        self._workers = workers
        self._public_url = public_url

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
        name = request.headers.get("Livepeer-Capability", "")
        if not name:
            text = "must provide comma separated capabilities in Livepeer-Capability header"
            raise Refused(f"Job capabilities not provided, {text}", 400)
        told = {"sender_address": sender, "price": {"pixelsPerUnit": 1}, "service_addr": self._public_url}
        if free := self._capabilities.free(name):
            told["available_capacity"] = free
        return answers.json_answer(told | {"LastNonce": 0})

    async def process(self, request: web.Request, values: Mapping[str, bytes]) -> web.StreamResponse:
        """Carry one request to a worker, and its answer back."""
        _want("POST", request)
        job = parse_job(request.headers.get(HEADER, ""))
        if not self._capabilities.reserve(job.capability):
            raise Refused(UNKNOWN, 503)
        # Whatever ends the call before the worker's headers keeps the unit reserved, as in go-livepeer.
        job.stream_id()
        capability = self._capabilities.get(job.capability)
        assert capability is not None
        body = await uploading.whole(request)
        route = values["route"]
        url = worker_url(capability, b"/" + route if route else b"")
        headers = {"Content-Type": request.headers.get("Content-Type", "")} | authorization(capability)
        try:
            answer = await self._workers.post(url, body, headers, job.timeout)
        except WorkerFailed as failed:
            return self._failed(str(failed), capability, forget=not failed.late)
        async with answer:
            if answer.status == 401:
                return self._failed("worker auth token failed", capability, forget=True)
            try:
                if "text/event-stream" in answer.headers.get("Content-Type", ""):
                    return await _events(request, answer, job.timeout)
                return await _whole_answer(answer)
            finally:
                self._capabilities.release(job.capability)

    def _failed(self, text: str, capability: Capability, *, forget: bool) -> web.Response:
        if forget:
            self._capabilities.forget(capability.name)
        return answers.error(_NOT_ABLE + text, 500, **_BALANCE)


def _want(method: str, request: web.Request) -> None:
    if request.method != method:
        raise Refused("Method not allowed", 405)


def _ok() -> web.Response:
    return web.Response(body=b"ok", headers={"Content-Type": "application/json"})


async def _whole_answer(answer: aiohttp.ClientResponse) -> web.Response:
    """Any answer but events: read to its end first, whatever it is."""
    kept = _BALANCE | {"X-Metadata": answer.headers.get("X-Metadata", "")}
    try:
        body = await answer.read()
    except aiohttp.ClientError:
        return answers.error("unexpected EOF", 500, **kept)
    if answer.status >= 400:
        # As bytes: it may be no text, in spite of what the answer then says.
        refusal = answers.error("", answer.status, **kept)
        refusal.body = body + b"\n"
        return refusal
    return web.Response(body=body, headers=kept | {"Content-Type": answer.headers.get("Content-Type", "")})


async def _events(request: web.Request, answer: aiohttp.ClientResponse, timeout: int) -> web.StreamResponse:
    """Events: line by line, for as long as the job's timeout once more."""
    headers = {
        "Content-Type": "text/event-stream",
        "X-Metadata": answer.headers.get("X-Metadata", ""),
        "Cache-Control": "no-cache",
        "Connection": "keep-alive",
        "Livepeer-Payment-Balance": "0",
    }
    response = answers.BareStream(headers=headers)
    response.enable_chunked_encoding()
    try:
        async with asyncio.timeout(timeout):
            await _forward(request, answer, response)
    except TimeoutError:
        pass  # and so it ends, without a word
    return response


async def _forward(
    request: web.Request, answer: aiohttp.ClientResponse, response: web.StreamResponse
) -> None:
    lines = EventLines()

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
