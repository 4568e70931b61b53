from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("aiohttp", "cryptography", "numpy", "av", "PIL", "typer", "rich", "fastapi", "pydantic", "uvicorn")


def test_the_fixture_is_there_for_any_project(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "def test_one(livepeer_network):\n"
        "    livepeer_network.wait_for('echo')\n"
        "def test_two(livepeer_network):\n"
        "    assert livepeer_network.orch_url.startswith('https://127.0.0.1:')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def loaded_by(statement: str) -> list[str]:
    script = f"import sys\n{statement}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_is_light() -> None:
    assert loaded_by("import livepeer.devkit.pytest_plugin, livepeer.devkit") == []
    assert loaded_by("from livepeer.devkit import LocalNetwork, SampleRunners") == []
    heavy = loaded_by("import livepeer.devkit.cli.app")
    assert set(heavy) <= {"typer", "rich"}


def test_exports() -> None:
    import livepeer.devkit

    assert sorted(livepeer.devkit.__all__) == [
        "LocalNetwork",
        "PaidMode",
        "SampleRunners",
        "Signer",
        "__version__",
    ]
    assert all(getattr(livepeer.devkit, name) for name in livepeer.devkit.__all__)
    assert dir(livepeer.devkit) == sorted(livepeer.devkit.__all__)
