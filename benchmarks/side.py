"""The parent's end of `sides.drive`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from peer import peer_python

__all__ = ["Running", "SideFailed", "measure"]

HERE = Path(__file__).resolve().parent


class SideFailed(Exception):
    """A side's process failed; its own words are above or in the text."""


class Running:
    """A side's process that measures something.

    Args:
        side: ``"ours"`` or ``"peer"``.
        asked: What to measure: ``{"task": …, …}``.
        prefix: What the process is run by, such as ``["ip", "netns", "exec", …]``.
    """

    def __init__(self, side: str, asked: dict[str, Any], prefix: tuple[str, ...] = ()) -> None:
        python = sys.executable if side == "ours" else str(peer_python())
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        self._name = f"{side} {asked['task']}"
        self._process = subprocess.Popen(
            [*prefix, python, "-m", "sides.drive", side],
            cwd=HERE,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()

    def result(self, timeout: float) -> Any:
        """What it found; raises `SideFailed`."""
        try:
            output, _ = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            self._process.wait()
            raise SideFailed(f"{self._name} took more than {timeout:g} s.") from error
        if self._process.returncode or not output.strip():
            raise SideFailed(f"{self._name} failed (exit code {self._process.returncode}).")
        return json.loads(output.splitlines()[-1])["found"]

    def kill(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def measure(side: str, asked: dict[str, Any], timeout: float = 120, prefix: tuple[str, ...] = ()) -> Any:
    """Run a side's process to its end; what it found. Raises `SideFailed`."""
    return Running(side, asked, prefix).result(timeout)
