"""One call of ``run``: from a request to its answer, and its end when the client goes away."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ._workers import Lease, Worker
from .errors import HTTPError, RunFailed
from .events import DONE, KEEP_ALIVE, encode_error, encode_event, too_long
from .pipeline import Pipeline
from .results import encode_result, is_stream

__all__ = ["answer", "as_http_error", "through_live_runner"]

_logger = logging.getLogger("livepeer.runner")

_LARGE = 64 * 1024  # bytes of a body that is validated off the event loop
_FIRST_EVENT = 10.0  # seconds in which the first event, or an error, still decides the answer's status
_PROXY_PAUSE = 0.003  # seconds between the end of a body and the head of a stream, see `_after_the_body`
_KEEP_ALIVE = 15.0  # seconds of silence before a comment: proxies cut idle connections after 60
_GONE = Response(status_code=499)  # nobody is there to read it
_END = object()


async def answer(pipeline: Pipeline, lease: Callable[[], Awaitable[Lease]], request: Request) -> Response:
    """The answer to one request; raises `HTTPError`."""
    try:
        body = await request.body()
    except ClientDisconnect:
        return _GONE
    body_read_at = time.monotonic()
    place = await lease()
    gone = asyncio.ensure_future(_until_gone(request.receive))
    events: _Events | None = None
    try:
        result = await _first_of(_run(pipeline, request, body, place), gone)
        if result is _END:
            return _GONE
        if not is_stream(result):
            return await _whole(result, place)
        events = _Events(result, place, limited=not through_live_runner(request))
        return await _streamed(events, gone, _after_the_body(body_read_at, request))
    except HTTPError:
        raise
    except Exception as error:
        raise as_http_error(error, f"{type(pipeline).__name__}.run") from error
    finally:
        gone.cancel()
        if events is None:
            place.close()


def through_live_runner(request: Request) -> bool:
    """Whether a call came by an orchestrator's live runners; one by BYOC looks like one without any."""
    return "livepeer-runner-route" in request.headers


def as_http_error(error: Exception, where: str) -> HTTPError:
    """The answer to an exception of the author's code, which is logged unless it was raised as an answer."""
    if isinstance(error, HTTPError):
        return error
    if isinstance(error, HTTPException):
        return HTTPError(error.status_code, str(error.detail), headers=error.headers)
    _logger.error("%s raised %s", where, type(error).__name__, exc_info=error)
    return RunFailed(where, error)


async def _run(pipeline: Pipeline, request: Request, body: bytes, place: Lease) -> Any:
    """Bind and run; the result, or the generator that will give the results."""
    signature, run = pipeline.signature(), pipeline.run
    kind, query = request.headers.get("content-type"), request.query_params.multi_items()
    if len(body) > _LARGE or signature.decodes_images:
        arguments = await place.worker.submit(signature.bind, body, kind, query)
    else:
        arguments = signature.bind(body, kind, query)
    if inspect.isasyncgenfunction(run) or inspect.isgeneratorfunction(run):
        return run(**arguments)
    if inspect.iscoroutinefunction(run):
        result = await run(**arguments)
    else:
        result = await place.worker.submit(lambda: run(**arguments))
    return await result if inspect.isawaitable(result) else result


async def _whole(result: Any, place: Lease) -> Response:
    if isinstance(result, bytes | str):
        content, media_type = encode_result(result)
    else:
        content, media_type = await place.worker.submit(encode_result, result)
    return Response(content, headers={"content-type": media_type})


async def _streamed(events: _Events, gone: asyncio.Future[None], not_before: float) -> Response:
    handed_on = False
    try:
        if not await events.begin(gone):
            return _GONE
        await asyncio.sleep(max(0.0, not_before - time.monotonic()))
        handed_on = True
        return _EventStream(events)
    finally:
        if not handed_on:
            await asyncio.shield(events.aclose())


def _after_the_body(read_at: float, request: Request) -> float:
    """When the head of a stream may go: an orchestrator in front of us needs a moment after the body.

    go-livepeer v0.9.1 cuts off a streamed answer whose head comes at the very moment in which its proxy
    finishes with the request's body (4 in 1500 streams; none that began a millisecond later).
    """
    return read_at + (_PROXY_PAUSE if through_live_runner(request) else 0.0)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first_of(work: Awaitable[Any], gone: asyncio.Future[None]) -> Any:
    """The result of `work`, or ``_END`` (and the work cancelled) when the client went away before."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await _cancel(task)
        raise
    if task.done():
        return task.result()
    await _cancel(task)
    return _END


async def _cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and task.exception() is not None:
        _logger.debug("A cancelled call raised", exc_info=task.exception())


class _Events:
    """The events of one stream, and its place, which is given back when the generator is closed."""

    def __init__(self, source: Any, place: Lease, *, limited: bool) -> None:
        self._source = source
        self._place = place
        self._limited = limited
        self._items = source if hasattr(source, "__anext__") else _in_thread(source, place.worker)
        self._ahead: asyncio.Future[Any] | None = None
        self._over = False

    async def begin(self, gone: asyncio.Future[None]) -> bool:
        """Wait for the first event, so that an error before it has a status; False when the client left."""
        self._ahead = asyncio.ensure_future(anext(self._items, _END))
        await asyncio.wait({self._ahead, gone}, timeout=_FIRST_EVENT, return_when=asyncio.FIRST_COMPLETED)
        if self._ahead.done() and (error := self._ahead.exception()) is not None:
            self._finished()
            raise error
        return self._ahead.done() or not gone.done()

    async def next(self) -> bytes | None:
        """The bytes of the next event; None at the end."""
        try:
            item = await (self._ahead or anext(self._items, _END))
        except Exception:
            self._finished()
            raise
        self._ahead = None
        if item is _END:
            self._finished()
            return None
        data = encode_event(item)
        if self._limited and (error := too_long(data)) is not None:
            raise error
        return data

    def _finished(self) -> None:
        """Give the place back before the reader learns of the end, and perhaps calls again at once."""
        self._over = True
        self._place.close()

    async def aclose(self) -> None:
        """Close the generator and give the place back; a generator in a thread is closed when it yields."""
        if self._over:
            return
        try:
            if self._ahead is not None:
                await _cancel(self._ahead)
            if hasattr(self._items, "aclose"):
                await self._items.aclose()
            if self._items is not self._source and hasattr(self._source, "close"):
                self._place.worker.submit(self._source.close)
        except Exception:
            _logger.debug("A stream raised while it was closed", exc_info=True)
        finally:
            self._place.close()


async def _in_thread(source: Any, worker: Worker) -> AsyncIterator[Any]:
    while (item := await worker.submit(next, source, _END)) is not _END:
        yield item


class _EventStream(Response):
    """The answer that sends events until the generator ends or the client goes away."""

    media_type = "text/event-stream"

    def __init__(self, events: _Events) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events (ASGI)."""
        gone = asyncio.ensure_future(_until_gone(receive))
        comments = asyncio.ensure_future(self._keep_alive(send))
        try:
            await _first_of(self._send(send), gone)
        finally:
            gone.cancel()
            comments.cancel()
            await asyncio.shield(self._events.aclose())

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            while (data := await self._events.next()) is not None:
                await self._write(send, data)
            await self._write(send, DONE)
        except Exception as error:
            await self._write(send, encode_error(as_http_error(error, "run")))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send, data: bytes) -> None:
        self._sent_at = asyncio.get_running_loop().time()
        await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _keep_alive(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        self._sent_at = loop.time()
        while True:
            quiet = loop.time() - self._sent_at
            if quiet >= _KEEP_ALIVE:
                await self._write(send, KEEP_ALIVE)
            else:
                await asyncio.sleep(_KEEP_ALIVE - quiet)
