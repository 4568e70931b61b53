"""The fuzzer of the parsers, briefly. For longer: ./dev run python scripts/fuzz_parsers.py --seconds 600."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "fuzz_parsers.py"


@pytest.mark.parametrize("target", ["messages", "pes", "tables", "ts"])
def test_parsers_hold(target: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), target, "--seconds", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{target}: " in done.stdout
