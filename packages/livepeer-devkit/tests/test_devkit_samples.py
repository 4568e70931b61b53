from __future__ import annotations

import io
import json
import time

import pytest
from PIL import Image

from livepeer.client import CapabilityError, Gateway
from livepeer.devkit import LocalNetwork
from livepeer.devkit.samples.runners import NAMES


@pytest.fixture
def gateway(livepeer_network: LocalNetwork) -> Gateway:
    return Gateway(orch_url=livepeer_network.orch_url)


def test_every_sample_is_there(gateway: Gateway) -> None:
    with gateway:
        assert {one.name for one in gateway.capabilities()} >= set(NAMES)


def test_waiting_for_any_of_them(livepeer_network: LocalNetwork) -> None:
    for name in NAMES:
        livepeer_network.wait_for(name, 30)


def test_text_and_bytes(gateway: Gateway) -> None:
    with gateway:
        assert gateway.run("text-reverse", input={"text": "äb"}) == {"text": "bä"}
        assert gateway.run("word-count", input={"text": "one two ONE"}) == {"words": 3, "different": 2}
        assert gateway.run("echo", input={"a": [1, None]}) == {"a": [1, None]}
        assert gateway.run("echo", input=b"\x00\xff") == b"\x00\xff"


def test_image(gateway: Gateway) -> None:
    with gateway:
        result = gateway.run("image-invert", input=Image.new("RGB", (3, 2), (0, 100, 255)))
        assert result.content_type == "image/png"
        assert Image.open(io.BytesIO(result)).getpixel((0, 0)) == (255, 155, 0)
        with pytest.raises(CapabilityError):
            gateway.run("image-invert", input=b"words")


def test_chat_knows_who_left(gateway: Gateway) -> None:
    request = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1000}
    with gateway:
        with gateway.stream("llm-chat", input=request) as stream:
            for _, _event in zip(range(3), stream, strict=False):
                pass
        deadline = time.monotonic() + 3
        while True:
            (event,) = gateway.run("llm-chat", input=request | {"stats": True})
            stats = json.loads(event.data)
            if stats["open_streams"] == 0 or time.monotonic() > deadline:
                break
        assert stats["open_streams"] == 0
        assert stats["last_stream"]["finished"] is False
        assert 3 <= stats["last_stream"]["tokens"] < 100


async def test_video_filter(livepeer_network: LocalNetwork) -> None:
    import numpy as np

    async with (
        Gateway(orch_url=livepeer_network.orch_url) as gateway,
        gateway.live("video-filter", params={"effect": "invert"}) as session,
    ):
        media_in, media_out = session.publish(fps=30), session.subscribe()
        frames = media_out.frames(drop=None)
        for number in range(3):
            await media_in.write_frame(np.full((64, 64, 3), 250, np.uint8), timestamp=number / 30)
        await media_in.close()
        received = [frame async for frame in frames]
        event = await anext(aiter(session.events()))
    assert [round(frame.timestamp * 30) for frame in received] == [0, 1, 2]
    assert all(frame.array.mean() < 20 for frame in received)
    assert event == {"type": "params", "effect": "invert", "frames": 0}
