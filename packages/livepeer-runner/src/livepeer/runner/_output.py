"""What goes into a stream's output: what the author's code returned, encoded as its class says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from livepeer.trickle.errors import ConfigurationError, MediaError

from .live_pipeline import LivePipeline

if TYPE_CHECKING:
    from livepeer.trickle import Transport
    from livepeer.trickle.media import AudioFrame, MediaPublish, VideoFrame

__all__ = ["Nowhere", "Sink", "publisher", "ready"]


class Sink(Protocol):
    """Where an output goes: `MediaPublish`, or `Nowhere`."""

    async def write_packet(self, packet: Any) -> None:
        """Write a packet as it is."""

    async def write_frame(self, frame: Any, *, timestamp: float | None = None) -> None:
        """Encode a frame, and write it."""

    async def close(self, *, delete: bool = True) -> None:
        """Finish what was begun."""

    async def abort(self) -> None:
        """Let go at once."""


class Nowhere:
    """An output that nobody asked for: the author's code runs for its events and its data."""

    def __init__(self, *, start: int | None = None) -> None:
        del start

    async def write_packet(self, packet: Any) -> None:
        """Forget a packet."""

    async def write_frame(self, frame: Any, *, timestamp: float | None = None) -> None:
        """Forget a frame."""

    async def close(self, *, delete: bool = True) -> None:
        """There is nothing to finish."""

    async def abort(self) -> None:
        """There is nothing to let go of."""


def publisher(
    pipeline: LivePipeline, url: str, *, transport: Transport | None = None, start: int | None = None
) -> MediaPublish:
    """The writer of an output, as the pipeline's class wants it encoded.

    Raises:
        ConfigurationError: It can't be encoded so.
    """
    from livepeer.trickle.media import MediaPublish

    try:
        return MediaPublish(
            url,
            transport=transport,
            start=start,
            fps=pipeline.fps,
            codec=pipeline.codec,
            bitrate=pipeline.bitrate,
            gop=pipeline.gop,
            options=pipeline.encoder_options,
            audio_codec=pipeline.audio_codec,
            audio_bitrate=pipeline.audio_bitrate,
        )
    except (ConfigurationError, MediaError) as error:
        raise ConfigurationError(
            f"The output of {type(pipeline).__name__} can't be encoded as its class says: {error.message}",
            hint=error.hint,
        ) from error


def ready(result: Any, frame: VideoFrame | AudioFrame) -> Any:
    """What a method returned, made ready for the encoder where it was made: that copies a picture."""
    if hasattr(result, "__array_interface__") and hasattr(result, "ndim"):  # sound has the input's rate
        result = frame.replace(result)
    getattr(result, "raw", None)  # which makes PyAV's frame of an array
    return result
