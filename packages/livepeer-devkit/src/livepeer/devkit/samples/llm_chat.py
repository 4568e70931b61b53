"""``llm-chat``: an answer to chat messages, token by token, from a very small language model indeed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

from livepeer.runner import Pipeline

__all__ = ["LlmChat"]


class LlmChat(Pipeline):
    """Answer chat messages with one event per token."""

    def setup(self) -> None:
        """Load the model."""
        self.open_streams: int = 0
        self.last_stream: dict[str, Any] = {}

    async def run(
        self, messages: list[dict[str, str]], max_tokens: int = 24, pause: float = 0.03, stats: bool = False
    ) -> AsyncIterator[Any]:
        """Yield an answer's tokens, `pause` seconds apart; with `stats`, what became of earlier streams."""
        if stats:
            yield {"open_streams": self.open_streams, "last_stream": self.last_stream}
            return
        said = messages[-1]["content"] if messages else "nothing"
        answer = f"You said {said!r} and I have been thinking about it ever since. ".split(" ")
        sent, finished = 0, False
        self.open_streams += 1
        try:
            for word in itertools.islice(itertools.cycle(answer[:-1]), max_tokens):
                yield f"{word} "
                sent += 1
                await asyncio.sleep(pause)
            finished = True
        finally:  # also when the client leaves in the middle
            self.open_streams -= 1
            self.last_stream = {"tokens": sent, "finished": finished}
