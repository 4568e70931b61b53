"""A recorded stream as a file that players open: other container, same encoded pictures and sound."""

from __future__ import annotations

import contextlib
import os
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from ..errors import MediaError

__all__ = ["Recording", "remux"]

_FORMATS = {
    ".m4v": "mp4",
    ".mkv": "matroska",
    ".mov": "mov",
    ".mp4": "mp4",
    ".mts": "mpegts",
    ".ts": "mpegts",
}


class Recording:
    """Bytes of MPEG-TS that become a file at the end. Synchronous, for a worker thread.

    Args:
        path: The file to be; nothing is there before `finish`, or what was there before.

    Raises:
        MediaError: The suffix names no container, or no file can be made there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._format = _FORMATS[path.suffix.lower()]
        except KeyError:
            raise MediaError(
                f"{path.name!r} names no container to save to; its suffix is one of {', '.join(_FORMATS)}."
            ) from None
        try:
            handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".part.ts", dir=path.parent)
        except OSError as error:
            raise MediaError(f"No file can be made in {path.parent}: {error.strerror}.") from error
        self._recorded = Path(name)
        self._file = os.fdopen(handle, "wb")

    def write(self, data: bytes) -> None:
        """Append bytes. Raises `MediaError` when the disk won't have them."""
        try:
            self._file.write(data)
        except OSError as error:
            raise MediaError(f"{self.path} can't be written: {error.strerror}.") from error

    def finish(self, complete: bool = True) -> None:
        """Make the file.

        Args:
            complete: Whether to raise `MediaError` when there is nothing to make it of.
        """
        part = self._recorded.with_suffix(".out" + self.path.suffix)
        try:
            self._file.close()
            if self._recorded.stat().st_size == 0:
                raise MediaError(f"Nothing came that could be saved as {self.path.name}.")
            if self._format == "mpegts":
                self._recorded.replace(self.path)
            else:
                remux(self._recorded, part, self._format)
                part.replace(self.path)
        except MediaError:
            if complete:
                raise
        except OSError as error:
            if complete:
                raise MediaError(f"{self.path} can't be written: {error.strerror}.") from error
        finally:
            for left in (self._recorded, part):
                with contextlib.suppress(OSError):
                    left.unlink(missing_ok=True)


def remux(source: Path, target: Path, format_name: str) -> None:
    """Copy a recorded MPEG-TS into another container, its time beginning at 0.

    Raises:
        MediaError: There is no video and no sound in it, or the container doesn't take it.
    """
    try:
        with av.open(str(source), format="mpegts") as recorded, contextlib.ExitStack() as stack:
            streams: list[Any] = [s for s in recorded.streams if s.type in ("video", "audio")]
            begins = [s.start_time * s.time_base for s in streams if s.start_time is not None]
            if not begins:
                raise MediaError("Nothing that can be saved came: no video, and no sound.")
            written: Any = stack.enter_context(av.open(str(target), "w", format=format_name))
            copies = {s.index: written.add_stream_from_template(s) for s in streams}
            _copy(recorded, written, copies, min(begins))
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError(f"What came can't be saved as {format_name}: {error}.") from error


def _copy(recorded: Any, written: Any, copies: dict[int, Any], begin: Fraction) -> None:
    # One packet of each stream is held back: how long it lasts is only known when the next one comes, and
    # what libavformat guesses for the last one is wrong where frames have times of their own.
    held: dict[int, Any] = {}
    durations: dict[int, int] = {}

    def write(packet: Any, index: int) -> None:
        packet.stream = copies[index]
        written.mux(packet)

    for packet in recorded.demux():
        index = packet.stream.index
        if packet.dts is None or packet.size == 0 or index not in copies:
            continue
        shift = round(begin / packet.time_base)
        packet.dts -= shift
        packet.pts = packet.dts if packet.pts is None else packet.pts - shift
        before = held.get(index)
        if before is not None:
            before.duration = durations[index] = packet.dts - before.dts
            write(before, index)
        held[index] = packet
    for index, packet in held.items():
        packet.duration = durations.get(index, packet.duration)
        write(packet, index)
