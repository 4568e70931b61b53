"""``/payment`` and ``/refresh-payment`` (``server/segment_rpc.go`` and ``server/rpc.go``, v0.9.1)."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from .. import answers, sniffing
from ..gojson import GoJSONError, Kind, decode
from ..mux import Mux
from .cashier import Cashier
from .recipient import InsufficientReserve
from .wallets import address_of

__all__ = ["PaymentCalls", "payment_result"]


class PaymentCalls:
    """The calls that take money for whatever it is for, and tell how to pay on."""

    def __init__(self, cashier: Cashier, public_url: str) -> None:
        self._cashier = cashier
        self._url = public_url

    def add_routes(self, mux: Mux) -> None:
        """Serve these calls."""
        mux.handle("/payment", self.pay)
        mux.handle("POST /refresh-payment", self.refresh)

    async def pay(self, request: web.Request, _values: Mapping[str, bytes]) -> web.StreamResponse:
        """Take a payment for any manifest id, also one whose session is over."""
        return payment_result(self._cashier.take(self._cashier.read(request.headers)))

    async def refresh(self, request: web.Request, _values: Mapping[str, bytes]) -> web.StreamResponse:
        """Fresh parameters for a session, at the price of its first payment."""
        fields: dict[str, Kind] = {"sender": "string", "manifest_id": "string"}
        try:
            asked = decode(await request.read(), "server.refreshPaymentParamsRequest", fields)
        except GoJSONError as error:
            return answers.json_error(str(error), 400)
        try:
            sender = address_of(asked["sender"])
        except ValueError:
            return answers.json_error("invalid sender", 400)
        manifest_id = asked["manifest_id"].strip()
        if not manifest_id:
            return answers.json_error("missing manifest_id", 400)
        account = self._cashier.balances.find(sender, manifest_id)
        if account is None or account.fixed_price is None:
            return answers.json_error("fixed price not found for session", 409)
        try:
            told = self._cashier.challenge(
                sender, account.fixed_price, manifest_id, lambda _: f"{self._url}/payment"
            )
        except InsufficientReserve as error:
            return answers.json_error(str(error), 500)
        return answers.json_answer(told)


def payment_result(message: bytes) -> web.Response:
    """The answer to a payment, with the type that Go finds in its bytes."""
    return web.Response(body=message, headers={"Content-Type": sniffing.content_type(message)})
