"""A stream as a file that players open: other container, same encoded pictures and sound."""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import MediaError
from .containers import Record, Track, check_codec, write_container
from .packets import Packet
from .timeline import Timeline

__all__ = ["Recording"]

_FORMATS = {
    ".m4v": "mp4",
    ".mkv": "matroska",
    ".mov": "mov",
    ".mp4": "mp4",
    ".mts": "mpegts",
    ".ts": "mpegts",
}
_HEADER = struct.Struct("<H?qqI")  # track, key frame, pts, dts, size


class Recording:
    """Packets that become a file at the end. Synchronous, for a worker thread.

    They are kept in a file beside it until then: only the end knows which tracks there are.

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
            handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".part", dir=path.parent)
        except OSError as error:
            raise MediaError(f"No file can be made in {path.parent}: {error.strerror}.") from error
        self._recorded = Path(name)
        self._file: BinaryIO = os.fdopen(handle, "wb")
        self._timeline = Timeline()
        self._tracks: dict[tuple[int, str], Track] = {}

    def write(self, packets: Iterable[Packet]) -> None:
        """Append packets. Raises `MediaError` when the disk won't have them, or the container their codec."""
        try:
            for packet in packets:
                self._write(packet)
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
            if not self._tracks:
                raise MediaError(f"Nothing came that could be saved as {self.path.name}.")
            with self._recorded.open("rb") as file:
                write_container(part, self._format, list(self._tracks.values()), _records(file))
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

    def _write(self, packet: Packet) -> None:
        key = packet.pid, packet.codec
        track = self._tracks.get(key)
        if track is None and not packet.is_keyframe:
            return  # nothing can be seen of it
        times = self._timeline.place(packet)
        if times is None:
            return
        if track is None:
            check_codec(self._format, packet.kind, packet.codec)
            track = self._tracks[key] = Track(len(self._tracks), packet.kind, packet.codec)
        track.add(packet, times)
        self._file.write(_HEADER.pack(track.index, packet.is_keyframe, *times, len(packet.data)))
        self._file.write(packet.data)


def _records(file: BinaryIO) -> Iterator[Record]:
    while header := file.read(_HEADER.size):
        index, is_keyframe, pts, dts, size = _HEADER.unpack(header)
        yield Record(index, is_keyframe, pts, dts, file.read(size))
