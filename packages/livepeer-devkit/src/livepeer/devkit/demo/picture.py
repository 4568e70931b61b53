"""The picture of the demo: made here, or the user's own; and whether it came back inverted."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from livepeer.trickle.errors import MediaError

__all__ = ["difference_from_inverted", "draw", "opened"]


def draw() -> Image.Image:
    """A picture with something to see: 480x320, RGB."""
    across, down = np.linspace(0, 255, 480), np.linspace(0, 255, 320)
    red, green = np.meshgrid(across, down)
    picture = Image.fromarray(np.stack([red, green, np.full_like(red, 160)], axis=2).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((40, 60, 200, 220), fill=(250, 220, 40))
    pen.rectangle((240, 90, 420, 230), fill=(20, 60, 160), outline=(255, 255, 255), width=6)
    pen.text((180, 280), "Livepeer", fill=(255, 255, 255))
    return picture


def opened(path: Path) -> Image.Image:
    """The user's picture.

    Raises:
        MediaError: There is no such file, or it is no picture.
    """
    try:
        picture = Image.open(path)
        picture.load()
    except FileNotFoundError as error:
        raise MediaError(f"There is no file {path}.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MediaError(
            f"{path} is not a picture that can be read.", hint="A PNG, JPEG or WebP file would be."
        ) from error
    return picture


def difference_from_inverted(source: Image.Image, result: bytes) -> float:
    """How far the result is from the inverted source: the mean difference of a colour value, 0 to 255.

    Raises:
        MediaError: The result is no picture, or one of another size.
    """
    try:
        found = Image.open(io.BytesIO(result)).convert("RGB")
    except OSError as error:
        raise MediaError(f"The answer is not a picture ({len(result)} bytes).") from error
    if found.size != source.size:
        raise MediaError(f"The picture came back {found.size}, and went as {source.size}.")
    wanted = 255 - np.asarray(source.convert("RGB"), np.int16)
    return float(np.abs(wanted - np.asarray(found, np.int16)).mean())
