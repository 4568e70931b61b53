"""The signers of a paid network as its user sees them, and what may go wrong with them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from livepeer.trickle.errors import ConfigurationError

from ..process import Child
from .chain import Chain
from .telling import tell
from .wallets import Wallet, account, shown

__all__ = ["PaidMode", "Signer", "Signers"]

_DEFAULT: Mapping[str, Mapping[str, Any]] = {"main": {}, "poor": {"deposit": 10**14}, "broke": {"deposit": 0}}
_GATEWAYS: Mapping[str, Mapping[str, Any]] = {"gw": {}}
_KNOWN: dict[str, Any] = {
    "deposit": 10**18,
    "reserve": 10**18,
    "webhook": "",
    "webhook_headers": {},
    "byoc": False,
    "discovery_interval": 3.0,
}


@dataclass(frozen=True)
class PaidMode:
    """How money works on a network; the defaults are go-livepeer's, or of an inexpensive chain.

    Args:
        signers: The settings of each by its name: ``deposit`` and ``reserve`` in wei, ``webhook`` (a URL
            that is asked before it signs) with ``webhook_headers``, ``byoc`` (whether it signs BYOC jobs,
            which no release of go-livepeer does), ``discovery_interval`` in seconds. By default ``main`` is
            rich, ``poor`` has too little for a ticket's face value, and ``broke`` no deposit.
        gateways: The same of each gateway node, which has ``deposit`` and ``reserve``; by default there is
            one, ``gw``, which is rich.
        ticket_ev: What a ticket is worth on average, in wei.
        gas_price: In wei; a ticket's face value is 35 million times that.
        eth_usd: US dollars for one ETH.
        price_per_unit: The orchestrator's base price, in wei per pixel, for live video-to-video.
        block_time: Seconds from block to block; ticket parameters are good for 40 blocks.
        payment_interval: Seconds from charge to charge.
    """

    signers: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _DEFAULT)
    gateways: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _GATEWAYS)
    ticket_ev: int = 8_000_000_000
    gas_price: int = 10_000_000
    eth_usd: float = 2000.0
    price_per_unit: int = 100
    block_time: float = 2.0
    payment_interval: float = 5.0


class _Payer:
    """A node that pays from a wallet.

    Attributes:
        name: What it is called in the network.
        url: Where it is.
        address: Of its wallet, ``0x…``.
    """

    def __init__(self, name: str, url: str, wallet: Wallet, owner: Signers) -> None:
        self.name: str = name
        self.url: str = url
        self.address: str = shown(wallet.address)
        self._wallet = wallet
        self._owner = owner

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} at {self.url}>"


class Signer(_Payer):
    """A remote signer, with what a test may do to it."""

    @property
    def signed(self) -> int:
        """How many payments it has handed out."""
        return int(self._owner.tell("signed", self.name))

    def kill(self) -> None:
        """End it: its connections break, and nobody can connect any more."""
        self._owner.tell("kill", self.name)

    def restart(self) -> None:
        """Start it again, at the same address."""
        self._owner.tell("restart", self.name)

    def hang(self, hanging: bool = True) -> None:
        """Let it accept requests and answer none, until ``hang(False)``."""
        self._owner.tell("hang", {"name": self.name, "hanging": hanging})

    def answer(
        self, status: int, text: str = "", *, times: int = 1, headers: Mapping[str, str] | None = None
    ) -> None:
        """Script the next answers of ``/generate-live-payment``.

        Args:
            status: The HTTP status, such as 480 or 503; 0 breaks the connection without an answer.
            text: The error's message.
            times: How many requests get it.
            headers: What else to send.
        """
        told = {"status": status, "text": text, "times": times, "headers": dict(headers or {})}
        self._owner.tell("script", told | {"name": self.name})

    def fund(self, *, deposit: int | None = None, reserve: int | None = None) -> None:
        """Change what its wallet has, in wei."""
        if deposit is not None:
            self._wallet.deposit = deposit
        if reserve is not None:
            self._wallet.reserve = reserve
        self._owner.changed()


class GatewayNode(_Payer):
    """A gateway node, which pays from a wallet of its own."""

    def know(self, orchestrators: list[str]) -> None:
        """Let it know these orchestrators instead of the network's own, spelt like this."""
        self._owner.tell("know", {"name": self.name, "orchestrators": orchestrators})


class Signers:
    """The signers and gateway nodes of a network, and the chain that they and the orchestrator believe in.

    Args:
        mode: How the network's money works.

    Raises:
        ConfigurationError: A signer's setting has another name, or there are too many signers.
    """

    def __init__(self, mode: PaidMode) -> None:
        self._mode = mode
        self._settings: dict[str, dict[str, Any]] = {}
        self._wallets: list[Wallet] = []
        self._signers: dict[str, Signer] = {}
        self._gateway_wallets: dict[str, Wallet] = {}
        self._gateways: dict[str, GatewayNode] = {}
        self._child: Child | None = None
        self._control = ""
        self._orchestrator_control = ""
        for name, given in mode.signers.items():
            unknown = sorted(set(given) - set(_KNOWN))
            if unknown:
                raise ConfigurationError(
                    f"The signer {name!r} has {', '.join(unknown)}; a signer has {', '.join(_KNOWN)}."
                )
            settings = _KNOWN | dict(given)
            address, secret = account(len(self._wallets) + 1), secrets.token_hex(32)
            self._wallets.append(Wallet(address, secret, settings["deposit"], settings["reserve"]))
            self._settings[name] = settings | {"address": address.hex()}
        for name, given in mode.gateways.items():
            address, secret = account(len(self._wallets) + 1), secrets.token_hex(32)
            self._wallets.append(Wallet(address, secret, **given))
            self._gateway_wallets[name] = self._wallets[-1]
        self.chain: dict[str, Any] = Chain.started(
            self._wallets, block_time=mode.block_time, eth_usd=mode.eth_usd
        )

    @property
    def by_name(self) -> dict[str, Signer]:
        """Those that run."""
        return self._signers

    @property
    def gateways(self) -> dict[str, GatewayNode]:
        """The gateway nodes that run."""
        return self._gateways

    @property
    def orchestrator_settings(self) -> dict[str, Any]:
        """What makes an orchestrator one of this network (`till.Till`)."""
        names = ("ticket_ev", "gas_price", "price_per_unit", "payment_interval")
        return {"chain": self.chain} | {name: getattr(self._mode, name) for name in names}

    def prepare(self) -> None:
        """Start the process, which loads while the caller does other things."""
        if self._child is None:
            self._child = Child("livepeer.devkit.network.paid.signer_host", "The process of the signers")

    def start(self) -> None:
        """Wait until they run."""
        self.prepare()
        assert self._child is not None
        gateways = {name: wallet.address.hex() for name, wallet in self._gateway_wallets.items()}
        told = self._child.start({"chain": self.chain, "signers": self._settings, "gateways": gateways})
        self._control = told["control"]
        for (name, url), wallet in zip(told["urls"].items(), self._wallets, strict=False):
            self._signers[name] = Signer(name, url, wallet, self)
        for name, wallet in self._gateway_wallets.items():
            self._gateways[name] = GatewayNode(name, told["gateways"][name], wallet, self)

    def kill(self) -> None:
        """End the process with all of them."""
        child, self._child = self._child, None
        self._signers, self._gateways = {}, {}
        if child is not None:
            child.kill()

    def meet(self, url: str, capabilities: list[str], control: str) -> None:
        """Learn of the orchestrator: its address, what it has besides runners, where to tell it things."""
        self._orchestrator_control = control
        self.tell("orchestrators", [{"url": url, "capabilities": capabilities}])

    def tell(self, word: str, value: Any) -> Any:
        """Say a word to the process of the signers."""
        if self._child is None:
            raise ConfigurationError("The signers aren't running; the network is not started.")
        return tell(self._control, word, value)

    def tell_orchestrator(self, word: str, value: Any) -> Any:
        """Say a word to the orchestrator's process."""
        return tell(self._orchestrator_control, word, value)

    def account(self, manifest_id: str) -> dict[str, Fraction]:
        """The orchestrator's account of a session: ``amount``, ``credited`` and ``debited``, in wei."""
        told = self.tell_orchestrator("account", manifest_id)
        return {name: Fraction(amount) for name, amount in told.items()}

    def changed(self, **changes: Any) -> None:
        """Let everybody know of a change of the chain."""
        self.chain |= changes
        self.chain["wallets"] = [vars(wallet) | {"address": wallet.address.hex()} for wallet in self._wallets]
        self.tell("chain", self.chain)
        self.tell_orchestrator("chain", self.chain)

    def mine(self, blocks: int) -> None:
        """Let blocks pass."""
        self.changed(mined=self.chain["mined"] + blocks)
