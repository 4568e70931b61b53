from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from livepeer.devkit.demo import clip, effects, numbers, picture
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
