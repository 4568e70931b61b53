from __future__ import annotations

import io
import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from livepeer.devkit.demo import clip, effects, flashes, numbers, picture, sound
from livepeer.devkit.demo.report import Report, Row, percentile
from livepeer.devkit.samples.video_filter import apply
from livepeer.trickle.errors import MediaError


def yuv(rgb: np.ndarray) -> np.ndarray:
    return clip.planes(av.VideoFrame.from_ndarray(rgb, "rgb24"), rgb.shape[1], rgb.shape[0])


def rgb_of(one: clip.Picture) -> np.ndarray:
    return one.frame().to_ndarray(format="rgb24")


@pytest.mark.parametrize("effect", effects.EFFECTS)
def test_numbers_and_effects_are_found_behind_every_effect(effect: str) -> None:
    for one in clip.made(0.5).pictures:
        changed = yuv(apply(effect, rgb_of(one)))
        assert numbers.read(changed[:360]) == one.number
        found = effects.differences(effects.samples(one.planes), effects.samples(changed))
        assert min(found, key=lambda name: found[name]) == effect


@pytest.mark.parametrize("number", [0, 1, 299, 65_535])
def test_numbers_survive_noise(number: int) -> None:
    plane = np.random.default_rng(1).integers(0, 255, (40, 400), dtype=np.uint8)
    assert numbers.read(plane) is None
    numbers.draw(plane, number)
    noise = np.random.default_rng(2).normal(0, 25, plane.shape)
    assert numbers.read(np.clip(plane + noise, 0, 255).astype(np.uint8)) == number


@pytest.mark.parametrize("effect", effects.EFFECTS)
def test_flashes_are_found_behind_every_effect_where_the_beeps_are(effect: str) -> None:
    one = clip.made(3, fps=25)
    seen = [flashes.read(yuv(apply(effect, rgb_of(each)))[:360]) for each in one.pictures]
    begin = [at / 25 for at, (before, on) in enumerate(itertools.pairwise([False, *seen])) if on > before]
    assert begin == [12 / 25, 37 / 25, 62 / 25]
    track = sound.Track()
    assert one.sounds is not None
    for piece in one.sounds:
        track.add(piece.timestamp, piece.samples)
    assert sound.onsets(track) == pytest.approx(begin, abs=0.0011)
    assert (track.begin, track.end, track.missing, track.pieces) == (0, 3, 0, 150)


def test_sound_is_found_again_where_it_is() -> None:
    rng = np.random.default_rng(1)
    samples = (rng.normal(0, 0.1, (2 * sound.RATE, 2)) * rng.random((200, 1)).repeat(480, 0)).astype(
        np.float32
    )
    sent, received, other, silence = (sound.Track() for _ in range(4))
    for track, delay, noise in ((sent, 0.0, 0.0), (received, 0.012, 0.01), (other, 0.0, 1.0)):
        changed = samples * (1 - noise) + noise * rng.normal(0, 0.1, samples.shape)
        for at in range(0, len(samples), 1024):
            track.add(at / sound.RATE + delay, changed[at : at + 1024].astype(np.float32))
    late, alike = sound.lag(sent, received) or (0.0, 0.0)
    assert late == 0.012
    assert alike > 0.9
    assert (sound.lag(sent, other) or (0.0, 0.0))[1] < 0.5
    silence.add(0, np.zeros((sound.RATE, 2), np.float32))
    assert sound.lag(silence, silence) is None
    sent.add(3.0, samples[:4800])
    assert (round(sent.missing, 4), round(sent.end, 4)) == (1.0, 3.1)


@pytest.mark.parametrize(
    ("rate", "channels", "begins"), [(44_100, 1, 0.0), (48_000, 2, 0.5), (22_050, 2, 0.0)]
)
def test_the_sound_of_a_video(tmp_path: Path, rate: int, channels: int, begins: float) -> None:
    path = tmp_path / "any.mkv"
    wave = 0.5 * np.sin(np.arange(2 * rate) * 2 * np.pi * 440 / rate).astype(np.float32)
    with av.open(str(path), "w") as container:
        picture = container.add_stream("ffv1", rate=25)
        picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        heard = container.add_stream("flac", rate=rate, layout="mono" if channels == 1 else "stereo")
        heard.format = "s16"
        for shade in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((48, 32), shade, np.uint8), "yuv420p")
            container.mux(picture.encode(frame))
        for at in range(0, len(wave), 1000):
            part = (wave[at : at + 1000] * 32767).astype(np.int16).repeat(channels)[None]
            frame = av.AudioFrame.from_ndarray(part, "s16", "mono" if channels == 1 else "stereo")
            frame.sample_rate, frame.pts = rate, round((at / rate + begins) * rate)
            container.mux(heard.encode(frame))
        container.mux([*picture.encode(), *heard.encode()])
    one = clip.opened(path, 1.5)
    track = sound.Track()
    assert one.sounds is not None
    for piece in one.sounds:
        assert piece.samples.shape[1] == channels
        track.add(piece.timestamp, piece.samples)
    assert track.begin == pytest.approx(begins, abs=0.002)
    assert (track.end, track.missing) == (pytest.approx(1.5, abs=0.001), 0)
    assert track.loudness().max() == pytest.approx(0.5, abs=0.03)
    assert sound.length_of(path) == pytest.approx(2, abs=0.01)


def test_picture() -> None:
    source = picture.draw()
    inverted = io.BytesIO()
    ImageOps.invert(source).save(inverted, "PNG")
    assert picture.difference_from_inverted(source, inverted.getvalue()) == 0
    same = io.BytesIO()
    source.save(same, "PNG")
    assert picture.difference_from_inverted(source, same.getvalue()) > 10
    with pytest.raises(MediaError, match="not a picture"):
        picture.difference_from_inverted(source, b"words")


def test_files_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    words = tmp_path / "words.mp4"
    words.write_text("no video")
    prose = tmp_path / "prose.txt"
    prose.write_text("a line\n" * 100)
    still = tmp_path / "still.png"
    Image.new("RGB", (64, 64)).save(still)
    for path, text in [
        (words, "is not a video that can be read"),
        (prose, "is not a video that can be read"),
        (tmp_path / "absent.mp4", "There is no file"),
        (still, "takes a video of 1 s at least"),
    ]:
        with pytest.raises(MediaError, match=text):
            clip.opened(path, 30)
    with pytest.raises(MediaError, match="not a picture that can be read"):
        picture.opened(words)


@pytest.mark.parametrize(
    ("width", "height", "fps", "size", "rate"),
    [(1280, 720, 60, (960, 540), 30), (34, 50, 25, (34, 50), 25), (321, 241, 30, (320, 240), 30)],
)
def test_a_video_of_any_size(
    tmp_path: Path, width: int, height: int, fps: int, size: tuple[int, int], rate: float
) -> None:
    path = tmp_path / "any.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p"
        for shade in range(fps + 10):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), shade, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    opened = clip.opened(path, 30)
    assert ((opened.width, opened.height), opened.fps) == (size, rate)
    pictures = list(opened.pictures)
    assert len(pictures) == (fps + 10) * rate / fps
    assert pictures[0].planes.shape == (size[1] * 3 // 2, size[0])
    assert [one.number for one in pictures] == list(range(len(pictures)))
    length, frames = clip.duration_of(path)
    assert (round(length, 1), frames) == (round((fps + 10) / fps, 1), fps + 10)


def test_report() -> None:
    report = Report()
    assert not report.ok
    report.check("one", True)
    assert report.ok
    report.check("two", False, "why")
    assert not report.ok
    report.rows.append(Row("video-filter", "live", frames_sent=3, frames_received=2))
    assert report.as_json()["calls"][0]["frames_lost"] == 1
    assert percentile([], 50) is None
    assert percentile([3, 1, 2], 50) == 2
    assert percentile(list(range(101)), 95) == 95
