"""A network on which everything costs something, and what bare callers and workers of it need.

As `harness` it uses neither `livepeer.runner` nor the client.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ai_harness import DockerEngine, Model
from harness import Network
from nodes import Node
from paidnet import PaidNet

from livepeer.devkit import LocalNetwork, PaidMode

__all__ = ["SIGNERS", "EmbeddedPaid", "PaidGoLivepeer", "PaidNetwork", "PaidSigner", "Webhook"]

SIGNERS: Mapping[str, Mapping[str, int]] = {
    "main": {},
    "poor": {"deposit": 10**14},  # less than a ticket's face value
    "broke": {"deposit": 0},
    "unreserved": {"reserve": 0},
    "hooked": {},  # asks `PaidNetwork.webhook` before it signs
}


class Webhook:
    """What the signer "hooked" asks: says `answer`, keeps what it was asked in `asked`.

    `answer` is the JSON of the answer, ``{"status": 200}`` and what else go-livepeer reads; `status` is the
    HTTP status of the answer itself.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.reset()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                hook.asked.append(json.loads(self.rfile.read(length)))
                data = json.dumps(hook.answer).encode()
                self.send_response(hook.status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def reset(self) -> None:
        """Allow everything."""
        self.answer: dict[str, Any] = {"status": 200}
        self.status = 200
        self.asked.clear()

    def stop(self) -> None:
        """Close the port; twice is no error."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


class PaidSigner:
    """A remote signer of a network: `name`, `url`, the `address` of its wallet, and faults."""

    def __init__(self, name: str, url: str, address: str) -> None:
        self.name = name
        self.url = url
        self.address = address

    def kill(self) -> None:
        """Kill it: nobody can connect any more."""
        raise AssertionError

    def restart(self) -> None:
        """Start it again, at its address; it blocks for a second."""
        raise AssertionError

    def pause(self) -> None:
        """Let it answer nothing."""
        raise AssertionError

    def resume(self) -> None:
        """Let it answer again, those who waited, too."""
        raise AssertionError

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let it answer nothing in the block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()


class PaidNetwork(Network):
    """An orchestrator with live runners on a chain, and remote signers (`SIGNERS`).

    Attributes:
        signers: By name.
        webhook: What the signer "hooked" asks.
        paid_before: The names of signers that the orchestrator knows from an earlier session.
    """

    signers: dict[str, PaidSigner]

    def __init__(self, models: Sequence[Model] = ()) -> None:
        super().__init__(models)
        self.signers = {}
        self.paid_before: set[str] = set()
        self.webhook = Webhook()

    @property
    def orchestrators(self) -> dict[str, str]:
        """The orchestrators' URLs by name."""
        return {"main": self.url}

    @property
    def signer_url(self) -> str:
        """The rich signer's URL."""
        return self.signers["main"].url

    def stop(self) -> None:
        """End it; twice is no error."""
        self.webhook.stop()
        self._ports.release()

    def credited(self, manifest_id: str) -> Fraction:
        """What the orchestrator credited a session, in wei; on go-livepeer each payment to a hundredth."""
        raise AssertionError

    def debited(self, manifest_id: str) -> Fraction:
        """What it charged the session, in wei."""
        raise AssertionError

    def balance(self, manifest_id: str) -> Fraction:
        """What is left, in wei."""
        return self.credited(manifest_id) - self.debited(manifest_id)

    def mine(self, blocks: int) -> None:
        """Let blocks pass, and everybody see them; 41 end all ticket parameters."""
        raise AssertionError

    def pause(self) -> None:
        """Let the orchestrator answer nothing."""
        raise AssertionError

    def resume(self) -> None:
        """Let it answer again, those who waited, too."""
        raise AssertionError


class EmbeddedPaid(PaidNetwork):
    """`LocalNetwork`, in its paid mode."""

    kind = "embedded"

    def __init__(self, models: Sequence[Model] = ()) -> None:
        super().__init__(models)
        signers: dict[str, dict[str, Any]] = {name: dict(settings) for name, settings in SIGNERS.items()}
        signers["hooked"]["webhook"] = self.webhook.url
        self._network = LocalNetwork(samples=False, lv2v=self.models, paid=PaidMode(signers=signers))

    def start(self) -> None:
        with self._containers():
            self._network.start()
        self.url, self.secret = self._network.orch_url, self._network.orch_secret
        self.signers = {name: _EmbeddedSigner(one) for name, one in self._network.signers.items()}

    def stop(self) -> None:
        self._network.stop()
        super().stop()

    def restart(self) -> None:
        with self._containers():
            self._network.restart()

    def kill(self) -> None:
        os.kill(self._network.pid, signal.SIGKILL)

    def pause(self) -> None:
        os.kill(self._network.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._network.pid, signal.SIGCONT)

    def credited(self, manifest_id: str) -> Fraction:
        return self._network.credited(manifest_id)

    def debited(self, manifest_id: str) -> Fraction:
        return self._network.debited(manifest_id)

    def mine(self, blocks: int) -> None:
        self._network.mine(blocks)


class _EmbeddedSigner(PaidSigner):
    def __init__(self, signer: Any) -> None:
        super().__init__(signer.name, signer.url, signer.address)
        self.kill, self.restart = signer.kill, signer.restart
        self._hang = signer.hang

    def pause(self) -> None:
        self._hang(True)

    def resume(self) -> None:
        self._hang(False)


class PaidGoLivepeer(PaidNetwork):
    """Real nodes."""

    kind = "go-livepeer"

    def __init__(self, binary: Path, models: Sequence[Model] = ()) -> None:
        super().__init__(models)
        self.secret = uuid.uuid4().hex
        self._engine = DockerEngine() if self.models else None
        signers: dict[str, dict[str, Any]] = {name: dict(settings) for name, settings in SIGNERS.items()}
        signers["hooked"]["flags"] = [f"-remoteSignerWebhookUrl={self.webhook.url}"]
        self._net = PaidNet(
            binary,
            self._ports.take,
            self.secret,
            signers,
            models=self.models,
            docker=self._engine.url if self._engine is not None else "",
        )
        self.url = self._net.url

    def start(self) -> None:
        with self._containers():
            self._net.start()
        self.signers = {name: _NodeSigner(one) for name, one in self._net.signers.items()}

    def stop(self) -> None:
        self._net.stop()
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.stop()
        super().stop()

    def restart(self) -> None:
        with self._containers():
            self._net.orchestrator.restart()

    def kill(self) -> None:
        self._net.orchestrator.kill()

    def pause(self) -> None:
        self._net.orchestrator.pause()

    def resume(self) -> None:
        self._net.orchestrator.resume()

    def credited(self, manifest_id: str) -> Fraction:
        return self._net.credited(manifest_id)

    def debited(self, manifest_id: str) -> Fraction:
        return self._net.debited(manifest_id)

    def mine(self, blocks: int) -> None:
        self._net.mine(blocks)


class _NodeSigner(PaidSigner):
    def __init__(self, signer: Any) -> None:
        super().__init__(signer.name, signer.url, signer.address)
        node: Node = signer.node
        self.kill, self.restart = node.kill, node.restart
        self.pause, self.resume = node.pause, node.resume
