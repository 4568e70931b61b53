"""What a live session counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from .latency import Latency

__all__ = ["ChannelStats", "SessionStats"]


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """One channel's counters.

    Attributes:
        frames: Video frames, or JSON messages.
        bytes: Bytes of media or of JSON.
        dropped: What was left out here because a queue was full.
        lost: Frames written in vain, because the connection broke in their segment (media in); or that came
            damaged, or without what they build on (media out).
        missed: Segments that were gone from the orchestrator's ring before they could be read.
        audio: Frames of sound.
    """

    frames: int = 0
    bytes: int = 0
    dropped: int = 0
    lost: int = 0
    missed: int = 0
    audio: int = 0


@dataclass(frozen=True, slots=True)
class SessionStats:
    """The counters of a session, by channel.

    Attributes:
        media_in: What was published.
        media_out: What came back.
        control: What was written.
        events: What was received.
        data: What was received.
        lag: How many seconds the newest output is behind the newest input, by their timestamps; None before
            there are both.
        latency: From `write_frame` to the reader, over the last ten seconds; None before the first frame, and
            where the worker gives frames other timestamps.
        cost: What was paid for it up to now, in wei: the expected value of its tickets.
    """

    media_in: ChannelStats = field(default_factory=ChannelStats)
    media_out: ChannelStats = field(default_factory=ChannelStats)
    control: ChannelStats = field(default_factory=ChannelStats)
    events: ChannelStats = field(default_factory=ChannelStats)
    data: ChannelStats = field(default_factory=ChannelStats)
    lag: float | None = None
    latency: Latency | None = None
    cost: int = 0
