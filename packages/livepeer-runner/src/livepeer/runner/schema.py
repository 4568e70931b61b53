"""JSON Schema from annotations, for the input and the output of a pipeline.

``GET /schema`` answers `describe`'s document: ``name``, ``description``, ``mode``, where to call (``run`` or
``live``), ``input`` and ``output`` as JSON Schema, ``accepts`` and ``returns`` as content types, and whether
the answer is a ``stream`` of events (``output`` is then one event's data).
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import (
    PydanticInvalidForJsonSchema,
    PydanticSchemaGenerationError,
    PydanticUndefinedAnnotation,
)
from pydantic.json_schema import GenerateJsonSchema

from .blobs import Blob, is_image_type
from .events import Event

__all__ = ["JsonSchema", "event_type", "model_schema", "output_schema"]

JsonSchema = dict[str, Any]

_STREAMS = {
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
}


class _Generator(GenerateJsonSchema):
    """pydantic's generator, which says of bytes what they are inside JSON here: base64."""

    def bytes_schema(self, schema: Any) -> JsonSchema:
        """Bytes inside JSON are base64 text."""
        return {"type": "string", "format": "base64"}


def model_schema(model: type[BaseModel]) -> JsonSchema:
    """The schema of a JSON body that this model validates."""
    return model.model_json_schema(schema_generator=_Generator)


def event_type(annotation: Any) -> tuple[bool, Any]:
    """Whether a return annotation is a stream (``Iterator[str]`` and its like), and what one event holds."""
    origin = typing.get_origin(annotation) or annotation
    if isinstance(origin, type) and origin in _STREAMS:
        arguments = typing.get_args(annotation)
        return True, arguments[0] if arguments else Any
    return False, annotation


def output_schema(annotation: Any, *, stream: bool) -> tuple[JsonSchema, str | None]:
    """The schema of a result and its content type, None when the annotation doesn't tell it."""
    declared_stream, inner = event_type(annotation)
    if stream or declared_stream:
        if inner is Event or inner is Blob or is_image_type(inner):
            return {}, "text/event-stream"
        return _schema_of(inner), "text/event-stream"
    if is_image_type(annotation):
        return {"type": "string", "format": "binary", "contentMediaType": "image/png"}, "image/png"
    if isinstance(annotation, type) and issubclass(annotation, bytes):
        kind = None if issubclass(annotation, Blob) else "application/octet-stream"
        return {"type": "string", "format": "binary"}, kind
    if annotation is str:
        return {"type": "string"}, "text/plain"
    if annotation is inspect.Parameter.empty or annotation is Any:
        return {}, None
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return _schema_of(annotation), None
    return _schema_of(annotation), "application/json"


def _schema_of(annotation: Any) -> JsonSchema:
    if annotation is inspect.Parameter.empty:
        return {}
    try:
        return TypeAdapter(annotation).json_schema(mode="serialization", schema_generator=_Generator)
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema, PydanticUndefinedAnnotation):
        return {}  # a result may be of a type that only json_bytes knows, a numpy array for instance
