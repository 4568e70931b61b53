"""`LivePipeline`: a capability that changes live video and audio, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel

from ._definition import Definition, resolve_now_or_later
from ._live_definition import calls, check_method, params_model, validated
from .errors import ConfigurationError, InvalidInput, PipelineDefinitionError
from .schema import JsonSchema, model_schema

if TYPE_CHECKING:
    from livepeer.trickle.media import AudioFrame, VideoFrame

__all__ = ["LivePipeline"]

_METHODS = {
    "process_video": 1,
    "process_audio": 1,
    "on_stream_start": 1,
    "on_params_update": 1,
    "on_stream_stop": 0,
    "setup": 0,
}


class Emitter(Protocol):
    """Where a session's events and data go."""

    def emit_event(self, data: Any) -> None:
        """Send an event."""

    def emit_data(self, data: Any) -> None:
        """Send a message of the data channel."""


class LivePipeline(Definition):
    """A capability that changes live video and audio.

    ::

        class Filter(LivePipeline):
            def on_stream_start(self, params):
                self.strength = params.get("strength", 1.0)

            def process_video(self, frame):
                return frame.replace(blur(frame.array, self.strength))

            def process_audio(self, frame):
                return frame.replace(frame.array * self.strength)

            def on_params_update(self, params):
                self.strength = params["strength"]

    **Callers.** The same class serves whoever calls: a session of a live runner (``POST /live``), a stream of
    a BYOC capability (``POST /stream/start``, ``/stream/params``, ``/stream/stop``), and a job of the
    built-in pipeline live-video-to-video, as the container of an orchestrator's AI worker (``POST
    /live-video-to-video``). Each is a session here, and they share ``capacity``.

    **Sessions.** ``setup`` runs once, on the instance that is served. Each session is a shallow copy of it
    (`copy.copy`): models are shared, what the methods below set on ``self`` is the session's own.

    **Threads.** The synchronous methods of one session all run on its one thread, in the order in which
    things arrive, so they need no locks; those of two sessions run at the same time. ``async`` methods run
    on the event loop.

    **Frames.** Every frame is processed, in order, and keeps its timestamp; when ``process_video`` is slower
    than the input the reading waits (``drop = "oldest"`` skips to the newest frames instead). What the class
    has no method for passes through as it is, without being decoded: audio beside a ``process_video``, video
    beside a ``process_audio``. Sound waits for pictures only when it would get a second ahead of them.

    **Errors.** When ``process_video`` or ``process_audio`` raises, that frame is left out (the original might
    show what was meant to be hidden), the client gets the event ``{"type": "error", "error": {"type",
    "message", …}}``, at most one a second of each, and the stream goes on; after `max_errors` failures in a
    row it ends. What ``on_params_update`` raises is such an event too, or the answer of the call that brought
    the parameters (BYOC's). A stream that the runner ends says so: ``{"type": "ended", "reason": "idle" |
    "error" | "shutdown"}``.
    """

    fps: ClassVar[float] = 30.0
    """Frames per second of the output, for the encoder's rate control; timestamps are the input's."""

    codec: ClassVar[str] = "libx264"
    """The encoder of the output's pictures, as libavcodec calls it: ``"h264_nvenc"`` for instance."""

    bitrate: ClassVar[int | None] = None
    """Bits per second of the output's pictures; constant quality when None."""

    gop: ClassVar[float] = 1.0
    """Seconds between two key frames of the output, which is also the length of a segment."""

    encoder_options: ClassVar[Mapping[str, str]] = {}
    """More options of that encoder."""

    audio_codec: ClassVar[str] = "aac"
    """The encoder of what `process_audio` returns; ``"libopus"`` is another."""

    audio_bitrate: ClassVar[int | None] = None
    """Bits per second of that; the encoder's own choice when None."""

    drop: ClassVar[Literal["oldest"] | None] = None
    """``"oldest"`` skips pictures of the input that the pipeline has no time for; None processes every one.
    Sound is never skipped."""

    media: ClassVar[bool] = False
    """True gives sessions media channels although the class has no method for pictures or sound: what comes
    in goes out as it is."""

    data: ClassVar[bool | None] = None
    """Whether sessions have a data channel; None: when a method of the class calls ``emit_data``."""

    max_errors: ClassVar[int] = 30
    """How many frames of one kind in a row may fail before the stream is ended."""

    _start_model: ClassVar[type[BaseModel] | None] = None
    _update_model: ClassVar[type[BaseModel] | None] = None
    _resolved: ClassVar[bool] = True
    _emitter: Emitter | None = None

    def on_stream_start(self, params: Any) -> Any:
        """Begin a session; may be ``async``. Raise `HTTPError` to refuse it.

        Args:
            params: The session's parameters, a ``dict``; or, annotated with a `BaseModel`, that model.
        """

    def process_video(self, frame: VideoFrame) -> Any:
        """Change one picture; may be ``async``. Without this method video passes through.

        Args:
            frame: ``frame.array`` is ``(height, width, 3)`` uint8 RGB, ``frame.timestamp`` in seconds.

        Returns:
            A `VideoFrame`, such an array or a PIL image (each keeps the input's timestamp), or None to leave
            the picture out.
        """

    def process_audio(self, frame: AudioFrame) -> Any:
        """Change one piece of sound; may be ``async``. Without this method sound passes through.

        Args:
            frame: ``frame.array`` is ``(samples, channels)`` float32 between -1 and 1, ``frame.sample_rate``
                in Hz, ``frame.timestamp`` that of the first sample, in seconds. A piece is as long as the
                input's codec made it, about 20 ms.

        Returns:
            An `AudioFrame`, or such an array (it keeps the input's timestamp and rate), or None to leave the
            piece out.
        """

    def on_params_update(self, params: Any) -> Any:
        """Take parameters that the client sends during the session, as `on_stream_start` takes the first."""

    def on_stream_stop(self) -> Any:
        """End a session: its input is over and every frame is written. Events can still be emitted."""

    def emit_event(self, data: Any) -> None:
        """Send a JSON value to the client's events, from any thread; it never waits.

        Raises:
            ConfigurationError: Outside of a session.
            TypeError: The value can't be JSON.
        """
        self._session("emit_event").emit_event(data)

    def emit_data(self, data: Any) -> None:
        """Send a JSON value on the data channel, as `emit_event` does.

        It goes nowhere in a session that has no such channel: a job of live-video-to-video, or a BYOC stream
        whose client asked for none.
        """
        self._session("emit_data").emit_data(data)

    def _session(self, what: str) -> Emitter:
        if self._emitter is None:
            raise ConfigurationError(
                f"{type(self).__name__}.{what} works inside a session: on_stream_start to on_stream_stop."
            )
        return self._emitter

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, arguments in _METHODS.items():
            check_method(cls, name, arguments)
        if abstract:
            return
        if not cls.has_media() and cls.on_params_update is LivePipeline.on_params_update:
            raise PipelineDefinitionError(
                f"{cls.__name__} has no process_video method and no process_audio method, so its streams "
                "would do nothing. Define process_video(self, frame) or process_audio(self, frame), set "
                "media = True to pass media through, or declare a base class with abstract=True."
            )
        cls.app_name()
        cls._resolved = resolve_now_or_later(cls._resolve, depth=2) or False

    @classmethod
    def _resolve(cls, names: dict[str, Any] | None = None) -> bool:
        cls._start_model = params_model(cls.on_stream_start, names)
        cls._update_model = params_model(cls.on_params_update, names)
        return True

    @classmethod
    def has_video(cls) -> bool:
        """Whether it changes pictures."""
        return cls.process_video is not LivePipeline.process_video

    @classmethod
    def has_audio(cls) -> bool:
        """Whether it changes sound."""
        return cls.process_audio is not LivePipeline.process_audio

    @classmethod
    def has_media(cls) -> bool:
        """Whether its sessions have media channels."""
        return cls.media or cls.has_video() or cls.has_audio()

    @classmethod
    def has_data(cls) -> bool:
        """Whether its sessions have a data channel."""
        return cls.data if cls.data is not None else calls(cls, LivePipeline, "emit_data")

    @classmethod
    def describe(cls) -> dict[str, Any]:
        """Its part of the answer of ``/schema``."""
        cls._ensure_resolved()
        anything: JsonSchema = {"type": "object"}
        document: dict[str, Any] = {
            "mode": "persistent",
            "live": "/live",
            "media": cls.has_media(),
            "video": cls.has_video(),
            "audio": cls.has_audio(),
            "data": cls.has_data(),
            "accepts": ["application/json"],
            "input": model_schema(cls._start_model) if cls._start_model else anything,
            "update": model_schema(cls._update_model) if cls._update_model else anything,
        }
        return document

    @classmethod
    def start_params(cls, params: dict[str, Any]) -> Any:
        """The argument of `on_stream_start`; raises `InvalidInput`."""
        cls._ensure_resolved()
        return validated(cls._start_model, params)

    @classmethod
    def update_params(cls, params: Any) -> Any:
        """The argument of `on_params_update`; raises `InvalidInput`."""
        if not isinstance(params, dict):
            raise InvalidInput(f"Parameters are a JSON object, not a {type(params).__name__}.")
        return validated(cls._update_model, params)

    @classmethod
    def _ensure_resolved(cls) -> None:
        if not cls._resolved:
            try:
                cls._resolved = cls._resolve()
            except NameError as error:
                raise PipelineDefinitionError(
                    f"{cls.__name__}: {error}. Import what the annotations of on_stream_start and "
                    "on_params_update name at runtime, not only under TYPE_CHECKING."
                ) from error
