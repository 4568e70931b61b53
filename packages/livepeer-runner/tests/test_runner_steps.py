"""Pictures and sound keep step, without media."""

from __future__ import annotations

import asyncio

import pytest

from livepeer.runner._steps import Steps


async def kept(steps: Steps, kind: str, timestamp: float | None) -> bool:
    """Whether it may go on at once."""
    waiting = asyncio.ensure_future(steps.keep(kind, timestamp))
    for _ in range(3):
        await asyncio.sleep(0)
    waiting.cancel()
    return waiting.done()


@pytest.mark.parametrize(("kind", "other"), [("audio", "video"), ("video", "audio")])
async def test_a_kind_waits_only_for_work_that_is_far_behind(kind: str, other: str) -> None:
    steps = Steps()
    assert await kept(steps, kind, 100.0)
    steps.begin(other, 5.0)
    assert steps.busy
    assert await kept(steps, kind, 5.9)
    assert not await kept(steps, kind, 6.1)
    assert await kept(steps, kind, None)
    assert await kept(steps, kind, 0.0)
    steps.begin(other, 6.0)
    steps.end(other)
    assert await kept(steps, kind, 6.9)
    steps.end(other)
    assert await kept(steps, kind, 100.0)
    assert not steps.busy
    steps.begin(other, None)
    assert await kept(steps, kind, 100.0)


async def test_who_waits_goes_on_with_the_work() -> None:
    steps = Steps()
    steps.begin("video", 0.0)
    waiting = asyncio.ensure_future(steps.keep("audio", 3.0))
    for at in (1.0, 1.9, 2.5):
        await asyncio.sleep(0)
        assert not waiting.done()
        steps.end("video")
        steps.begin("video", at)
    await asyncio.wait_for(waiting, 20)
