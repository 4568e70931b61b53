"""The till of an on-chain orchestrator: everything that the others need of `paid`, made from its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from ..ai_worker import AIWorker
from ..credentials import AuthTokens
from ..mux import Mux
from ..registry import Registry
from ..validation import Refused
from .balances import Account
from .cashier import Cashier
from .chain import Chain
from .meter import Meter
from .payment_calls import PaymentCalls
from .prices import PIXELS_PER_SECOND, Prices
from .recipient import Recipient
from .reservations import Reservations
from .wallets import account

__all__ = ["Till"]


class Till:
    """What makes an orchestrator an on-chain one.

    Args:
        settings: ``{"chain", "ticket_ev", "gas_price", "price_per_unit", "payment_interval"}``, as
            `LocalNetwork` has them; the chain is what `Chain.started` said.
        tokens: The orchestrator's auth tokens.
        worker: Its AI worker.
        url: Its address.
    """

    def __init__(self, settings: Mapping[str, Any], tokens: AuthTokens, worker: AIWorker, url: str) -> None:
        self.chain: Chain = Chain(settings["chain"])
        self.prices: Prices = Prices(self.chain)
        self.interval: float = settings["payment_interval"]
        recipient = Recipient(self.chain, account(0), settings["ticket_ev"], settings["gas_price"])
        self.cashier: Cashier = Cashier(recipient, tokens, worker, url, settings["price_per_unit"])
        self._url = url

    def reservations(self, registry: Registry) -> Reservations:
        """The paid way to the runners."""
        return Reservations(registry, self.cashier, self.interval)

    def answers(self) -> dict[str, Callable[[Any], Any]]:
        """What the one who started the network may say and ask (`control.Control`)."""

        def account_of(manifest_id: str) -> dict[str, str]:
            found = self.cashier.balances.of(manifest_id) or Account()
            return {name: str(getattr(found, name)) for name in ("amount", "credited", "debited")}

        def surcharge(factor: float) -> None:
            self.cashier.surcharge = Fraction(str(factor))

        return {"chain": self.chain.learn, "account": account_of, "surcharge": surcharge}

    def admit(self, headers: Mapping[str, str], manifest_id: str) -> Meter | None:
        """Take the first payment for a job of live video-to-video. Raises `Refused`.

        Returns:
            What to look at for each segment of the job, if it costs anything.
        """
        paid = self.cashier.read(headers)
        self.cashier.process(paid, manifest_id)
        price = paid.payment.expected_price.pricePerUnit
        if price > 0 and not self.cashier.sufficient(paid.sender, manifest_id):
            raise Refused("Insufficient balance", 400)
        if not price:
            return None

        def charge(units: int) -> None:
            self.cashier.charge(paid, manifest_id, units)

        return Meter(self.interval, PIXELS_PER_SECOND, charge)

    def add_routes(self, mux: Mux) -> None:
        """Serve the calls that only an on-chain orchestrator has a use for."""
        PaymentCalls(self.cashier, self._url).add_routes(mux)
