"""Finds this machine's interpreters of the versions that the classifiers name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13")


def pythons() -> list[str]:
    """One interpreter per version, the running one first."""
    found = {"{}.{}".format(*sys.version_info[:2]): sys.executable}
    for version in VERSIONS:
        for candidate in _candidates(version):
            if version not in found and _works(candidate, version):
                found[version] = candidate
    return list(found.values())


def _candidates(version: str) -> list[str]:
    on_path = shutil.which(f"python{version}")
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    under_pyenv = sorted(root.glob(f"versions/{version}.*/bin/python{version}"))
    return [*([on_path] if on_path else []), *map(str, under_pyenv)]


def _works(python: str, version: str) -> bool:
    """Whether it runs and is that version: a shim on PATH may stand for nothing."""
    command = [python, "-c", "import sys, ssl; print('%d.%d' % sys.version_info[:2])"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.strip() == version
