"""Results to standard output, the rest to standard error."""

from __future__ import annotations

import json
import sys
from typing import Any

__all__ = ["complain", "print_json", "say"]


def print_json(value: Any) -> None:
    """Print a result for programs."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Tell a person something that is no result."""
    print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Say what went wrong."""
    say(f"livepeer: {text}")
