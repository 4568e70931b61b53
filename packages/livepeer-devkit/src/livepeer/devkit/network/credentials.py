"""What comes with a job for a built-in pipeline: a payment, and a segment header with the auth token.

Offchain a payment may be absent and is never counted; the auth token must be one of this orchestrator's
(``server/segment_rpc.go``, ``core/orchestrator.go``, v0.9.1). What a payment is worth elsewhere: `paid`.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .gojson import decode_base64
from .validation import Refused

if TYPE_CHECKING:
    from livepeer.client._grpc import lp_rpc_pb2 as net

__all__ = ["UNREADABLE", "VALID_FOR", "AuthTokens", "check_payment", "check_segment", "compatible"]

VALID_FOR = 30 * 60  # seconds
_MAX_DURATION = 5 * 60 * 1000  # milliseconds
UNREADABLE = "proto:\u00a0cannot parse invalid wire-format data"  # Go varies the space from build to build


class AuthTokens:
    """Tokens that this orchestrator knows again without keeping them.

    Args:
        clock: The seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._secret = secrets.token_bytes(32)
        self._clock = clock

    def issue(self, session: str | None = None) -> tuple[bytes, str, int]:
        """A token for a session, by default a new one; the session, and when the token expires."""
        session, expiration = session or secrets.token_hex(4), int(self._clock()) + VALID_FOR
        return self._sign(session, expiration), session, expiration

    def check(self, token: bytes, session: str, expiration: int) -> None:
        """Raise `Refused` for a token of somebody else's, or an old one."""
        if not hmac.compare_digest(token, self._sign(session, expiration)):
            raise Refused("invalid auth token", 403)
        if self._clock() > expiration:
            raise Refused("expired auth token", 403)

    def _sign(self, session: str, expiration: int) -> bytes:
        number = abs(expiration)
        told = session.encode() + number.to_bytes((number.bit_length() + 7) // 8, "big")
        return hmac.digest(self._secret, told, hashlib.sha256)


def check_payment(header: str) -> net.Payment:
    """The payment, empty when there is none. Raises `Refused` for one that can't be read."""
    from google.protobuf.message import DecodeError

    from livepeer.client._grpc import lp_rpc_pb2 as net

    try:
        return net.Payment.FromString(decode_base64(header))
    except binascii.Error as error:
        raise Refused(f"base64 decode error: {error}", 402) from None
    except DecodeError:
        raise Refused(f"protobuf unmarshal error: {UNREADABLE}", 402) from None


def check_segment(
    header: str,
    tokens: AuthTokens,
    capabilities: net.Capabilities,
    signed: Callable[[net.SegData], bool] | None = None,
) -> net.SegData:
    """Raise `Refused` for a segment header without a token of ours, or with capabilities that aren't ours.

    `signed` says whether the payer signed it; offchain nobody has to.
    """
    from google.protobuf.message import DecodeError

    from livepeer.client._grpc import lp_rpc_pb2 as net

    try:
        segment = net.SegData.FromString(decode_base64(header))
    except binascii.Error:
        raise Refused("ErrorSegEncoding", 403) from None
    except DecodeError:
        raise Refused(UNREADABLE, 403) from None
    if not 0 <= segment.duration <= _MAX_DURATION:
        raise Refused("invalid duration", 403)
    if signed is not None and not signed(segment):
        raise Refused("ErrSegSig", 403)
    if not compatible(segment.capabilities, capabilities):
        raise Refused("incompatible capabilities", 403)
    if not segment.HasField("auth_token"):
        raise Refused("missing auth token", 403)
    token = segment.auth_token
    tokens.check(token.token, token.session_id, token.expiration)
    return segment


def compatible(wanted: net.Capabilities, offered: net.Capabilities) -> bool:
    """Whether everything that is wanted is offered (``core/capabilities.go``)."""
    theirs = wanted.bitstring
    if len(theirs) > len(offered.bitstring):
        return False
    if any(word & ours != word for word, ours in zip(theirs, offered.bitstring, strict=False)):
        return False
    for number, constraint in wanted.constraints.PerCapability.items():
        if number not in offered.constraints.PerCapability:
            continue  # nothing is said about this one
        models = offered.constraints.PerCapability[number].models
        for name, model in constraint.models.items():
            if name not in models or (model.warm and not models[name].warm):
                return False
    return True
