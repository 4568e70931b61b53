"""Fails when a package, or a built wheel given as an argument, claims the namespace `livepeer` for itself."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def offenders(wheels: list[Path]) -> list[str]:
    """Every file that would make `livepeer` an ordinary package."""
    found = [str(path.relative_to(ROOT)) for path in ROOT.glob("packages/*/src/livepeer/__init__.py*")]
    found += [
        str(path.relative_to(ROOT)) for path in ROOT.glob("packages/*/src/*") if path.name == "__init__.py"
    ]
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            found += [
                f"{wheel.name}: {name}" for name in archive.namelist() if name == "livepeer/__init__.py"
            ]
    return found


def main() -> int:
    """Print what was found; the exit status."""
    found = offenders([Path(argument) for argument in sys.argv[1:]])
    for name in found:
        print(f"a namespace package must not have this file: {name}")
    if not found:
        print("namespace: livepeer is a namespace in every package")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
