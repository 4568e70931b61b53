"""A development chain's JSON-RPC, and the contract double on it: blocking calls of a few milliseconds."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

__all__ = ["Chain"]

_RICH = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"  # account 0 of every development chain, unlocked
_DOUBLE = Path(__file__).with_name("LivepeerDouble.json")


class Chain:
    """The chain behind a URL; `deploy` comes first."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.contract = ""
        self._double = json.loads(_DOUBLE.read_text())

    def rpc(self, method: str, *params: Any) -> Any:
        """One call; a `RuntimeError` tells what the chain has against it."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            told = json.load(answer)
        if "error" in told:
            raise RuntimeError(f"{method}: {told['error']}")
        return told["result"]

    def deploy(self, usd_per_eth: float) -> str:
        """Put the double on the chain; its address."""
        self.contract = self._send(data=self._double["bytecode"])["contractAddress"]
        self._call("setUsdPerEth(uint256)", int(usd_per_eth * 10**18))
        return self.contract

    def register(self, address: str, url: str) -> None:
        """Make an address an active orchestrator."""
        self._call("register(address,string)", address, url)

    def fund(self, address: str, deposit: int, reserve: int) -> None:
        """Add to what a sender has, in wei."""
        signature = "fundDepositAndReserveFor(address,uint256,uint256)"
        self._call(signature, address, deposit, reserve, value=deposit + reserve)

    def withdraw(self, address: str) -> None:
        """Leave a sender nothing."""
        self._call("withdrawFor(address)", address)

    def mine(self, blocks: int) -> int:
        """Let blocks pass; the newest one's number."""
        self.rpc("anvil_mine", hex(blocks))
        return int(self.rpc("eth_blockNumber"), 16)

    def every(self, seconds: int) -> None:
        """From now on a block comes every so many seconds, and not with each transaction."""
        self.rpc("evm_setAutomine", False)
        self.rpc("evm_setIntervalMining", seconds)

    def _call(self, signature: str, *arguments: int | str, value: int = 0) -> None:
        data = "0x" + self._double["selectors"][signature] + _encoded(arguments)
        self._send(to=self.contract, data=data, value=hex(value))

    def _send(self, **transaction: str) -> dict[str, Any]:
        fixed = {"from": _RICH, "gas": hex(6_000_000), "gasPrice": self.rpc("eth_gasPrice")}
        sent = self.rpc("eth_sendTransaction", fixed | transaction)
        deadline = time.monotonic() + 60
        while not (receipt := self.rpc("eth_getTransactionReceipt", sent)):
            assert time.monotonic() < deadline, f"no block has the transaction {sent}"
            time.sleep(0.02)
        assert receipt["status"] == "0x1", f"the transaction {sent} failed"
        found: dict[str, Any] = receipt
        return found


def _encoded(arguments: tuple[int | str, ...]) -> str:
    """Arguments as the ABI has them: integers, 0x addresses, and strings behind them."""
    head = tail = ""
    for one in arguments:
        if isinstance(one, int):
            head += f"{one:064x}"
        elif one.startswith("0x"):
            head += one[2:].lower().rjust(64, "0")
        else:
            raw = one.encode()
            head += f"{32 * len(arguments) + len(tail) // 2:064x}"
            tail += f"{len(raw):064x}" + raw.hex().ljust((len(raw) + 31) // 32 * 64, "0")
    return head + tail
