"""Bare clients of live streams: `/ai/stream/*` of BYOC, and jobs of live-video-to-video."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import ssl
import uuid
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import av
import grpc
from byoc_harness import job
from harness import Network, Worker
from live_harness import number_of

from livepeer.client._grpc import lp_rpc_pb2 as net
from livepeer.trickle.media import VideoFrame

__all__ = ["BareStream", "ByocStream", "Job", "orchestrator_info"]


class BareStream:
    """A live stream's channels, read and written by plain HTTP."""

    def __init__(self, network: Network, http: Worker) -> None:
        self.network = network
        self.http = http
        self.urls: dict[str, str] = {}
        self.output = bytearray()
        self._event = 0

    async def write(self, number: int, segment: bytes) -> None:
        """Write a segment of the input, whole."""
        status, text = await self.http.ask("POST", f"{self.urls['publish']}/{number}", data=segment)
        assert status == 200, text

    async def control(self, number: int, message: Any) -> None:
        """Write a message of the control channel."""
        url = f"{self.urls['control']}/{number}"
        status, text = await self.http.ask("POST", url, data=json.dumps(message))
        assert status == 200, text

    async def end_input(self) -> None:
        """End the input's channel."""
        status, text = await self.http.ask("DELETE", self.urls["publish"])
        assert status == 200, text

    async def read(self, name: str, number: int) -> bytes | None:
        """A segment of a channel; None when the channel is over."""
        async with asyncio.timeout(30):
            while True:
                async with self.http.request("GET", f"{self.urls[name]}/{number}") as answer:
                    if answer.status == 404 or answer.headers.get("Lp-Trickle-Closed"):
                        return None
                    if answer.status != 470:
                        assert answer.status == 200, await answer.text()
                        return await answer.read()
                await asyncio.sleep(0.02)

    async def watch(self) -> None:
        """Read the output to its end, into `output`, as it comes."""
        number = 0
        while True:
            async with self.http.request("GET", f"{self.urls['subscribe']}/{number}") as answer:
                if answer.status == 404 or answer.headers.get("Lp-Trickle-Closed"):
                    return
                if answer.status == 200:
                    number += 1
                    with contextlib.suppress(aiohttp.ClientPayloadError):  # ended in mid-segment
                        async for data in answer.content.iter_any():
                            self.output += data
                    continue
                assert answer.status == 470, await answer.text()
            await asyncio.sleep(0.02)

    def numbers(self) -> list[int | None]:
        """The numbers in the pictures of the output so far."""
        if not self.output:
            return []
        with av.open(io.BytesIO(self.output), format="mpegts") as container:
            return [number_of(VideoFrame(frame)) for frame in container.decode(video=0)]

    async def next_events(self) -> list[Any] | None:
        """The next messages among the events, without signs of life; None at the end."""
        while True:
            segment = await self.read("events", self._event)
            if segment is None:
                return None
            self._event += 1
            found = [json.loads(line) for line in segment.splitlines() if line.strip()]
            if kept := [event for event in found if event != {"keep": "alive"}]:
                return kept

    async def until_event(self, wanted: Any) -> None:
        """Read events up to this one."""
        while wanted not in (events := await self.next_events() or [None]):
            assert events != [None], "the events ended"

    async def over(self, *names: str) -> bool:
        """Whether these channels are no more."""
        for name in names or tuple(self.urls):
            status, _ = await self.http.ask("GET", f"{self.urls[name]}/next")
            if status != 404:
                return False
        return True


class ByocStream(BareStream):
    """A stream of a BYOC capability."""

    def __init__(self, network: Network, http: Worker, capability: str) -> None:
        super().__init__(network, http)
        self.capability = capability
        self.id = f"stream-{uuid.uuid4().hex[:8]}"

    async def start(self, body: Any, *, timeout: int = 20, **flags: bool) -> tuple[int, str]:
        """``POST /ai/stream/start``; `flags` are what to have besides control and events."""
        wanted = flags or {"video_ingress": True, "video_egress": True, "data_output": True}
        parameters = json.dumps({f"enable_{name}": value for name, value in wanted.items()})
        headers = job(self.capability, id=self.id, parameters=parameters, timeout=timeout)
        url = f"{self.network.url}/ai/stream/start"
        async with self.http.request("POST", url, json=body, headers=headers) as answer:
            names = ("control", "events", "publish", "subscribe", "data")
            given = {name: answer.headers.get(f"X-{name}-Url") for name in names}
            self.urls = {name: found for name, found in given.items() if found}
            return answer.status, await answer.text()

    async def update(self, body: Any) -> tuple[int, str]:
        """``POST /ai/stream/update``."""
        return await self._tell("update", json.dumps(body))

    async def stop(self) -> tuple[int, str]:
        """``POST /ai/stream/stop``."""
        return await self._tell("stop", "{}")

    async def _tell(self, what: str, body: str) -> tuple[int, str]:
        headers = job(self.capability, request=json.dumps({"stream_id": self.id}))
        return await self.http.ask("POST", f"{self.network.url}/ai/stream/{what}", data=body, headers=headers)


class Job(BareStream):
    """A job of live-video-to-video."""

    async def start(self, params: Any = None, model: str = "noop") -> tuple[int, str]:
        """``POST /live-video-to-video``, with the auth token that gRPC gives."""
        info = await orchestrator_info(self.network.url)
        segment = base64.b64encode(net.SegData(auth_token=info.auth_token).SerializeToString()).decode()
        body = {"model_id": model} | ({} if params is None else {"params": params})
        headers = {"Livepeer-Segment": segment, "Livepeer-Payment": ""}
        status, text = await self.http.ask(
            "POST", f"{info.transcoder}/live-video-to-video", json=body, headers=headers
        )
        if status == 200:
            answer = json.loads(text)
            names = ("control", "events", "publish", "subscribe")
            self.urls = {name: answer[f"{name}_url"] for name in names}
        return status, text


async def orchestrator_info(url: str) -> net.OrchestratorInfo:
    """What gRPC's `GetOrchestrator` says."""
    address = urlsplit(url)
    host, port = address.hostname or "", address.port or 0
    certificate = await asyncio.to_thread(ssl.get_server_certificate, (host, port))
    credentials = grpc.ssl_channel_credentials(certificate.encode())
    async with grpc.aio.secure_channel(address.netloc, credentials) as channel:
        call = channel.unary_unary(
            "/net.Orchestrator/GetOrchestrator",
            request_serializer=net.OrchestratorRequest.SerializeToString,
            response_deserializer=net.OrchestratorInfo.FromString,
        )
        info: net.OrchestratorInfo = await call(net.OrchestratorRequest(), timeout=10)
        return info
