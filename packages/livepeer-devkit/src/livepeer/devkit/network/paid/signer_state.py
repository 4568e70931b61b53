"""What a remote signer hands out to get it back: its state (``server/remote_signer.go``, v0.9.1)."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from .. import gojson
from .wallets import Wallet

__all__ = ["BadState", "State"]

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_NEVER = "0001-01-01T00:00:00Z"


class BadState(Exception):
    """A state that can't be used; the text is the signer's."""


@dataclass
class State:
    """A session as the signer sees it, which keeps nothing of it.

    Args:
        state_id: The signer's own name for it.
        orchestrator: The address of the orchestrator that is paid.
        app: The application, as the first request named it.
        price_per_unit: The first price, in wei for `pixels_per_unit` units.
        pixels_per_unit: See there.
        kind: The type of the first request.
        pm_session_id: The hash that the newest ticket parameters have.
        last_update: When it signed last, in nanoseconds since 1970; 0 for never.
        auth_expiry: Until when its webhook needn't be asked, in seconds since 1970.
        nonce: The newest ticket's number.
        balance: What was paid beyond what was due, in wei.
        sequence: How often it was used.
        auth_id: Who the webhook says it is.
    """

    state_id: str
    orchestrator: bytes
    app: str
    price_per_unit: int
    pixels_per_unit: int
    kind: str
    pm_session_id: str = ""
    last_update: int = 0
    auth_expiry: int = 0
    nonce: int = 0
    balance: Fraction | None = None
    sequence: int = 0
    auth_id: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """The JSON of it, in Go's order."""
        return {
            "StateID": self.state_id,
            "PMSessionID": self.pm_session_id,
            "LastUpdate": _written(self.last_update),
            "OrchestratorAddress": f"0x{self.orchestrator.hex()}",
            "App": self.app,
            "AuthExpiry": self.auth_expiry,
            "SenderNonce": self.nonce,
            "Balance": "" if self.balance is None else str(self.balance),
            "InitialPricePerUnit": self.price_per_unit,
            "InitialPixelsPerUnit": self.pixels_per_unit,
            "Type": self.kind,
            "SequenceNumber": self.sequence,
            "AuthID": self.auth_id,
        }

    def signed(self, wallet: Wallet) -> dict[str, str]:
        """The state as it is handed out."""
        state = gojson.encode(self.fields)
        return {
            "State": base64.b64encode(state).decode(),
            "Sig": base64.b64encode(wallet.sign(state)).decode(),
        }

    @classmethod
    def read(cls, state: bytes, signature: bytes, wallet: Wallet) -> State:
        """The state that came back. Raises `BadState`."""
        if not wallet.signed(state, signature):
            raise BadState("invalid sig")
        told = json.loads(state)  # it is our own, so it can be read
        return cls(
            told["StateID"],
            bytes.fromhex(told["OrchestratorAddress"][2:]),
            told["App"],
            told["InitialPricePerUnit"],
            told["InitialPixelsPerUnit"],
            told["Type"],
            told["PMSessionID"],
            _read(told["LastUpdate"]),
            told["AuthExpiry"],
            told["SenderNonce"],
            Fraction(told["Balance"]) if told["Balance"] else None,
            told["SequenceNumber"],
            told["AuthID"],
        )


def _written(nanoseconds: int) -> str:
    """A time as Go's ``time.Time`` is written in JSON."""
    if not nanoseconds:
        return _NEVER
    seconds, rest = divmod(nanoseconds, 10**9)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _read(text: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None or text == _NEVER:
        return 0
    seconds = datetime.fromisoformat(match[1] + match[3]).timestamp()
    return int(seconds) * 10**9 + int((match[2] or "").ljust(9, "0"))
