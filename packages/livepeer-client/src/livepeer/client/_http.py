"""The gateway's connections: one `Transport` per event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from livepeer.trickle.transport import TLSPolicy, Transport

from ._elsewhere import Elsewhere
from ._failures import translated, unsent, within
from ._fork import abandon, on_fork
from ._observing import Observer
from ._urls import redact
from ._version import __version__
from .errors import ConfigurationError, ConnectionFailed

if TYPE_CHECKING:
    from .routes import Answer

__all__ = ["Pool", "running_loop", "same_slash", "translated", "unsent", "within"]

_logger = logging.getLogger("livepeer.client")
_LAST_WORDS = 5.0  # seconds that the end of a loop waits for sessions to be stopped


class _Closable(Protocol):
    async def aclose(self) -> None: ...


class Pool:
    """A `Transport` for each event loop that a gateway is used on.

    Each is held by an asynchronous generator that was started on its loop: `asyncio.run` ends those when it
    has cancelled the tasks and before it closes the loop, so nobody has to close a gateway.
    """

    def __init__(
        self,
        tls: TLSPolicy,
        observer: Observer | None = None,
        credentials: Mapping[str, str] | None = None,
    ) -> None:
        self.tls = tls
        self._credentials = credentials
        self.observer: Observer = observer or Observer()
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Held] = weakref.WeakKeyDictionary()
        self._elsewhere = Elsewhere()
        on_fork(self)

    async def transport(self) -> Transport:
        """The transport of the running loop."""
        return self._here().transport

    def track(self, answer: Answer) -> None:
        """Close this answer with the connections of its loop, when nobody did before."""
        self._here().answers.add(answer)

    def enlist(self, session: _Closable) -> None:
        """Close this session with the connections of its loop, unless it is discharged before."""
        self._here().sessions.add(session)

    def discharge(self, session: _Closable) -> None:
        """Forget a session that is over."""
        self._here().sessions.discard(session)

    def adopt(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        """Begin work that outlives its caller; `aclose` waits for it.

        Args:
            make: Makes the coroutine. It is called once more when the first one is cancelled, which is what
                `asyncio.run` does to every task before the connections are closed.
        """
        return self._here().begin(make)

    @contextlib.asynccontextmanager
    async def reserving(self, where: str, **details: Any) -> AsyncGenerator[None, None]:
        """Inside, a place is asked for that only the answer names; `aclose` waits for it, for some seconds.

        Args:
            where: Who is asked, for the error.
            details: `request_id` and `orchestrator` for the error.

        Raises:
            ConnectionFailed: The connections are being closed.
        """
        mine = self._here()
        if mine.settling:
            await asyncio.sleep(0)  # who tries again at once, in a task that starts eagerly, lets it go on
            raise ConnectionFailed(
                f"{redact(where)} was not asked: the gateway is being closed.", retryable=True, **details
            )
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mine.reserving.add(answered)
        try:
            yield
        finally:
            mine.reserving.discard(answered)
            if not answered.done():
                answered.set_result(None)

    async def aclose(self) -> None:
        """Wait for adopted work, and close the connections of the running loop."""
        loop = running_loop()
        held = self._loops.get(loop)
        if held is None:
            return
        mine, holding = held
        async with mine.closing:
            if self._loops.get(loop) is held:
                await asyncio.gather(*mine.work, return_exceptions=True)
                await holding.aclose()

    def close_elsewhere(self, *, wait: bool) -> None:
        """Close the connections of other threads' loops; see `Elsewhere.run`."""
        self._elsewhere.run(self.loops(), self.aclose, wait=wait)

    async def aclose_elsewhere(self) -> None:
        """The same, awaited."""
        await self._elsewhere.arun(self.loops(), self.aclose)

    def loops(self) -> list[asyncio.AbstractEventLoop]:
        """The loops with open connections."""
        # By `keyrefs`, which is one step: another thread's loop may come in the midst of an iteration.
        loops = [reference() for reference in self._loops.keyrefs()]
        return [loop for loop in loops if loop is not None and not loop.is_closed()]

    def forget(self, loop: asyncio.AbstractEventLoop) -> None:
        """The connections of a loop are being closed; its next call opens others."""
        held = self._loops.pop(loop, None)
        if held is not None and held[0].orphaned is not None:
            held[0].orphaned.detach()

    def _here(self) -> _OnLoop:
        loop = running_loop()
        held = self._loops.get(loop)
        if held is None:
            mine = _OnLoop(self._make())
            holding = _hold(mine, weakref.ref(self), loop)
            with contextlib.suppress(StopIteration):
                holding.__anext__().send(None)  # to its yield, which it reaches without waiting
            held = self._loops[loop] = (mine, holding)
            # Referred to from here too, because in a cycle with the gateway (which an exception's traceback
            # easily makes) the connections would be collected before they are closed.
            mine.orphaned = weakref.finalize(self, _end, loop, holding)
            mine.orphaned.atexit = False
        return held[0]

    def _make(self) -> Transport:
        agent = f"livepeer-client/{__version__}"
        return Transport(tls=self.tls, user_agent=agent, credentials=self._credentials)

    def _after_fork(self) -> None:
        for loop in [reference() for reference in self._loops.keyrefs()]:
            if loop is not None:
                abandon(loop)
                abandon(self._loops[loop])
        self._loops = weakref.WeakKeyDictionary()


class _OnLoop:
    """What a pool has on one loop."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.answers: weakref.WeakSet[Answer] = weakref.WeakSet()
        self.sessions: set[_Closable] = set()
        self.work: set[asyncio.Task[Any]] = set()
        self.closing = asyncio.Lock()
        self.reserving: set[asyncio.Future[None]] = set()
        self.settling = False
        self.orphaned: weakref.finalize[..., Any] | None = None
        self._cut_off: list[Callable[[], Coroutine[Any, Any, Any]]] = []

    def begin(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        """Start adopted work."""

        def ended(task: asyncio.Task[Any]) -> None:
            self.work.discard(task)
            if task.cancelled():
                self._cut_off.append(make)
            elif error := task.exception():
                _logger.debug("what a call left behind failed: %r", error)

        task = asyncio.get_running_loop().create_task(make())
        self.work.add(task)
        task.add_done_callback(ended)
        return task

    async def settle(self) -> None:
        """Give back what is still reserved."""
        self.settling = True
        if self.reserving:
            await asyncio.wait(set(self.reserving), timeout=_LAST_WORDS)
        open_now = [*self.answers, *self.sessions]
        ending = [asyncio.ensure_future(one.aclose()) for one in open_now]
        cut_off, self._cut_off = self._cut_off, []
        ending += [self.begin(make) for make in cut_off]
        ending += self.work
        if ending:
            await asyncio.wait(ending, timeout=_LAST_WORDS)


_Held = tuple[_OnLoop, AsyncGenerator[None, None]]


def _end(loop: asyncio.AbstractEventLoop, holding: AsyncGenerator[None, None]) -> None:
    """Close the connections of a gateway that was collected; any thread may be the one that collects it."""
    if not loop.is_closed():
        with contextlib.suppress(RuntimeError):  # closed in between, and its generators with it
            loop.call_soon_threadsafe(lambda: loop.create_task(holding.aclose()))


async def _hold(
    mine: _OnLoop, pool: weakref.ref[Pool], loop: asyncio.AbstractEventLoop
) -> AsyncGenerator[None, None]:
    """Close what a pool has on a loop, at the end of either; so it must not keep the pool alive."""
    process = os.getpid()
    try:
        yield
    finally:
        # A child that unwinds an inherited loop must not touch its parent's connections.
        if os.getpid() == process:
            try:
                await mine.settle()
            finally:
                if owner := pool():
                    owner.forget(loop)
                await mine.transport.aclose()


def running_loop() -> asyncio.AbstractEventLoop:
    """The running asyncio loop.

    Raises:
        ConfigurationError: There is none: the caller runs on another library's loop, such as trio's.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "The asynchronous verbs need a running asyncio event loop, and there is none here.",
            hint="Under trio, call the synchronous verb in a thread: "
            "await trio.to_thread.run_sync(functools.partial(gw.run, …)).",
        ) from None


def same_slash(sent: str, location: str) -> str | None:
    """Where a redirect leads, when it only adds the missing slash on the same origin; else None.

    Args:
        sent: What was called, escaped.
        location: What the answer says.
    """
    from yarl import URL  # loaded where there is a redirect

    called = URL(sent, encoded=True)
    try:
        target = called.join(URL(location))
    except ValueError:
        return None  # a worker may write there what it likes
    if not target.host or target.origin() != called.origin():
        return None
    if target.path == called.path + "/" and target.query == called.query:
        return str(target)
    return None
