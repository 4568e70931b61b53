"""Reading a trickle channel: a GET for each segment, sent before anybody wants it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from ._begun import Begun, begin
from ._exchange import Exchange
from ._lookahead import Lookahead
from ._wire import BROKEN, Endpoint, connection_error, is_final, is_refused, told_by
from .errors import ChannelNotFound, ConfigurationError, TrickleConnectionError, TrickleError
from .protocol import CURRENT, Ask, End, Fail, ReaderState, Take
from .transport import Transport

__all__ = ["SegmentReader", "TrickleSubscriber"]

_logger = logging.getLogger("livepeer.trickle")


class TrickleSubscriber:
    """Reads the segments of one channel: ``async for segment in subscriber``.

    The iteration ends normally when the channel does. A connection that breaks is made again, and goes on
    where it broke; a segment that fell out of the server's ring of five meanwhile is counted in `missed`.
    At its end, or after an error, the subscriber is closed; one that is left earlier wants `aclose`.

    Args:
        url: The channel's URL.
        transport: The HTTP session to use; the subscriber makes and closes its own when absent.
        start: The number of the first segment, or -1 for the one written next, or -2 for the newest.

    The iteration raises:
        ChannelNotFound: There was no such channel from the beginning.
        TrickleConnectionError: The server can't be reached (any more).
        TrickleError: The server answered what no trickle server answers.
    """

    def __init__(self, url: str, *, transport: Transport | None = None, start: int = 0) -> None:
        if start < CURRENT:
            raise ConfigurationError(
                f"start={start}: it is a segment's number, or -1 (the next one), or -2 (the current one)."
            )
        self._endpoint = Endpoint(url, transport)
        self.url: str = self._endpoint.url
        self._state = ReaderState(start)
        self._segment: SegmentReader | None = None
        self._ahead = Lookahead(self._endpoint)
        self._taken: tuple[Take, Exchange] | None = None
        self._over = False

    @property
    def missed(self) -> int:
        """How many segments fell out of the ring before they were read (to their end)."""
        return self._state.missed

    def __aiter__(self) -> TrickleSubscriber:
        return self

    async def __anext__(self) -> SegmentReader:
        """The next segment; what was not read of the one before is skipped."""
        if self._segment is not None:
            self._segment._abandon()
            self._segment = None
        taken, self._taken = self._taken, None
        if taken is None and not self._over:
            try:
                taken = await self._take()
            except TrickleError:
                await self.aclose()
                raise
        if taken is None:
            await self.aclose()
            raise StopAsyncIteration
        take, exchange = taken
        self._segment = SegmentReader(self, take, exchange)
        return self._segment

    async def aclose(self) -> None:
        """Stop reading and close the connections. The channel goes on without this reader."""
        self._over = True
        if self._segment is not None:
            self._segment._abandon()
            self._segment = None
        if self._taken is not None:
            self._taken[1].close()
            self._taken = None
        self._ahead.close()
        await self._endpoint.aclose()

    async def __aenter__(self) -> TrickleSubscriber:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def _take(self) -> tuple[Take, Exchange] | None:
        """The next answer that is a segment, when its first byte is there; None at the end."""
        error: BaseException | None = None
        alone = False
        while not self._over:
            exchange = self._ahead.first(self._state.want, alone=alone)
            url = f"{self.url}/{self._state.want}"
            try:
                await exchange.answer()
            except BROKEN as broken:
                if self._over:
                    return None
                error = broken
                self._ahead.pop()
                self._ahead.forget_unanswered()
                _logger.debug("GET %s: %r", url, broken)
                if is_final(broken):
                    raise connection_error("GET", url, broken) from broken
                action: Ask | End | Fail = self._state.on_break(
                    elapsed=exchange.lifetime, refused=is_refused(broken)
                )
            else:
                if self._over:
                    return None
                self._ahead.pop()
                decision = self._state.on_response(
                    exchange.status,
                    exchange.headers,
                    elapsed=exchange.lifetime,
                    following=self._ahead.next_number,
                )
                if isinstance(decision, Take):
                    self._ahead.extend()
                    return decision, exchange
                action = decision
                await _finish(exchange)
            if isinstance(action, End):
                if action.found:
                    return None
                raise ChannelNotFound(f"There is no channel {self.url}: it is over, or never was.")
            if isinstance(action, Fail):
                raise self._failure(action, url, error)
            if alone := action.alone:
                self._ahead.forget_unanswered()
            await asyncio.sleep(action.delay)
        return None

    async def _again(self, received: int, error: BaseException) -> tuple[Take, Exchange] | None:
        """Go on with the segment whose connection broke after `received` bytes; None at the end."""
        self._ahead.forget_unanswered()
        action = self._state.on_break(received)
        if isinstance(action, Fail):
            raise self._failure(action, self.url, error)
        await asyncio.sleep(action.delay)
        return await self._take()

    def _failure(self, action: Fail, url: str, error: BaseException | None) -> TrickleError:
        if not action.connection:
            return TrickleError(f"GET {url}: {action.reason}.")
        detail = f" ({told_by(error)})" if error is not None else ""
        return TrickleConnectionError(f"GET {url}: {action.reason}{detail}.", retryable=True)


class SegmentReader:
    """One segment, readable while it is being written: ``async for chunk in segment``.

    Attributes:
        seq: The segment's number.
        content_type: The channel's content type.
        truncated: Whether the connection broke and the rest of the segment could not be had.
    """

    def __init__(self, subscriber: TrickleSubscriber, take: Take, exchange: Exchange) -> None:
        self.seq: int = take.seq
        self.content_type: str = exchange.headers.get("Content-Type", "application/octet-stream")
        self.truncated: bool = False
        self._subscriber = subscriber
        self._exchange: Exchange | None = exchange
        self._skip = take.skip
        self._received = 0

    def __aiter__(self) -> SegmentReader:
        return self

    async def __anext__(self) -> bytes:
        while self._exchange is not None:
            try:
                chunk = await self._exchange.readany()
            except BROKEN as error:
                self._exchange.close()
                self._exchange = None
                await self._resume(error)
                continue
            if not chunk:
                self._exchange = None
                self._subscriber._state.on_segment_end()
                break
            if self._skip:
                skipped = min(self._skip, len(chunk))
                self._skip -= skipped
                chunk = chunk[skipped:]
            if chunk:
                self._received += len(chunk)
                return chunk
        raise StopAsyncIteration

    async def read(self) -> bytes:
        """The rest of the segment, when it is complete."""
        return b"".join([chunk async for chunk in self])

    async def deliver(self, take: Callable[[bytes], Coroutine[Any, Any, None]]) -> None:
        """Give the rest of the segment to `take`, piece by piece, each the moment it comes.

        While `take` has nothing to wait for, it runs without waking a task; it may not ask for its own.
        """
        begun: Begun | None = None

        def at_once(data: bytes) -> bool:
            nonlocal begun
            self._received += len(data)
            begun = begin(take(data))
            return begun is None

        try:
            while self._exchange is not None:
                if not self._skip:
                    await self._exchange.relay(at_once)
                if begun is not None:
                    rest, begun = begun, None
                    await rest
                    continue
                chunk = await anext(self, None)
                if chunk is not None:
                    await take(chunk)
        finally:
            if begun is not None:
                begun.close()

    async def _resume(self, error: BaseException) -> None:
        _logger.debug("segment %d of %s broke: %r", self.seq, self._subscriber.url, error)
        try:
            taken = await self._subscriber._again(self._received, error)
        except TrickleError:
            await self._subscriber.aclose()
            raise
        if taken is None:
            self.truncated = self._subscriber._over = True
            return
        take, exchange = taken
        if take.seq == self.seq:
            self._exchange, self._skip = exchange, take.skip
            return
        self.truncated = True
        self._subscriber._taken = taken

    def _abandon(self) -> None:
        if self._exchange is not None:
            if not self._exchange.complete:
                # Closing its connection takes those with it that follow on it.
                self._exchange.close()
                self._subscriber._ahead.forget_unanswered()
            self._exchange = None
            self._subscriber._state.on_segment_end()


async def _finish(exchange: Exchange) -> None:
    """Read an answer that isn't a segment, so that its connection can be used again."""
    try:
        await exchange.finish()
    except BROKEN as error:
        _logger.debug("an answer broke off: %r", error)
