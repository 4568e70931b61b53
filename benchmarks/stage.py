"""What both sides are measured on: one orchestrator, one worker, each a process of its own."""

from __future__ import annotations

import importlib
import json
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["APP", "Stage"]

HERE = Path(__file__).resolve().parent
APP = "bench/pass"


class Stage:
    """An orchestrator with the worker of `passthrough` behind it.

    Args:
        go: The path of a go-livepeer binary; our own server when None.
        host: The address that the orchestrator listens on.
    """

    def __init__(self, go: Path | None, host: str = "127.0.0.1") -> None:
        harness = _harness()
        self._network = harness.Embedded(host) if go is None else harness.GoLivepeer(go, host)
        self._worker: subprocess.Popen[str] | None = None
        self.label: str = self._network.kind

    @property
    def orch(self) -> str:
        """The orchestrator's URL."""
        url: str = self._network.url
        return url

    def __enter__(self) -> Self:
        self._network.__enter__()
        try:
            self._start_worker()
        except BaseException:
            self._network.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None and self._worker.stdin is not None:
            self._worker.stdin.close()
            try:
                self._worker.wait(8)
            except subprocess.TimeoutExpired:
                self._worker.kill()
                self._worker.wait()
        self._network.__exit__(kind, error, trace)

    def channels(self) -> dict[str, str]:
        """The channels of a session that is begun by hand: ``publish_url``, ``bulk_url`` and so on."""
        session = self._post(f"{self.orch}/apps/{self._runner_id}/session", {})
        opened: dict[str, str] = self._post(f"{session['app_url']}/live", {"params": {}})
        return opened

    def _start_worker(self) -> None:
        self._worker = subprocess.Popen(
            [sys.executable, str(HERE / "passthrough.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        told = {"orch": self.orch, "secret": self._network.secret, "app": APP}
        self._worker.stdin.write(json.dumps(told) + "\n")
        self._worker.stdin.flush()
        self._runner_id = json.loads(self._worker.stdout.readline())["ready"]

    def _post(self, url: str, body: Any) -> Any:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it signs for itself
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return json.loads(answer.read())


def _harness() -> Any:
    """The networks of the conformance tests, which also know how to start a go-livepeer."""
    sys.path.append(str(HERE.parent / "tests" / "conformance"))
    return importlib.import_module("harness")
