"""What a trickle server keeps: channels, each a ring of five segments. No I/O, no clock of its own.

Source: go-livepeer v0.9.1, ``trickle/trickle_server.go``, whose oddities are kept: the head is the number of
the segment *begun* last plus one, so it can run backwards; a reader at the head makes the slot it waits for,
which evicts the segment five before it; closing a channel empties the ring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .protocol import CURRENT, NEXT, RING_SIZE

__all__ = ["Channel", "Segment"]


class Segment:
    """The bytes of one segment as they come in, and who wants to know."""

    __slots__ = ("_watchers", "chunks", "closed", "seq")

    def __init__(self, seq: int) -> None:
        self.seq: int = seq
        self.chunks: list[bytes] = []
        self.closed: bool = False
        self._watchers: set[Callable[[], object]] = set()

    def append(self, data: bytes) -> None:
        """Add bytes; a closed segment swallows them."""
        if data and not self.closed:
            self.chunks.append(data)
            self.wake()

    def close(self) -> None:
        """No more bytes will come."""
        if not self.closed:
            self.closed = True
            self.wake()

    def watch(self, watcher: Callable[[], object]) -> None:
        """Call `watcher` at every change until `unwatch`."""
        self._watchers.add(watcher)

    def unwatch(self, watcher: Callable[[], object]) -> None:
        """Stop calling `watcher`."""
        self._watchers.discard(watcher)

    def wake(self) -> None:
        """Call every watcher, as a change does."""
        for watcher in tuple(self._watchers):
            watcher()


class Channel:
    """One channel: its ring, its head, and when it was last begun to be written.

    Args:
        name: The channel's name.
        mime_type: The content type that readers see, whatever a later POST says.
        now: The present time in seconds, of the clock that `begin` is given too.
    """

    def __init__(self, name: str, mime_type: str, now: float) -> None:
        self.name = name
        self.mime_type = mime_type
        self.next_write: int = 0
        self.write_time: float = now
        self.closed: bool = False
        self._slots: list[Segment | None] = [None] * RING_SIZE

    def __iter__(self) -> Iterator[Segment]:
        return (segment for segment in self._slots if segment is not None)

    def segment(self, seq: int) -> Segment | None:
        """The segment of this number, while the ring has it. Raises IndexError for a negative number."""
        found = self._slots[_slot(seq)]
        return found if found is not None and found.seq == seq else None

    def for_write(self, seq: int) -> Segment:
        """The segment to write: the existing one, open or closed, or a new one in the place of an older one.

        Raises IndexError for a number below -1.
        """
        if seq == NEXT:
            seq = self.next_write
        return self.segment(seq) or self._new(seq)

    def for_read(self, seq: int) -> Segment | None:
        """The segment to read, made when it is the one that comes next; None when there is none.

        Raises IndexError for a number below -2.
        """
        if seq == NEXT:
            seq = self.next_write
        elif seq == CURRENT:
            seq = max(self.next_write - 1, 0)
        found = self.segment(seq)
        is_next = seq == self.next_write or (self.next_write == 0 and seq == 1)
        if found is None and is_next and not self.closed:
            found = self._new(seq)
        return found

    def begin(self, segment: Segment, now: float) -> None:
        """The first byte of this segment came (or its end, without one): it is the head now."""
        self.next_write = segment.seq + 1
        self.write_time = now

    def reset(self, seq: int) -> None:
        """Close every segment before this one; later ones may be connected already."""
        for segment in self:
            if segment.seq < seq:
                segment.close()

    def close(self) -> None:
        """End the channel: waiting readers get what they have, and the ring is empty."""
        self.closed = True
        for segment in self:
            segment.close()
        self._slots = [None] * RING_SIZE

    def _new(self, seq: int) -> Segment:
        evicted = self._slots[_slot(seq)]
        if evicted is not None:
            evicted.close()
        segment = self._slots[_slot(seq)] = Segment(seq)
        return segment


def _slot(seq: int) -> int:
    if seq < 0:
        raise IndexError(f"there is no segment {seq}")
    return seq % RING_SIZE
