"""Our client and our runner on the two ends of BYOC; each is tested with a bare peer elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from harness import Network

from livepeer.client import (
    Blob,
    CapabilityError,
    CapacityError,
    Gateway,
    StreamError,
)
from livepeer.runner import Blob as Bytes
from livepeer.runner import HTTPError, Pipeline, running


class Words(Pipeline):
    """Counts, shouts, refuses."""

    capacity = 1

    def setup(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()

    async def run(self, text: str = "", how: str = "shout") -> Any:
        if how == "wait":
            self.entered.set()
            await asyncio.to_thread(self.leave.wait, 20)
        if how == "refuse":
            raise HTTPError(409, "not this one")
        if how == "bytes":
            return Bytes(text.encode(), "application/x-words")
        return {"text": text.upper()}


class Tokens(Pipeline):
    """One event for each word."""

    capacity = 2

    def run(self, text: str = "", fail: bool = False, large: int = 0) -> Iterator[str]:
        yield from text.split()
        if large:
            yield "x" * large
        if fail:
            raise RuntimeError("in the middle")


@contextlib.asynccontextmanager
async def serving(network: Network, pipeline: Pipeline, **options: Any) -> AsyncIterator[str]:
    """A runner that is registered, for BYOC only unless told otherwise; its name."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    where = {"orch_url": network.url, "secret": network.secret, "tls": "insecure", "register": "byoc"}
    async with running(pipeline, **{**where, "name": name, **options}) as server:
        await server.registered()
        yield name


@pytest.fixture
async def gw(network: Network) -> AsyncIterator[Gateway]:
    """A gateway for the network, used asynchronously."""
    async with Gateway(orch_url=network.url) as made:
        yield made


async def test_calls(gw: Gateway, network: Network) -> None:
    async with serving(network, Words()) as name:
        assert await gw.run_async(name, input={"text": "hello"}) == {"text": "HELLO"}
        blob = await gw.run_async(name, input={"text": "hello", "how": "bytes"})
        assert isinstance(blob, Blob)
        assert (blob, blob.content_type) == (b"hello", "application/x-words")
        with pytest.raises(CapabilityError, match="not this one") as refused:
            await gw.run_async(name, input={"how": "refuse"})
        assert refused.value.status == 409
        with pytest.raises(CapabilityError, match="text") as wrong:
            await gw.run_async(name, input={"text": 5})
        assert wrong.value.status == 422
        schema = await gw.schema_async(name)
        assert schema["input"]["properties"]["text"]["type"] == "string"
        listed = {(one.name, one.transport): one for one in await gw.capabilities_async()}
        assert listed[name, "byoc"].available == 1


async def test_a_runner_that_is_full(gw: Gateway, network: Network) -> None:
    words = Words()
    async with serving(network, words) as name:
        slow = asyncio.create_task(gw.run_async(name, input={"text": "a", "how": "wait"}))
        assert await asyncio.to_thread(words.entered.wait, 20)
        with pytest.raises(CapacityError, match="places") as caught:
            await gw.run_async(name, input={"text": "b"})
        assert caught.value.retryable
        words.leave.set()
        assert await slow == {"text": "A"}
        assert await gw.run_async(name, input={"text": "c"}) == {"text": "C"}


async def test_streams(gw: Gateway, network: Network) -> None:
    async with serving(network, Tokens()) as name:
        async with gw.stream_async(name, input={"text": "one [DONE] two"}) as stream:
            words = [event.data async for event in stream]
        assert words == ["one", '"[DONE]"', "two"], "the runner quotes what would be an end"
        assert stream.complete
        assert stream.metadata == {"balance": 0.0}
        async with gw.stream_async(name, input={"text": "a b", "fail": True}) as stream:
            assert [(await anext(stream)).data, (await anext(stream)).data] == ["a", "b"]
            with pytest.raises(CapabilityError, match="RuntimeError"):
                await anext(stream)
        async with gw.stream_async(name, input={"text": "a", "large": 70_000}) as stream:
            assert (await anext(stream)).data == "a"
            with pytest.raises((CapabilityError, StreamError), match=r"60 KiB|64 KiB"):
                await anext(stream)


async def test_a_runner_that_is_registered_in_both_ways(gw: Gateway, network: Network) -> None:
    """Its calls go by live runner; either way it is one runner."""
    async with serving(network, Words(), register=("live-runner", "byoc")) as name:
        assert await gw.run_async(name, input={"text": "a"}) == {"text": "A"}
        listed = sorted(one.transport for one in await gw.capabilities_async() if one.name == name)
        assert listed == ["byoc", "live-runner"]
