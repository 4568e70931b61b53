"""Live sessions: media, control and events through a worker, for as long as both want."""

from __future__ import annotations

from .session import LiveSession
from .stats import ChannelStats, SessionStats

__all__ = ["ChannelStats", "LiveSession", "SessionStats"]
