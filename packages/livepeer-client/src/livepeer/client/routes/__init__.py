"""The ways from a candidate to a worker; each is one module with one interface."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..catalogue import Price
from ..errors import ResponseError
from ..events import Decoder, decoder_for
from ..inputs import Body
from ..payments.ledger import Bill
from ..timeouts import Timeout

if TYPE_CHECKING:
    from livepeer.trickle import Transport
    from livepeer.trickle.transport import Reply

    from .._observing import Observation
    from ..payments.keeper import Keeper
    from ._health import Health

__all__ = ["Answer", "Call", "LiveCall", "Route", "Started", "paying"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a capability, as a route sends it."""

    capability: str
    body: Body
    timeout: Timeout
    request_id: str
    path: str | None = None
    method: str = "POST"
    paid: bool = False  # whether a payment goes with it
    max_price: Price | None = None  # the most that it may cost
    bill: Bill = field(default_factory=Bill)  # what was paid for it
    streamed: bool = False  # whether its answer is read as it comes


@dataclass(frozen=True, slots=True)
class LiveCall:
    """The start of a live session, as a route sends it."""

    capability: str
    request_id: str
    model: str | None = None
    params: dict[str, Any] | None = None
    stream_id: str | None = None
    path: str | None = None
    max_price: Price | None = None
    bill: Bill = field(default_factory=Bill)


def paying(keeper: Keeper | None) -> contextlib.AbstractAsyncContextManager[None]:
    """What waits inside is ended with its payment, where it has one; see `Keeper.guard`."""
    return contextlib.nullcontext() if keeper is None else keeper.guard()


class Answer:
    """An answer whose head has arrived and whose body has not.

    Args:
        response: The answer itself.
        orchestrator: The URL of the orchestrator.
        app: The app that answers, as discovery names it.
        price: Its advertised price; None when it is free.
        release: Begins to give back what the call reserved; called once, after the body.
        decoder: Makes what the body's events are read by, where that isn't its media type's ordinary way.
        seen: Is told of its end.
        restore: Finds out what a whole body is, from it and the media type that is told, where that is no
            good.
        keeper: Goes on paying for it.

    Attributes:
        content_type: The media type of the body; where it has to be restored, from the body's end on.
        most: How many bytes of content are taken; None is any number.
        failure: Why its body could not be read to the end, if that is so.
        on_end: Called once, when it is closed.
    """

    def __init__(
        self,
        response: Reply,
        *,
        orchestrator: str,
        app: str,
        price: str | None = None,
        release: Callable[[], asyncio.Task[None]] | None = None,
        decoder: Callable[[], Decoder] | None = None,
        seen: Observation | None = None,
        restore: Callable[[bytes, str], str] | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self.most: int | None = None
        self.on_end: Callable[[], None] | None = None
        self.content_type: str = response.content_type
        self.failure: BaseException | None = None
        self.response = response
        self.orchestrator = orchestrator
        self.app = app
        self.price = price
        self._release = release
        self._decoder = decoder
        self._seen = seen
        self._restore = restore
        self._keeper = keeper
        self._process = os.getpid()

    @property
    def inherited(self) -> bool:
        """Whether it belongs to the process that this one was forked from."""
        return os.getpid() != self._process

    def paying(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Inside, content is waited for as long as it is paid for; see `Keeper.guard`."""
        return paying(self._keeper)

    def decoder(self) -> Decoder:
        """What makes events of the body."""
        if self._decoder is not None:
            return self._decoder()
        return decoder_for(self.response.content_type, self.response.charset)

    def restore_type(self, body: bytes) -> str:
        """The media type of the body, of which this is all."""
        if self._restore is not None:
            self.content_type = self._restore(body, self.content_type)
        return self.content_type

    def check_size(self, size: int) -> None:
        """Refuse more content than is taken; what was compressed counts with all that comes of it.

        Raises:
            ResponseError: It is more.
        """
        if self.most is not None and size > self.most:
            raise ResponseError(
                f"The answer of {self.app!r} has more than {self.most} bytes, or no end.",
                hint="Gateway(max_response_bytes=…) takes more, or with None anything.",
                orchestrator=self.orchestrator,
            )

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end, and release what was reserved."""
        releasing = self.abandon()
        if releasing is not None:
            # Shielded: a caller that is cancelled here leaves the release to the gateway.
            await asyncio.shield(releasing)

    def abandon(self) -> asyncio.Task[None] | None:
        """`aclose` without the wait: the task that releases what was reserved, if anything was."""
        from livepeer.trickle.transport import hang_up

        if self.inherited:
            return None
        failure, self.failure = self.failure, None  # whose traceback leads back to here
        if self._seen is not None:
            self._seen.end(failure)
        if self._keeper is not None:
            self._keeper.halt()
        hang_up(self.response)
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end()
        release, self._release = self._release, None
        return release() if release is not None else None


@dataclass(slots=True)
class Started:
    """A live session that a worker accepted.

    Attributes:
        raw: The worker's answer.
        orchestrator: The URL of the orchestrator.
        app: The capability, as the network names it.
        session_id: The orchestrator's name for the session.
        stop: Ends the session at the orchestrator; may be called again.
        ask: Finds out whether the session and its worker are there.
        app_url: Where the worker's own HTTP paths are; "" where none can be reached.
        urls: Channel URLs by role: ``publish``, ``subscribe``, ``control``, ``events``, ``data``.
        takes_lines: Whether the worker is known to take several JSON messages in one segment, as lines.
        update: The contract's own way to change parameters; None where that is the control channel.
        input_ends_all: Whether the end of the media-in channel ends all others, and discards what is in them.
        keeper: Goes on paying for it, until it is stopped.
    """

    raw: dict[str, Any]
    orchestrator: str
    app: str
    session_id: str
    stop: Callable[[], Coroutine[Any, Any, None]]
    ask: Callable[[Transport, Started], Awaitable[Health]]
    app_url: str = ""
    urls: dict[str, str] = field(default_factory=dict)
    takes_lines: bool = False
    update: Callable[[dict[str, Any]], Awaitable[None]] | None = None
    input_ends_all: bool = False
    keeper: Keeper | None = None


class Route(Protocol):
    """What a route can do with a candidate.

    Attributes:
        name: How it calls.
        orchestrator: The URL of the orchestrator that it leads through.
        place: What `Records` call that to which it leads.
    """

    name: str
    orchestrator: str
    place: str

    async def open(self, call: Call) -> Answer:
        """Send a request and return when its answer's head is there; a status from 400 up raises."""
        ...

    async def open_live(self, call: LiveCall) -> Started:
        """Start a live session."""
        ...
