"""Bodies that aren't JSON: bytes with a content type, and images.

Pillow (extra ``images``) is loaded only when a pipeline takes or returns an image.
"""

from __future__ import annotations

import base64
import io
from typing import Any

from pydantic_core import CoreSchema, core_schema

from .errors import InvalidInput

__all__ = ["Blob"]

_UNKNOWN = "application/octet-stream"


class Blob(bytes):
    """Bytes that know their content type, as a parameter of ``run`` or as its result.

    Args:
        data: The content.
        content_type: Its media type, ``"audio/wav"`` for instance.
    """

    content_type: str

    def __new__(cls, data: bytes = b"", content_type: str = _UNKNOWN) -> Blob:
        """Make one; see the class."""
        blob = super().__new__(cls, data)
        blob.content_type = content_type
        return blob

    def __getnewargs__(self) -> tuple[bytes, str]:  # type: ignore[override]
        """What a copy or a pickle is made from."""
        return bytes(self), self.content_type

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        """Validate as bytes (pydantic)."""
        return core_schema.no_info_after_validator_function(cls, core_schema.bytes_schema())


def is_image_type(annotation: Any) -> bool:
    """Whether an annotation is ``PIL.Image.Image`` or a subclass, found without importing Pillow."""
    return isinstance(annotation, type) and any(
        base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in annotation.__mro__
    )


def is_image(value: object) -> bool:
    """Whether a value is a Pillow image, found without importing Pillow."""
    return is_image_type(type(value))


def decode_image(data: bytes) -> Any:
    """The Pillow image in these bytes; raises `InvalidInput` when they are none."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidInput(
            f"The body is not an image that can be read ({len(data)} bytes). Send a PNG, JPEG or WebP file."
        ) from error
    return image


def encode_image(image: Any) -> bytes:
    """An image as PNG, which keeps every pixel; a mode that PNG lacks becomes RGB."""
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):
        image = image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def to_base64(data: bytes) -> str:
    """Bytes inside JSON: base64 with the standard alphabet, as pydantic's ``Base64Bytes``."""
    return base64.b64encode(data).decode("ascii")
