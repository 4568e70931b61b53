"""One process of the network: started, waited for, killed, paused, started again."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["Node"]

# Linux ends the children of a thread that ends, and a test's own threads do: this one stays.
_STARTER = ThreadPoolExecutor(1, "paidnet")


class Node:
    """A process with a log.

    Args:
        name: What messages call it.
        command: What to run.
        log: Where its output goes; each start appends.
        ready: Whether it answers; a connection that fails, or a `RuntimeError`, is a no.
        environment: Variables besides this process's own.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._ready = ready
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started, and not ended since."""
        return self._process is not None

    def begin(self) -> None:
        """Start it; `wait` says when it answers."""
        self._process = _STARTER.submit(self._start).result()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
                preexec_fn=_die_with_parent,
            )

    def wait(self, patience: float = 60.0) -> None:
        """Wait until it answers."""
        process = self._process
        assert process is not None
        deadline = time.monotonic() + patience
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                text = self.log.read_text(errors="replace")[-3000:]
                self.end(signal.SIGKILL)
                raise AssertionError(f"{self.name} did not start:\n{text}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return self._ready()
        except (OSError, RuntimeError, ValueError):
            return False

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it, and see it gone; twice is no error."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)  # a paused one would never hear of it
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """Kill it: its connections break, and nobody can connect any more."""
        self.end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill it when it runs, and start it at the same address."""
        self.kill()
        self.begin()
        self.wait()

    def pause(self) -> None:
        """Let it answer nothing; connections to it still open."""
        process = self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)  # its threads take a moment

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} does not run"
        self._process.send_signal(number)
        return self._process


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    os.setpgid(0, 0)  # Ctrl-C is for the tests, which end their nodes themselves
