"""What a remote signer does to make a payment, step by step (``server/remote_signer.go``, v0.9.1).

It keeps nothing of a session: all that it needs comes back in the state. What it does keep while it works
(the tickets' numbers, by their parameters) is shared by the requests that run at once, and the first to
finish takes it away from the others, as in go-livepeer: they fail.
"""

from __future__ import annotations

import base64
import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from google.protobuf.message import DecodeError

from livepeer.client._grpc import lp_rpc_pb2 as net

from .. import gojson
from ..credentials import UNREADABLE, VALID_FOR
from .cashier import flattened
from .chain import Chain
from .prices import PIXELS_PER_SECOND, go_float
from .sender import SenderRefused, TicketSender
from .signer_state import BadState, State
from .wallets import EMPTY_HASH, Wallet, hash256, shown

__all__ = ["Draft", "RemoteSigner", "SigningRefused"]

_MAX_TICKETS = 100
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


_JOB: Mapping[str, gojson.Kind] = {
    "id": "string",
    "capability": "string",
    "request": "string",
    "parameters": "string",
    "timeout_seconds": "int",
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
        self.headers = dict(headers or {})


@dataclass
class Draft:
    """A payment that is made, and not handed out yet.

    Args:
        kind: The type of the request.
        price: What the orchestrator wants, in wei per unit.
        state: The new state.
        payment: The first header's message.
        segment: The second's.
    """

    kind: str
    price: Fraction
    state: State
    payment: net.Payment = field(repr=False)
    segment: net.SegData = field(repr=False)

    def answer(self, wallet: Wallet) -> dict[str, Any]:
        """What the caller gets."""
        return {
            "payment": base64.b64encode(self.payment.SerializeToString()).decode(),
            "segCreds": base64.b64encode(self.segment.SerializeToString()).decode(),
            "state": self.state.signed(wallet),
        }


class RemoteSigner:
    """The signer of one wallet.

    Args:
        address: Whose.
        chain: The wallets and the blocks.
    """

    def __init__(self, address: bytes, chain: Chain) -> None:
        self._address = address
        self._chain = chain
        self._sender = TicketSender(address, chain)

    @property
    def wallet(self) -> Wallet:
        """The wallet, as it is at the moment."""
        return self._chain.wallets[self._address]

    def payer(self) -> dict[str, str]:
        """The address, and the signature of it that orchestrators want to see."""
        address = shown(self._address)
        signature = self.wallet.sign(hash256(address.encode()))
        return {"address": address, "signature": f"0x{signature.hex()}"}

    def sign_job(self, body: bytes) -> dict[str, str]:
        """Sign a BYOC job, as unreleased signers do. Raises `SigningRefused`."""
        try:
            asked = gojson.decode(body, "server.signByocJobRequest", _JOB)
        except gojson.GoJSONError as error:
            raise SigningRefused(str(error), 400) from None
        told = (asked["request"] + asked["parameters"]).encode()
        return {
            "sender": shown(self._address),
            "signature": f"0x{self.wallet.sign(hash256(told)).hex()}",
        }

    async def draft(self, body: bytes) -> Draft:
        """Make a payment. Raises `SigningRefused`."""
        try:
            asked = gojson.decode(body, "server.RemotePaymentRequest", _REQUEST)
        except gojson.GoJSONError as error:
            raise SigningRefused(str(error), 400) from None
        info = _read_info(asked["orchestrator"])
        state, returned = self._state(asked, info)
        manifest_id = asked["ManifestID"]
        if not manifest_id:
            if returned:
                raise SigningRefused("missing manifestID", 400)
            manifest_id = secrets.token_hex(4)
        capabilities = _read_capabilities(asked["capabilities"])
        with self._sender.session(info, state) as session:
            self._check_fresh(info, session.params)
            units = _units(asked, state)
            price = Fraction(info.price_info.pricePerUnit, info.price_info.pixelsPerUnit)
            _check_price(price, asked, state if returned else None)
            fee = Fraction(state.price_per_unit, state.pixels_per_unit) * units
            had = state.balance or Fraction(0)
            needed = _tickets(fee, had, session.params.ev)
            if needed <= 0:
                raise SigningRefused("no tickets", 482)
            if needed > _MAX_TICKETS:
                raise SigningRefused(f"numTickets {needed} exceeds maximum of {_MAX_TICKETS}", 400)
            try:
                payment = net.Payment(sender=self._address, expected_price=info.price_info)
                await self._sender.add_tickets(payment, session, needed)
                segment = self._segment(manifest_id, info, capabilities)
                state.balance = had + needed * session.params.ev - fee
                state.last_update = time.time_ns()
                state.pm_session_id = session.id
                state.nonce = self._sender.nonce(session)
            except SenderRefused as error:
                raise SigningRefused(str(error), 500) from None
        return Draft(asked["type"], price, state, payment, segment)

    def _state(self, asked: Mapping[str, Any], info: net.OrchestratorInfo) -> tuple[State, bool]:
        orchestrator = info.address.rjust(20, b"\0")[-20:]
        given = asked["state"] or {"State": b"", "Sig": b""}
        if not given["State"] and not given["Sig"]:
            price = info.price_info
            return State(
                secrets.token_hex(4),
                orchestrator,
                asked["app"],
                price.pricePerUnit,
                price.pixelsPerUnit,
                asked["type"],
            ), False
        try:
            state = State.read(given["State"], given["Sig"], self.wallet)
        except BadState as error:
            raise SigningRefused(str(error), 400) from None
        if state.orchestrator != orchestrator:
            raise SigningRefused("orchestratorAddress mismatch", 400)
        if state.app != asked["app"]:
            raise SigningRefused("app mismatch", 400)
        if state.kind not in ("", asked["type"]):
            raise SigningRefused("job type mismatch", 400)
        state.kind = asked["type"]
        state.sequence += 1
        return state, True

    def _check_fresh(self, info: net.OrchestratorInfo, params: Any) -> None:
        """Send the caller for fresh parameters when these are about to expire."""
        doubt = "remote signer could not check whether to refresh session"
        if not info.HasField("auth_token"):
            raise SigningRefused(f"{doubt}: missing auth token", 400)
        stale = time.time() > info.auth_token.expiration - VALID_FOR // 10
        try:
            stale = stale or self._sender.expired(params)
            if not stale:
                self._sender.check(params, 1)
        except SenderRefused as error:
            raise SigningRefused(f"{doubt}: {error}", 400) from None
        if stale:
            where = {"Livepeer-Orchestrator-Url": info.transcoder}
            raise SigningRefused("refresh session for remote signer", 480, where)

    def _segment(
        self, manifest_id: str, info: net.OrchestratorInfo, capabilities: net.Capabilities | None
    ) -> net.SegData:
        segment = net.SegData(
            manifestId=manifest_id.encode("utf-8", "replace"),
            hash=EMPTY_HASH,
            profiles=b"invalid",
            auth_token=info.auth_token,
            capabilities=capabilities,
        )
        segment.sig = self.wallet.sign(hash256(flattened(segment)))
        return segment


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


def _read_info(data: bytes) -> net.OrchestratorInfo:
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


def _read_capabilities(data: bytes) -> net.Capabilities | None:
    if not data:
        return None
    try:
        return net.Capabilities.FromString(data)
    except DecodeError:
        raise SigningRefused(UNREADABLE, 400) from None


def _units(asked: Mapping[str, Any], state: State) -> int:
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


def _check_price(price: Fraction, asked: Mapping[str, Any], state: State | None) -> None:
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


def _tickets(fee: Fraction, had: Fraction, ev: Fraction) -> int:
    """How many tickets bring what is there to the fee, or to a ticket's worth, which is the least."""
    gap = max(fee, ev) - had
    return math.ceil(gap / ev) if gap > 0 and ev > 0 else 0
