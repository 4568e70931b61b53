"""What a remote signer does to make a payment, step by step (``server/remote_signer.go``, v0.9.1).

It keeps nothing of a session: all that it needs comes back in the state. What it does keep while it works
(the tickets' numbers, by their parameters) is shared by the requests that run at once, and the first to
finish takes it away from the others, as in go-livepeer: they fail.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from livepeer.client._grpc import lp_rpc_pb2 as net

from .. import gojson
from ..credentials import VALID_FOR
from .cashier import flattened
from .chain import Chain
from .sender import SenderRefused, TicketSender
from .signer_request import (
    SigningRefused,
    check_price,
    read_capabilities,
    read_info,
    read_request,
    tickets_for,
    units_of,
)
from .signer_state import BadState, State
from .wallets import EMPTY_HASH, Wallet, hash256, shown

__all__ = ["Draft", "RemoteSigner"]

_MAX_TICKETS = 100
_JOB: Mapping[str, gojson.Kind] = {
    "id": "string",
    "capability": "string",
    "request": "string",
    "parameters": "string",
    "timeout_seconds": "int",
}


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
        return {"address": address, "signature": self.wallet.sign_text(address)}

    def sign_job(self, body: bytes) -> dict[str, str]:
        """Sign a BYOC job, as unreleased signers do. Raises `SigningRefused`."""
        try:
            asked = gojson.decode(body, "server.signByocJobRequest", _JOB)
        except gojson.GoJSONError as error:
            raise SigningRefused(str(error), 400) from None
        told = asked["request"] + asked["parameters"]
        return {"sender": shown(self._address), "signature": self.wallet.sign_text(told)}

    async def draft(self, body: bytes) -> Draft:
        """Make a payment. Raises `SigningRefused`."""
        asked = read_request(body)
        info = read_info(asked["orchestrator"])
        state, returned = self._state(asked, info)
        manifest_id = asked["ManifestID"]
        if not manifest_id:
            if returned:
                raise SigningRefused("missing manifestID", 400)
            manifest_id = secrets.token_hex(4)
        capabilities = read_capabilities(asked["capabilities"])
        with self._sender.session(info, state) as session:
            self._check_fresh(info, session.params)
            due = units_of(asked, state)
            price = Fraction(info.price_info.pricePerUnit, info.price_info.pixelsPerUnit)
            check_price(price, asked, state if returned else None)
            fee = Fraction(state.price_per_unit, state.pixels_per_unit) * due
            had = state.balance or Fraction(0)
            needed = tickets_for(fee, had, session.params.ev)
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
