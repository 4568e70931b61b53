"""Develop for the Livepeer network on one machine: the embedded network, samples, the ``livepeer`` command.

Importing this package loads nothing heavy: each name loads its module at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .network import LocalNetwork, PaidMode, Signer
    from .samples import SampleRunners

__all__ = ["LocalNetwork", "PaidMode", "SampleRunners", "Signer", "__version__"]

_LAZY = {
    "LocalNetwork": "network",
    "PaidMode": "network",
    "SampleRunners": "samples",
    "Signer": "network",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
