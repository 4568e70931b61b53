"""Answers to one question that come one by one; who waits goes on as soon as there are enough of them.

In a list of a hundred orchestrators some never answer. A call must not wait for those, and must not take the
first one that comes when a better one is a moment behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from .catalogue import Runner
from .errors import ConnectionFailed
from .listing import Listing, merged

__all__ = ["GRACE", "PARTIAL", "Round"]

_SETTLING = 0.4  # seconds from its begin that the slower ones get, when somebody has what is looked for
PARTIAL = 1.0
"""Seconds from its begin after which what is there must do at first, though nobody has it."""

GRACE = 2.0
"""The same where those who have answered are to be all, and the error is to say that nobody has it."""


class Round:
    """One round of questions; it belongs to one event loop.

    Args:
        ordered: Whether the places are in the caller's order of preference.
    """

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._began = time.monotonic()
        self._answers: dict[int, Listing] = {}  # by the place's number, as they arrived
        self._whole: Listing | None = None
        self._news = asyncio.Event()
        self._over = False
        self._failure: BaseException | None = None

    def add(self, place: int, answer: Listing) -> None:
        """A place answered, or turned out not to."""
        self._answers[place] = answer
        self._tell()

    def end(self, failure: BaseException | None = None) -> None:
        """Nothing more will come."""
        self._over, self._failure = True, failure
        self._tell()

    @property
    def listing(self) -> Listing:
        """What there is up to now, in the order of the places."""
        if self._whole is None:
            answers = (answer for _, answer in sorted(self._answers.items()))
            self._whole = merged(answers, complete=self._over)
        return self._whole

    async def finished(self) -> Listing:
        """The listing, when every place has answered or can't be waited for any longer."""
        while not self._over:
            await self._news.wait()
        return self._result()

    async def enough(self, good: Callable[[Runner], bool], *, patience: float | None = PARTIAL) -> Listing:
        """The listing, when there is something good in it and better can hardly be expected.

        Args:
            good: Whether a runner is what the caller looks for.
            patience: For how many seconds from its begin to wait for something good, once anybody has
                answered; None is as long as there is hope.
        """
        seen = 0
        first_good: int | None = None
        while not self._over:
            news = self._news
            for place, answer in list(self._answers.items())[seen:]:
                if any(good(runner) for runner in answer.runners):
                    first_good = place if first_good is None else min(first_good, place)
            seen = len(self._answers)
            if (
                self._ordered
                and first_good is not None
                and all(i in self._answers for i in range(first_good))
            ):
                break  # all that would be preferred to it have answered
            found_some = any(answer.reached for answer in self._answers.values())
            if first_good is None and (patience is None or not found_some):
                await news.wait()
                continue
            limit = patience if first_good is None and patience is not None else _SETTLING
            left = self._began + limit - time.monotonic()
            if left <= 0:
                break
            try:
                async with asyncio.timeout(left):
                    await news.wait()
            except TimeoutError:
                continue
        return self._result()

    def _result(self) -> Listing:
        if self._failure is None:
            return self.listing
        if isinstance(self._failure, asyncio.CancelledError):
            raise ConnectionFailed("The gateway was closed while orchestrators were asked what they have.")
        raise self._failure

    def _tell(self) -> None:
        self._whole = None
        news, self._news = self._news, asyncio.Event()
        news.set()
