"""Certificates of orchestrators, pinned at first use: which ones are accepted, and when a change is.

Orchestrators make a certificate for themselves at every start, with an empty subject, so a name can't be
verified. What can be: that the orchestrator of this call is the one of the last call. `TLSPolicy` keeps that
memory, for any number of event loops and threads.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from .errors import ConfigurationError

if TYPE_CHECKING:
    from aiohttp import Fingerprint
    from yarl import URL
else:  # so that the hints can be looked up without loading these
    Fingerprint = URL = Any

__all__ = ["CertificateChanged", "TLSMode", "TLSPolicy"]

TLSMode = Literal["pin", "pin-strict", "verify", "insecure"]

_logger = logging.getLogger("livepeer.trickle")
_REPIN_INTERVAL = 60.0  # seconds between two accepted changes of one host's certificate


class CertificateChanged(ConnectionError):
    """The peer's certificate is not the pinned one; the connection was closed before a request was sent.

    Where aiohttp carries the request (`Transport.request`), it is an `aiohttp.ServerFingerprintMismatch` too.

    Attributes:
        expected: The SHA-256 digest of the pinned certificate.
        got: That of the peer's.
        host: The peer's name or address.
        port: Its port.
        accepted_in: In how many seconds a connection to the same peer is accepted: 0 when that is so now, as
            after the first change; None for never.
    """

    def __init__(
        self, expected: bytes, got: bytes, host: str, port: int, *, accepted_in: float | None = 0.0
    ) -> None:
        super().__init__(f"the certificate of {host}:{port} is not the pinned one")
        self.expected: bytes = expected
        self.got: bytes = got
        self.host: str = host
        self.port: int = port
        self.accepted_in: float | None = accepted_in


class TLSPolicy:
    """Which certificates of orchestrators are accepted, remembered per host and port.

    Args:
        mode: ``"pin"`` accepts a certificate at first use and, after a change, the changed one for calls
            that begin later (once a minute per host at most). ``"pin-strict"`` refuses a changed certificate
            until the process restarts. ``"verify"`` is the ordinary verification against the system's
            certificate authorities or `ca`. ``"insecure"`` checks nothing.
        ca: The path of a PEM file with the authorities to trust, for ``"verify"``.
        repin_after: Instead of that minute, other seconds.

    Raises:
        ConfigurationError: There is no such mode, or no authority in `ca`.
    """

    def __init__(
        self, mode: TLSMode = "pin", *, ca: str | None = None, repin_after: float | None = None
    ) -> None:
        if mode not in ("pin", "pin-strict", "verify", "insecure"):
            raise ConfigurationError(
                f"tls={mode!r} is unknown; it is one of 'pin', 'pin-strict', 'verify' and 'insecure'."
            )
        self.mode: TLSMode = mode
        self.ca = ca
        self.repin_after = repin_after
        # No locks here: a child that is forked while another thread holds one would wait for it for ever.
        # A dict's setdefault can't be torn between threads.
        self._pins: dict[tuple[str, int], _Pin] = {}
        self._verified: ssl.SSLContext | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}
        if mode == "verify":
            for protocol in ("http/1.1", "h2"):  # here and now, as it takes too long for an event loop
                self._contexts[protocol] = _ordinary(ca)
                self._contexts[protocol].set_alpn_protocols([protocol])

    def ssl_for(self, url: URL) -> ssl.SSLContext | Fingerprint | bool:
        """The value of aiohttp's ``ssl=`` for a request to this URL."""
        if self.mode == "insecure":
            return False
        if self.mode == "verify":
            return self._contexts["http/1.1"]
        return self._pin(url.host or "", url.port or 443).for_aiohttp

    async def verifying(self) -> ssl.SSLContext:
        """What checks an ordinary certificate, in whichever mode; made once, and not on the event loop."""
        if self._verified is None:
            self._verified = await asyncio.to_thread(_ordinary, self.ca)
        return self._verified

    def context_for(
        self, host: str, port: int, protocol: str = "http/1.1", *, expected: bytes | None = None
    ) -> tuple[ssl.SSLContext, Callable[[Any], None] | None]:
        """How to open TLS to a host and port: a context, and what must pass on the open connection.

        The check raises `CertificateChanged`; it comes before a byte of a request. `protocol` is what the
        connection will speak, as ALPN names it. Where certificates are pinned, `expected` is the digest of
        the only one that will do; None takes the one that is pinned now.
        """
        context = self._contexts.get(protocol)
        if context is None:
            if self.mode == "verify":
                context = _ordinary(self.ca)
            else:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols([protocol])
            self._contexts[protocol] = context
        if self.mode in ("insecure", "verify"):
            return context, None
        return context, partial(self._pin(host, port).check, expected=expected)

    def _pin(self, host: str, port: int) -> _Pin:
        key = (host, port)
        pin = self._pins.get(key)
        if pin is None:
            made = _Pin(key, strict=self.mode == "pin-strict", repin_after=self.repin_after)
            pin = self._pins.setdefault(key, made)
        return pin

    def pinned(self, host: str, port: int) -> bytes | None:
        """The SHA-256 digest of the certificate pinned for a host and port, if there is one."""
        pin = self._pins.get((host, port))
        return pin.digest if pin else None

    def __getstate__(self) -> dict[str, Any]:
        return {"mode": self.mode, "ca": self.ca, "repin_after": self.repin_after}

    def __setstate__(self, state: dict[str, Any]) -> None:
        mode, ca, repin_after = state["mode"], state["ca"], state["repin_after"]
        self.__init__(mode, ca=ca, repin_after=repin_after)  # type: ignore[misc]


def _ordinary(ca: str | None) -> ssl.SSLContext:
    """What checks certificates against the system's authorities, or those of a file; it takes some 20 ms."""
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        if ca is None:
            raise
        raise ConfigurationError(
            f"{ca!r} is no file with the certificates of authorities: {error.strerror or error}.",
            hint="It is a PEM file, with one or more BEGIN CERTIFICATE.",
        ) from error


class _Pin:
    """The certificate of one host and port, learned from the first connection.

    `check` is called when the handshake is over and before a request is written, and the connection is closed
    when it raises: a changed certificate is noticed before a byte of the request.
    """

    def __init__(self, key: tuple[str, int], *, strict: bool, repin_after: float | None) -> None:
        self._key = key
        self._strict = strict
        self._repin_after = repin_after
        self._repinned_at = float("-inf")
        self._learned: dict[str, bytes] = {}
        self._for_aiohttp: dict[str, Fingerprint] = {}

    @property
    def digest(self) -> bytes | None:
        """The SHA-256 digest of the pinned certificate; None before the first connection."""
        return self._learned.get("pin")

    @property
    def for_aiohttp(self) -> Fingerprint:
        """The same as aiohttp takes it: always the same object, as its connections are kept by that."""
        from ._aiohttp import Pinned

        found = self._for_aiohttp.get("it")
        return found or self._for_aiohttp.setdefault("it", Pinned(self.check))

    def check(self, transport: asyncio.BaseTransport, *, expected: bytes | None = None) -> None:
        """Learn the certificate at first use; raise `CertificateChanged` when it is another one."""
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object is None:
            return
        import hashlib  # loaded with the first certificate

        found = hashlib.sha256(ssl_object.getpeercert(binary_form=True)).digest()
        pinned = self._learned.setdefault("pin", found)
        if found == pinned:
            if expected is not None and expected != found:
                raise CertificateChanged(expected, found, *self._key, accepted_in=None)
            return
        interval = _REPIN_INTERVAL if self._repin_after is None else self._repin_after
        left = self._repinned_at + interval - time.monotonic()
        if not self._strict and left <= 0:
            self._repinned_at = time.monotonic()
            self._learned["pin"] = found
            _logger.warning(
                "The certificate of %s:%d changed from %s to %s; orchestrators make one at each start.",
                *self._key,
                pinned.hex(),
                found.hex(),
            )
        accepted_in = None if self._strict else max(left, 0.0)
        raise CertificateChanged(pinned, found, *self._key, accepted_in=accepted_in)
