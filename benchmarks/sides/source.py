"""The video that both sides get: a moving picture with the frame's number drawn into it."""

from __future__ import annotations

import importlib.util
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

__all__ = ["Source", "number_in"]

CLOCK = 90_000
_PICTURES = 60


def _load_numbers() -> Any:
    """The demo's module, by its path: the peer's environment has nothing of ours."""
    path = "packages/livepeer-devkit/src/livepeer/devkit/demo/numbers.py"
    spec = importlib.util.spec_from_file_location("numbers_in_pictures", Path(__file__).parents[2] / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_numbers = _load_numbers()


class Source:
    """Frames of one size: a texture that pans, with a little grain, as a calm scene of a fair camera.

    At 640x360@30 the codec takes 0.05 to 0.06 s a second of it, where the limits were set with 0.053.

    Args:
        width: In pixels.
        height: In pixels.
        fps: Frames per second.
    """

    def __init__(self, width: int, height: int, fps: int) -> None:
        self.fps = fps
        self._step = CLOCK // fps
        texture = _texture(width + 2 * _PICTURES, height)
        self._pictures = []
        for number in range(_PICTURES):
            shift = 2 * abs(number - _PICTURES // 2)
            picture = np.full((height * 3 // 2, width), 128, np.uint8)
            picture[:height] = texture[:, shift : shift + width]
            self._pictures.append(picture)

    def frame(self, number: int) -> av.VideoFrame:
        """The frame of a number, from 0 on, with its time."""
        picture = self._pictures[number % _PICTURES]
        _numbers.draw(picture[: picture.shape[0] * 2 // 3], number)
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = number * self._step, Fraction(1, CLOCK)
        return frame


def number_in(frame: av.VideoFrame) -> int | None:
    """The number drawn into a frame; None when it can't be read."""
    if frame.format.name != "yuv420p":
        frame = frame.reformat(format="yuv420p")
    plane = frame.planes[0]
    luma = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[
        : frame.height, : frame.width
    ]
    found: int | None = _numbers.read(luma)
    return found


def _texture(width: int, height: int) -> npt.NDArray[np.uint8]:
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    waves = 128 + 40 * np.sin(x / 23) * np.cos(y / 17) + 25 * np.sin((x + 2 * y) / 41)
    grain = np.random.default_rng(4).normal(0, 1, (height, width))
    return np.asarray(np.clip(waves + grain, 16, 235), np.uint8)
