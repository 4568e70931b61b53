"""What can be seen of a session from this side, and what becomes of its channels when it ends by itself."""

from __future__ import annotations

from ..errors import LivepeerError
from .control import SessionWriter
from .media import SessionMedia
from .reader import SessionReader
from .silence import Seen

__all__ = ["Observed"]


class Observed:
    """The channels of a session as `Watch` sees them.

    Attributes:
        error: What ended the session, when that was not this side.
        in_order: Whether it ended so that what is on its way can still come.
    """

    def __init__(
        self, media: SessionMedia, control: SessionWriter, events: SessionReader, data: SessionReader
    ) -> None:
        self.error: LivepeerError | None = None
        self.in_order: bool = True
        self._media = media
        self._control = control
        self._events = events
        self._data = data

    def seen(self, now: float) -> Seen:
        """The session's clocks."""
        writer, reader = self._media.writer, self._media.reader
        heard = [at for at in (self._events.heard_at, self._data.heard_at) if at is not None]
        arrived = reader.last_arrival_at if reader is not None else None
        return Seen(
            written_at=writer.last_written_at if writer is not None else self._control.written_at,
            arrived_at=arrived,
            heard_at=max([*heard, *([arrived] if arrived is not None else [])], default=None),
            waiting=writer.queued if writer is not None else 0,
            beat=self._events.beat,
            owed=self._media.owed(),
            expected=writer is not None and self._media.reading and not self._media.held_up,
        )

    def ended_channels(self) -> tuple[str | None, bool]:
        """See `Watched`."""
        reader, reading = self._media.reader, self._media.reading
        media_over = reader is not None and reading and reader.ended and reader.error is None
        # The data channel counts where it is the only one: a worker may end it sooner than the others.
        messages = next((one for one in (self._events, self._data) if one.exists and not one.lapsed), None)
        over = [media_over] if reading else []
        over += [not messages.open] if messages is not None else []
        return "media-out" if media_over else None, bool(over) and all(over)

    def counts(self) -> tuple[int, int]:
        """Frames sent, and frames that came back."""
        sent, back = self._media.stats()
        return sent.frames, back.frames

    def farewell(self) -> str | None:
        """The worker's reason for the end."""
        return self._events.farewell

    def over(self, error: LivepeerError, *, in_order: bool) -> None:
        """The session ended by itself."""
        self.error, self.in_order = error, in_order
        self._control.fail(error)
        self._media.fail(error, readers=not in_order)
        if not in_order:
            self._events.fail(error)
            self._data.fail(error)
