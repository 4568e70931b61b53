"""From the body of an answer to what a caller gets."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ResponseError

__all__ = ["Blob", "Response", "convert", "decode"]


class Blob(bytes):
    """Bytes that know their media type: what `run` returns for anything but JSON and text.

    Attributes:
        content_type: Such as ``"image/png"``; empty when the worker named none.
    """

    content_type: str

    def __new__(cls, content: bytes, content_type: str = "") -> Blob:  # noqa: D102 (the class's words)
        blob = super().__new__(cls, content)
        blob.content_type = content_type
        return blob

    def save(self, path: str | Path) -> Path:
        """Write the bytes to a file and return its path."""
        target = Path(path)
        target.write_bytes(self)
        return target

    def __repr__(self) -> str:
        return f"<Blob {self.content_type or 'of no type'}, {len(self)} bytes>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Blob, (bytes(self), self.content_type))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """What a notebook shows: the picture, the sound, the video; else the repr."""
        bundle: dict[str, Any] = {"text/plain": repr(self)}
        kind, _, _ = self.content_type.partition("/")
        if kind == "image":
            bundle[self.content_type] = base64.b64encode(self).decode()
        elif kind in ("audio", "video"):
            source = f"data:{self.content_type};base64,{base64.b64encode(self).decode()}"
            bundle["text/html"] = f'<{kind} controls src="{source}"></{kind}>'
        return bundle


@dataclass(frozen=True, slots=True)
class Response:
    """A result with what came along with it.

    Attributes:
        data: The result, as `Gateway.run` returns it.
        content_type: The media type of the body, without parameters.
        headers: The answer's headers; their names are case-insensitive.
        status: The HTTP status.
        orchestrator: The URL of the orchestrator that did it.
        app: The app that answered, as discovery names it.
        price: The advertised price, such as ``"20 wei/seconds"``; None when it is free.
        cost: What was paid for this call, in wei.
        elapsed: Seconds from the call to the end of the answer.
        request_id: The id that went with the request, for the worker's log.
    """

    data: Any
    content_type: str
    headers: Mapping[str, str] = field(repr=False)
    status: int
    orchestrator: str
    app: str
    price: str | None
    cost: int
    elapsed: float
    request_id: str


def decode(body: bytes, content_type: str, charset: str | None = None) -> Any:
    """The value of a body: JSON → Python, ``text/*`` → `str`, anything else → `Blob`.

    Raises:
        ResponseError: It says that it is JSON or text, and isn't.
    """
    if content_type == "application/json" or content_type.endswith("+json"):
        if not body.strip():
            return None
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ResponseError(
                f"The worker says its answer is {content_type}, but it isn't valid JSON: {error}.",
                hint="This is a fault of the capability; its author can see the answer in `.body`.",
                body=body,
            ) from error
    if content_type.startswith("text/"):
        try:
            return body.decode(charset or "utf-8")
        except (UnicodeDecodeError, LookupError) as error:
            raise ResponseError(
                f"The worker says its answer is {content_type}, but it can't be decoded: {error}.", body=body
            ) from error
    return Blob(body, content_type)


def convert(value: Any, output_type: Any) -> Any:
    """The value as `output_type`: a pydantic model, a dataclass, or any type that takes it.

    Raises:
        ResponseError: The value doesn't fit the type.
    """
    if output_type is None:
        return value
    if isinstance(output_type, type) and isinstance(value, output_type):
        return value
    try:
        if hasattr(output_type, "model_validate"):
            return output_type.model_validate(value)
        if isinstance(output_type, type) and dataclasses.is_dataclass(output_type):
            return output_type(**value)
        if output_type is bytes and isinstance(value, str):
            return value.encode()
        if output_type in (dict, list):
            raise TypeError(f"the answer is a {type(value).__name__}")
        return output_type(value)
    except Exception as error:
        name = getattr(output_type, "__name__", output_type)
        raise ResponseError(
            f"The answer does not fit output_type={name}: {error}",
            hint="Leave output_type out to see the answer as it is.",
        ) from error
