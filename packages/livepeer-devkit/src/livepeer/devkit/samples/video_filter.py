"""``video-filter``: live video with an effect that can be changed while it runs."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from livepeer.runner import LivePipeline
from livepeer.trickle.media import VideoFrame

__all__ = ["VideoFilter"]


class VideoFilter(LivePipeline):
    """Apply an effect to every frame: ``invert``, ``gray``, ``mirror`` or ``none``."""

    def on_stream_start(self, params: dict[str, Any]) -> None:
        """Begin with the effect that the session asks for."""
        self.frames: int = 0
        self.told_at: float = time.monotonic()
        self.on_params_update(params)

    def on_params_update(self, params: dict[str, Any]) -> None:
        """Change the effect, and tell the client."""
        self.effect: str = params.get("effect", "invert")
        self.emit_event({"type": "params", "effect": self.effect, "frames": self.frames})

    def process_video(self, frame: VideoFrame) -> VideoFrame:
        """Return the changed frame."""
        self.frames += 1
        if time.monotonic() - self.told_at >= 1:
            self.told_at = time.monotonic()
            self.emit_event({"type": "progress", "effect": self.effect, "frames": self.frames})
        return frame.replace(apply(self.effect, frame.array)) if self.effect != "none" else frame


def apply(effect: str, picture: np.ndarray) -> np.ndarray:
    """The picture, `(height, width, 3)` uint8 RGB, with the effect."""
    match effect:
        case "gray":
            red, green, blue = (picture[..., channel].astype(np.uint16) for channel in range(3))
            gray = (77 * red + 150 * green + 29 * blue) >> 8
            return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=2)
        case "mirror":
            return np.ascontiguousarray(picture[:, ::-1])
        case "invert":
            return 255 - picture
    return picture
