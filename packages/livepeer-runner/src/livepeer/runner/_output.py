"""What goes into a stream's output: what the author's code returned, encoded as its class says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from livepeer.trickle.errors import ConfigurationError, MediaError

from .live_pipeline import LivePipeline

if TYPE_CHECKING:
    from livepeer.trickle import Transport
    from livepeer.trickle.media import AudioFrame, MediaPublish, VideoFrame

__all__ = ["publisher", "ready"]


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
