"""``echo``: what it is given comes back, whatever it is."""

from __future__ import annotations

from livepeer.runner import Blob, Pipeline

__all__ = ["Echo"]


class Echo(Pipeline):
    """Give back the body as it came: JSON, text, bytes."""

    def run(self, body: Blob) -> Blob:
        """Return the body with its content type."""
        return body
