"""What a node learns from the chain, without one: the block, the round, what wallets hold, the price of ETH.

The processes of a network (the orchestrator, the signers) hold one each; who starts them tells all of them
what changes (`Chain.started`, `Chain.learn`), and the blocks pass with the wall clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from .wallets import Wallet, hash256

__all__ = ["Chain"]

_FIRST_BLOCK = 1000


class Chain:
    """The chain as one process sees it.

    Args:
        told: What `started` said, with what has changed since.
        clock: The seconds since 1970.
    """

    def __init__(self, told: Mapping[str, Any], clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.round: int = 1000
        self.round_hash: bytes = hash256(b"the block hash of the round")
        self.wallets: dict[bytes, Wallet] = {}
        self.learn(told)

    @staticmethod
    def started(
        wallets: list[Wallet], *, block_time: float, eth_usd: float, now: float | None = None
    ) -> dict[str, Any]:
        """What to tell the processes of a network that starts.

        Args:
            wallets: Everybody's.
            block_time: Seconds from block to block.
            eth_usd: US dollars for one ETH.
            now: When, in seconds since 1970; at once by default.
        """
        return {
            "began": time.time() if now is None else now,
            "block_time": block_time,
            "mined": 0,
            "eth_usd": eth_usd,
            "wallets": [vars(wallet) | {"address": wallet.address.hex()} for wallet in wallets],
        }

    def learn(self, told: Mapping[str, Any]) -> None:
        """Take over what was told."""
        self._began, self._block_time = float(told["began"]), float(told["block_time"])
        self._mined = int(told["mined"])
        self.eth_usd: Fraction = Fraction(str(told["eth_usd"]))
        wallets = [
            Wallet(**entry | {"address": bytes.fromhex(entry["address"])}) for entry in told["wallets"]
        ]
        self.wallets = {wallet.address: wallet for wallet in wallets}

    @property
    def block(self) -> int:
        """The number of the newest block."""
        return _FIRST_BLOCK + self._mined + int((self._clock() - self._began) / self._block_time)

    def signed(self, address: bytes, message: bytes, signature: bytes) -> bool:
        """Whether the wallet of this address signed the message."""
        wallet = self.wallets.get(address)
        return wallet is not None and wallet.signed(message, signature)

    def max_float(self, address: bytes) -> int:
        """What a payer's reserve is good for, in wei; there is one orchestrator to share it."""
        wallet = self.wallets.get(address)
        return wallet.reserve if wallet is not None else 0

    def wei(self, usd: Fraction) -> Fraction:
        """So many US dollars in wei."""
        return usd * 10**18 / self.eth_usd
