"""The published peers, in environments of their own in the user's cache folder."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["Unavailable", "callers_python", "peer_python"]

PEER = "livepeer-gateway==1.0.0"
# The codec and the HTTP library are the same on both sides, so that a figure tells of our code and theirs.
SHARED = ("av", "aiohttp", "numpy")
# What the benchmark `calls` compares with; a newer version is installed when its number is changed here.
CALLERS = ("openai==3.57.0", "anthropic==2.13.0", "replicate==1.0.7", "fal-client==1.0.3", "httpx==0.28.1")


class Unavailable(Exception):
    """The peer can't be had here; the text says why."""


def peer_python() -> Path:
    """The interpreter of an environment with the peer, made at the first call.

    Raises:
        Unavailable: There is no Python 3.12 or later, or the peer can't be installed.
    """
    wanted = [PEER, *(f"{name}=={importlib.metadata.version(name)}" for name in SHARED)]
    return _environment("peer", _interpreter, wanted)


def callers_python() -> Path:
    """The interpreter of an environment with the SDKs that `calls` compares with; of our Python's version.

    Raises:
        Unavailable: They can't be installed.
    """
    return _environment("callers", lambda: sys.executable, list(CALLERS))


def _environment(name: str, interpreter: Callable[[], str], wanted: list[str]) -> Path:
    folder = _cache() / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / ".installed"
    if stamp.exists() and stamp.read_text() == "\n".join(wanted):
        return python
    print(f"installing {name} into the user's cache", file=sys.stderr, flush=True)
    uv, base = _uv(), interpreter()
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [uv, "venv", "--quiet", "--no-python-downloads", "--python", base, str(folder)],
        [uv, "pip", "install", "--quiet", "--python", str(python), *wanted],
    ):
        if subprocess.run(command, check=False).returncode:
            raise Unavailable(f"{' '.join(wanted)} could not be installed; uv's message is above.")
    stamp.write_text("\n".join(wanted))
    return python


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "livepeer-python-sdk"


def _uv() -> str:
    """The uv that `./dev` found or installed."""
    found = shutil.which("uv")
    if found:
        return found
    for path in sorted(_cache().glob("uv-*/bin/uv*")):
        return str(path)
    raise Unavailable("uv isn't on PATH, and ./dev has not installed it yet.")


def _interpreter() -> str:
    """A Python that the peer runs on: this one, one on PATH, or one of pyenv's."""
    if sys.version_info >= (3, 12):
        return sys.executable
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [shutil.which(name) for name in ("python3.12", "python3.13", "python3.14")]
    candidates += [str(path) for path in sorted(root.glob("3.1[2-9]*/bin/python"))]
    for candidate in filter(None, candidates):
        # A pyenv shim is on PATH for each version, also for those that aren't active.
        code = "import sys; sys.exit(sys.version_info < (3, 12))"
        if subprocess.run([candidate, "-c", code], check=False, capture_output=True).returncode == 0:
            return candidate
    raise Unavailable("The peer needs Python 3.12 or later, on PATH or under pyenv.")
