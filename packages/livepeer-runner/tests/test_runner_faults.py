"""What happens around a live session that should not: the runner goes on, or ends quietly, and says so."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from livepeer.runner import LivepeerError, LivePipeline
from livepeer.trickle import ChannelReader, TricklePublisher, TrickleSubscriber

numpy = pytest.importorskip("numpy")
pytest.importorskip("av")

from livepeer.trickle.media import MediaOutput, MediaPublish, VideoFrame  # noqa: E402

PICTURE = numpy.full((48, 64, 3), 40, numpy.uint8)


class Watched(LivePipeline):
    """Passes frames on, and knows when it was stopped."""

    def on_stream_start(self, params: dict[str, Any]) -> None:
        self.emit_event("started")

    def process_video(self, frame: VideoFrame) -> VideoFrame:
        return frame

    def on_params_update(self, params: dict[str, Any]) -> None:
        self.emit_event(params)

    def on_stream_stop(self) -> None:
        stopped.append(time.monotonic())


stopped: list[float] = []


async def until_free(server: Any, patience: float) -> None:
    async with asyncio.timeout(patience):
        while server.health()["in_use"]:
            await asyncio.sleep(0.01)


def quiet(caplog: pytest.LogCaptureFixture) -> bool:
    """No traceback for the operator; that an orchestrator is gone is said by the registration."""
    return not [
        one
        for one in caplog.records
        if one.levelno > logging.DEBUG and (one.exc_info or one.name != "livepeer.runner")
    ]


async def flow(media_in: MediaPublish, frames: Any, count: int) -> list[float]:
    """Frames there and back."""
    times = []
    for _ in range(count):
        await media_in.write_frame(PICTURE)
        times.append((await asyncio.wait_for(anext(frames), 30)).timestamp)
    return times


async def test_an_orchestrator_that_dies_ends_its_streams_quietly(
    orchestrator: Any, live: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stopped.clear()
    async with live(Watched()) as (server, session):
        media_in = MediaPublish(session["publish_url"], fps=30)
        async with MediaOutput(session["subscribe_url"]) as media_out:
            await flow(media_in, media_out.frames(drop=None), 3)
        await orchestrator.stop()
        await until_free(server, 30)
        assert len(stopped) == 1
        await media_in.abort()
    assert quiet(caplog), caplog.text


@pytest.mark.parametrize("name", ["in", "out", "control", "events"])
async def test_a_channel_that_the_other_side_closes(
    orchestrator: Any, live: Any, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Without media a stream is over; without parameters or events it goes on."""
    stopped.clear()
    async with live(Watched()) as (server, session):
        media_in = MediaPublish(session["publish_url"], fps=30)
        async with MediaOutput(session["subscribe_url"]) as media_out:
            frames = media_out.frames(drop=None)
            await flow(media_in, frames, 3)
            orchestrator.trickle.close_channel(f"{session['session_id']}-{name}")
            if name == "out":  # which the runner learns from its next write
                with contextlib.suppress(LivepeerError):
                    while server.health()["in_use"]:
                        await media_in.write_frame(PICTURE)
                        await asyncio.sleep(0.02)
            elif name != "in":
                await flow(media_in, frames, 40)
                orchestrator.trickle.close_channel(f"{session['session_id']}-in")
            await until_free(server, 30)
        assert len(stopped) == 1
        await orchestrator.until(lambda: orchestrator.stopped == [session["session_id"]])
        await media_in.abort()
    assert quiet(caplog), caplog.text


async def test_garbage_in_the_middle_is_skipped_and_told(orchestrator: Any, live: Any) -> None:
    """A segment of noise, one that is cut in mid-packet, damaged ones; what comes after them comes out."""
    random = numpy.random.default_rng(1)
    async with (
        live(Watched()) as (_, session),
        MediaOutput(session["subscribe_url"]) as media_out,
        ChannelReader(session["events_url"]) as events,
    ):
        frames = media_out.frames(drop=None)
        whole = await encoded(orchestrator, 40)
        async with TricklePublisher(session["publish_url"], mime_type="video/MP2T", start=0) as publisher:
            await publisher.write(whole[0])
            assert (await asyncio.wait_for(anext(frames), 30)).timestamp == 0
            await publisher.write(random.bytes(200_000))
            await publisher.write(whole[1][:1000])
            for at in range(100, len(whole[0]) - 200, 700):
                await publisher.write(whole[0][:at] + random.bytes(100) + whole[0][at + 100 :])
            await publisher.write(whole[2])
            times: list[float] = []
            async with asyncio.timeout(30):
                while not times or times[-1] < 2.89:
                    times.append((await anext(frames)).timestamp)
        assert times[-10:] == pytest.approx([2 + i / 10 for i in range(10)], abs=1e-4)
        told = [event async for event in events]
        assert told[0] == "started"
        assert {event["error"]["type"] for event in told[1:]} == {"MediaError"}
        assert "Of the input" in str(told)


async def test_times_that_begin_anew_go_on(orchestrator: Any, live: Any) -> None:
    """A source that is started again: its first pictures come out with the times that they have."""
    async with live(Watched()) as (_, session), MediaOutput(session["subscribe_url"]) as media_out:
        whole = await encoded(orchestrator, 20)
        frames, times = media_out.frames(drop=None), []
        async with TricklePublisher(session["publish_url"], mime_type="video/MP2T", start=0) as publisher:
            for segment in [*whole, *whole, whole[0]]:
                await publisher.write(segment)
                times += [(await asyncio.wait_for(anext(frames), 30)).timestamp for _ in range(10)]
        numbers = [*range(20), *range(20), *range(10)]
        assert times == pytest.approx([i / 10 for i in numbers], abs=1e-4)


async def test_pictures_that_can_t_be_decoded_are_told(orchestrator: Any, live: Any) -> None:
    """A stream in form, whose pictures are noise."""
    random = numpy.random.default_rng(2)
    async with live(Watched()) as (server, session), ChannelReader(session["events_url"]) as events:
        segment = bytearray((await encoded(orchestrator, 10))[0])
        for at in range(188 * 3, len(segment), 188):
            segment[at + 30 : at + 188] = random.bytes(158)
        async with TricklePublisher(session["publish_url"], mime_type="video/MP2T", start=0) as publisher:
            for _ in range(4):
                await publisher.write(bytes(segment))
        told = [event async for event in events]
        assert told[0] == "started"
        assert [event["type"] for event in told[1:]][:1] == ["error"]
        assert told[1]["error"]["type"] == "MediaError"
        await until_free(server, 30)


async def encoded(orchestrator: Any, count: int) -> list[bytes]:
    """The segments of a stream of so many frames, 10 a second."""
    orchestrator.trickle.create("made")
    url = f"{orchestrator.url}/ai/trickle/made"

    async def read() -> list[bytes]:
        async with TrickleSubscriber(url) as subscriber:
            return [await segment.read() async for segment in subscriber]

    reading = asyncio.create_task(read())
    async with MediaPublish(url, fps=10) as made:
        for number in range(count):
            await made.write_frame(numpy.full((48, 64, 3), number, numpy.uint8))
    return await reading


SCRIPT = """
import sys
from livepeer.runner import LivePipeline, serve

class Slow(LivePipeline):
    def process_video(self, frame):
        return frame

serve(Slow(), port=0, idle_timeout=float(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows can't stop a process and continue it")
async def test_a_runner_that_is_paused_goes_on(
    orchestrator: Any, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """For longer than its idle time, while frames come in: none of them is lost, and the stream lives on."""
    script = tmp_path / "app.py"
    script.write_text(SCRIPT)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        "2",
        env={
            **os.environ,
            "LIVEPEER_ORCH_URL": orchestrator.url,
            "LIVEPEER_ORCH_SECRET": orchestrator.secret,
        },
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await orchestrator.until(lambda: orchestrator.runners)
        (runner_id,) = orchestrator.runners
        async with http.post(f"{orchestrator.url}/apps/{runner_id}/session") as response:
            session = await response.json()
        async with http.post(f"{session['app_url']}/live", json={}) as response:
            session |= await response.json()
        async with MediaOutput(session["subscribe_url"]) as media_out:
            media_in, frames = MediaPublish(session["publish_url"], fps=10), media_out.frames(drop=None)
            before = await flow(media_in, frames, 5)
            process.send_signal(signal.SIGSTOP)
            for _ in range(15):
                await media_in.write_frame(PICTURE)
                await asyncio.sleep(0.2)
            process.send_signal(signal.SIGCONT)
            during = [(await asyncio.wait_for(anext(frames), 30)).timestamp for _ in range(15)]
            after = await flow(media_in, frames, 5)
            await media_in.close()
            assert [frame async for frame in frames] == []
        assert [*before, *during, *after] == pytest.approx([i / 10 for i in range(25)], abs=1e-4)
        process.terminate()
        _, errors = await asyncio.wait_for(process.communicate(), 30)
        assert (process.returncode, b"Traceback" in errors) == (0, False)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
