"""One face for both sides: what a user of each would write."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
from collections.abc import AsyncIterator
from typing import Any, Protocol

import aiohttp

__all__ = ["Live", "Ours", "Side", "Theirs", "message", "side_named"]


class Live(Protocol):
    """A live session with the worker."""

    async def write(self, frame: Any) -> None:
        """Write a frame."""

    def frames(self) -> AsyncIterator[Any]:
        """The output's frames (`av.VideoFrame`) to the end."""

    async def finish(self, reading: asyncio.Task[None]) -> None:
        """End the session in the way that loses least, `reading` being the reader of `frames`."""


class Side(Protocol):
    """One library."""

    def prepare(self, orch: str) -> None:
        """Do what a program does once, before it opens sessions: import, configure."""

    async def open(self, orch: str, app: str, *, fps: int, delay: float) -> Live:
        """Begin a session."""

    def json_writer(self, url: str) -> Any:
        """A writer with ``await write(message)`` and ``await close()``, one message to a segment."""

    def json_messages(self, url: str) -> AsyncIterator[Any]:
        """The messages of a channel from its beginning."""

    async def write_segments(self, url: str, pieces: list[bytes], count: int) -> None:
        """Write `count` segments of these pieces, and return when the server has answered for all."""

    async def aclose(self) -> None:
        """Let go of everything."""


class Ours:
    """This SDK."""

    def __init__(self) -> None:
        self._client: Any = importlib.import_module("livepeer.client")
        self._trickle: Any = importlib.import_module("livepeer.trickle")
        importlib.import_module("livepeer.trickle.media.publish")
        importlib.import_module("livepeer.trickle.media.output")
        self._gateway: Any = None

    def prepare(self, orch: str) -> None:
        """See `Side`."""
        self._gateway = self._client.Gateway(orch_url=orch)  # loads aiohttp, which the import doesn't

    async def open(self, orch: str, app: str, *, fps: int, delay: float) -> Live:
        """See `Side`."""
        session = await self._gateway.live(app, params={"delay": delay})
        return _OurLive(session, fps)

    def json_writer(self, url: str) -> Any:
        """See `Side`."""
        # Each message is written when the one before was read: there are no bursts to be spaced.
        return self._trickle.ChannelWriter(url, pace=0.0)

    async def json_messages(self, url: str) -> AsyncIterator[Any]:
        """See `Side`."""
        async with self._trickle.ChannelReader(url) as reader:
            async for message in reader:
                yield message

    async def write_segments(self, url: str, pieces: list[bytes], count: int) -> None:
        """See `Side`."""
        publisher = self._trickle.TricklePublisher(url)
        for _ in range(count):
            async with publisher.segment() as segment:
                for piece in pieces:
                    await segment.write(piece)
        await publisher.close(delete=False)

    async def aclose(self) -> None:
        """See `Side`."""
        if self._gateway is not None:
            await self._gateway.aclose()


class _OurLive:
    def __init__(self, session: Any, fps: int) -> None:
        self._session = session
        self._publish = session.publish(fps=fps)
        self.write = self._publish.write_frame

    async def frames(self) -> AsyncIterator[Any]:
        async for frame in self._session.subscribe().frames(drop=None):
            yield frame.raw

    async def finish(self, reading: asyncio.Task[None]) -> None:
        await self._session.close()
        await reading


class Theirs:
    """The published peer."""

    def __init__(self) -> None:
        self._peer: Any = importlib.import_module("livepeer_gateway")
        self._post: Any = importlib.import_module("livepeer_gateway.http").post_json

    def prepare(self, orch: str) -> None:
        """See `Side`."""

    async def open(self, orch: str, app: str, *, fps: int, delay: float) -> Live:
        """See `Side`."""
        session = await self._peer.reserve_session(orchestrators=orch, app=app)
        urls = await self._post(f"{session.app_url}/live", {"params": {"delay": delay}})
        track = self._peer.VideoOutputConfig(fps=fps)
        publish = self._peer.MediaPublish(
            urls["publish_url"], config=self._peer.MediaPublishConfig(tracks=[track])
        )
        # Its default joins at the newest segment; from the first one on nothing is missed by the reader.
        return _TheirLive(session, publish, self._peer.MediaOutput(urls["subscribe_url"], start_seq=0))

    def json_writer(self, url: str) -> Any:
        """See `Side`."""
        return self._peer.Control(url)

    def json_messages(self, url: str) -> AsyncIterator[Any]:
        """See `Side`."""
        messages: AsyncIterator[Any] = self._peer.ChannelReader(url)(start_seq=0)
        return messages

    async def write_segments(self, url: str, pieces: list[bytes], count: int) -> None:
        """See `Side`."""
        publisher = self._peer.TricklePublisher(url, "application/octet-stream")
        for _ in range(count):
            async with await publisher.next() as segment:
                for piece in pieces:
                    await segment.write(piece)
        # Its close() gives up what isn't answered yet, so the answers are awaited first.
        while publisher.get_stats().segments_completed < count:
            if publisher.get_stats().segments_failed:
                raise RuntimeError("the peer lost a segment")
            await asyncio.sleep(0.001)
        await publisher.close()

    async def aclose(self) -> None:
        """See `Side`."""


class _TheirLive:
    def __init__(self, session: Any, publish: Any, output: Any) -> None:
        self._session = session
        self._publish = publish
        self._output = output
        self.write = publish.write_frame

    async def frames(self) -> AsyncIterator[Any]:
        async for item in self._output.frames():
            yield item.frame

    async def finish(self, reading: asyncio.Task[None]) -> None:
        await self._publish.close()
        # It can't drain: what still comes is read to the end of the output, which the worker closes.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reading, 8)
        await self._output.close()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as http:
            await (await http.post(f"{self._session.control_url}/stop")).read()
        await self._session.aclose()


def side_named(name: str) -> Side:
    """``"ours"`` or ``"peer"``."""
    return Ours() if name == "ours" else Theirs()


def message(number: int) -> dict[str, Any]:
    """What is written to a channel of JSON messages."""
    loaded: dict[str, Any] = json.loads('{"type": "params", "prompt": "a cat on a roof", "strength": 0.5}')
    return {"number": number, **loaded}
