"""The Python that is made from the .proto belongs to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_made_code_belongs_to_the_proto() -> None:
    """Where protoc is: in the workspace's environment, not beside the wheels."""
    pytest.importorskip("grpc_tools", reason="needs grpcio-tools")
    if not (ROOT / "packages/livepeer-client/src").exists():
        pytest.skip("needs the sources")
    command = [sys.executable, str(ROOT / "scripts" / "generate_grpc.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nRun scripts/generate_grpc.py."
