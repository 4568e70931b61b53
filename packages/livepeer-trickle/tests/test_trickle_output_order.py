"""The order of pictures and sound, without I/O and clocks: what waits for what, and for how long."""

from __future__ import annotations

import random
from typing import Any

import pytest

pytest.importorskip("av")
np = pytest.importorskip("numpy")

from livepeer.trickle.media import AudioFrame, VideoFrame  # noqa: E402
from livepeer.trickle.media.interleaving import Interleaver  # noqa: E402

BOTH = ("video", "audio")


def picture(time: float | None, size: int = 16) -> VideoFrame:
    return VideoFrame.from_array(np.zeros((size, size, 3), np.uint8), time)


def sound(time: float | None) -> AudioFrame:
    return AudioFrame.from_array(np.zeros(960, np.float32), 48_000, time)


def times(frames: list[Any]) -> list[float | None]:
    return [frame.timestamp for frame in frames]


class Live:
    """Frames arrive, each at its moment; notes when each goes out."""

    def __init__(self) -> None:
        self.order = Interleaver()
        self.out: list[tuple[float, VideoFrame | AudioFrame]] = []

    def run(self, arrivals: list[tuple[float, VideoFrame | AudioFrame]], present: Any = BOTH) -> Live:
        for now, frame in sorted(arrivals, key=lambda arrival: arrival[0]):
            self.wait(now, present)
            self.out += [(now, before) for before in self.order.push(frame, now)]
            self.out += [(now, ready) for ready in self.order.ready(now, present)]
        self.wait(1e9, present)
        assert self.order.deadline() is None
        assert self.order.drain() == []
        return self

    def wait(self, until: float, present: Any) -> None:
        while (deadline := self.order.deadline()) is not None and deadline < until:
            ready = self.order.ready(deadline, present)
            assert ready  # or whoever waits would turn in circles
            self.out += [(deadline, frame) for frame in ready]

    def times(self, kind: type | None = None) -> list[float]:
        return [f.timestamp or 0.0 for _, f in self.out if kind is None or isinstance(f, kind)]

    def delays(self, kind: type, arrivals: list[tuple[float, Any]]) -> list[float]:
        came = {id(frame): now for now, frame in arrivals}
        return [now - came[id(frame)] for now, frame in self.out if isinstance(frame, kind)]


def stream(seconds: float, *, late: float = 0.0, lump: int = 1, seed: int = 0) -> list[tuple[float, Any]]:
    """Video of 30 fps, and pieces of sound of 20 ms that come `late`, and `lump` at once."""
    noise = random.Random(seed)
    arrivals: list[tuple[float, Any]] = []
    for number in range(round(seconds * 30)):
        arrivals.append((number / 30 + noise.random() / 100, picture(number / 30)))
    for number in range(round(seconds * 50)):
        comes = (number // lump + 1) * lump * 0.02 + late
        arrivals.append((comes, sound(number * 0.02)))
    return arrivals


@pytest.mark.parametrize(("late", "lump"), [(0.0, 1), (0.1, 1), (0.0, 16), (0.3, 3)])
def test_the_order_is_that_of_the_times(late: float, lump: int) -> None:
    arrivals = stream(3.0, late=late, lump=lump)
    live = Live().run(arrivals)
    assert live.times() == sorted(live.times())
    assert len(live.out) == len(arrivals)


def test_in_sync_streams_wait_for_a_piece_of_sound_at_most() -> None:
    arrivals = stream(3.0)
    live = Live().run(arrivals)
    assert max(live.delays(VideoFrame, arrivals)[:-1]) <= 0.021
    assert max(live.delays(AudioFrame, arrivals)[:-1]) <= 1 / 30 + 0.011


def test_a_track_that_is_not_there_is_not_waited_for() -> None:
    arrivals = [(now, frame) for now, frame in stream(1.0) if isinstance(frame, VideoFrame)]
    live = Live().run(arrivals, ("video",))
    assert max(live.delays(VideoFrame, arrivals)) == 0


def test_sound_that_never_comes_holds_the_first_picture_up_only() -> None:
    arrivals = [(now, frame) for now, frame in stream(3.0) if isinstance(frame, VideoFrame)]
    live = Live().run(arrivals)
    assert max(live.delays(VideoFrame, arrivals)) <= 0.5
    assert max(live.delays(VideoFrame, arrivals)[20:]) == 0


def test_sound_that_stops_and_comes_back() -> None:
    arrivals = [
        (now, frame)
        for now, frame in stream(9.0)
        if isinstance(frame, VideoFrame) or not 3.0 <= frame.timestamp < 6.0
    ]
    live = Live().run(arrivals)
    delays = live.delays(VideoFrame, arrivals)
    assert max(delays) <= 0.5
    assert max(delays[105:175]) == 0
    assert live.times() == sorted(live.times())


def test_sound_that_comes_now_and_then_costs_less_and_less() -> None:
    """As Opus does in silence: a packet in 0.4 s."""
    arrivals = [
        (now, frame)
        for now, frame in stream(20.0)
        if isinstance(frame, VideoFrame) or round(frame.timestamp * 50) % 20 == 0
    ]
    live = Live().run(arrivals)
    assert sum(live.delays(VideoFrame, arrivals)[300:]) < 300 * 0.025


def test_sound_that_is_far_too_late_does_not_delay_pictures() -> None:
    arrivals = stream(10.0, late=2.0)
    live = Live().run(arrivals)
    assert max(live.delays(VideoFrame, arrivals)[60:]) <= 0.02
    assert len(live.out) == len(arrivals)
    assert live.times(AudioFrame) == sorted(live.times(AudioFrame))


def test_few_pictures_do_not_delay_sound() -> None:
    arrivals = [
        (now, frame)
        for now, frame in stream(20.0)
        if isinstance(frame, AudioFrame) or round(frame.timestamp * 30) % 60 == 0
    ]
    live = Live().run(arrivals)
    assert max(live.delays(AudioFrame, arrivals)) <= 0.5
    delays = live.delays(AudioFrame, arrivals)[500:]
    assert sum(delays) / len(delays) < 0.02


@pytest.mark.parametrize("jump", [-100.0, 100.0])
@pytest.mark.parametrize("ahead", [0.0, 0.2])
def test_times_that_jump(jump: float, ahead: float) -> None:
    """Where the sound's jump comes a little after that of the pictures."""
    arrivals: list[tuple[float, Any]] = []
    for now, frame in stream(6.0):
        time = frame.timestamp
        border = 3.0 + (ahead if isinstance(frame, AudioFrame) else 0.0)
        if time >= border:
            frame.timestamp = time + jump + 200
        else:
            frame.timestamp = time + 200
        arrivals.append((now, frame))
    live = Live().run(arrivals)
    assert len(live.out) == len(arrivals)
    assert max(live.delays(VideoFrame, arrivals)) <= 0.55
    assert sum(delay > 0.05 for delay in live.delays(VideoFrame, arrivals)) < 30
    last = live.times()[-200:]
    assert last == sorted(last)


def test_frames_without_times_go_where_they_came() -> None:
    arrivals = stream(1.0)
    for number, (_, frame) in enumerate(arrivals):
        if number % 3 == 1:
            frame.timestamp = None
    assert len(Live().run(arrivals).out) == len(arrivals)


def test_what_is_held_is_bounded() -> None:
    order, out = Interleaver(), 0
    for number in range(40):  # 40 pictures of 6 MB within a moment
        order.push(picture(number / 1000, 2000), 0.0)
        out += len(order.ready(0.0, BOTH))
    assert out >= 25
