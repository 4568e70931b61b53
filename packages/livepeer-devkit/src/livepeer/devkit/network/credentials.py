"""What comes with a job for a built-in pipeline: a payment, and a segment header with the auth token.

Offchain a payment may be absent and is never counted; the auth token must be one of this orchestrator's
(``server/segment_rpc.go``, ``core/orchestrator.go``, v0.9.1).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .validation import Refused

if TYPE_CHECKING:
    from livepeer.client._grpc import lp_rpc_pb2 as net

__all__ = ["AuthTokens", "check_payment", "check_segment", "compatible"]

VALID_FOR = 30 * 60  # seconds
_ALPHABET = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_UNREADABLE = "proto:\u00a0cannot parse invalid wire-format data"  # Go varies the space from build to build


class AuthTokens:
    """Tokens that this orchestrator knows again without keeping them.

    Args:
        clock: The seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._secret = secrets.token_bytes(32)
        self._clock = clock

    def issue(self) -> tuple[bytes, str, int]:
        """A new token, its session and when it expires."""
        session, expiration = secrets.token_hex(4), int(self._clock()) + VALID_FOR
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


def check_payment(header: str) -> None:
    """Raise `Refused` for a payment that can't be read; none, and any other, will do."""
    from google.protobuf.message import DecodeError

    from livepeer.client._grpc import lp_rpc_pb2 as net

    try:
        net.Payment.FromString(_decode(header))
    except binascii.Error as error:
        raise Refused(f"base64 decode error: {error}", 402) from None
    except DecodeError:
        raise Refused(f"protobuf unmarshal error: {_UNREADABLE}", 402) from None


def check_segment(header: str, tokens: AuthTokens, capabilities: net.Capabilities) -> None:
    """Raise `Refused` for a segment header without a token of ours, or with capabilities that aren't ours."""
    from google.protobuf.message import DecodeError

    from livepeer.client._grpc import lp_rpc_pb2 as net

    try:
        segment = net.SegData.FromString(_decode(header))
    except binascii.Error:
        raise Refused("ErrorSegEncoding", 403) from None
    except DecodeError:
        raise Refused(_UNREADABLE, 403) from None
    if not compatible(segment.capabilities, capabilities):
        raise Refused("incompatible capabilities", 403)
    if not segment.HasField("auth_token"):
        raise Refused("missing auth token", 403)
    token = segment.auth_token
    tokens.check(token.token, token.session_id, token.expiration)


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


def _decode(header: str) -> bytes:
    """Base64 as Go reads it: padded, of the standard alphabet."""
    data = header.encode("utf-8", "surrogateescape").translate(None, b"\r\n")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        wrong = next((at for at, byte in enumerate(data) if byte not in _ALPHABET), len(data))
        raise binascii.Error(f"illegal base64 data at input byte {wrong}") from None
