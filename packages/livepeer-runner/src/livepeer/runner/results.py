"""From what the author returns to a body and its content type."""

from __future__ import annotations

import collections.abc
from typing import Any

from pydantic_core import to_json

from .blobs import Blob, encode_image, is_image, to_base64

__all__ = ["encode_result", "is_stream", "json_bytes"]


def is_stream(value: object) -> bool:
    """Whether a result is to be sent event by event: an iterator of either kind."""
    return isinstance(value, collections.abc.Iterator | collections.abc.AsyncIterator)


def encode_result(value: Any) -> tuple[bytes, str]:
    """The body and content type of a result.

    ``bytes`` are ``application/octet-stream`` (a `Blob` says what it is), an image is ``image/png``, ``str``
    is ``text/plain``, anything else is JSON. Raises TypeError when it can't be JSON.
    """
    if isinstance(value, Blob):
        return bytes(value), value.content_type
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), "application/octet-stream"
    if isinstance(value, str):
        return value.encode("utf-8", "replace"), "text/plain; charset=utf-8"
    if is_image(value):
        return encode_image(value), "image/png"
    return json_bytes(value), "application/json"


def json_bytes(value: Any) -> bytes:
    """A value as JSON: models by their own rules, bytes and images as base64, NaN as null."""
    try:
        return to_json(_plain(value), fallback=_fallback, inf_nan_mode="null")
    except ValueError as error:
        raise TypeError(f"The result can't be sent as JSON: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return to_base64(bytes(value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value


def _fallback(value: Any) -> Any:
    if is_image(value):
        return to_base64(encode_image(value))
    for method in ("tolist", "item"):  # numpy arrays and scalars, and torch tensors, without importing them
        convert = getattr(value, method, None)
        if callable(convert):
            return convert()
    raise ValueError(
        f"{type(value).__name__} is not a JSON value; return a BaseModel, a dict, a list, a str, a number, "
        "bytes or a PIL image"
    )
