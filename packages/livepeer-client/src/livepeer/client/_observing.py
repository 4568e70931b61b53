"""What becomes of each request: a line of the debug log, and a record for `Gateway(on_request=…)`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import LivepeerError

if TYPE_CHECKING:
    from ._http import Pool

__all__ = ["Observation", "Observer", "RequestRecord", "asking"]

_logger = logging.getLogger("livepeer.client")


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request of a gateway, when it is over; what `Gateway(on_request=…)` is called with.

    Attributes:
        route: Who asked: ``"live_runner"``, ``"byoc"`` or ``"lv2v"`` for calls, starts of sessions and what
            belongs to them; ``"session"`` for `LiveSession.request` and `websocket`; ``"discovery"``,
            ``"offers"`` (BYOC job tokens), ``"grpc"``, ``"schema"``; ``"stop"`` for the ends of sessions.
        method: The HTTP method.
        url: Where to, without a password and without the query.
        status: The status of the answer; None when there was none.
        request_id: The id of the call that the request was made for; None when it serves all calls.
        orchestrator: The URL of the orchestrator.
        began: When it was sent, in seconds since 1970.
        head: Seconds until the head of the answer was there; None when it never was.
        elapsed: Seconds until its end: the answer's body was read, or given up, or the request failed. Of
            control requests (such as a reservation) the head is the end.
        error: Why it failed, as the call raises it or tries another way; `asyncio.CancelledError` when its
            caller was cancelled; else None.
    """

    route: str
    method: str
    url: str
    status: int | None
    request_id: str | None
    orchestrator: str | None
    began: float
    head: float | None
    elapsed: float
    error: BaseException | None


class Observer:
    """Tells of a gateway's requests.

    Args:
        on_request: Called with a `RequestRecord` at the end of each, on the event loop of the request. What
            it raises is logged, and changes nothing for the call.
    """

    def __init__(self, on_request: Callable[[RequestRecord], object] | None = None) -> None:
        self._on_request = on_request

    def begin(
        self,
        route: str,
        method: str,
        url: str,
        *,
        orchestrator: str | None = None,
        request_id: str | None = None,
    ) -> Observation | None:
        """A request begins now; None when nobody wants to know."""
        if self._on_request is None and not _logger.isEnabledFor(logging.DEBUG):
            return None
        return Observation(self._on_request, (route, method, url), orchestrator, request_id)


class Observation:
    """One request that somebody looks at."""

    def __init__(
        self,
        on_request: Callable[[RequestRecord], object] | None,
        named: tuple[str, str, str],
        orchestrator: str | None,
        request_id: str | None,
    ) -> None:
        from ._urls import redact

        self._on_request = on_request
        self._named = (*named[:2], redact(named[2]))
        self._orchestrator = orchestrator
        self._request_id = request_id
        self._began = time.time()
        self._clock = time.perf_counter()
        self._status: int | None = None
        self._head: float | None = None
        self._over = False

    def answered(self, status: int) -> None:
        """The head of its answer is there."""
        self._status, self._head = status, time.perf_counter() - self._clock

    def end(self, error: BaseException | None = None) -> None:
        """It is over; only the first call says so."""
        if self._over:
            return
        self._over = True
        route, method, url = self._named
        record = RequestRecord(
            route, method, url, self._status, self._request_id, self._orchestrator,
            self._began, self._head, time.perf_counter() - self._clock, error,
        )  # fmt: skip
        if _logger.isEnabledFor(logging.DEBUG):
            _logger.debug("%s", _line(record))
        if self._on_request is not None:
            try:
                self._on_request(record)
            except Exception:
                _logger.exception("on_request= raised; the call goes on without it")


@contextmanager
def asking(
    pool: Pool,
    route: str,
    method: str,
    url: str,
    *,
    orchestrator: str | None = None,
    request_id: str | None = None,
    connect: float | None = None,
) -> Iterator[Callable[[int], None]]:
    """`translated`, for a request that begins and ends inside, and is told of.

    Yields:
        What takes the status of the answer.
    """
    from ._http import translated

    details: dict[str, Any] = {"orchestrator": orchestrator, "request_id": request_id}
    seen = pool.observer.begin(route, method, url, **details)
    try:
        with translated(url, connect=connect, **details):
            yield seen.answered if seen is not None else _ignored
    except BaseException as error:
        if seen is not None:
            seen.end(error)
        raise
    if seen is not None:
        seen.end()


def _ignored(status: int) -> None:
    """Takes the status of a request that nobody looks at."""


def _line(record: RequestRecord) -> str:
    """A record as one line."""
    words = [record.route, record.method, record.url]
    words.append(str(record.status) if record.status is not None else "without an answer")
    if record.request_id:
        words.append(f"request_id={record.request_id}")
    if record.orchestrator:
        words.append(f"orchestrator={record.orchestrator}")
    if record.head is not None:
        words.append(f"head {1000 * record.head:.1f} ms,")
    words.append(f"end {1000 * record.elapsed:.1f} ms")
    if record.error is not None:
        error = record.error
        text = error.message if isinstance(error, LivepeerError) else str(error)
        words.append(f"{type(error).__name__}: {' '.join(text.split())}".removesuffix(": "))
    return " ".join(words)
