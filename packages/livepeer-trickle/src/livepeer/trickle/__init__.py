"""Trickle, the segmented transport under Livepeer's live media.

Importing this package loads neither aiohttp nor PyAV: each name loads its module at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import (
    ChannelClosed,
    ChannelNotFound,
    ConfigurationError,
    LivepeerError,
    MediaError,
    TrickleConnectionError,
    TrickleError,
)

if TYPE_CHECKING:
    from .channels import ChannelReader, ChannelWriter, JSONLReader, JSONLWriter
    from .publisher import TricklePublisher
    from .segment_writer import SegmentWriter
    from .server import TrickleServer
    from .subscriber import SegmentReader, TrickleSubscriber
    from .transport import TLSPolicy, Transport

__all__ = [
    "ChannelClosed",
    "ChannelNotFound",
    "ChannelReader",
    "ChannelWriter",
    "ConfigurationError",
    "JSONLReader",
    "JSONLWriter",
    "LivepeerError",
    "MediaError",
    "SegmentReader",
    "SegmentWriter",
    "TLSPolicy",
    "Transport",
    "TrickleConnectionError",
    "TrickleError",
    "TricklePublisher",
    "TrickleServer",
    "TrickleSubscriber",
    "__version__",
]

_LAZY = {
    "ChannelReader": "channels",
    "ChannelWriter": "channels",
    "JSONLReader": "channels",
    "JSONLWriter": "channels",
    "SegmentReader": "subscriber",
    "SegmentWriter": "segment_writer",
    "TLSPolicy": "transport",
    "Transport": "transport",
    "TricklePublisher": "publisher",
    "TrickleServer": "server",
    "TrickleSubscriber": "subscriber",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
