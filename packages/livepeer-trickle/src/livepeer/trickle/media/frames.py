"""A decoded picture, a piece of decoded sound, and their times."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError

__all__ = ["LAYOUTS", "AudioFrame", "VideoFrame"]

LAYOUTS = ("mono", "stereo", "3.0", "4.0", "5.0", "5.1", "6.1", "7.1")
"""What 1 to 8 channels are usually."""
_TOO_MANY = 8  # planes: PyAV 18 reads beyond the eighth


class VideoFrame:
    """One picture, as PyAV's frame or as an array; the other one is made at first use.

    Args:
        raw: PyAV's frame.
        timestamp: When to show it, in seconds.
    """

    __slots__ = ("_array", "_raw", "timestamp")

    def __init__(self, raw: av.VideoFrame, timestamp: float | None = None) -> None:
        self._raw: av.VideoFrame | None = raw
        self._array: NDArray[np.uint8] | None = None
        self.timestamp: float | None = timestamp

    @classmethod
    def from_array(cls, array: NDArray[np.uint8], timestamp: float | None = None) -> VideoFrame:
        """A frame of an array of shape ``(height, width, 3)``, uint8, RGB. The array is not copied.

        Raises:
            MediaError: The array has another shape or another type.
        """
        _check(array)
        frame = cls.__new__(cls)
        frame._raw, frame._array, frame.timestamp = None, array, timestamp
        return frame

    @classmethod
    def from_image(cls, image: Any, timestamp: float | None = None) -> VideoFrame:
        """A frame of a PIL image, of any mode."""
        return cls.from_array(np.asarray(image.convert("RGB")), timestamp)

    @property
    def array(self) -> NDArray[np.uint8]:
        """The picture as ``(height, width, 3)`` uint8 RGB."""
        if self._array is None:
            assert self._raw is not None
            self._array = np.asarray(self._raw.to_ndarray(format="rgb24"), np.uint8)
        return self._array

    @property
    def raw(self) -> av.VideoFrame:
        """The picture as PyAV's frame."""
        if self._raw is None:
            assert self._array is not None
            self._raw = av.VideoFrame.from_ndarray(np.ascontiguousarray(self._array), format="rgb24")
        return self._raw

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self._array.shape[1]) if self._raw is None and self._array is not None else self.raw.width

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self._array.shape[0]) if self._raw is None and self._array is not None else self.raw.height

    def to_image(self) -> Any:
        """The picture as a PIL image (PIL must be installed)."""
        from PIL import Image

        return Image.fromarray(self.array)

    def replace(self, array: NDArray[np.uint8]) -> VideoFrame:
        """Another picture at the same time. Raises `MediaError` as `from_array` does."""
        return self.from_array(array, self.timestamp)

    def __repr__(self) -> str:
        return f"<VideoFrame {self.width}x{self.height} at {self.timestamp} s>"


class AudioFrame:
    """A piece of sound, as PyAV's frame or as an array; the other one is made at first use.

    Args:
        raw: PyAV's frame.
        timestamp: When to play its first sample, in seconds.
    """

    __slots__ = ("_array", "_raw", "sample_rate", "timestamp")

    def __init__(self, raw: av.AudioFrame, timestamp: float | None = None) -> None:
        self._raw: av.AudioFrame | None = raw
        self._array: NDArray[Any] | None = None
        self.sample_rate: int = raw.sample_rate
        """In Hz."""
        self.timestamp: float | None = timestamp

    @classmethod
    def from_array(cls, array: NDArray[Any], sample_rate: int, timestamp: float | None = None) -> AudioFrame:
        """A frame of samples: ``(samples, channels)`` or ``(samples,)``, float32 of -1 to 1, or int16.

        The array is not copied. `sample_rate` is in Hz; there are 1 to 8 channels.

        Raises:
            MediaError: The array has another shape or another type.
        """
        _check_audio(array)
        if sample_rate <= 0:
            raise MediaError(f"A sample rate of {sample_rate} Hz can't be; 48000 is usual.")
        frame = cls.__new__(cls)
        frame._raw, frame._array = None, array if array.ndim == 2 else array[:, np.newaxis]
        frame.sample_rate, frame.timestamp = sample_rate, timestamp
        return frame

    @property
    def array(self) -> NDArray[np.float32]:
        """The sound as ``(samples, channels)``, float32, -1 to 1."""
        if self._array is None:
            assert self._raw is not None
            self._array = _samples_of(self._raw)
        if self._array.dtype != np.float32:
            self._array = _to_float(self._array)
        return self._array

    @property
    def raw(self) -> av.AudioFrame:
        """The sound as PyAV's frame."""
        if self._raw is None:
            assert self._array is not None
            self._raw = _raw_of(self._array, self.sample_rate)
        return self._raw

    @property
    def samples(self) -> int:
        """How many there are of each channel."""
        if self._raw is None and self._array is not None:
            return int(self._array.shape[0])
        return self.raw.samples

    @property
    def channels(self) -> int:
        """1 for mono, 2 for stereo."""
        if self._raw is None and self._array is not None:
            return int(self._array.shape[1])
        return len(self.raw.layout.channels)

    @property
    def duration(self) -> float:
        """In seconds."""
        return self.samples / self.sample_rate

    def replace(self, array: NDArray[Any]) -> AudioFrame:
        """Other sound at the same time and sample rate. Raises `MediaError` as `from_array` does."""
        return self.from_array(array, self.sample_rate, self.timestamp)

    def __repr__(self) -> str:
        return (
            f"<AudioFrame {self.samples} samples of {self.channels} channels "
            f"at {self.sample_rate} Hz at {self.timestamp} s>"
        )


def _check(array: Any) -> None:
    if not isinstance(array, np.ndarray):
        raise MediaError(
            f"{type(array).__name__} is no array; a frame is of shape (height, width, 3), uint8, RGB."
        )
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise MediaError(
            f"An array of shape {array.shape} and type {array.dtype} is no frame; "
            "a frame is of shape (height, width, 3) and type uint8, RGB."
        )


def _check_audio(array: Any) -> None:
    if (
        not isinstance(array, np.ndarray)
        or array.ndim not in (1, 2)
        or 0 in array.shape
        or (array.ndim == 2 and array.shape[1] > len(LAYOUTS))
        or array.dtype not in (np.float32, np.float64, np.int16)
    ):
        what = f"{array.shape} {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise MediaError(
            f"{what} is no sound; a frame of sound is of shape (samples, channels) or (samples,), "
            "float32 (-1 to 1) or int16, of 1 to 8 channels."
        )


def _raw_of(array: NDArray[Any], sample_rate: int) -> av.AudioFrame:
    layout = LAYOUTS[array.shape[1] - 1]
    if array.dtype == np.int16:
        raw = av.AudioFrame.from_ndarray(np.ascontiguousarray(array).reshape(1, -1), "s16", layout)
    elif array.shape[1] < _TOO_MANY:  # planes are what encoders take
        raw = av.AudioFrame.from_ndarray(np.ascontiguousarray(array.T, np.float32), "fltp", layout)
    else:
        raw = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(array, np.float32).reshape(1, -1), "flt", layout
        )
    raw.sample_rate = sample_rate
    return raw


def _samples_of(raw: av.AudioFrame) -> NDArray[np.float32]:
    """``(samples, channels)`` of PyAV's frame, whose planes have other shapes."""
    channels = len(raw.layout.channels)
    if raw.format.is_planar and channels >= _TOO_MANY:
        (raw,) = av.AudioResampler(raw.format.packed, raw.layout, raw.sample_rate).resample(raw)
    samples = raw.to_ndarray()
    samples = samples.T if raw.format.is_planar else samples.reshape(-1, channels)
    return _to_float(samples)


def _to_float(samples: NDArray[Any]) -> NDArray[np.float32]:
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / np.float32(128)
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / np.float32(1 << (8 * samples.dtype.itemsize - 1))
    return np.ascontiguousarray(samples, np.float32)
