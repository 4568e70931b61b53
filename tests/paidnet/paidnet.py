"""A paid Livepeer network on loopback: a development chain, an on-chain orchestrator, remote signers.

The chain is anvil with `LivepeerDouble` on it, one contract that answers every on-chain call of go-livepeer,
with real deposits, reserves and tickets. Everything else is real. It answers in about two seconds.
"""

from __future__ import annotations

import json
import re
import shutil
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from anvil import find_anvil
from chain import Chain
from nodes import Node

__all__ = ["PaidNet", "SignerNode", "status_of"]

_KEYS = Path(__file__).with_name("keys")
_PASSWORD = "paidnet"  # of the keys, which the whole world knows
_UNVERIFIED = ssl.create_default_context()
_UNVERIFIED.check_hostname, _UNVERIFIED.verify_mode = False, ssl.CERT_NONE
_TICKETS = re.compile(r"Payment tickets processed sessionID=(\S+) .*totalEV=([\d.]+)")
_CHARGED = re.compile(r"Accounted payment for sessionID=(\S+), fee=(\d+)")


class SignerNode(NamedTuple):
    """A remote signer: where it is, whose wallet it has, and its process."""

    name: str
    url: str
    address: str
    node: Node


class PaidNet:
    """The network, not yet started.

    Args:
        binary: go-livepeer.
        port: Gives a free port each time; nobody else may get it meanwhile.
        secret: What runners register with.
        signers: By name, ``deposit`` and ``reserve`` in wei (1 ETH each by default), and further ``flags``.
        models: What ``-aiModels`` reads; with any, the orchestrator has an AI worker.
        docker: The Docker engine's URL for it.
        flags: Further flags of the orchestrator.
        ticket_ev: What a ticket is worth on average, in wei.
        gas_price: In wei; a ticket's face value is 35 million times that.
        usd_per_eth: What ETH costs.
        price_per_unit: The orchestrator's base price, in wei per pixel.
        block_time: Seconds from block to block, whole ones.
        payment_interval: Seconds from charge to charge.
    """

    def __init__(
        self,
        binary: Path,
        port: Callable[[], int],
        secret: str,
        signers: Mapping[str, Mapping[str, Any]],
        *,
        models: Sequence[Mapping[str, Any]] = (),
        docker: str = "",
        flags: Sequence[str] = (),
        ticket_ev: int = 8_000_000_000,
        gas_price: int = 10_000_000,
        usd_per_eth: float = 2000.0,
        price_per_unit: int = 100,
        block_time: int = 2,
        payment_interval: float = 5.0,
    ) -> None:
        accounts = iter(sorted(_KEYS.glob("*.json")))
        self._spare = accounts
        self.folder = Path(tempfile.mkdtemp(prefix="paidnet-"))
        self._binary = binary
        self._port = port
        self._wanted = {name: dict(settings) for name, settings in signers.items()}
        self._usd_per_eth = usd_per_eth
        self._block_time = block_time
        chain_port, orchestrator_port = port(), port()
        self.chain = Chain(f"http://127.0.0.1:{chain_port}")
        self._anvil = [f"--port={chain_port}", f"--gas-price={gas_price}", "--host=127.0.0.1", "--silent"]
        self._anvil += ["--chain-id=31337", "--hardfork=berlin"]
        self.address = _address(next(accounts))
        # by name: signers verify certificates in discovery, and none of an address is ever good
        self.url = f"https://localhost:{orchestrator_port}"
        self._flags = ["-orchestrator", "-useLiveRunners", f"-orchSecret={secret}"]
        self._flags += [f"-serviceAddr=localhost:{orchestrator_port}", f"-pricePerUnit={price_per_unit}"]
        self._flags += [f"-ticketEV={ticket_ev}", "-autoAdjustPrice=false"]
        self._flags += [f"-livePaymentInterval={payment_interval}s", *flags]
        self._environment = {}
        if models:
            file = self.folder / "models.json"
            file.write_text(json.dumps([{"price_per_unit": price_per_unit, **model} for model in models]))
            self._flags += ["-aiWorker", f"-aiModels={file}"]
            self._environment["DOCKER_HOST"] = docker
        self._accounts = {name: _address(next(accounts)) for name in self._wanted}
        self._listen = orchestrator_port
        self._nodes: list[Node] = []
        self._commands: dict[str, str] = {}
        self.contract: str
        self.orchestrator: Node
        self.signers: dict[str, SignerNode] = {}

    def start(self) -> None:
        """Start all of it, and wait until it answers."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        command = [str(find_anvil()), *self._anvil]
        anvil = Node("anvil", command, self.folder / "anvil.log", lambda: bool(self.chain.rpc("eth_chainId")))
        self._begin(anvil)
        anvil.wait()
        contract = self.contract = self.chain.deploy(self._usd_per_eth)
        self.chain.register(self.address, self.url)
        for name, settings in self._wanted.items():
            deposit, reserve = settings.get("deposit", 10**18), settings.get("reserve", 10**18)
            if deposit or reserve:
                self.chain.fund(self._accounts[name], deposit, reserve)
        self._before_blocks()
        self.chain.every(self._block_time)
        discovery = f"https://127.0.0.1:{self._listen}/discovery"
        self.orchestrator = self._node(
            "orchestrator",
            self.address,
            self._listen,
            contract,
            self._flags,
            lambda: status_of(discovery) == 200,
            self._environment,
        )
        self._begin(self.orchestrator)
        self.orchestrator.wait()
        for name, settings in self._wanted.items():
            self._begin(self._signer(name, contract, settings.get("flags", ())))
        for signer in self.signers.values():
            signer.node.wait()

    def command(self, name: str) -> str:
        """The URL by which its operator commands a node."""
        return self._commands[name]

    def account(self) -> str:
        """The address of a wallet that nobody has yet."""
        return _address(next(self._spare))

    def _before_blocks(self) -> None:
        """What else is to happen on the chain while each transaction is a block of its own."""

    def _begin(self, node: Node) -> None:
        self._nodes.append(node)
        node.begin()

    def _signer(self, name: str, contract: str, flags: Sequence[str]) -> Node:
        port, certificate = self._port(), self.folder / "orchestrator" / "cert.pem"
        url = f"http://127.0.0.1:{port}"
        wanted = ["-remoteSigner", "-remoteDiscovery", "-liveAICapReportInterval=3s", f"-orchAddr={self.url}"]
        node = self._node(
            name,
            self._accounts[name],
            port,
            contract,
            [*wanted, *flags],
            lambda: status_of(f"{url}/sign-orchestrator-info", b"{}") == 200,
            {"SSL_CERT_FILE": str(certificate)},
        )
        self.signers[name] = SignerNode(name, url, self._accounts[name], node)
        return node

    def _node(
        self,
        name: str,
        address: str,
        port: int,
        contract: str,
        flags: Sequence[str],
        ready: Callable[[], bool],
        environment: Mapping[str, str],
    ) -> Node:
        data, cli = self.folder / name, self._port()
        data.mkdir()
        self._commands[name] = f"http://127.0.0.1:{cli}"
        command = [
            str(self._binary),
            "-network=paidnet",
            f"-ethController={contract}",
            f"-ethUrl={self.chain.url}",
            f"-priceFeedAddr={contract}",
            f"-ethKeystorePath={_KEYS}",
            f"-ethAcctAddr={address}",
            f"-ethPassword={_PASSWORD}",
            f"-dataDir={data}",
            f"-httpAddr=127.0.0.1:{port}",
            f"-cliAddr=127.0.0.1:{cli}",
            "-blockPollingInterval=1",
            "-reward=false",
            "-v=6",  # what is credited and charged is told nowhere else
            *flags,
        ]
        return Node(name, command, self.folder / f"{name}.log", ready, environment)

    def stop(self) -> None:
        """End everything, and leave nothing; twice is no error."""
        for node in reversed(self._nodes):
            node.end()
        self._nodes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def mine(self, blocks: int) -> None:
        """Let blocks pass, and wait until every node that runs has seen them (they look once a second)."""
        newest = self.chain.mine(blocks)
        deadline = time.monotonic() + 60
        for node in self._nodes:
            command = self._commands.get(node.name)
            while command and node.running and _block(command) < newest:
                assert time.monotonic() < deadline, f"{node.name} doesn't see block {newest}"
                time.sleep(0.02)

    def credited(self, manifest_id: str) -> Fraction:
        """What the orchestrator's log says it credited a session, in wei, each payment to a hundredth."""
        return self._logged(_TICKETS, manifest_id)

    def debited(self, manifest_id: str) -> Fraction:
        """What it charged, in wei."""
        return self._logged(_CHARGED, manifest_id)

    def _logged(self, what: re.Pattern[str], manifest_id: str) -> Fraction:
        found = what.findall(self.orchestrator.log.read_text(errors="replace"))
        return sum((Fraction(amount) for session, amount in found if session == manifest_id), Fraction(0))


def _address(key: Path) -> str:
    """Whose key a file has, in the one spelling that has a checksum."""
    address: str = json.loads(key.read_text())["address"]
    return f"0x{address}"


def _block(command: str) -> int:
    """The newest block that a node has seen; a node that is paused can't tell."""
    try:
        with urllib.request.urlopen(f"{command}/currentBlock", timeout=5) as answer:
            return int.from_bytes(answer.read(), "big")
    except OSError:
        return 0


def status_of(url: str, body: bytes | None = None) -> int:
    """The status that a URL answers with."""
    try:
        with urllib.request.urlopen(url, body, timeout=5, context=_UNVERIFIED) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
