"""Sound through a `LivePipeline`, beside pictures and alone: changed, or passed on as it came."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from livepeer.runner import ConfigurationError, LivePipeline, make_app
from livepeer.trickle import ChannelReader

numpy = pytest.importorskip("numpy")
av = pytest.importorskip("av")

from livepeer.trickle.media import AudioFrame, MediaOutput, MediaPublish, Packet, VideoFrame  # noqa: E402

RATE, FPS, PIECE = 48_000, 30, 960
PICTURE = numpy.full((48, 64, 3), 40, numpy.uint8)
PLAY = 2.0  # seconds


class Picture(LivePipeline):
    def process_video(self, frame: VideoFrame) -> VideoFrame:
        return frame.replace(255 - frame.array)


class Sound(LivePipeline):
    def on_stream_start(self, params: dict[str, Any]) -> None:
        self.effect = params.get("effect", "half")
        self.thread = threading.get_ident()
        self.seen = 0

    def process_audio(self, frame: AudioFrame) -> Any:
        assert threading.get_ident() == self.thread
        self.seen += 1
        if self.effect == "fail" or (self.effect == "fifth" and self.seen % 5 == 0):
            raise RuntimeError("hidden")
        if self.effect == "array":
            return frame.array / 2
        return None if self.effect == "skip" else frame.replace(frame.array / 2)


class AsyncSound(LivePipeline):
    async def process_audio(self, frame: AudioFrame) -> AudioFrame:
        await asyncio.sleep(0)
        return frame.replace(frame.array / 2)


class Both(Sound, Picture):
    pass


class Through(LivePipeline):
    media = True


class Slow(LivePipeline):
    def process_video(self, frame: VideoFrame) -> VideoFrame:
        time.sleep(0.06)
        return frame


class SlowBoth(Slow, Sound):
    pass


class SlowSkipping(Slow, Sound):
    drop = "oldest"


def pieces(seconds: float, begin: float = 0.0) -> list[tuple[float, AudioFrame]]:
    """A tone of 440 Hz and half the loudness."""
    made = []
    for number in range(round(begin * 50), round((begin + seconds) * 50)):
        at = number * PIECE
        tone = 0.5 * numpy.sin((at + numpy.arange(PIECE)) * 2 * numpy.pi * 440 / RATE).astype(numpy.float32)
        made.append((at / RATE, AudioFrame.from_array(numpy.stack([tone, tone], 1), RATE, at / RATE)))
    return made


def pictures(seconds: float, begin: float = 0.0) -> list[tuple[float, VideoFrame]]:
    numbers = range(round(begin * FPS), round((begin + seconds) * FPS))
    return [(number / FPS, VideoFrame.from_array(PICTURE, number / FPS)) for number in numbers]


async def send(url: str, *frames: tuple[float, Any], realtime: bool = False) -> None:
    """Write frames in the order of their times."""
    began = time.monotonic()
    async with MediaPublish(url, fps=FPS) as media_in:
        for timestamp, frame in sorted(frames, key=lambda one: one[0]):
            if realtime:
                await asyncio.sleep(began + timestamp - time.monotonic())
            await media_in.write_frame(frame)


async def packets(url: str) -> list[Packet]:
    async with MediaOutput(url) as output:
        return [packet async for packet in output.packets()]


async def receive(url: str) -> tuple[list[VideoFrame], list[AudioFrame]]:
    async with MediaOutput(url) as output:

        async def read(kind: Any) -> list[Any]:
            return [frame async for frame in output.frames(kind, drop=None)]

        return tuple(await asyncio.gather(read("video"), read("audio")))  # type: ignore[return-value]


def of_kind(found: list[Packet], kind: str) -> list[tuple[Any, ...]]:
    return [(p.codec, p.pts, p.dts, p.is_keyframe, p.data) for p in found if p.kind == kind]


def loudness(heard: list[AudioFrame]) -> float:
    """In the middle, where no encoder begins or ends."""
    return float(numpy.abs(numpy.concatenate([one.array for one in heard[10:-10]])).max())


def without_gaps(heard: list[AudioFrame]) -> bool:
    ends = [one.timestamp + one.duration for one in heard]
    return all(abs(end - one.timestamp) < 1e-3 for end, one in zip(ends, heard[1:], strict=False))


async def through(live: Any, pipeline: LivePipeline, *frames: Any, **params: Any) -> tuple[Any, Any, Any]:
    """What comes out of a pipeline, and the packets on both sides of it."""
    async with live(pipeline, **params) as (_, session):
        before = asyncio.create_task(packets(session["publish_url"]))
        after = asyncio.create_task(packets(session["subscribe_url"]))
        heard = asyncio.create_task(receive(session["subscribe_url"]))
        await send(session["publish_url"], *frames)
        async with asyncio.timeout(30):
            return await heard, await before, await after


async def test_sound_beside_changed_pictures_is_not_touched(live: Any) -> None:
    (seen, heard), before, after = await through(live, Picture(), *pictures(PLAY), *pieces(PLAY))
    assert of_kind(after, "audio") == of_kind(before, "audio") != []
    assert [frame.timestamp for frame in seen] == pytest.approx([i / FPS for i in range(60)], abs=1e-4)
    assert all(abs(int(frame.array.mean()) - 215) < 6 for frame in seen)
    assert without_gaps(heard)
    assert loudness(heard) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("pipeline", [Sound(), AsyncSound()])
@pytest.mark.parametrize("effect", ["half", "array"])
async def test_pictures_beside_changed_sound_are_not_touched(live: Any, pipeline: Any, effect: str) -> None:
    (_, heard), before, after = await through(live, pipeline, *pictures(PLAY), *pieces(PLAY), effect=effect)
    assert of_kind(after, "video") == of_kind(before, "video") != []
    assert without_gaps(heard)
    assert loudness(heard) == pytest.approx(0.25, abs=0.03)
    assert heard[0].timestamp == pytest.approx(0, abs=0.025)
    assert heard[-1].timestamp + heard[-1].duration >= PLAY - 1e-3


async def test_both_are_changed_and_stay_together(live: Any) -> None:
    """A second of silence and black, then both set in; they still do so together, behind both encoders."""
    shown = pictures(PLAY)
    for timestamp, frame in shown[:30]:
        frame._array = numpy.full((48, 64, 3), 200, numpy.uint8)
        assert timestamp < 1
    spoken = [(t, frame.replace(frame.array * (t >= 1))) for t, frame in pieces(PLAY)]
    (seen, heard), _, _ = await through(live, Both(), *shown, *spoken)
    assert [frame.timestamp for frame in seen] == pytest.approx([i / FPS for i in range(60)], abs=1e-4)
    bright = next(frame.timestamp for frame in seen if frame.array.mean() > 128)
    loud = next(
        frame.timestamp + int(numpy.argmax(numpy.abs(frame.array).max(1) > 0.1)) / RATE
        for frame in heard
        if numpy.abs(frame.array).max() > 0.1
    )
    assert bright == pytest.approx(1, abs=1e-4)
    assert loud == pytest.approx(1, abs=0.01)


async def test_what_nobody_changes_passes_through(live: Any) -> None:
    _, before, after = await through(live, Through(), *pictures(PLAY), *pieces(PLAY))
    for kind in ("video", "audio"):
        assert of_kind(after, kind) == of_kind(before, kind) != []


@pytest.mark.parametrize("pipeline", [Picture(), Sound(), Through()])
async def test_a_file_with_reordered_pictures(live: Any, tmp_path: Path, pipeline: LivePipeline) -> None:
    """B-frames pass through in the order of decoding, and are processed in that of showing."""
    path = tmp_path / "made.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"bf": "3", "b_strategy": "0", "g": "30"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=RATE)
        for number, (_, piece) in enumerate(pieces(PLAY)):
            if number < 60:
                shade = numpy.full((48, 64, 3), 3 * number, numpy.uint8)
                container.mux(video.encode(av.VideoFrame.from_ndarray(shade, "rgb24")))
            piece.raw.pts = number * PIECE
            container.mux(audio.encode(piece.raw))
        container.mux([*video.encode(), *audio.encode()])
    async with live(pipeline) as (_, session):
        before = asyncio.create_task(packets(session["publish_url"]))
        after = asyncio.create_task(packets(session["subscribe_url"]))
        received = asyncio.create_task(receive(session["subscribe_url"]))
        async with MediaPublish(session["publish_url"]) as media_in, asyncio.timeout(30):
            await media_in.publish_file(path, realtime=False)
        async with asyncio.timeout(30):
            (seen, heard), sent, got = await received, await before, await after
    assert any(packet.pts != packet.dts for packet in sent)
    times = [frame.timestamp for frame in seen]
    assert times == pytest.approx([times[0] + i / FPS for i in range(60)], abs=1e-3)
    assert without_gaps(heard)
    assert pipeline.has_video() or of_kind(got, "video") == of_kind(sent, "video")
    assert pipeline.has_audio() or of_kind(got, "audio") == of_kind(sent, "audio")


@pytest.mark.parametrize("pipeline", [Picture(), Sound(), Both(), Through()])
async def test_pictures_alone(live: Any, pipeline: LivePipeline) -> None:
    (seen, heard), _, _ = await through(live, pipeline, *pictures(PLAY))
    assert ([frame.timestamp for frame in seen], heard) == (
        pytest.approx([i / FPS for i in range(60)], abs=1e-4),
        [],
    )


@pytest.mark.parametrize("pipeline", [Picture(), Sound(), Both(), Through()])
async def test_sound_alone(live: Any, pipeline: LivePipeline) -> None:
    (seen, heard), before, after = await through(live, pipeline, *pieces(PLAY))
    assert seen == []
    assert without_gaps(heard)
    assert heard[-1].timestamp + heard[-1].duration >= PLAY - 1e-3
    if not pipeline.has_audio():
        assert of_kind(after, "audio") == of_kind(before, "audio") != []


@pytest.mark.parametrize("pipeline", [Picture(), Both(), Through()])
@pytest.mark.parametrize("late", ["pictures", "sound"])
async def test_what_is_added_later_comes_too(live: Any, pipeline: LivePipeline, late: str) -> None:
    begin = {"pictures": 0.0, "sound": 0.0} | {late: 1.5}
    shown, spoken = (
        pictures(3 - begin["pictures"], begin["pictures"]),
        pieces(3 - begin["sound"], begin["sound"]),
    )
    (seen, heard), _, _ = await through(live, pipeline, *shown, *spoken)
    assert [frame.timestamp for frame in seen] == pytest.approx([at for at, _ in shown], abs=1e-4)
    assert heard[0].timestamp == pytest.approx(begin["sound"], abs=0.1)  # two encoders' lead-ins
    assert heard[-1].timestamp + heard[-1].duration >= 3 - 1e-3
    assert without_gaps(heard)


@pytest.mark.parametrize("pipeline", [Slow(), SlowBoth()])
async def test_sound_keeps_step_with_slow_pictures_and_nothing_is_lost(
    live: Any, pipeline: LivePipeline
) -> None:
    """Pictures that take twice their time: sound runs a second ahead of them at most."""
    async with live(pipeline) as (_, session):
        reading = asyncio.create_task(packets(session["subscribe_url"]))
        await send(session["publish_url"], *pictures(3), *pieces(3), realtime=True)
        found = await asyncio.wait_for(reading, 60)
    shown = [packet.timestamp for packet in found if packet.kind == "video"]
    assert shown == pytest.approx([i / FPS for i in range(90)], abs=1e-4)
    assert max(packet.timestamp for packet in found if packet.kind == "audio") >= 2.95
    reached = 0.0
    for packet in found:  # in the order of the stream
        if packet.kind == "video":
            reached = packet.timestamp
        else:
            assert packet.timestamp - reached < 1.3


async def test_sound_does_not_wait_for_pictures_that_are_skipped(live: Any) -> None:
    async with live(SlowSkipping()) as (_, session), MediaOutput(session["subscribe_url"]) as output:
        began = time.monotonic()
        sending = send(session["publish_url"], *pictures(PLAY), *pieces(PLAY), realtime=True)
        shown, spoken = await asyncio.wait_for(_arrivals(output, sending), 30)
    assert len(shown) < 60
    assert spoken[-1][0] >= PLAY - 0.05
    late = sorted(when - began - at for at, when in spoken)
    assert late[len(late) // 2] < 1.5


async def _arrivals(output: MediaOutput, sending: Any) -> tuple[list[Any], list[Any]]:
    """The time of each frame, and when it came."""
    found: dict[str, list[tuple[float, float]]] = {"video": [], "audio": []}

    async def read(kind: Any) -> None:
        async for frame in output.frames(kind, drop=None):
            found[kind].append((frame.timestamp, time.monotonic()))

    await asyncio.gather(read("video"), read("audio"), sending)
    return found["video"], found["audio"]


async def test_sound_that_fails_is_left_out_and_told(live: Any) -> None:
    async with live(Both(), effect="fifth") as (_, session):
        events = asyncio.create_task(_all(session["events_url"]))
        reading = asyncio.create_task(receive(session["subscribe_url"]))
        await send(session["publish_url"], *pictures(PLAY), *pieces(PLAY))
        seen, heard = await asyncio.wait_for(reading, 20)
        told = await asyncio.wait_for(events, 30)
    assert len(seen) == 60
    assert heard[-1].timestamp > PLAY - 0.1
    assert (told[0]["type"], told[0]["error"]["type"]) == ("error", "RuntimeError")
    assert "Both.process_audio" in told[0]["error"]["message"]
    assert told[0]["error"]["timestamp"] == pytest.approx(4 * 1024 / RATE, abs=0.03)
    assert "hidden" not in str(told)


async def test_a_stream_whose_sound_only_fails_is_ended(orchestrator: Any, live: Any) -> None:
    """Although its pictures are fine."""
    async with live(Both(), effect="fail") as (_, session):
        events = asyncio.create_task(_all(session["events_url"]))
        media_in = MediaPublish(session["publish_url"], fps=FPS)
        for _, frame in sorted([*pictures(PLAY), *pieces(PLAY)], key=lambda one: one[0]):
            await media_in.write_frame(frame)
        told = await asyncio.wait_for(events, 30)
        assert told[-1] == {"type": "ended", "reason": "error"}
        await orchestrator.until(lambda: orchestrator.stopped == [session["session_id"]])
        await media_in.abort()


async def test_sound_that_is_left_out(live: Any) -> None:
    (seen, heard), _, _ = await through(live, Sound(), *pictures(PLAY), *pieces(PLAY), effect="skip")
    assert (len(seen), heard) == (60, [])


class Encoded(Both):
    bitrate, gop, fps = 300_000, 0.5, FPS
    audio_codec, audio_bitrate = "libopus", 48_000


async def test_the_output_is_encoded_as_the_class_says(live: Any) -> None:
    (seen, heard), _, after = await through(live, Encoded(), *pictures(PLAY), *pieces(PLAY))
    assert len(seen) == 60
    assert loudness(heard) == pytest.approx(0.25, abs=0.03)
    keys = [packet.timestamp for packet in after if packet.kind == "video" and packet.is_keyframe]
    assert keys == pytest.approx([0, 0.5, 1, 1.5], abs=1e-4)
    assert {packet.codec for packet in after} == {"h264", "opus"}


@pytest.mark.parametrize("attribute", [{"codec": "nonsense"}, {"audio_codec": "nonsense"}, {"gop": 0}])
def test_an_encoder_that_is_not_there_is_told_before_it_is_served(attribute: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"Odd can't be encoded as its class says: .*(nonsense|gop)"):
        make_app(type("Odd", (Both,), attribute)())


async def _all(url: str) -> list[Any]:
    async with ChannelReader(url) as reader:
        return [message async for message in reader]
