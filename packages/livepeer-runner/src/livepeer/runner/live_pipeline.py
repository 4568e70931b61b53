"""`LivePipeline`: a capability that changes live video, frame by frame."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ValidationError

from ._definition import Definition, resolve_now_or_later
from ._parameters import validation_error
from .errors import ConfigurationError, InvalidInput, PipelineDefinitionError
from .schema import JsonSchema, model_schema

if TYPE_CHECKING:
    from livepeer.trickle.media import VideoFrame

__all__ = ["LivePipeline"]


class Emitter(Protocol):
    """Where a session's events and data go."""

    def emit_event(self, data: Any) -> None:
        """Send an event."""

    def emit_data(self, data: Any) -> None:
        """Send a message of the data channel."""


class LivePipeline(Definition):
    """A capability that changes live video.

    ::

        class Filter(LivePipeline):
            def on_stream_start(self, params):
                self.strength = params.get("strength", 1.0)

            def process_video(self, frame):
                return frame.replace(blur(frame.array, self.strength))

            def on_params_update(self, params):
                self.strength = params["strength"]

    **Sessions.** ``setup`` runs once, on the instance that is served. Each session is a shallow copy of it
    (`copy.copy`): models are shared, what the methods below set on ``self`` is the session's own.

    **Threads.** The synchronous methods of one session all run on its one thread, in the order in which
    things arrive, so they need no locks; those of two sessions run at the same time. ``async`` methods run
    on the event loop.

    **Frames.** Every frame is processed, in order, and keeps its timestamp; when ``process_video`` is slower
    than the input the reading waits (``drop = "oldest"`` skips to the newest frames instead).

    **Errors.** When ``process_video`` raises, that frame is left out (the original might show what was
    meant to be hidden), the client gets the event ``{"type": "error", "error": {"type", "message", …}}``, at
    most one a second, and the stream goes on; after `max_errors` failures in a row it ends. A stream that
    the runner ends says so: ``{"type": "ended", "reason": "idle" | "error" | "shutdown"}``.
    """

    fps: ClassVar[float] = 30.0
    """Frames per second of the output, for the encoder's rate control; timestamps are the input's."""

    drop: ClassVar[Literal["oldest"] | None] = None
    """``"oldest"`` skips frames of the input that the pipeline has no time for; None processes every one."""

    data: ClassVar[bool | None] = None
    """Whether sessions have a data channel; None: when a method of the class calls ``emit_data``."""

    max_errors: ClassVar[int] = 30
    """How many frames in a row may fail before the stream is ended."""

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
        """Change one frame; may be ``async``.

        Args:
            frame: ``frame.array`` is ``(height, width, 3)`` uint8 RGB, ``frame.timestamp`` in seconds.

        Returns:
            A `VideoFrame`, such an array or a PIL image (each keeps the input's timestamp), or None to leave
            the frame out.
        """

    def process_audio(self, frame: Any) -> Any:
        """Change a piece of audio. Not carried in this version: a class that defines it is refused."""

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
        """Send a JSON value on the data channel, as `emit_event` does."""
        self._session("emit_data").emit_data(data)

    def _session(self, what: str) -> Emitter:
        if self._emitter is None:
            raise ConfigurationError(
                f"{type(self).__name__}.{what} works inside a session: on_stream_start to on_stream_stop."
            )
        return self._emitter

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.process_audio is not LivePipeline.process_audio:
            raise PipelineDefinitionError(
                f"{cls.__name__}.process_audio would never be called: this version carries video only."
            )
        for name in ("process_video", "on_stream_start", "on_params_update", "on_stream_stop", "setup"):
            method = inspect.getattr_static(cls, name)
            if not inspect.isfunction(method) or inspect.isgeneratorfunction(method):
                kind = "generator" if inspect.isfunction(method) else type(method).__name__
                raise PipelineDefinitionError(
                    f"{cls.__name__}.{name} is a {kind}; write an ordinary method, or an async one."
                )
            expected = {"on_stream_stop": 1, "setup": 1}.get(name, 2)
            _check_arity(cls, name, method, expected)
        if abstract:
            return
        if not cls.has_video() and cls.on_params_update is LivePipeline.on_params_update:
            raise PipelineDefinitionError(
                f"{cls.__name__} has no process_video method, so its streams would do nothing. Define "
                "process_video(self, frame), or declare a base class with abstract=True."
            )
        cls.app_name()
        cls._resolved = resolve_now_or_later(cls._resolve, depth=2) or False

    @classmethod
    def _resolve(cls, names: dict[str, Any] | None = None) -> bool:
        cls._start_model = _params_model(cls, cls.on_stream_start, names)
        cls._update_model = _params_model(cls, cls.on_params_update, names)
        return True

    @classmethod
    def has_video(cls) -> bool:
        """Whether its sessions have media channels."""
        return cls.process_video is not LivePipeline.process_video

    @classmethod
    def has_data(cls) -> bool:
        """Whether its sessions have a data channel."""
        return cls.data if cls.data is not None else _calls_emit_data(cls)

    @classmethod
    def describe(cls) -> dict[str, Any]:
        """Its part of the answer of ``/schema``."""
        cls._ensure_resolved()
        anything: JsonSchema = {"type": "object"}
        document: dict[str, Any] = {
            "mode": "persistent",
            "live": "/live",
            "video": cls.has_video(),
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
        return _validated(cls._start_model, params)

    @classmethod
    def update_params(cls, params: Any) -> Any:
        """The argument of `on_params_update`; raises `InvalidInput`."""
        if not isinstance(params, dict):
            raise InvalidInput(f"Parameters are a JSON object, not a {type(params).__name__}.")
        return _validated(cls._update_model, params)

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


def _validated(model: type[BaseModel] | None, params: dict[str, Any]) -> Any:
    if model is None:
        return params
    try:
        return model.model_validate(params)
    except ValidationError as error:
        raise validation_error(error) from None


def _params_model(
    cls: type[LivePipeline], method: Callable[..., Any], names: dict[str, Any] | None
) -> type[BaseModel] | None:
    parameter = list(inspect.signature(method).parameters.values())[1]
    annotation = parameter.annotation
    if isinstance(annotation, str):
        # Only this annotation: others may name what is imported for type checkers alone.
        annotation = eval(annotation, getattr(method, "__globals__", {}), names or {})
    annotation = typing.get_origin(annotation) or annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _check_arity(cls: type[LivePipeline], name: str, method: Callable[..., Any], expected: int) -> None:
    try:
        inspect.signature(method).bind(*[None] * expected)
    except TypeError as error:
        raise PipelineDefinitionError(
            f"{cls.__name__}.{name} can't be called with {expected - 1} argument(s) besides self: {error}."
        ) from None


def _calls_emit_data(cls: type[LivePipeline]) -> bool:
    def names(code: types.CodeType) -> bool:
        return "emit_data" in code.co_names or any(
            names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)
        )

    return any(
        inspect.isfunction(member) and names(member.__code__)
        for base in cls.__mro__
        if issubclass(base, LivePipeline) and base is not LivePipeline
        for member in vars(base).values()
    )
