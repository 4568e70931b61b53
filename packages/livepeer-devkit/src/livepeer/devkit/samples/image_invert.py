"""``image-invert``: a picture in, the same picture with inverted colours out."""

from __future__ import annotations

from PIL import Image, ImageOps

from livepeer.runner import Pipeline

__all__ = ["ImageInvert"]


class ImageInvert(Pipeline):
    """Invert the colours of a picture."""

    def run(self, image: Image.Image) -> Image.Image:
        """Return the picture with inverted colours."""
        return ImageOps.invert(image.convert("RGB"))
