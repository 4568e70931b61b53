"""What the tests of the live contracts serve."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from livepeer.runner import HTTPError, LivePipeline

__all__ = ["Passing", "Remote"]


class Params(BaseModel):
    """What a stream of `Passing` starts with."""

    strength: float = 1.0
    refuse: int = 0


class Passing(LivePipeline):
    """Gives every picture back, and tells what is called."""

    version = "1.2.3"
    capacity = 2

    def on_stream_start(self, params: Params) -> None:
        if params.refuse:
            raise HTTPError(params.refuse, "not for you")
        self.frames = 0
        self.emit_event({"type": "begun", "strength": params.strength})

    def process_video(self, frame: Any) -> Any:
        self.frames += 1
        self.emit_data({"frame": self.frames})
        return frame

    def on_params_update(self, params: dict[str, Any]) -> None:
        if "refuse" in params:
            raise HTTPError(params["refuse"], "no such thing")
        self.emit_event({"type": "params", **params})

    def on_stream_stop(self) -> None:
        self.emit_event({"type": "stopped", "frames": self.frames})


class Remote(LivePipeline):
    """No media: parameters in, events and data out."""

    def on_stream_start(self, params: dict[str, Any]) -> None:
        self.emit_event({"type": "begun", **params})

    def on_params_update(self, params: dict[str, Any]) -> None:
        self.emit_data(params)
