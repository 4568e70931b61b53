"""Which orchestrators a gateway node is asked to use for a call, one after the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from ._http import Pool, unsent
from ._urls import redact
from .catalogue import Price
from .config import Config
from .discovery import Discovery
from .errors import (
    CapabilityNotFound,
    LivepeerError,
    NoOrchestratorError,
    PriceExceeded,
    Rejection,
)
from .offers import Offer, Offers
from .prices import over
from .routes.gateway_node import GatewayNodeRoute

if TYPE_CHECKING:
    from .routes import Route

__all__ = ["PRICE_HINT", "NodeSearch", "against"]

_UNKNOWN = "what it costs through a gateway node isn't known, so max_price can't be held"
PRICE_HINT = "With signer_url= beside gateway_url= the orchestrators tell their prices."


class NodeSearch:
    """One search for a way through gateway nodes, which goes on as long as none was begun.

    Orchestrators are taken in their order: a node that finds the capability at one is asked for no other. A
    node that can't be reached makes place for the next one.

    Args:
        config: Names the nodes.
        pool: The gateway's connections.
        discovery: What leads to orchestrators, where none is named.
        offers: What orchestrators say of capabilities.
        capability: What is called.
        max_price: The most that it may cost.

    Attributes:
        failures: How the routes ended that were gone; the caller notes it before it takes the next one.
    """

    def __init__(
        self,
        config: Config,
        pool: Pool,
        discovery: Discovery,
        offers: Offers,
        *,
        capability: str,
        max_price: Price | None,
    ) -> None:
        self.failures: list[LivepeerError] = []
        self._config = config
        self._pool = pool
        self._discovery = discovery
        self._offers = offers
        self._capability = capability
        self._max_price = max_price
        self._rejections: tuple[Rejection, ...] = ()
        self._too_dear: list[Rejection] = []

    async def routes(self) -> AsyncGenerator[Route, None]:
        """The routes, each only when those before it have failed."""
        listing, _ = await self._discovery.listing()
        self._rejections = listing.rejections
        prices = await self._prices(listing.orchestrators)
        gateways = list(self._config.gateways)
        for orchestrator in listing.orchestrators:
            if orchestrator not in prices:
                continue
            while gateways:
                yield GatewayNodeRoute(
                    gateways[0], orchestrator, self._capability, self._pool, price=prices[orchestrator]
                )
                if not unsent(self.failures[-1]):
                    break
                gateways.pop(0)

    def error(self) -> LivepeerError:
        """Why no route has led to an answer."""
        serious = [failure for failure in self.failures if not isinstance(failure, CapabilityNotFound)]
        if serious:
            return serious[-1]
        if self._too_dear and not self.failures:
            return PriceExceeded(
                f"Nobody who may have {self._capability!r} can be called: "
                + "; ".join(f"{one.where}: {one.reason}" for one in self._too_dear[:3])
                + ".",
                hint=self._too_dear[0].hint,
            )
        if len(self.failures) == 1:
            return self.failures[0]
        if self.failures:
            nodes = ", ".join(map(redact, self._config.gateways))
            return CapabilityNotFound(
                f"The gateway node {nodes} finds no {self._capability!r} with a free place at any of the "
                f"{len(self.failures)} orchestrators that it was asked to use.",
                hint=self.failures[-1].hint,
                capability=self._capability,
                retryable=True,
            )
        return NoOrchestratorError(
            f"No orchestrator is known that a gateway node could use for {self._capability!r}.",
            rejections=self._rejections,
        )

    async def _prices(self, orchestrators: Sequence[str]) -> dict[str, Price | None]:
        """Those which may be used, with their prices as far as they matter."""
        if self._max_price is None:
            return dict.fromkeys(orchestrators)
        usable: dict[str, Price | None] = {}
        for offer in await self._offers.of(self._capability, orchestrators, all_of_them=True):
            reason = against(offer, self._max_price)
            if reason is None:
                usable[offer.orchestrator] = offer.price
            else:
                hint = PRICE_HINT if reason == _UNKNOWN else None
                self._too_dear.append(Rejection(redact(offer.orchestrator), reason, hint))
        return usable


def against(offer: Offer, most: Price) -> str | None:
    """What speaks against an orchestrator where a call may cost no more; None when nothing does."""
    if offer.price is not None:
        return over(offer.price, most)
    return None if offer.usable else _UNKNOWN
