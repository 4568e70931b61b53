"""Whose wallet pays: orchestrators on a chain tell what they have, and at what price, to a wallet alone.

It shows itself by its signed address (``POST {signer}/sign-orchestrator-info``, go-livepeer v0.9.1). The
signature is of the address alone, so it stays the same; orchestrators see it and nobody else.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ._fork import abandon, on_fork
from ._http import running_loop
from .errors import LivepeerError, SignerError

if TYPE_CHECKING:
    from .payments.wallet import Wallet

__all__ = ["Identity", "Payer", "identity_of", "known"]

_RETRY = 5.0  # seconds before signers are asked again that told no wallet
_PATIENCE = 5.0  # seconds that a question to an orchestrator waits for a signer
_SIGNATURE = re.compile(r"0x[0-9a-fA-F]{130}")
_logger = logging.getLogger("livepeer.client")


@dataclass(frozen=True, slots=True)
class Identity:
    """A wallet, as orchestrators are told of it.

    Attributes:
        address: ``0x…``, as its signer writes it.
        signature: Of that text, by its owner, in hexadecimal digits behind ``0x``.
    """

    address: str
    signature: str = field(repr=False)


class Payer:
    """Tells the wallet's identity to who asks orchestrators.

    Args:
        wallet: The gateway's; None where no signer is configured.
    """

    def __init__(self, wallet: Wallet | None) -> None:
        self._wallet = wallet
        self._failed: tuple[float, SignerError] | None = None
        self._asking: dict[asyncio.AbstractEventLoop, asyncio.Task[Identity]] = {}
        on_fork(self)

    async def identity(self) -> Identity | None:
        """The identity of the first signer that tells one; None where no signer is configured.

        Calls on one loop share the requests in flight. Signers that failed aren't asked for some seconds.

        Raises:
            SignerError: None of them tells one.
        """
        if self._wallet is None:
            return None
        if self._failed is not None and time.monotonic() < self._failed[0]:
            error = self._failed[1]
            raise SignerError(error.message, hint=error.hint, retryable=error.retryable)
        loop = running_loop()
        for other in [other for other in list(self._asking) if other.is_closed()]:
            self._asking.pop(other, None)
        task = self._asking.get(loop)
        if task is None or task.done():
            task = self._asking[loop] = loop.create_task(self._ask(self._wallet))
            task.add_done_callback(self._asked)
        # Shielded, because it belongs to every caller that waits for it.
        return await asyncio.shield(task)

    async def _ask(self, wallet: Wallet) -> Identity:
        try:
            return identity_of(*await wallet.payer())
        except SignerError as error:
            self.failed(error)
            raise

    def failed(self, error: SignerError) -> None:
        """Ask no signer for some seconds."""
        self._failed = (time.monotonic() + _RETRY, error)

    def _asked(self, task: asyncio.Task[Identity]) -> None:
        self._asking.pop(task.get_loop(), None)
        if not task.cancelled():
            task.exception()  # known to whoever still waits

    def _after_fork(self) -> None:
        abandon(self._asking)
        self._asking = {}


def identity_of(address: str, signature: str) -> Identity:
    """What a signer told.

    Raises:
        SignerError: It is no signature.
    """
    if not _SIGNATURE.fullmatch(signature):
        raise SignerError(
            f"The signer of {address} told no signature of it.", hint="No orchestrator on a chain takes that."
        )
    return Identity(address, signature)


async def known(payer: Payer) -> Identity | None:
    """The identity, where one can be had; why there is none is logged."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return await payer.identity()
    except (LivepeerError, TimeoutError) as error:
        if isinstance(error, TimeoutError) and not isinstance(error, LivepeerError):
            payer.failed(SignerError(f"No signer answered within {_PATIENCE:g} s.", retryable=True))
        _logger.debug("orchestrators on a chain tell nothing to who has no signer: %r", error)
        return None
