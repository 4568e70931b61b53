"""The benchmarks run, with few repetitions and without the peers; what they find is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks" / "run.py"

pytestmark = pytest.mark.skipif(
    not (ROOT / "packages" / "livepeer-devkit" / "src").exists(), reason="benchmarks measure a checkout"
)


@pytest.mark.parametrize(
    ("name", "options", "row"),
    [
        ("sessions", ("--sessions", "2", "--seconds", "2"), "packets lost"),
        ("live", ("--size", "320x180@30", "--seconds", "2"), "glass to glass p50"),
        ("json", (), "write to read p50"),
    ],
)
def test_one(name: str, options: tuple[str, ...], row: str, tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    command = [sys.executable, str(BENCHMARKS), name, *options, "--no-peer", "--json", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert "could not" not in done.stderr, done.stderr
    rows = json.loads(target.read_text())["rows"][name]
    assert any(row in one["name"] for one in rows), rows
