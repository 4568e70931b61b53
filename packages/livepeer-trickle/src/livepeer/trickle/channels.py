"""Channels of JSON messages, as control and events are: one message to a segment, or JSON lines."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from typing import Any

from .errors import TrickleError
from .messages import MessageDecoder
from .publisher import TricklePublisher
from .segment_writer import SegmentWriter
from .subscriber import SegmentReader, TrickleSubscriber
from .transport import Transport

__all__ = ["ChannelReader", "ChannelWriter", "JSONLReader", "JSONLWriter"]

_logger = logging.getLogger("livepeer.trickle")
_LINGER = 0.25  # seconds in which readers can fetch the last messages before the server forgets them
_ROLL_AFTER = 60.0  # seconds; a channel without a new segment for 5 minutes is swept
_ROLL_SIZE = 1024 * 1024  # bytes


class ChannelWriter:
    """Writes JSON messages to a channel, one to a segment.

    The server keeps five segments, so after four messages at once the others of a burst go out 5 ms apart;
    `JSONLWriter` has no such limit.

    Args:
        url: The channel's URL.
        transport: The HTTP session to use; the writer makes and closes its own when absent.
        pace: That distance in seconds; see `TricklePublisher`.
    """

    def __init__(self, url: str, *, transport: Transport | None = None, pace: float = 0.005) -> None:
        self._publisher = TricklePublisher(url, transport=transport, mime_type="application/json", pace=pace)
        self._lock = asyncio.Lock()
        self.bytes: int = 0
        """Bytes of messages so far."""
        self.url: str = self._publisher.url

    async def write(self, message: Any) -> None:
        """Write one message (a JSON value), and wait until the server has it.

        Raises:
            TrickleError: The message can't be written as JSON.
            ChannelNotFound: There is no such channel.
            ChannelClosed: The channel ended.
            TrickleConnectionError: The server can't be reached.
        """
        data = _encode(message)
        async with self._lock:
            await self._write(data)
            self.bytes += len(data)

    async def close(self, *, delete: bool = True) -> None:
        """End the channel, a quarter of a second after the last message: ending it discards what is unread.

        Args:
            delete: Whether to end the channel for everybody; otherwise it only isn't written any more.
        """
        await self._close(delete=delete, linger=_LINGER)

    async def __aenter__(self) -> ChannelWriter:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        await self._close(delete=True, linger=_LINGER if kind is None else 0.0)

    async def _close(self, *, delete: bool, linger: float) -> None:
        async with self._lock:
            await self._publisher.close(delete=delete, linger=linger)

    async def _write(self, data: bytes) -> None:
        await self._publisher.write(data)


class JSONLWriter(ChannelWriter):
    """Writes JSON messages to a channel as lines of long segments, so that no burst is lost on a slow reader.

    A message is on its way when `write` returns; that the server has it is known when its segment ends, after
    `roll_after` seconds, a MiB, or by `close`. When a connection breaks the messages of its segment are
    written once more: a reader can get one twice, never not at all. What can't be mended is raised by the
    next call.

    Args:
        url: The channel's URL.
        transport: The HTTP session to use; the writer makes and closes its own when absent.
        roll_after: Seconds after which a segment ends.
    """

    def __init__(
        self, url: str, *, transport: Transport | None = None, roll_after: float = _ROLL_AFTER
    ) -> None:
        super().__init__(url, transport=transport)
        self._roll_after = roll_after
        self._segment: SegmentWriter | None = None
        self._unsure: list[bytes] = []  # what the server may not have
        self._size = 0
        self._rolling: asyncio.Task[None] | None = None
        self._failure: TrickleError | None = None

    async def _write(self, data: bytes) -> None:
        self._raise_failure()
        if self._size >= _ROLL_SIZE:
            await self._end_segment()
        unsent = [data]
        if self._segment is None:
            self._segment, self._size = self._publisher.segment(), 0
            self._rolling = asyncio.create_task(self._roll(self._segment), name="trickle-roll")
            unsent = [*self._unsure, data]
        self._unsure.append(data)
        self._size += len(data)
        try:
            await self._segment.write(b"".join(unsent))
        except TrickleError as error:
            await self._once_more(error)
        except BaseException:
            self._unsure.pop()  # the caller was cancelled; what others wrote goes with the next message
            await self._abort_segment()
            raise

    async def _close(self, *, delete: bool, linger: float) -> None:
        try:
            async with self._lock:
                self._raise_failure()
                await self._end_segment()
        finally:
            await self._abort_segment()
            if self._rolling is not None:
                self._rolling.cancel()
                await asyncio.wait({self._rolling})
            await super()._close(delete=delete, linger=linger)

    async def _roll(self, segment: SegmentWriter) -> None:
        await asyncio.sleep(self._roll_after)
        async with self._lock:
            try:
                if self._segment is segment:
                    await self._end_segment()
            except TrickleError as error:
                self._failure = error

    async def _end_segment(self) -> None:
        segment, self._segment = self._segment, None
        try:
            if segment is not None:
                await segment.close()
            elif self._unsure:
                await self._publisher.write(b"".join(self._unsure))
        except TrickleError as error:
            await self._once_more(error)
        self._unsure.clear()

    async def _once_more(self, error: TrickleError) -> None:
        await self._abort_segment()
        data = b"".join(self._unsure)
        self._unsure.clear()
        if not error.retryable:
            raise error
        _logger.debug("the messages of a segment of %s are written once more: %s", self.url, error)
        await self._publisher.write(data)

    async def _abort_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            await segment.abort()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


class ChannelReader:
    """Reads JSON messages from a channel: ``async for message in reader`` (or ``in reader()``).

    Takes one message to a segment and JSON lines alike. The iteration ends normally with the channel, and
    raises as `TrickleSubscriber` does. What is no JSON is left out and counted in `malformed`.

    Args:
        url: The channel's URL.
        transport: The HTTP session to use; the reader makes and closes its own when absent.
        start: The number of the first segment, or -1 for the one written next, or -2 for the newest.
    """

    def __init__(self, url: str, *, transport: Transport | None = None, start: int = 0) -> None:
        self._subscriber = TrickleSubscriber(url, transport=transport, start=start)
        self.url: str = self._subscriber.url
        self.malformed: int = 0
        self.bytes: int = 0
        """Bytes of messages so far."""
        self._ready: deque[Any] = deque()
        self._segment: SegmentReader | None = None
        self._decoder = MessageDecoder()

    @property
    def missed(self) -> int:
        """How many segments fell out of the server's ring before they were read."""
        return self._subscriber.missed

    def __call__(self) -> ChannelReader:
        """The reader itself, so that ``session.events`` and ``session.events()`` read the same."""
        return self

    def __aiter__(self) -> ChannelReader:
        return self

    async def __anext__(self) -> Any:
        while not self._ready:
            if self._segment is None:
                self._segment, self._decoder = await anext(self._subscriber), MessageDecoder()
            chunk = await anext(self._segment, None)
            if chunk is not None:
                self.bytes += len(chunk)
                self._ready.extend(self._decoder.feed(chunk))
                continue
            self._ready.extend(self._decoder.finish())
            if self._decoder.malformed:
                self.malformed += self._decoder.malformed
                _logger.debug("segment %d of %s holds no JSON", self._segment.seq, self.url)
            self._segment = None
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Stop reading and close the connections."""
        await self._subscriber.aclose()

    async def __aenter__(self) -> ChannelReader:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


class JSONLReader(ChannelReader):
    """Reads JSON lines: what `ChannelReader` does, under the name that goes with `JSONLWriter`."""


def _encode(message: Any) -> bytes:
    try:
        return (
            json.dumps(message, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise TrickleError(
            f"A message must be a JSON value, which {type(message).__name__} is not: {error}"
        ) from error
