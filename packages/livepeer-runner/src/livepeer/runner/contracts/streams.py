"""What every live contract does: it begins a stream under its caller's id, and forgets it at its end.

A contract says who calls and where the channels come from; from there on the three are the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from yarl import URL

from .._output import publisher
from .._parameters import validation_error
from .._stream import ChannelURLs, Contract, LiveStream
from ..errors import HTTPError
from ..live_pipeline import LivePipeline

if TYPE_CHECKING:
    from .._host import Host

__all__ = ["LiveContract", "check_media", "parsed", "same_origin"]

_Model = TypeVar("_Model", bound=BaseModel)

_logger = logging.getLogger("livepeer.runner")


def check_media(pipeline: LivePipeline) -> None:
    """Say at the start what would be wrong in every stream, and load PyAV before the first needs it.

    Raises:
        ConfigurationError: The pipeline takes media, and the extra ``media`` is missing, or the encoder that
            its class names.
    """
    if pipeline.has_media():
        from livepeer.trickle.media import MediaOutput  # noqa: F401

        publisher(pipeline, "http://127.0.0.1/none")


class LiveContract:
    """The streams of one host that are started in one way.

    Args:
        host: The host of the pipeline.
        pipeline: The pipeline.
        idle_timeout: After how many seconds without input a stream is ended; None is never. No orchestrator
            ends one by itself while nobody pays, so a crashed client would hold its place.
    """

    contract: ClassVar[Contract]
    """Its name."""

    heartbeat: ClassVar[float]
    """After how many seconds without an event ``{"keep": "alive"}`` is sent on the events' channel. A reader
    of the SDK hides that message. A go-livepeer gateway takes any JSON object for a sign of life, and ends a
    stream that gave none for 30 s (v0.9.1, ``byoc/trickle.go`` and ``server/ai_live_video.go``)."""

    def __init__(self, host: Host, pipeline: LivePipeline, *, idle_timeout: float | None) -> None:
        self._host = host
        self._pipeline = pipeline
        self._idle_timeout = idle_timeout
        self._starting: set[str] = set()

    def find(self, stream_id: str) -> LiveStream | None:
        """The stream of this contract with this id, unless it has ended."""
        stream = self._host.streams.get((self.contract, stream_id))
        return stream if isinstance(stream, LiveStream) else None

    async def begin(
        self,
        stream_id: str,
        params: dict[str, Any],
        channels: Callable[[], Awaitable[ChannelURLs]],
        *,
        on_end: Callable[[], Awaitable[None]],
    ) -> None:
        """Begin a stream.

        Args:
            stream_id: Its id, of which there is one at a time.
            params: The argument of ``on_stream_start``, as it came.
            channels: Gives its channels, once there is a place for it.
            on_end: Awaited when it has ended; not when it could not begin, which its caller learns by the
                answer: an orchestrator whose channels ended meanwhile would wait for no answer.

        Raises:
            HTTPError: 422 for the parameters, 409 when the id has a stream already, 503 without a place, or
                what the pipeline's ``on_stream_start`` raised.
        """
        self._pipeline.start_params(params)  # before anything is made for it
        key = (self.contract, stream_id)
        if key in self._host.streams or stream_id in self._starting:
            raise HTTPError(409, f"{stream_id} has a stream already; each stream has an id of its own.")

        async def ended() -> None:
            self._host.streams.pop(key, None)
            await on_end()

        self._starting.add(stream_id)
        try:
            place = await self._host.lease()
            try:
                stream = LiveStream(
                    self._pipeline,
                    await channels(),
                    transport=self._host.transport,
                    place=place,
                    contract=self.contract,
                    session_id=stream_id,
                    idle_timeout=self._idle_timeout,
                    heartbeat=self.heartbeat,
                    on_end=ended,
                )
            except BaseException:
                place.close()
                raise
            self._host.streams[key] = stream
        finally:
            self._starting.discard(stream_id)
        try:
            await stream.start(params)
        except BaseException:
            self._host.streams.pop(key, None)
            raise

    async def delete(self, *urls: str | None) -> None:
        """End channels; one that is over already is no matter."""
        await asyncio.gather(*(self._delete(url) for url in urls if url))

    async def _delete(self, url: str) -> None:
        try:
            async with asyncio.timeout(5), self._host.transport.request("DELETE", url) as response:
                _logger.debug("DELETE %s: %d", url, response.status)
        except (aiohttp.ClientError, OSError, TimeoutError):
            _logger.debug("Could not end the channel %s", url, exc_info=True)


async def parsed(model: type[_Model], request: Request) -> _Model:
    """The JSON body of a request, where none is an empty object.

    Raises:
        HTTPError: 422, it is not what the model takes.
        ClientDisconnect: The caller went away meanwhile.
    """
    body = await request.body()
    try:
        return model.model_validate_json(body.strip() or b"{}")
    except ValidationError as error:
        raise validation_error(error) from None


def same_origin(urls: ChannelURLs) -> ChannelURLs:
    """The channels, when one server has all of them.

    A BYOC client's own keys replace the orchestrator's in what a worker is sent, so a client could point a
    worker at any address: one URL of its own among those of the orchestrator is refused.

    Raises:
        HTTPError: 400 when they are on several servers, or one is no http URL.
    """
    given = [url for url in vars(urls).values() if url]
    try:
        origins = {str(URL(url).origin()) for url in given}
    except ValueError:
        origins = set()
    if len(origins) != 1 or not next(iter(origins)).startswith(("http://", "https://")):
        raise HTTPError(400, "The channels of a stream are http URLs of one server, which made all of them.")
    return urls
