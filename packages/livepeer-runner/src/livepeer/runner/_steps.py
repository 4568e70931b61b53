"""How far pictures and sound of one stream are, and when one of them waits for the other."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Steps"]

_LEAD = 1.0  # seconds that one kind may get ahead of another that is still being worked on


class Steps:
    """The frames that are being worked on, by kind, as the times that they have.

    A reader of both kinds keeps what comes early and has no room for much, so a kind waits when it would get
    a second ahead of one that is still at work; one that has nothing to do isn't waited for.
    """

    def __init__(self) -> None:
        self._work: dict[str, deque[float | None]] = {"video": deque(), "audio": deque()}
        self._moved = asyncio.Event()

    @property
    def busy(self) -> bool:
        """Whether there is a frame in the works."""
        return any(self._work.values())

    def begin(self, kind: str, timestamp: float | None) -> None:
        """A frame is taken into work."""
        self._work[kind].append(timestamp)

    def end(self, kind: str) -> None:
        """The one of this kind that was taken first is out of it."""
        self._work[kind].popleft()
        self._moved.set()  # wakes those who wait now
        self._moved.clear()

    async def keep(self, kind: str, timestamp: float | None) -> None:
        """Wait while a frame of this time is too far ahead of another kind."""
        others = [work for name, work in self._work.items() if name != kind]
        while timestamp is not None:
            behind = (work[0] for work in others if work)
            if all(at is None or timestamp - at <= _LEAD for at in behind):
                return
            await self._moved.wait()
            await asyncio.sleep(0)  # the other kind takes its next frame
