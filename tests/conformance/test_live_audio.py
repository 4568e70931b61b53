"""Sound beside pictures through a real runner: all of it comes back, and in sync, whoever changes what."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Network

from livepeer.client import Gateway
from livepeer.devkit.demo import clip, sound
from livepeer.devkit.demo.exchange import Exchange
from livepeer.runner import LivePipeline, running
from livepeer.trickle.media import AudioFrame, VideoFrame

SECONDS, FPS = 3.0, 30
TOGETHER = 0.02  # seconds


class Halved(LivePipeline):
    """Half the loudness, half the brightness."""

    def process_video(self, frame: VideoFrame) -> VideoFrame:
        return frame.replace(frame.array // 2 + 60)

    def process_audio(self, frame: AudioFrame) -> AudioFrame:
        return frame.replace(frame.array / 2)


class SoundOnly(LivePipeline):
    """Pictures pass through."""

    def process_audio(self, frame: AudioFrame) -> AudioFrame:
        return frame.replace(frame.array * np.float32(0.9))


async def exchanged(gateway: Gateway, capability: str, target: Path) -> Exchange:
    """The demo's clip there and back in its own time."""
    run = Exchange(clip.made(SECONDS, fps=FPS), {"effect": "gray"})
    async with (
        asyncio.timeout(60),
        gateway.live(capability, params={"effect": "invert"}) as session,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(session.subscribe().save(target))
        group.create_task(run.watch(session))
        group.create_task(run.listen(session))
        group.create_task(run.write(session, lambda _: None))
    return run


def in_sync(run: Exchange, scale: float = 1.0) -> None:
    """Every beep is with its flash; nothing is missing."""
    assert sorted(run.received) == list(range(round(SECONDS * FPS)))
    assert list(run.received) == sorted(run.received)
    beeps = sound.onsets(run.heard, scale)
    assert len(beeps) == len(run.flashes) == 3
    assert beeps == pytest.approx(run.flashes, abs=TOGETHER)
    assert run.flashes == pytest.approx([0.5, 1.5, 2.5], abs=1e-3)
    assert run.heard.missing < 0.005
    assert run.heard.begin == pytest.approx(0, abs=0.03)
    assert SECONDS - 0.005 <= run.heard.end < SECONDS + 0.1


async def test_sound_beside_filtered_pictures(gateway: Gateway, tmp_path: Path) -> None:
    run = await exchanged(gateway, "video-filter", tmp_path / "back.mp4")
    in_sync(run)
    length, frames = clip.duration_of(tmp_path / "back.mp4")
    assert (round(length, 1), frames) == (SECONDS, SECONDS * FPS)
    assert sound.length_of(tmp_path / "back.mp4") == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize(("pipeline", "scale"), [(Halved(), 0.5), (SoundOnly(), 0.9)])
async def test_sound_that_a_runner_changes(
    network: Network, tmp_path: Path, pipeline: LivePipeline, scale: float
) -> None:
    options: dict[str, Any] = {"orch_url": network.url, "secret": network.secret}
    async with running(pipeline, **options) as server, Gateway(orch_url=network.url) as gateway:
        await server.registered()
        run = await exchanged(gateway, server.app_name, tmp_path / "back.mp4")
    in_sync(run, scale)
    assert run.heard.loudness().max() == pytest.approx(0.5 * scale, abs=0.12)  # a codec overshoots
