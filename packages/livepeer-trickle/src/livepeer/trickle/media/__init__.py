"""Live video and sound over trickle channels: MPEG-TS, one group of pictures to a segment.

Needs the extra ``media`` (PyAV and numpy), which loads at the first use of a name.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, MediaError

if TYPE_CHECKING:
    from .frames import AudioFrame, VideoFrame
    from .losses import Losses
    from .output import MediaOutput
    from .packets import Packet
    from .publish import MediaPublish
    from .readers import MediaReader

__all__ = [
    "AudioFrame",
    "Losses",
    "MediaError",
    "MediaOutput",
    "MediaPublish",
    "MediaReader",
    "Packet",
    "VideoFrame",
]

_LAZY = {
    "AudioFrame": "frames",
    "Losses": "losses",
    "MediaOutput": "output",
    "MediaPublish": "publish",
    "MediaReader": "readers",
    "Packet": "packets",
    "VideoFrame": "frames",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f".{module}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("av", "numpy"):
            raise
        raise ConfigurationError(
            f"{name} needs {error.name}, which is not installed.",
            hint='Install it with: pip install "livepeer-trickle[media]"',
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
