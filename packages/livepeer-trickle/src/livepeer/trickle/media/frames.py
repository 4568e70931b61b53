"""A decoded picture and its time."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import av
import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError

__all__ = ["Frame", "ImageLike", "VideoFrame", "to_av"]


class ImageLike(Protocol):
    """What a PIL image has that is asked for here."""

    @property
    def mode(self) -> str:
        """How a pixel is kept, as ``"RGB"``."""

    def convert(self, mode: str, /) -> Any:
        """The image in another mode."""


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


Frame: TypeAlias = VideoFrame | av.VideoFrame | NDArray[np.uint8] | ImageLike
"""What can be written as a frame."""


def to_av(frame: Frame) -> tuple[av.VideoFrame, float | None]:
    """PyAV's frame, and its time in seconds if it has one, of whatever may be written.

    What could change under us is copied: an array may be drawn into again when this returns.

    Raises:
        MediaError: It is no frame: the text says what would be one.
    """
    if isinstance(frame, VideoFrame):
        if frame._raw is None:
            return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.array), "rgb24"), frame.timestamp
        return frame.raw, frame.timestamp
    if isinstance(frame, av.VideoFrame):
        return frame, frame.time
    if isinstance(frame, np.ndarray):
        _check(frame)
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24"), None
    if type(frame).__module__.partition(".")[0] == "PIL":
        return VideoFrame.from_image(frame).raw, None
    raise MediaError(
        f"{type(frame).__name__} is no frame; write a VideoFrame, PyAV's frame, a PIL image, "
        "or an array of shape (height, width, 3), uint8, RGB."
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
