"""From what a caller passes as `input` to the body of a request."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Coroutine
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from .errors import InputError
from .results import Blob

__all__ = ["Body", "encode_input", "is_large"]

_LARGE = 256 * 1024  # bytes; from here on encoding is worth a thread of its own
_BINARY = "application/octet-stream"
_CONTAINERS = (dict, list, tuple)
_BYTES = (bytes, bytearray, memoryview)
_TEXTS = (str, *_BYTES)


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a request: its bytes and their media type."""

    content: bytes
    content_type: str


def encode_input(value: Any, model: str | None = None) -> Body:
    """Make the body of a request.

    JSON values become JSON, and `model` its ``"model"`` unless the object has one. At the top level
    `bytes`, a `pathlib.Path`, an open file, a PIL image (as PNG) and a numpy array (as .npy) are the body
    itself; nested in JSON they become base64 strings. A pydantic model or a dataclass is an object.

    Raises:
        InputError: The value has no such form, or its file can't be read.
    """
    if type(value) is not dict:
        raw = _raw_body(value)
        if raw is not None:
            return raw
    if value is None:
        value = {}
    try:
        value = _as_object(value)
        if model is not None and isinstance(value, dict) and "model" not in value:
            value = {**value, "model": model}
        return Body(_JSON.encode(value).encode(), "application/json")
    except RecursionError:
        raise InputError("The input contains itself, so it has no JSON form.") from None
    except UnicodeEncodeError as error:
        raise InputError(
            "The input has a text with half of a surrogate pair, which UTF-8 can't say."
        ) from error
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"The input has no JSON form: {error}.",
            hint="Use dicts with text keys, lists, texts, finite numbers, booleans and None; "
            "bytes, paths, PIL images and numpy arrays become base64.",
        ) from error


def is_large(value: Any) -> bool:
    """Whether encoding this may take long enough to hold up an event loop; a guess from its surface."""
    if isinstance(value, _CONTAINERS):
        return len(value) > 1000 or any(_weight(item) > _LARGE // 8 for item in _items(value))
    return isinstance(value, Path) or hasattr(value, "read") or hasattr(value, "__array__")


def _weight(value: Any) -> int:
    if isinstance(value, _TEXTS):
        return len(value)
    if isinstance(value, _CONTAINERS):
        return len(value) * 64 if len(value) > 64 else sum(map(_weight, _items(value)))
    return _LARGE if isinstance(value, Path) or hasattr(value, "__array__") or hasattr(value, "save") else 8


def _items(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


def _raw_body(value: Any) -> Body | None:
    if isinstance(value, Blob):
        return Body(bytes(value), value.content_type or _BINARY)
    if isinstance(value, _BYTES):
        return Body(bytes(value), _BINARY)
    if isinstance(value, Path):
        return Body(_read_path(value), _guess(value.name))
    if _is_file(value) and not hasattr(value, "__array__"):
        return Body(_read_file(value), _guess(getattr(value, "name", None)))
    if _is_image(value):
        return Body(_png(value), "image/png")
    if _is_array(value):
        return Body(_npy(value), _BINARY)
    return None


def _nested(value: Any) -> Any:
    """What `json.dumps` asks for anything that JSON doesn't have."""
    if isinstance(value, _BYTES):
        content = bytes(value)
    elif isinstance(value, Path):
        content = _read_path(value)
    elif _is_image(value):
        content = _png(value)
    elif _is_array(value):
        content = _npy(value)
    elif hasattr(value, "__array__") and hasattr(value, "item"):
        return value.item()  # a numpy scalar is a number
    elif _is_file(value):
        content = _read_file(value)
    else:
        plain = _as_object(value)
        if plain is value:
            raise InputError(
                f"The input holds a {type(value).__module__}.{type(value).__qualname__}, "
                "which has no JSON form.",
                hint="Convert it to dicts, lists, texts and numbers first.",
            )
        return plain
    return base64.b64encode(content).decode()


_JSON = json.JSONEncoder(default=_nested, allow_nan=False, separators=(",", ":"), ensure_ascii=False)


def _as_object(value: Any) -> Any:
    if type(value) is dict:
        return value
    if hasattr(type(value), "model_dump"):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    return value


def _read_path(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"The input file {str(path)!r} can't be read: {error.strerror or error}.") from error


def _read_file(file: Any) -> bytes:
    try:
        content = file.read()
    except (OSError, ValueError) as error:
        raise InputError(f"The input file can't be read: {error}.") from error
    if isinstance(content, str):
        return content.encode()
    if not isinstance(content, bytes | bytearray):
        if isinstance(content, Coroutine):
            content.close()
        raise InputError(
            f"The input has a read() that gives a {type(content).__name__}; a file gives bytes.",
            hint="Open the file in binary mode; asynchronous files have to be read first.",
        )
    return bytes(content)


def _guess(name: Any) -> str:
    import mimetypes

    return (mimetypes.guess_type(name)[0] if isinstance(name, str) else None) or _BINARY


def _is_file(value: Any) -> bool:
    return callable(getattr(value, "read", None)) and not isinstance(value, type)


def _is_image(value: Any) -> bool:
    return type(value).__module__.startswith("PIL.") and hasattr(value, "save")


def _is_array(value: Any) -> bool:
    return type(value).__module__ == "numpy" and type(value).__name__ == "ndarray"


def _png(image: Any) -> bytes:
    out = io.BytesIO()
    try:
        image.save(out, format="PNG")
    except (OSError, ValueError) as error:
        raise InputError(
            f"The image of mode {getattr(image, 'mode', '?')} can't be written as PNG: {error}.",
            hint='Convert it first, such as image.convert("RGB").',
        ) from error
    return out.getvalue()


def _npy(array: Any) -> bytes:
    import numpy

    out = io.BytesIO()
    try:
        numpy.save(out, array, allow_pickle=False)
    except ValueError as error:
        raise InputError(f"The array can't be written as .npy: {error}.") from error
    return out.getvalue()
