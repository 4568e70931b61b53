"""Video through a `LivePipeline`, encoded and decoded for real."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import aiohttp
import pytest

from livepeer.runner import LivePipeline
from livepeer.trickle import ChannelReader, ChannelWriter

numpy = pytest.importorskip("numpy")
pytest.importorskip("av")

from livepeer.trickle.media import MediaOutput, MediaPublish, VideoFrame  # noqa: E402

WIDTH, HEIGHT = 64, 48


class Filter(LivePipeline):
    def on_stream_start(self, params: dict[str, Any]) -> None:
        self.effect = params.get("effect", "none")
        self.thread = threading.get_ident()

    def process_video(self, frame: VideoFrame) -> Any:
        assert threading.get_ident() == self.thread
        if self.effect == "invert":
            return frame.replace(255 - frame.array)
        if self.effect == "array":
            return 255 - frame.array
        if self.effect == "odd" and round(frame.timestamp * 30) % 2:
            raise RuntimeError("hidden")
        if self.effect == "fail":
            raise RuntimeError("hidden")
        if self.effect == "bad":
            return "no frame"
        return None if self.effect == "skip" else frame

    def on_params_update(self, params: dict[str, Any]) -> None:
        self.effect = params["effect"]
        self.emit_event({"effect": self.effect})


class AsyncFilter(LivePipeline):
    async def process_video(self, frame: VideoFrame) -> VideoFrame:
        await asyncio.sleep(0)
        return frame.replace(255 - frame.array)


async def send(url: str, timestamps: list[float], value: int = 40) -> None:
    async with MediaPublish(url, fps=30) as media_in:
        for timestamp in timestamps:
            await media_in.write_frame(
                numpy.full((HEIGHT, WIDTH, 3), value, numpy.uint8), timestamp=timestamp
            )


async def receive(url: str) -> list[VideoFrame]:
    async with MediaOutput(url) as media_out:
        return [frame async for frame in media_out.frames(drop=None)]


def times(count: int, first: float = 0.0) -> list[float]:
    return [first + i / 30 for i in range(count)]


@pytest.mark.parametrize("pipeline", [Filter(), AsyncFilter()])
@pytest.mark.parametrize("effect", ["invert", "array"])
async def test_every_frame_comes_back_changed_with_its_timestamp(
    orchestrator: Any, live: Any, pipeline: LivePipeline, effect: str
) -> None:
    sent = times(75, first=12.5)
    async with live(pipeline, effect=effect) as (server, session):
        reading = asyncio.create_task(receive(session["subscribe_url"]))
        await send(session["publish_url"], sent)
        frames = await asyncio.wait_for(reading, 20)
        assert [frame.timestamp for frame in frames] == pytest.approx(sent, abs=1e-4)
        assert all(abs(int(frame.array.mean()) - 215) < 6 for frame in frames)
        await orchestrator.until(lambda: orchestrator.stopped == [session["session_id"]])
        async with asyncio.timeout(20):
            while server.health()["in_use"]:
                await asyncio.sleep(0.01)


async def test_parameters_change_the_picture_midway(live: Any) -> None:
    async with (
        live(Filter()) as (_, session),
        ChannelReader(session["events_url"]) as events,
        MediaOutput(session["subscribe_url"]) as media_out,
    ):
        frames = media_out.frames(drop=None)
        media_in = MediaPublish(session["publish_url"], fps=30)
        picture = numpy.full((HEIGHT, WIDTH, 3), 40, numpy.uint8)
        await media_in.write_frame(picture)
        assert abs(int((await anext(frames)).array.mean()) - 40) < 6
        control = ChannelWriter(session["control_url"])
        await control.write({"effect": "invert"})
        assert await anext(events) == {"effect": "invert"}
        await media_in.write_frame(picture)
        assert abs(int((await anext(frames)).array.mean()) - 215) < 6
        await media_in.close()
        await control.close(delete=False)
        assert [frame async for frame in frames] == []


async def test_a_frame_that_fails_is_left_out_and_told(live: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with live(Filter(), effect="odd") as (_, session):
        reading = asyncio.create_task(receive(session["subscribe_url"]))
        listening = asyncio.create_task(_all(session["events_url"]))
        await send(session["publish_url"], times(20))
        frames = await asyncio.wait_for(reading, 20)
        assert [round(frame.timestamp * 30) for frame in frames] == list(range(0, 20, 2))
        event = (await asyncio.wait_for(listening, 30))[0]
        assert (event["type"], event["error"]["type"]) == ("error", "RuntimeError")
        assert event["error"]["timestamp"] == pytest.approx(1 / 30, abs=1e-4)
        assert "hidden" not in str(event)
    assert sum("Filter.process_video raised" in record.message for record in caplog.records) <= 2


@pytest.mark.parametrize("effect", ["fail", "bad"])
async def test_a_stream_that_only_fails_is_ended(orchestrator: Any, live: Any, effect: str) -> None:
    async with live(Filter(), effect=effect) as (_, session):
        reading = asyncio.create_task(_all(session["events_url"]))
        media_in = MediaPublish(session["publish_url"], fps=30)
        picture = numpy.zeros((HEIGHT, WIDTH, 3), numpy.uint8)
        for _ in range(Filter.max_errors):
            await media_in.write_frame(picture)
        await media_in.close(delete=False)
        events = await asyncio.wait_for(reading, 30)
        assert events[0]["error"]["type"] == ("RuntimeError" if effect == "fail" else "MediaError")
        assert events[-1] == {"type": "ended", "reason": "error"}
        await orchestrator.until(lambda: orchestrator.stopped == [session["session_id"]])


async def test_what_is_no_video_ends_the_stream(live: Any, http: aiohttp.ClientSession) -> None:
    async with live(Filter()) as (_, session):
        reading = asyncio.create_task(_all(session["events_url"]))
        async with http.post(f"{session['publish_url']}/0", data=b"no video" * 1000) as response:
            assert response.status == 200
        async with http.delete(session["publish_url"]) as response:
            assert response.status == 200
        events = await asyncio.wait_for(reading, 30)
        assert [event["type"] for event in events] == ["error", "ended"]
        assert "no MPEG-TS" in events[0]["error"]["message"]


async def _all(url: str) -> list[Any]:
    async with ChannelReader(url) as reader:
        return [message async for message in reader]


async def test_a_released_session_ends_at_once(orchestrator: Any, live: Any) -> None:
    async with live(Filter()) as (server, session):
        media_in = MediaPublish(session["publish_url"], fps=30)
        await media_in.write_frame(numpy.zeros((HEIGHT, WIDTH, 3), numpy.uint8))
        orchestrator.release(session["session_id"])
        async with asyncio.timeout(20):
            while server.health()["in_use"]:
                await asyncio.sleep(0.01)
        await media_in.abort()
        assert orchestrator.stopped == []
