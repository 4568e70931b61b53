"""Where the development chain's program is: `anvil`, which npm brings into the user's cache once."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

__all__ = ["find_anvil"]

_PACKAGE, _VERSION = "@foundry-rs/anvil", "1.7.1"


def find_anvil() -> Path:
    """The program of the pinned version, installed by npm when it isn't there yet.

    ``LIVEPEER_ANVIL`` names another one.

    Raises:
        RuntimeError: npm is missing, or brought no program.
    """
    named = os.environ.get("LIVEPEER_ANVIL")
    if named:
        if not os.access(named, os.X_OK):
            raise RuntimeError(f"LIVEPEER_ANVIL={named} is no program that can be run")
        return Path(named)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "livepeer-python-sdk"
    folder = base / f"anvil-{_VERSION}-{platform.system()}-{platform.machine()}".lower()
    folder.mkdir(parents=True, exist_ok=True)
    return _installed(folder) or _install(folder)


def _installed(folder: Path) -> Path | None:
    found = [one for one in folder.glob(f"node_modules/{_PACKAGE}-*/bin/anvil") if os.access(one, os.X_OK)]
    return found[0] if found and (folder / "complete").exists() else None


def _install(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(
            f"The paid tests with --go-livepeer need a chain: {_PACKAGE} {_VERSION}, which npm brings. "
            "There is no npm on PATH: install Node.js, or let LIVEPEER_ANVIL name an anvil."
        )
    import fcntl  # go-livepeer's tests need a POSIX system anyway

    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the tests run in several processes
        found = _installed(folder)
        if found is not None:
            return found
        command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--no-save"]
        done = subprocess.run(
            [*command, f"{_PACKAGE}@{_VERSION}"], capture_output=True, text=True, check=False
        )
        (folder / "complete").touch()
        found = _installed(folder)
        if done.returncode or found is None:
            (folder / "complete").unlink()
            raise RuntimeError(f"npm did not bring {_PACKAGE} {_VERSION}:\n{done.stdout}{done.stderr}")
        return found
