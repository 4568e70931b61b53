"""``word-count``: how many words a text has; the sample that registers for BYOC."""

from __future__ import annotations

from livepeer.runner import Pipeline

__all__ = ["WordCount"]


class WordCount(Pipeline):
    """Count the words of a text."""

    def run(self, text: str) -> dict[str, int]:
        """Return how many words the text has, and how many different ones."""
        words = text.lower().split()
        return {"words": len(words), "different": len(set(words))}
