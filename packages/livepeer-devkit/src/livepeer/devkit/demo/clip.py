"""The video of the demo, made here or the user's own: pictures in YUV 4:2:0 and sound, with their times."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from livepeer.trickle.errors import MediaError

from . import flashes, numbers, sound

__all__ = ["Clip", "Picture", "duration_of", "made", "opened", "planes"]

_CLOCK = 90_000  # ticks per second, MPEG's
_MAX_WIDTH, _MAX_HEIGHT, _MAX_FPS = 960, 540, 30.0
_SHORTEST = 1.0  # seconds; there has to be a middle in which something is changed
Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """One frame: its number, its time in seconds from the beginning, and its planes one below the other.

    `planes` is `(height * 3 / 2, width)` uint8, as PyAV's ``to_ndarray`` gives ``yuv420p``.
    """

    number: int
    timestamp: float
    planes: Array

    def frame(self) -> Any:
        """The same as an `av.VideoFrame`."""
        frame = av.VideoFrame.from_ndarray(self.planes, format="yuv420p")
        frame.pts, frame.time_base = round(self.timestamp * _CLOCK), Fraction(1, _CLOCK)
        return frame


@dataclass(frozen=True)
class Clip:
    """A video to send.

    Attributes:
        name: What to call it.
        width: In pixels, even.
        height: In pixels, even.
        fps: Frames per second.
        seconds: How long it is.
        numbered: Whether every frame has its number drawn into it, and flashes go with beeps in the sound.
        pictures: The frames, in order; to be read once.
        sounds: The sound, in order; to be read once. None when it is silent.
    """

    name: str
    width: int
    height: int
    fps: float
    seconds: float
    numbered: bool
    pictures: Iterator[Picture]
    sounds: Iterator[sound.Piece] | None = None


def made(seconds: float = 5.5, *, width: int = 640, height: int = 360, fps: float = 30.0) -> Clip:
    """A moving, coloured picture with each frame's number drawn into it; once a second a flash and a beep."""
    count, every = round(seconds * fps), round(fps)
    beeps = [number / fps for number in range(every // 2, count, every)]
    return Clip(
        "a clip made for this",
        width,
        height,
        fps,
        count / fps,
        True,
        _drawn(count, width, height, fps),
        sound.clicks(beeps, count / fps),
    )


def opened(path: Path, seconds: float) -> Clip:
    """The user's video: at most 960x540 and 30 frames per second of it, for at most `seconds`.

    Raises:
        MediaError: There is no such file, no video in it, or less than a second of it.
    """
    if not path.exists():
        raise MediaError(f"There is no file {path}.")
    try:
        with av.open(str(path)) as container:
            if container.format.name == "tty":  # libavformat takes any text for a picture made of letters
                raise _no_video(path, None)
            if not container.streams.video:
                raise MediaError(
                    f"{path} has no video in it.", hint="A file with sound only can't be filtered."
                )
            size, fps, length, beginning = _measured(container, seconds)
            has_sound = bool(container.streams.audio)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _no_video(path, error) from error
    if length < _SHORTEST:
        raise MediaError(
            f"{path} is {length:.2f} s long; the filter is changed midway, which takes a video of "
            f"{_SHORTEST:g} s at least."
        )
    scale = min(1.0, _MAX_WIDTH / size[0], _MAX_HEIGHT / size[1])
    width, height = (max(16, int(side * scale) // 2 * 2) for side in size)
    length = min(length, seconds)
    sounds = sound.read(path, beginning, length) if has_sound else None
    return Clip(path.name, width, height, fps, length, False, _read(path, width, height, length), sounds)


def planes(frame: Any, width: int, height: int) -> Array:
    """The planes of a decoded frame, in the clip's size."""
    if frame.format.name != "yuv420p" or (frame.width, frame.height) != (width, height):
        frame = frame.reformat(width=width, height=height, format="yuv420p")
    found: Array = frame.to_ndarray()
    return found


def duration_of(path: Path) -> tuple[float, int]:
    """How long a video file plays, in seconds, and how many frames it has; every frame is decoded.

    Raises:
        MediaError: It can't be opened or decoded.
    """
    try:
        with av.open(str(path)) as container:
            times = [frame.time for frame in container.decode(video=0) if frame.time is not None]
            rate = float(container.streams.video[0].average_rate or _MAX_FPS)
    except (av.FFmpegError, OSError, IndexError) as error:
        raise _no_video(path, error) from error
    return (times[-1] - times[0] + 1 / rate if times else 0.0), len(times)


def _drawn(count: int, width: int, height: int, fps: float) -> Iterator[Picture]:
    rows, columns = np.mgrid[0:height, 0:width]
    waves = (np.sin(columns / 40) + np.cos(rows / 30)) * 40 + 120
    u = np.linspace(60, 200, width // 2, dtype=np.uint8)[None, :].repeat(height // 2, axis=0)
    v = np.linspace(200, 60, height // 2, dtype=np.uint8)[:, None].repeat(width // 2, axis=1)
    for number in range(count):
        turn = number / max(fps, 1)
        luma = np.roll(waves, number * 2, axis=1).astype(np.uint8)
        middle = (width * (0.5 + 0.35 * np.sin(turn * 2)), height * (0.55 + 0.25 * np.cos(turn * 3)))
        luma[(columns - middle[0]) ** 2 + (rows - middle[1]) ** 2 < (height / 8) ** 2] = 220
        numbers.draw(luma, number)
        flashes.draw(luma, (number - round(fps) // 2) % round(fps) < flashes.LONG * fps)
        yield Picture(number, number / fps, _stacked(luma, u, np.roll(v, number, axis=0)))


def _stacked(luma: Array, u: Array, v: Array) -> Array:
    width = luma.shape[1]
    return np.concatenate([luma, u.reshape(-1, width), v.reshape(-1, width)])


def _measured(container: Any, seconds: float) -> tuple[tuple[int, int], float, float, float]:
    """The size, the rate, the length and the first time of a video.

    Decodes a second of it, or all when it doesn't say how long it is.
    """
    stream = container.streams.video[0]
    said = float(container.duration) / av.time_base if container.duration else None
    times, size = [0.0], (0, 0)
    for frame in container.decode(stream):
        size = (frame.width, frame.height)
        times.append(frame.time or 0.0)
        if times[-1] - times[1] >= (seconds if said is None else _SHORTEST):
            break
    if not all(size):
        raise ValueError("no frame in it")
    rate = float(stream.average_rate or _MAX_FPS)
    seen = times[-1] - times[1] + 1 / rate
    length = max(said, seen) if said and seen >= _SHORTEST else seen
    return size, min(rate, _MAX_FPS), length, times[1]


def _read(path: Path, width: int, height: int, seconds: float) -> Iterator[Picture]:
    number, last, beginning = 0, float("-inf"), None
    with av.open(str(path)) as container, contextlib.suppress(av.FFmpegError):  # a broken tail is an end
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            time = frame.time if frame.time is not None else last + 1 / _MAX_FPS
            beginning = time if beginning is None else beginning
            if time - beginning >= seconds:
                return
            if time - beginning - last >= 0.95 / _MAX_FPS:
                last = time - beginning
                yield Picture(number, last, planes(frame, width, height))
                number += 1


def _no_video(path: Path, error: BaseException | None) -> MediaError:
    reason = f" ({error.strerror})" if isinstance(error, av.FFmpegError) and error.strerror else ""
    return MediaError(
        f"{path} is not a video that can be read{reason}.", hint="An MP4, WebM or MKV file would be."
    )
