"""The media of a session: one writer, one reader, and what can be seen of them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from livepeer.trickle import media

from ..errors import ConfigurationError, LivepeerError
from .latency import Latency, LatencyWindow
from .stats import ChannelStats

if TYPE_CHECKING:
    from livepeer.trickle import Transport
    from livepeer.trickle.media import AudioFrame, Packet, VideoFrame

__all__ = ["SessionMedia"]

_CLOCK = 90_000  # ticks of MPEG-TS in a second


class SessionMedia:
    """Makes the writer and the reader of a session, each at its first use.

    Args:
        capability: The session's capability, for errors.
        explain: Told of a failure and of the channel; gives the error that says why.
    """

    def __init__(
        self, capability: str, explain: Callable[[LivepeerError, str], Awaitable[LivepeerError]]
    ) -> None:
        self.writer: media.MediaPublish | None = None
        self.reader: media.MediaOutput | None = None
        self._capability = capability
        self._explain = explain
        self._urls: Mapping[str, str] = {}
        self._transport: Transport | None = None
        self._wanted: dict[str, dict[str, Any]] = {}
        self._packets = LatencyWindow()
        self._frames = LatencyWindow()

    def connect(self, urls: Mapping[str, str], transport: Transport) -> None:
        """The session is open."""
        self._urls, self._transport = urls, transport

    def publish(self, wanted: dict[str, Any]) -> media.MediaPublish:
        """See `LiveSession.publish`."""
        if self.writer is None:
            url = self._url("publish", "takes no media")
            # The channel was made for this session, so its first segment is known without asking.
            options = {"start": 0, **wanted}
            self.writer = media.MediaPublish(url, transport=self._transport, **options)
            self.writer.explain = lambda error: self._explain(error, "media-in")
        self._same("publish", wanted)
        return self.writer

    def subscribe(self, wanted: dict[str, Any]) -> media.MediaOutput:
        """See `LiveSession.subscribe`."""
        if self.reader is None:
            url = self._url("subscribe", "sends no media")
            self.reader = media.MediaOutput(url, transport=self._transport, **wanted)
            self.reader.explain = lambda error: self._explain(error, "media-out")
            self.reader.on_packet = self._on_packet
            self.reader.on_frame = self._on_frame
        self._same("subscribe", wanted)
        return self.reader

    @property
    def reading(self) -> bool:
        """Whether output is being read."""
        return self.reader is not None and self.reader.started

    @property
    def held_up(self) -> bool:
        """Whether a reader on this side is what holds the output up."""
        return self.reader is not None and self.reader.held_up

    def owed(self) -> bool:
        """Whether the newest frame that was written has not come back."""
        written = self.writer.last_timestamp if self.writer else None
        back = self.reader.last_timestamp if self.reader else None
        return written is not None and self.reading and (back is None or back < written)

    def lag(self) -> float | None:
        """See `SessionStats.lag`."""
        written = self.writer.last_timestamp if self.writer else None
        back = self.reader.last_timestamp if self.reader else None
        return max(written - back, 0.0) if written is not None and back is not None else None

    def latency(self) -> Latency | None:
        """Of frames where somebody reads those, else of packets."""
        return self._frames.figures() or self._packets.figures()

    def stats(self) -> tuple[ChannelStats, ChannelStats]:
        """The counters of media in and media out."""
        media_in = media_out = ChannelStats()
        if (sent := self.writer) is not None:
            media_in = ChannelStats(
                sent.frames, sent.bytes, sent.dropped, lost=sent.lost, audio=sent.audio_frames
            )
        if (back := self.reader) is not None:
            losses = back.losses
            media_out = ChannelStats(
                back.frames_in,
                back.bytes_in,
                losses.frames,
                lost=losses.packets + losses.undecoded,
                missed=losses.segments,
                audio=back.audio_in,
            )
        return media_in, media_out

    def fail(self, error: LivepeerError, *, readers: bool) -> None:
        """End writing, and reading too unless its channel does that, with an error."""
        if self.writer is not None:
            self.writer.fail(error)
        if self.reader is not None and readers:
            self.reader.fail(error)

    def _on_packet(self, packet: Packet) -> None:
        if packet.kind == "video" and packet.pts is not None:
            self._came_back(self._packets, packet.pts)

    def _on_frame(self, frame: VideoFrame | AudioFrame) -> None:
        if isinstance(frame, media.VideoFrame) and frame.timestamp is not None:
            self._came_back(self._frames, round(frame.timestamp * _CLOCK))

    def _came_back(self, window: LatencyWindow, ticks: int) -> None:
        written_at = self.writer.written_at(ticks) if self.writer else None
        if written_at is not None:
            now = time.monotonic()
            window.add(now, now - written_at)

    def _url(self, role: str, lacks: str) -> str:
        url = self._urls.get(role)
        if url is None:
            raise ConfigurationError(
                f"{self._capability!r} {lacks}: the session has no {role} channel.",
                hint="LiveSession.raw shows what the worker opened.",
            )
        return url

    def _same(self, verb: str, wanted: dict[str, Any]) -> None:
        given = self._wanted.setdefault(verb, wanted)
        if wanted != given:
            raise ConfigurationError(
                f"session.{verb}() was called with {wanted} after it had been called with {given}; "
                "a session has one."
            )
