"""Asks orchestrators, discovery services and signers what there is, and keeps the answer for a moment."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ._fork import abandon, on_fork
from ._http import Pool, running_loop
from ._questions import Questions
from ._round import PARTIAL, Round
from ._urls import redact
from .catalogue import Runner
from .config import Config
from .errors import ConfigurationError, LivepeerError, LivepeerTimeout, Rejection
from .listing import NOT_AN_ORCHESTRATOR, Listing, brought_up_to_date, merged, parse_listing
from .records import Records

__all__ = ["Discovery"]

_FRESH = 5.0  # seconds that an answer is believed
_STALE = 30.0  # seconds that it is used while another one is on its way
_A_SECOND = 10  # orchestrators that a gateway asks, at most, for being up to date; fresher isn't worth it
_AT_ONCE = 128  # orchestrators asked at the same time
_MANY = 100  # listings kept
_MANY_SEEN = 10_000  # names of apps remembered after they have gone
_SILENT = "it did not answer"
_HEAD_START = 1.0  # seconds that a service has before the next one is asked, too


class _Kept(NamedTuple):
    listing: Listing
    read_at: float
    life: float  # seconds


class _Seed(NamedTuple):
    """An orchestrator to ask, and what a service says of it.

    Attributes:
        address: Its URL.
        configured: Whether the user named it, and no service.
        listed: Its runners, as the service lists them.
        whole: Whether all that it has itself may be used, and not just those.
        believed: Whether it needn't be asked.
    """

    address: str
    configured: bool = False
    listed: tuple[Runner, ...] = ()
    whole: bool = True
    believed: bool = False


@dataclass(slots=True, eq=False)
class _Asking:
    """A round that is under way."""

    round: Round
    task: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        """End it, with the connections of its loop."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task})


class Discovery:
    """The listing of a gateway; concurrent calls on one loop share one round of questions."""

    def __init__(self, config: Config, pool: Pool, records: Records | None = None) -> None:
        self._config = config
        self._pool = pool
        self._records = records or Records()
        self._questions = Questions(config, pool)
        self._kept: dict[tuple[str, ...], _Kept] = {}
        self._seen: dict[str, float] = {}  # when each app was last listed
        self._asking: dict[tuple[asyncio.AbstractEventLoop, tuple[str, ...]], _Asking] = {}
        on_fork(self)

    async def listing(
        self,
        *,
        fresh: bool = False,
        apps: Sequence[str] = (),
        good: Callable[[Runner], bool] | None = None,
        patience: float | None = PARTIAL,
    ) -> tuple[Listing, bool]:
        """The listing, and whether it was asked for just now.

        One that is a little old is given at once, and brought up to date meanwhile.

        Args:
            fresh: Ask again, even when the last answer is only moments old.
            apps: The names that are looked for; signers are asked for those alone.
            good: Whether a runner is what the caller looks for: then a round of questions isn't waited for to
                its end, and the listing may be incomplete. None waits for all.
            patience: For how many seconds of a round an incomplete listing without anything good won't do;
                None is as long as there is hope.
        """
        key = tuple(apps) if self._questions.by_name else ()
        kept = self._kept.get(key)
        if kept is not None and not fresh:
            age = time.monotonic() - kept.read_at
            if age < kept.life:
                return kept.listing, False
            if age < kept.life + _STALE:
                self._begun(key)
                return kept.listing, False
        asking = self._begun(key)
        if good is None:
            return await asking.round.finished(), True
        return await asking.round.enough(good, patience=patience), True

    def missing_for(self, *apps: str) -> float | None:
        """How many seconds ago one of these was listed last; None when none ever was."""
        times = [self._seen[app] for app in apps if app in self._seen]
        return time.monotonic() - max(times) if times else None

    def _after_fork(self) -> None:
        abandon(self._asking)
        self._asking = {}

    def _begun(self, key: tuple[str, ...]) -> _Asking:
        """The round that is under way on this loop, or one that begins now."""
        loop = running_loop()
        for other in [other for other in list(self._asking) if other[0].is_closed()]:
            self._asking.pop(other, None)
        asking = self._asking.get((loop, key))
        if asking is None:
            asking = self._asking[loop, key] = _Asking(Round(ordered=bool(self._config.orchestrators)))
            asking.task = loop.create_task(self._go(key, asking))
            # In the pool's care: the end of a loop, or of the gateway, ends the round.
            self._pool.enlist(asking)
        return asking

    async def _go(self, key: tuple[str, ...], asking: _Asking) -> None:
        failure: BaseException | None = None
        try:
            count = await self._ask_all(key, asking.round)
        except BaseException as error:
            failure = error
            if not isinstance(error, Exception):
                raise
        finally:
            self._asking.pop((asyncio.get_running_loop(), key), None)
            self._pool.discharge(asking)
            asking.round.end(failure)
        if failure is not None:
            return  # everybody who waits for the round raises it
        listing = asking.round.listing
        if listing.reached:
            now = time.monotonic()
            if len(self._kept) >= _MANY:  # a signer's answers are kept by the names that were looked for
                self._kept.clear()
            if len(self._seen) >= _MANY_SEEN:
                self._seen.clear()
            self._kept[key] = _Kept(listing, now, max(_FRESH, count / _A_SECOND))
            self._seen |= {runner.app: now for runner in listing.runners}

    async def _ask_all(self, key: tuple[str, ...], round: Round) -> int:
        """Ask everybody; how many orchestrators were asked."""
        if self._config.orchestrators:
            seeds = [_Seed(place, configured=True) for place in self._config.orchestrators]
        else:
            service = await self._service(key)
            seeds = _seeds(service, whole=self._questions.by_name)
            # Whether anybody was reached is said by the orchestrators, where the service names some.
            nobody = dataclasses.replace(service, runners=(), orchestrators=())
            round.add(-1, dataclasses.replace(nobody, reached=0) if seeds else nobody)
        rest = {seed.address: self._silence(seed.address) for seed in seeds}
        all_rest = all(rest.values())
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(number: int, seed: _Seed) -> None:
            if rest[seed.address] and not all_rest:
                reason = f"it didn't answer lately, and is left alone for {rest[seed.address]:.0f} s more"
                rejection = Rejection(redact(seed.address), reason, retryable=True)
                round.add(number, Listing((), (rejection,), 0))
                return
            async with limit:
                round.add(number, await self._orchestrator(seed))

        await asyncio.gather(*(one(number, seed) for number, seed in enumerate(seeds)))
        return len(seeds)

    def _silence(self, place: str) -> float:
        """For how many seconds a place that never answered is left alone; a refusal costs no time."""
        return self._records.rest(place) if self._records.reason(place) == _SILENT else 0.0

    async def _orchestrator(self, seed: _Seed) -> Listing:
        """What an orchestrator says of itself, or what was said of it."""
        if seed.believed:
            return Listing(seed.listed, (), 1, (seed.address,))
        if self._config.gateways:
            return Listing((), (), 1, (seed.address,))  # only the gateway node has to reach it
        place = seed.address
        began = time.monotonic()
        try:
            status, body = await self._questions.orchestrator(place)
        except LivepeerError as error:
            return self._unreached(place, error)
        took = time.monotonic() - began
        self._records.took(place, took)
        self._records.succeeded(place)
        if status == 200:
            own = parse_listing(body, place)
            if not own.reached:
                return own if seed.configured else Listing(seed.listed, own.rejections, 1, (place,))
            if own.orchestrators not in ((), (place,)) and seed.configured:
                self._records.took(own.orchestrators[0], took)  # its runners bear the address it gives itself
            # It was reached by this URL; by the address that it gives itself, it may not be.
            runners = own.runners if seed.whole else brought_up_to_date(seed.listed, own.runners)
            runners = tuple(self._with_ours(runner) for runner in runners)
            return dataclasses.replace(own, runners=runners, orchestrators=(place,))
        text = body[:200].decode("utf-8", "replace").strip()
        rejection = _refusal(place, status, text)
        if not seed.configured:
            return Listing(seed.listed, (rejection,), 1, (place,))
        # An orchestrator without live runners, or of a time before them, may have all the rest.
        others = (place,) if status == 404 else ()
        return Listing((), (rejection,), int(bool(others) and _switched_off(text)), others)

    def _with_ours(self, runner: Runner) -> Runner:
        ours = self._records.under_way(runner.url)
        return dataclasses.replace(runner, ours=ours) if ours else runner

    async def _service(self, key: tuple[str, ...]) -> Listing:
        """The list of the first service that has one, and why those before it haven't."""
        waiting = sorted(self._questions.services, key=lambda url: self._records.rest(url) > 0)
        pending: set[asyncio.Task[Listing]] = set()
        failed: list[Listing] = []
        try:
            while waiting or pending:
                if waiting:
                    pending.add(asyncio.ensure_future(self._ask_service(waiting.pop(0), key)))
                done, pending = await asyncio.wait(
                    pending,
                    timeout=_HEAD_START if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for answer in [task.result() for task in done]:
                    if answer.reached:
                        return merged([*failed, answer])
                    failed.append(answer)
        finally:
            for task in pending:
                task.cancel()
            if pending:
                await asyncio.wait(pending)
        return merged(failed)

    async def _ask_service(self, place: str, key: tuple[str, ...]) -> Listing:
        try:
            status, body = await self._questions.service(place, key)
            if key and status == 200 and not parse_listing(body, place).orchestrators:
                # A signer knows apps, and models of pipelines; what it doesn't know may be there.
                status, body = await self._questions.service(place)
        except ConfigurationError:
            raise
        except LivepeerError as error:
            return self._unreached(place, error)
        if status == 200:
            self._records.succeeded(place)
            return parse_listing(body, place)
        self._records.failed(place, f"it answered {status}")
        text = body[:200].decode("utf-8", "replace").strip()
        return Listing((), (_refusal(place, status, text),), 0)

    def _unreached(self, place: str, error: LivepeerError) -> Listing:
        self._records.failed(place, _SILENT if isinstance(error, LivepeerTimeout) else error.message)
        # Who doesn't answer in time may do so the next time.
        retryable = error.retryable or isinstance(error, LivepeerTimeout)
        return Listing((), (Rejection(redact(place), error.message, error.hint, retryable),), 0)


def _seeds(service: Listing, *, whole: bool) -> list[_Seed]:
    """The orchestrators that a service names.

    Where there is a choice, each is asked itself: what services say of free places may be half an hour old,
    and some of those they name may not answer. Without a choice, the call itself finds out.

    Args:
        service: What it said.
        whole: Whether all that an orchestrator has may be used, and not just what the service lists of it.
    """
    listed: dict[str, list[Runner]] = {address: [] for address in service.orchestrators}
    for runner in service.runners:
        listed[runner.orchestrator].append(runner)
    only = len(listed) == 1
    return [
        _Seed(
            address,
            listed=tuple(runners),
            whole=whole or not runners,
            believed=only and bool(runners) and not whole,
        )
        for address, runners in listed.items()
    ]


def _refusal(place: str, status: int, text: str) -> Rejection:
    if status == 404 and _switched_off(text):
        reason, hint = f"it answered 404 ({text})", "This orchestrator has live runners switched off."
    else:
        reason = f"it answered {status} ({text})" if text else f"it answered {status}"
        hint = _HINTS.get(status, NOT_AN_ORCHESTRATOR)
    return Rejection(redact(place), reason, hint, retryable=status >= 500 or status in (408, 425, 429))


_HINTS = {
    401: "Check its headers: discovery_headers=, signer_headers= or the token.",
    403: "Check its headers: discovery_headers=, signer_headers= or the token.",
}


def _switched_off(text: str) -> bool:
    """Whether this is what an orchestrator without live runners answers."""
    return "live runners are not supported" in text
