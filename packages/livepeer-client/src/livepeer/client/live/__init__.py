"""Live sessions: media, control and events through a worker, for as long as both want.

Each name loads its module at first use: a program that only calls needs none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .latency import Latency
    from .session import LiveSession
    from .stats import ChannelStats, SessionStats

__all__ = ["ChannelStats", "Latency", "LiveSession", "SessionStats"]

_MODULES = {
    "ChannelStats": ".stats",
    "Latency": ".latency",
    "LiveSession": ".session",
    "SessionStats": ".stats",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module, __name__), name)
    return value
