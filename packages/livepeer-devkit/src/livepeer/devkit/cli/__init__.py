"""The ``livepeer`` command (also ``livepeer-sdk``, because go-livepeer's own binary is called ``livepeer``).

Results go to standard output, everything else to standard error. Exit codes: 0 it worked; 1 it did not (the
network or a capability failed, or a check of the demo); 2 what was asked for can't be done (a wrong option, a
file that isn't what it should be, nothing configured); 130 interrupted.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command with the process's arguments, and exit."""
    from .app import run

    run()
