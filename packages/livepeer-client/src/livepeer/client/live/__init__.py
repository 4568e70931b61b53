"""Live sessions: media, control and events through a worker, for as long as both want."""

from __future__ import annotations

from .latency import Latency
from .session import LiveSession
from .stats import ChannelStats, SessionStats

__all__ = ["ChannelStats", "Latency", "LiveSession", "SessionStats"]
