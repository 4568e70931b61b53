"""What a live session counts."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["ChannelStats", "SessionStats"]


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """One channel's counters.

    Attributes:
        frames: Video frames, or JSON messages.
        bytes: Bytes of media; 0 for JSON channels.
        dropped: What was left out because a queue was full, or because it was no longer there to be read.
    """

    frames: int = 0
    bytes: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class SessionStats:
    """The counters of a session, by channel.

    Attributes:
        media_in: What was published.
        media_out: What came back.
        control: What was written.
        events: What was received.
        data: What was received.
    """

    media_in: ChannelStats = field(default_factory=ChannelStats)
    media_out: ChannelStats = field(default_factory=ChannelStats)
    control: ChannelStats = field(default_factory=ChannelStats)
    events: ChannelStats = field(default_factory=ChannelStats)
    data: ChannelStats = field(default_factory=ChannelStats)
