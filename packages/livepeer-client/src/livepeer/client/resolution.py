"""From a capability's name to the routes that may lead to it, and along them until one answers.

Each kind of route is loaded when there is one: most programs need one kind, and some make one call. Nothing
is loaded when something has failed, as by then there may be no room for another open file.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from ._http import Pool, unsent
from ._names import Names
from ._payer import Payer
from ._round import GRACE, PARTIAL
from ._urls import redact
from .catalogue import Price, Runner
from .config import Config
from .discovery import Discovery
from .errors import (
    CapabilityNotFound,
    CapacityError,
    ConnectionFailed,
    LivepeerError,
    LivepeerTimeout,
    OrchestratorError,
    Rejection,
)
from .failover import MOST, Trail, not_begun, unknown
from .listing import Listing
from .offers import BYOC_WAYS, Offer, Offers
from .prices import over
from .records import Records, place_of
from .routes import Route
from .routes.live_runner import LiveRunnerRoute
from .selection import (
    Verb,
    check_names,
    free_of,
    names_of,
    not_found,
    offers_in_turn,
    priced,
    ranked,
    resting,
    suits,
)

if TYPE_CHECKING:
    from ._through_node import NodeSearch
    from .payments.job_signer import JobSigner
    from .payments.wallet import Wallet

__all__ = ["Resolver"]

T = TypeVar("T")


class Resolver:
    """Finds routes, and goes them.

    Attributes:
        records: How they did up to now.
        payer: Whose wallet pays, if anybody's does.
        discovery: What the gateway's orchestrators list.
        offers: What they say of BYOC capabilities.
        names: Which BYOC capabilities they list.
        wallet: What pays; None where no signer is configured.
    """

    def __init__(self, config: Config, pool: Pool, wallet: Wallet | None = None) -> None:
        self.wallet: Wallet | None = wallet
        self.records: Records = Records()
        self.discovery: Discovery = Discovery(config, pool, self.records)
        self.payer: Payer = Payer(wallet)
        self._jobs: JobSigner | None = None
        self.offers: Offers = Offers(pool, self.payer, self.records)
        self.names: Names = Names(pool, self.payer)
        self._config = config
        self._pool = pool
        self._paths: dict[tuple[str, str], str] = {}

    async def go(
        self,
        capability: str,
        model: str | None,
        verb: Verb,
        go: Callable[[Route], Awaitable[T]],
        trail: Trail,
        *,
        max_price: Price | None = None,
    ) -> T:
        """Go the first route that leads to an answer.

        A further one is gone only when the work can't have begun on the one before; `trail` notes each.

        Raises:
            LivepeerError: What the last route ended in, or what stands against every candidate.
        """
        check_names(capability, model)
        search = self._search(capability, model, verb, max_price)
        async with contextlib.aclosing(search.routes()) as routes:
            async for route in routes:
                trail.trying(route)
                try:
                    result = await go(route)
                except LivepeerError as error:
                    self._remember(route, error)
                    asked_only = not getattr(route, "begun", True)
                    if not not_begun(error) and not asked_only:
                        raise
                    trail.failed(error, begun=False)
                    search.failures.append(error)
                else:
                    self.records.succeeded(route.place)
                    return result
                if sum(not isinstance(one, CapabilityNotFound) for one in search.failures) == MOST:
                    break
        raise search.error()

    def _search(
        self, capability: str, model: str | None, verb: Verb, max_price: Price | None
    ) -> _Search | NodeSearch:
        if self.through_node:
            from ._through_node import NodeSearch

            return NodeSearch(
                self._config, self._pool, self.discovery, self.offers,
                capability=capability, max_price=max_price,
            )  # fmt: skip
        return _Search(self, capability, model, verb, max_price)

    @property
    def through_node(self) -> bool:
        """Whether calls go through a gateway node."""
        return bool(self._config.gateways)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The gateway nodes' URLs, as they may be shown."""
        return tuple(map(redact, self._config.gateways))

    @property
    def ordered(self) -> bool:
        """Whether the orchestrators are in the caller's order of preference."""
        return bool(self._config.orchestrators)

    def live_runners(
        self,
        listing: Listing,
        capability: str,
        model: str | None,
        verb: Verb,
        max_price: Price | None = None,
    ) -> tuple[list[Route], tuple[Rejection, ...]]:
        """The live runners of a listing that can take a call, best first, and what is against the others."""
        runners, rejections = ranked(
            listing, capability, model, verb,
            ordered=self.ordered, max_price=max_price, records=self.records, pays=self.wallet is not None,
        )  # fmt: skip
        return [LiveRunnerRoute(runner, self._pool, self.wallet) for runner in runners], rejections

    def _remember(self, route: Route, error: LivepeerError) -> None:
        """Leave alone for a while who failed: the orchestrator, or only what is behind it."""
        if unsent(error):
            nearest = getattr(route, "gateway", route.orchestrator)
            self.records.failed(nearest, error.message)
        elif isinstance(error, ConnectionFailed | LivepeerTimeout | CapacityError | OrchestratorError):
            self.records.failed(route.place, error.message)

    def built_in(self, orchestrator: str) -> Route:
        """The route to the pipeline that an orchestrator's AI worker may have."""
        from .routes.lv2v import LV2VRoute

        return LV2VRoute(orchestrator, self._pool, self.wallet)

    def byoc(self, capability: str, offer: Offer) -> Route:
        """The route that an offer stands for."""
        from .routes.byoc import ByocRoute

        return ByocRoute(
            offer.orchestrator, capability, self._pool,
            price=offer.price, paths=self._paths, signing=None if offer.usable else self.jobs,
        )  # fmt: skip

    @property
    def jobs(self) -> JobSigner | None:
        """What signs BYOC jobs; None where no signer is configured."""
        if self._jobs is None and self.wallet is not None:
            from .payments.job_signer import JobSigner

            self._jobs = JobSigner(self.wallet, self._pool)
        return self._jobs

    async def signable(self, offer: Offer, max_price: Price | None) -> bool:
        """Whether a job there can be signed and paid for, at this price."""
        if offer.rejection is None or offer.rejection.hint != BYOC_WAYS or not offer.available:
            return False
        if offer.price is not None and over(offer.price, max_price) is not None:
            return False
        jobs = self.jobs
        return jobs is not None and await jobs.offered() is not None


class _Search:
    """One search for a route, which goes on as long as routes fail and others may be left."""

    def __init__(
        self,
        resolver: Resolver,
        capability: str,
        model: str | None,
        verb: Verb,
        max_price: Price | None = None,
    ) -> None:
        self.failures: list[LivepeerError] = []
        self._resolver = resolver
        self._wanted = (capability, model, verb)
        self._max_price = max_price
        self._listing = Listing((), (), 0)
        self._runners: list[Route] = []
        self._rejections: tuple[Rejection, ...] = ()
        self._offers: dict[str, Offer] = {}
        self._names: dict[str, frozenset[str] | None] = {}
        self._gone: set[str] = set()  # live runners that were tried
        self._asked: set[str] = set()  # orchestrators that were asked for the built-in pipeline

    async def routes(self) -> AsyncGenerator[Route, None]:
        """The routes, each found only when those before it have failed.

        Live runners come first. Where none can be used, or those that were listed have gone, each further way
        is looked for; then once more in a listing of now.
        """
        fresh = late = False
        apps = names_of(*self._wanted[:2])
        while True:
            good = None if fresh and not late else self._good
            # Who has the capability and can't take the call is reason enough to wait for others. Where nobody
            # has it, it may well be misspelt.
            known = bool(self.failures or self._rejections)
            patience = PARTIAL if not late else None if known else GRACE
            self._listing, asked_now = await self._resolver.discovery.listing(
                fresh=fresh, apps=apps, good=good, patience=patience
            )
            self._runners, self._rejections = self._resolver.live_runners(
                self._listing, *self._wanted, self._max_price
            )
            for route in self._runners:
                if not late or route.place not in self._gone:
                    yield route
            self._gone.update(route.place for route in self._runners)
            waited = late and patience is not None and not self.failures
            late = not self._listing.complete and not waited
            if self._stuck() and not late:
                return
            if not self._stuck():
                for route in self._built_in():
                    yield route
                if not self.failures or asked_now:
                    async for route in self._byoc():
                        yield route
            if not late and (asked_now or self._stuck()):
                break
            fresh = True  # asks again; or waits for who hasn't answered yet
        if not self._stuck():
            async for route in self._byoc_without_places():
                yield route

    def error(self) -> LivepeerError:
        """Why no route has led to an answer."""
        serious = [failure for failure in self.failures if not unknown(failure)]
        if serious or (self.failures and self._runners):
            return (serious or self.failures)[-1]
        listed = [one for one in self.failures if isinstance(one, CapabilityNotFound) and one.available]
        if listed:
            return listed[-1]  # it names the models that there are
        against = tuple(filter(None, (priced(offer, self._max_price) for offer in self._offers.values())))
        capability, model = self._wanted[:2]
        apps = names_of(capability, model)
        times = self._resolver.discovery.missing_for(*apps), self._resolver.offers.missing_for(capability)
        missing = min((seconds for seconds in times if seconds is not None), default=None)
        return not_found(
            self._listing, capability, model, self._rejections + against,
            missing_for=missing, others={name for names in self._names.values() for name in names or ()},
        )  # fmt: skip

    def _good(self, runner: Runner) -> bool:
        """Whether this may be where the call goes, so that others needn't be waited for."""
        free = free_of(runner, self._resolver.records) > 0  # of calls that began since, too
        return (
            runner.url not in self._gone
            and free
            and suits(
                runner, *self._wanted, max_price=self._max_price, pays=self._resolver.wallet is not None
            )
        )

    def _stuck(self) -> bool:
        """Whether somebody has the capability, and can't take the call."""
        return any(not unknown(failure) for failure in self.failures)

    def _built_in(self) -> Iterator[Route]:
        """The pipeline that needs no registration, at each orchestrator."""
        capability, _, verb = self._wanted
        if verb != "live":
            return
        from .routes.lv2v import PIPELINE

        if capability == PIPELINE:
            records = self._resolver.records
            # Those which have failed lately come last; else their order stays.
            for orchestrator in sorted(
                self._listing.orchestrators,
                key=lambda url: resting(records, url, place_of(url, PIPELINE)) > 0,
            ):
                if orchestrator not in self._asked:
                    self._asked.add(orchestrator)
                    yield self._resolver.built_in(orchestrator)

    async def _byoc(self) -> AsyncGenerator[Route, None]:
        capability = self._wanted[0]
        known = {url for url, offer in self._offers.items() if offer.rejection is None}
        new = [url for url in self._listing.orchestrators if url not in known]
        offers = await self._resolver.offers.of(capability, new)
        for offer in offers_in_turn(
            offers, capability, ordered=self._resolver.ordered, records=self._resolver.records
        ):
            self._offers[offer.orchestrator] = offer
            paid = self._wanted[2] == "call" and await self._resolver.signable(offer, self._max_price)
            if (offer.usable and offer.available) or paid:
                before = len(self.failures)
                yield self._resolver.byoc(capability, offer)
                if len(self.failures) > before:
                    # Known here no more: asked again when the search goes on in a listing of now.
                    self._resolver.offers.forget(offer.orchestrator, capability)
                    del self._offers[offer.orchestrator]

    async def _byoc_without_places(self) -> AsyncGenerator[Route, None]:
        """Those which list the capability and show no free place: calls aren't refused for that.

        Their count may be wrong, too (see `offers`).
        """
        capability = self._wanted[0]
        self._names = await self._resolver.names.of(self._listing.orchestrators)
        for offer in self._offers.values():
            names = self._names.get(offer.orchestrator)
            if offer.usable and not offer.available and (names is None or capability in names):
                yield self._resolver.byoc(capability, offer)
