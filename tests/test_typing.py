"""What users write type-checks: the design's sample, under mypy strict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy comes with the development tools")


@pytest.mark.timeout(300)
def test_the_design_sample_type_checks() -> None:
    sample = Path(__file__).parent / "typing" / "sample.py"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(sample)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
