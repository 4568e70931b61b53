"""``text-reverse``: the text, backwards."""

from __future__ import annotations

from livepeer.runner import Pipeline

__all__ = ["TextReverse"]


class TextReverse(Pipeline):
    """Reverse a text."""

    def run(self, text: str) -> dict[str, str]:
        """Return the text backwards."""
        return {"text": text[::-1]}
