"""A channel of a session as bytes, for what isn't video and isn't JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from livepeer.trickle import Transport

__all__ = ["RawChannel"]


class RawChannel:
    """One channel of a session as bytes; its two ends are `livepeer.trickle`'s.

    Args:
        url: The channel's URL.
        transport: The session's HTTP connections.
    """

    def __init__(self, url: str, transport: Transport) -> None:
        self.url: str = url
        self._transport = transport

    def publisher(self, *, mime_type: str = "application/octet-stream") -> Any:
        """A `livepeer.trickle.TricklePublisher`; close it when you are done."""
        from livepeer.trickle import TricklePublisher

        return TricklePublisher(self.url, transport=self._transport, mime_type=mime_type)

    def subscriber(self, *, start: int = 0) -> Any:
        """A `livepeer.trickle.TrickleSubscriber`, from a segment's number on (-2: the newest)."""
        from livepeer.trickle import TrickleSubscriber

        return TrickleSubscriber(self.url, transport=self._transport, start=start)
