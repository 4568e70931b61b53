"""How a network's starter says something to one of its processes; `control` is their side."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from livepeer.trickle.errors import LivepeerError

__all__ = ["tell"]

_PATIENCE = 30.0  # seconds


def tell(url: str, word: str, value: Any = None) -> Any:
    """Say a word to a process, and wait for its answer.

    Args:
        url: What its `control.Control` said.
        word: What it is about.
        value: JSON that goes with the word.

    Raises:
        LivepeerError: The process isn't there any more.
    """
    body = json.dumps(value).encode()
    request = urllib.request.Request(f"{url}/{word}", body, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_PATIENCE) as answer:
            return json.load(answer)
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise LivepeerError(f"A process of the network did not answer ({word}: {error}).") from error
