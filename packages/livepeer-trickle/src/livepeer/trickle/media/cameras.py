"""Publishing cameras: the newest frames of a device that doesn't wait."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

from ..errors import MediaError
from .packets import CLOCK
from .sources import why

if TYPE_CHECKING:
    from .publish import MediaPublish

__all__ = ["CameraReader"]

_DEVICES = {"darwin": "avfoundation", "win32": "dshow"}
_PENDING = 4  # frames between the device's thread and the loop


class CameraReader:
    """Writes what an input device brings to a publisher, the newest first when that is behind.

    Args:
        publisher: Where to.
        name: The device.
        format: libavdevice's name of the input; the platform's for cameras when None.
        options: Its options.
    """

    def __init__(
        self, publisher: MediaPublish, name: str, *, format: str | None, options: Mapping[str, str] | None
    ) -> None:
        self._publisher = publisher
        self._format = format or _DEVICES.get(sys.platform, "v4l2")
        self._name = name
        self._options = dict(options or {})
        self._pending: deque[av.VideoFrame | av.AudioFrame] = deque()
        self._stop = threading.Event()
        self._first: float | None = None
        self._begin = 0
        self._last_picture = -1

    async def run(self) -> None:
        """Write until the device ends. Raises `MediaError`, and what writing raises."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        self._begin = self._publisher._clock.end or 0

        def take() -> None:
            try:
                while self._pending and not ended.done():
                    self._offer(self._pending.popleft())
            except Exception as error:
                if not ended.done():
                    ended.set_exception(error)

        def end(error: Exception | None) -> None:
            take()
            if not ended.done():
                ended.set_exception(error) if error is not None else ended.set_result(None)

        def work() -> None:
            error: Exception | None = None
            try:
                self._work(lambda: loop.call_soon_threadsafe(take))
            except Exception as failed:
                error = failed
            with contextlib.suppress(RuntimeError):  # the loop is gone, and so is who waits
                loop.call_soon_threadsafe(end, error)
                loop.call_soon_threadsafe(left.set_result, None)

        left: asyncio.Future[None] = loop.create_future()
        # No executor: one whose device is stuck would keep the interpreter from ending.
        threading.Thread(target=work, name="livepeer-camera", daemon=True).start()
        try:
            await ended
            await self._publisher._flush()
        finally:
            self._stop.set()
            await asyncio.wait({left}, timeout=1.0)

    def _offer(self, frame: av.VideoFrame | av.AudioFrame) -> None:
        timestamp = None
        if frame.time is not None:
            self._first = frame.time if self._first is None else self._first
            ticks = max(round((frame.time - self._first) * CLOCK), 0) + self._begin
            if isinstance(frame, av.VideoFrame):
                ticks = self._last_picture = max(ticks, self._last_picture + 1)
            timestamp = ticks / CLOCK
        self._publisher._offer(frame, timestamp)

    def _work(self, tell: Callable[[], object]) -> None:
        """Read the device, on a thread of its own."""
        with self._open() as container:
            streams: list[Any] = [*container.streams.video[:1], *container.streams.audio[:1]]
            if not streams:
                raise MediaError(f"{self._name!r} ({self._format}) brings neither video nor sound.")
            try:
                for frame in container.decode(streams):
                    if self._stop.is_set():
                        return
                    if len(self._pending) >= _PENDING:
                        with contextlib.suppress(IndexError):
                            self._pending.popleft()
                            self._publisher._queue.dropped += 1
                    self._pending.append(frame)
                    tell()
            except (av.error.FFmpegError, OSError) as error:
                if not isinstance(error, av.error.EOFError):
                    raise MediaError(f"{self._name!r} ({self._format}) failed: {why(error)}.") from error

    def _open(self) -> Any:
        if not any(self._format in names.split(",") for names in av.formats_available):
            raise MediaError(
                f"This PyAV has no input {self._format!r}.",
                hint='Cameras are "v4l2" on Linux, "avfoundation" on macOS, "dshow" on Windows.',
            )
        prefix = "video=" if self._format == "dshow" and "=" not in self._name else ""
        try:
            return av.open(prefix + self._name, format=self._format, options=self._options)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise MediaError(
                f"The camera {self._name!r} ({self._format}) can't be opened: {why(error)}.",
                hint=_advice(self._format, self._options),
            ) from error


def _advice(format: str, options: Mapping[str, str]) -> str:
    if format != "v4l2":
        return f"Check the name, whether another program uses it, and the options {dict(options)}."
    present = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
    return f"Cameras here: {present}. It may be in use, or its user not be in the group video."
