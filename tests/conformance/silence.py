"""Minutes without a byte, which pass while other tests run: in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Self

from harness import Network, Session, Worker
from relay import Relay

from livepeer.trickle import (
    ChannelClosed,
    ChannelReader,
    JSONLReader,
    JSONLWriter,
    TricklePublisher,
    TrickleSubscriber,
)

__all__ = ["PROXY_PATIENCE", "SWEPT_AFTER", "Silence"]

SWEPT_AFTER = 380.0  # seconds: five minutes without a segment, found within one more
PROXY_PATIENCE = 6.0  # seconds without a byte after which a proxy of this file cuts


class Silence:
    """Long waits on a network, side by side, each with its outcome.

    Args:
        network: The network.
        seconds: How long nothing is said.
    """

    def __init__(self, network: Network, seconds: float) -> None:
        self.seconds = seconds
        self._network = network
        self._outcomes: dict[str, Future[Any]] = {
            name: Future() for name in ("long poll", "behind a proxy", "lines", "idle", "kept")
        }
        self._loop = asyncio.new_event_loop()
        self._main: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="silence", daemon=True)

    def outcome(self, name: str) -> Any:
        """Wait for one of them to be over, and return what it saw, or raise what it raised."""
        return self._outcomes[name].result(self.seconds + 60)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(RuntimeError):  # it is over, and its loop is closed
            self._loop.call_soon_threadsafe(lambda: self._main and self._main.cancel())
        self._thread.join(30)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._all())
            except asyncio.CancelledError:
                pass
            except Exception as error:
                for outcome in self._outcomes.values():
                    if not outcome.done():
                        outcome.set_exception(error)

    async def _all(self) -> None:
        self._main = asyncio.current_task()
        async with Worker(self._network) as worker, worker.kept_session() as session:
            waits: dict[str, Callable[[str], Coroutine[Any, Any, Any]]] = {
                "long poll": self._long_poll,
                "behind a proxy": self._behind_a_proxy,
                "lines": self._lines,
                "idle": self._idle,
                "kept": self._kept,
            }
            async with asyncio.TaskGroup() as group:
                for name, wait in waits.items():
                    group.create_task(self._watch(name, wait, worker, session))

    async def _watch(
        self, name: str, wait: Callable[[str], Coroutine[Any, Any, Any]], worker: Worker, session: Session
    ) -> None:
        try:
            wanted = {"channels": [{"name": uuid.uuid4().hex, "mime_type": "video/MP2T"}]}
            _, made = await worker.callback(session, "POST", "channels", wanted)
            self._outcomes[name].set_result(await wait(made["channels"][0]["url"]))
        except Exception as error:
            self._outcomes[name].set_exception(error)

    async def _long_poll(self, url: str) -> Any:
        """A reader waits for the first segment of a channel."""
        return await self._wait_for_a_segment(url, url)

    async def _behind_a_proxy(self, url: str) -> Any:
        """The same, and its connection is cut again and again because it is silent."""
        async with Relay(url, idle=PROXY_PATIENCE) as relay:
            return *await self._wait_for_a_segment(url, relay.url(url)), relay.cuts

    async def _wait_for_a_segment(self, url: str, reader_url: str) -> tuple[list[bytes], int]:
        async with TrickleSubscriber(reader_url) as reader, TricklePublisher(url) as publisher:
            reading = asyncio.create_task(self._read(reader))
            # The channel must not be swept; what is silent is the reader's connection.
            await asyncio.sleep(min(self.seconds, 280))
            await publisher.write(b"late")
            await publisher.close(linger=2.0)
            return await reading, reader.missed

    async def _lines(self, url: str) -> Any:
        """A segment of JSON lines stays open and silent, and its writer goes on in the next."""
        async with JSONLReader(url) as reader:
            async with JSONLWriter(url) as writer:
                await writer.write("first")
                got = [await anext(reader)]
                await asyncio.sleep(min(self.seconds, 280))
                await writer.write("late")
                got.append(await anext(reader))
            return got, [message async for message in reader]

    async def _idle(self, url: str) -> Any:
        """Nobody writes: the channel is swept after five minutes, and lives until then."""
        async with TrickleSubscriber(url) as reader, TricklePublisher(url) as publisher:
            await publisher.write(b"first")
            reading = asyncio.create_task(self._read(reader))
            await asyncio.sleep(self.seconds)
            try:
                await publisher.write(b"late")
                await publisher.close(linger=2.0)
                swept = False
            except ChannelClosed:
                swept = True
            return swept, await reading

    async def _kept(self, url: str) -> Any:
        """Something is written every minute: the channel lives, however long."""
        async with (
            ChannelReader(url) as reader,
            TricklePublisher(url, mime_type="application/json") as publisher,
        ):
            count, left = 0, self.seconds
            while left > 0:
                await publisher.write(b"%d" % count)
                assert await anext(reader) == count
                count += 1
                await asyncio.sleep(min(left, 60))
                left -= 60
            await publisher.write(b"%d" % count)
            assert await anext(reader) == count
            await publisher.close()
            return [message async for message in reader]

    async def _read(self, reader: TrickleSubscriber) -> list[bytes]:
        return [await segment.read() async for segment in reader]
