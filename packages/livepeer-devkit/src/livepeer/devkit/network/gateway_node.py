"""A gateway node, which signs and pays BYOC jobs from its own wallet (``byoc/job_gateway.go``, v0.9.1).

With the habits that a client has to live with: an answer loses its type; a job that fails at one orchestrator
(a status from 500 up, or no answer) is made again at the next; what fails everywhere ends in an empty 200;
behind a stream's ``[DONE]`` the job is made once more at the next orchestrator, and that stream appended;
a stream that ends without it never ends.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
from aiohttp import web

from . import answers, gojson, sniffing, uploading
from .byoc_jobs import HEADER
from .gojson import GoJSONError, Kind
from .mux import Mux
from .paid.job_payer import CantPay, JobPayer
from .validation import Refused

__all__ = ["GatewayNode"]

_REQUEST: Mapping[str, Kind] = {
    "id": "string",
    "request": "string",
    "parameters": "string",
    "capability": "string",
    "capability_url": "string",
    "sender": "string",
    "sig": "string",
    "timeout_seconds": "int",
}
_PARAMETERS: Mapping[str, Kind] = {
    "orchestrators": {"": "byoc.JobOrchestratorsFilter", "exclude": "strings", "include": "strings"},
    "enable_video_ingress": "bool",
    "enable_video_egress": "bool",
    "enable_data_output": "bool",
}
_TOKEN_PATIENCE = 0.5  # seconds for an orchestrator to give a token
_BUFFER = 5  # seconds that an orchestrator has more than the job's worker
_STREAM_BUFFER = 10
_FLOOD = (b"\n" * 64, 0.01)  # newlines behind a stream's end, and the seconds between two such pieces


class GatewayNode:
    """One node's calls.

    Args:
        payer: Its wallet.

    Attributes:
        orchestrators: The URLs that it knows, each spelt as it was given.
    """

    def __init__(self, payer: JobPayer) -> None:
        self.orchestrators: list[str] = []
        self._payer = payer
        self._session: aiohttp.ClientSession | None = None

    def add_routes(self, mux: Mux) -> None:
        """Serve them."""
        mux.handle("/process/request/{route...}", self.process)

    async def aclose(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()

    async def process(self, request: web.Request, _: Mapping[str, bytes]) -> web.StreamResponse:
        """Make a job at one orchestrator after the other."""
        if request.method != "POST":
            raise Refused("Method not allowed", 405)
        job, wanted = _read(request.headers.get(HEADER, ""))
        tokens = await self._tokens(job["capability"], wanted)
        if not tokens:
            raise Refused(f"No orchestrators found for capability {job['capability']}", 400)
        body = await uploading.whole(request)
        answering = _Answering(request, job["timeout_seconds"])
        for token in tokens:
            try:
                headers = self._payer.headers(job, token)
            except CantPay:
                continue
            headers["Content-Type"] = request.headers.get("Content-Type", "")
            try:
                async with asyncio.timeout(job["timeout_seconds"] + _BUFFER):
                    answer = await self._http.post(
                        token["service_addr"] + request.raw_path, data=body, headers=headers
                    )
            except (aiohttp.ClientError, OSError, TimeoutError):
                continue
            async with answer:
                if await answering.take(answer, token):
                    break
        return answering.answer

    async def _tokens(self, capability: str, wanted: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
        """The tokens of those which have a free place, those first that answered first."""
        chosen = [
            url
            for url in self.orchestrators
            if url not in wanted["exclude"] and (not wanted["include"] or url in wanted["include"])
        ]
        random.shuffle(chosen)
        found: list[dict[str, Any]] = []

        async def ask(url: str) -> None:
            headers = {"Livepeer-Eth-Address": self._payer.identity, "Livepeer-Capability": capability}
            try:
                async with (
                    asyncio.timeout(_TOKEN_PATIENCE),
                    self._http.get(f"{url}/process/token", headers=headers) as answer,
                ):
                    if answer.status != 200:
                        return
                    token = await answer.json(content_type=None)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                return
            if token.get("available_capacity", 0) > 0:
                found.append(token)

        await asyncio.gather(*map(ask, chosen))
        return found

    @property
    def _http(self) -> aiohttp.ClientSession:
        """Its connections, which believe every certificate."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2, ssl=False),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("Accept", "Content-Type"),
                headers={"User-Agent": "Go-http-client/1.1"},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
                trust_env=False,
                max_line_size=1 << 20,
                max_field_size=1 << 20,
            )
        return self._session


def _read(header: str) -> tuple[dict[str, Any], Mapping[str, Sequence[str]]]:
    """A job, and which orchestrators may do it. Raises `Refused`."""
    try:
        decoded = base64.b64decode(header, validate=True)
    except ValueError:
        raise Refused("Unable to parse job request, err=ErrorSegEncoding", 400) from None
    try:
        job = gojson.unmarshal(decoded, "byoc.JobRequest", _REQUEST)
    except GoJSONError as error:
        raise Refused(f"Unable to parse job request, err={error}", 400) from None
    if job["timeout_seconds"] == 0:
        text = "no timeout_seconds set with request, timeout_seconds is required"
        raise Refused(f"Unable to parse job request, err={text}", 400)
    try:
        gojson.unmarshal(job["request"], "byoc.JobRequestDetails", {"stream_id": "string"})
    except GoJSONError as error:
        raise Refused(f"Unable to unmarshal job request err={error}", 400) from None
    try:
        parameters = gojson.unmarshal(job["parameters"], "byoc.JobParameters", _PARAMETERS)
    except GoJSONError as error:
        raise Refused(f"Unable to unmarshal job parameters err={error}", 400) from None
    return job, parameters["orchestrators"] or {"exclude": (), "include": ()}


class _Answering:
    """What becomes of the answers of the orchestrators, one after the other.

    Args:
        request: The client's request.
        timeout: The job's, in seconds.

    Attributes:
        answer: What the client gets: an empty 200, until something better comes.
    """

    def __init__(self, request: web.Request, timeout: int) -> None:
        self.answer: web.StreamResponse = answers.BareResponse()
        self._request = request
        self._timeout = timeout

    async def take(self, answer: aiohttp.ClientResponse, token: Mapping[str, Any]) -> bool:
        """Pass an answer on; whether no other orchestrator is asked."""
        if answer.status < 400 and "text/event-stream" in answer.headers.get("Content-Type", ""):
            await self._stream(answer, _kept(answer, token))
            return False
        try:
            body = await answer.read()
        except aiohttp.ClientError:
            return False
        if answer.status >= 500:
            return False
        if answer.status >= 400:
            body += b"\n"
        if self.answer.prepared:  # behind the events of another one
            await self.answer.write(body)
        elif answer.status >= 400:
            refusal = self.answer = answers.error("", answer.status)
            refusal.body = body
        else:
            headers = _kept(answer, token)
            if body:
                headers["Content-Type"] = sniffing.content_type(body)
            self.answer = answers.BareResponse(body=body, headers=headers)
        return True

    async def _stream(self, answer: aiohttp.ClientResponse, kept: dict[str, str]) -> None:
        if not self.answer.prepared:
            kept |= {
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-cache",
                "Connection": "keep-alive",
            }
            self.answer = answers.BareStream(headers=kept)
            self.answer.enable_chunked_encoding()
            await self.answer.prepare(self._request)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout + _STREAM_BUFFER):
                await _pass_on(answer, self.answer)


def _kept(answer: aiohttp.ClientResponse, token: Mapping[str, Any]) -> dict[str, str]:
    """All that is left of an answer's headers."""
    return {
        "Livepeer-Balance": answer.headers.get("Livepeer-Balance", ""),
        "X-Metadata": answer.headers.get("X-Metadata", ""),
        "X-Orchestrator-Url": str(token["service_addr"]),
    }


async def _pass_on(answer: aiohttp.ClientResponse, stream: web.StreamResponse) -> None:
    """Lines up to the first with ``[DONE]``; behind the last, newlines until the job's time is over."""
    rest = bytearray()
    try:
        async for piece in answer.content.iter_any():
            rest += piece
            *lines, last = rest.split(b"\n")
            rest = bytearray(last)
            for line in lines:
                await stream.write(line.removesuffix(b"\r") + b"\n")
                if b"[DONE]" in line:
                    return
    except aiohttp.ClientError:
        rest.clear()
    if rest:
        await stream.write(bytes(rest) + b"\n")
        if b"[DONE]" in rest:
            return
    newlines, pause = _FLOOD
    while True:
        await stream.write(newlines)
        await asyncio.sleep(pause)
