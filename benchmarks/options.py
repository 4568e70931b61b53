"""What the command line says of every benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Options", "Size"]


@dataclass(frozen=True)
class Size:
    """A picture's size and how many come in a second."""

    width: int
    height: int
    fps: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}@{self.fps}"

    @classmethod
    def parse(cls, text: str) -> Size:
        """From ``640x360@30``."""
        picture, _, fps = text.partition("@")
        width, _, height = picture.partition("x")
        return cls(int(width), int(height), int(fps))


@dataclass(frozen=True)
class Options:
    """What the benchmarks are asked.

    Args:
        go: A go-livepeer binary to measure on; our own server in a process of its own when None.
        seconds: The length of a stream.
        rounds: How many times each side is measured, in turn; the median counts.
        runs: How many short streams are counted for lost frames, at each delay.
        minutes: The length of the stream whose memory is watched.
        sessions: How many sessions at once.
        calls: How many calls leave nothing behind.
        sizes: The pictures of the live benchmark; limits hold for each.
        peer: Whether to measure the peer too.
    """

    go: Path | None = None
    seconds: float = 20
    rounds: int = 1
    runs: int = 3
    minutes: float = 1
    sessions: int = 20
    calls: int = 20_000
    sizes: tuple[Size, ...] = (Size(640, 360, 30), Size(1280, 720, 30), Size(640, 360, 60))
    peer: bool = True

    @property
    def sides(self) -> tuple[str, ...]:
        """Whom to measure."""
        return ("ours", "peer") if self.peer else ("ours",)
