"""What a remote signer is asked for, and how much that is (``server/remote_signer.go``, v0.9.1)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from google.protobuf.message import DecodeError

from livepeer.client._grpc import lp_rpc_pb2 as net

from .. import gojson
from ..credentials import UNREADABLE
from .prices import PIXELS_PER_SECOND, go_float
from .signer_state import State

__all__ = [
    "SigningRefused",
    "check_ceiling",
    "check_price",
    "read_capabilities",
    "read_info",
    "read_max_price",
    "read_request",
    "tickets_for",
    "units_of",
]

_UNITS = {"live": "seconds", "lv2v": "720p-pixel-seconds", "fixed": "fixed"}
_PREPAID = {"live": 10.0, "lv2v": 60.0}  # seconds that a first payment covers
_MAX_PRICE: gojson.Kind = {
    "": "runner.LiveRunnerPriceInfo",
    "price": "number",
    "currency": "string",
    "unit": "string",
}
_REQUEST: Mapping[str, gojson.Kind] = {
    "state": {"": "server.RemotePaymentStateSig", "State": "bytes", "Sig": "bytes"},
    "orchestrator": "bytes",
    "ManifestID": "string",
    "app": "string",
    "inPixels": "int64",
    "type": "string",
    "maxPrice": _MAX_PRICE,
    "capabilities": "bytes",
}


class SigningRefused(Exception):
    """The signer doesn't sign; the text is its own.

    Args:
        text: Why.
        status: The HTTP status.
        headers: What else to say.
    """

    def __init__(self, text: str, status: int, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers: dict[str, str] = dict(headers or {})


def read_request(body: bytes) -> dict[str, Any]:
    """The fields of a request for a payment. Raises `SigningRefused`."""
    try:
        return gojson.decode(body, "server.RemotePaymentRequest", _REQUEST)
    except gojson.GoJSONError as error:
        raise SigningRefused(str(error), 400) from None


def check_ceiling(price: Fraction, limit: Fraction | None, source: str) -> None:
    """Refuse a price over somebody's ceiling."""
    if limit is not None and price > limit:
        told = f"orchestrator price {go_float(price, 3)} exceeds {source} ceiling {go_float(limit, 3)}"
        raise SigningRefused(told, 481)


def read_max_price(told: Mapping[str, Any] | None, kind: str) -> Fraction | None:
    """A ceiling as it is written, in wei per unit. Raises `ValueError`."""
    if told is None:
        return None
    try:
        price = Fraction(str(told["price"]).strip())
    except (ValueError, ZeroDivisionError):
        price = Fraction(0)
    if price <= 0:
        raise ValueError("maxPrice.price must be a positive decimal")
    if told["currency"].strip().lower() != "wei":
        raise ValueError("maxPrice.currency must be wei")
    if kind not in _UNITS:
        raise ValueError("maxPrice requires payment type live, lv2v, or fixed")
    if told["unit"].strip().lower() != _UNITS[kind]:
        raise ValueError(f"maxPrice.unit must be {_UNITS[kind]} for payment type {kind}")
    return price


def read_info(data: bytes) -> net.OrchestratorInfo:
    """The orchestrator's parameters: what is to be paid, and how."""
    if not data:
        raise SigningRefused("missing orchestrator", 400)
    try:
        info = net.OrchestratorInfo.FromString(data)
    except DecodeError:
        raise SigningRefused(UNREADABLE, 400) from None
    price = info.price_info
    if not price.pricePerUnit or not price.pixelsPerUnit:
        raise SigningRefused("missing or zero priceInfo", 400)
    if not info.HasField("ticket_params"):
        raise SigningRefused("missing ticketParams in OrchestratorInfo", 400)
    return info


def read_capabilities(data: bytes) -> net.Capabilities | None:
    """What the payment is for, if that is said."""
    if not data:
        return None
    try:
        return net.Capabilities.FromString(data)
    except DecodeError:
        raise SigningRefused(UNREADABLE, 400) from None


def units_of(asked: Mapping[str, Any], state: State) -> int:
    """How much is to be paid for: the time since the last payment, or what a first one covers."""
    kind = asked["type"]
    passed = (time.time_ns() - state.last_update) / 1e9 if state.last_update else 0.0
    if passed <= 0:
        passed = _PREPAID.get(kind, 0.0)
    units = int(asked["inPixels"])
    if kind == "lv2v":
        units = int(PIXELS_PER_SECOND * passed)
    elif kind == "live":
        units = math.ceil(passed)
    elif kind == "fixed":
        units = 1
    elif kind:
        raise SigningRefused("invalid job type", 400)
    if units <= 0:
        raise SigningRefused("missing billable unit or job type", 400)
    return units


def check_price(price: Fraction, asked: Mapping[str, Any], state: State | None) -> None:
    """Hold the price against the caller's ceiling and the session's first price; the lowest one speaks."""
    try:
        wanted = read_max_price(asked["maxPrice"], asked["type"])
    except ValueError as error:
        raise SigningRefused(str(error), 400) from None
    first = Fraction(state.price_per_unit, state.pixels_per_unit) if state is not None else None
    if first is not None and (wanted is None or first < wanted):
        check_ceiling(price, first, "initial session price")
    else:
        check_ceiling(price, wanted, "request maxPrice")


def tickets_for(fee: Fraction, had: Fraction, ev: Fraction) -> int:
    """How many tickets bring what is there to the fee, or to a ticket's worth, which is the least."""
    gap = max(fee, ev) - had
    return math.ceil(gap / ev) if gap > 0 and ev > 0 else 0
