"""Serve a capability on the Livepeer network.

Importing this package loads neither FastAPI nor pydantic: each name loads its module at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import ConfigurationError, HTTPError, LivepeerError, PipelineDefinitionError, RegistrationError

if TYPE_CHECKING:
    from .app import make_app
    from .blobs import Blob
    from .events import Event
    from .live_pipeline import LivePipeline
    from .options import RunnerOptions
    from .pipeline import Pipeline
    from .serving import RunningServer, running, serve

__all__ = [
    "Blob",
    "ConfigurationError",
    "Event",
    "HTTPError",
    "LivePipeline",
    "LivepeerError",
    "Pipeline",
    "PipelineDefinitionError",
    "RegistrationError",
    "RunnerOptions",
    "RunningServer",
    "__version__",
    "make_app",
    "running",
    "serve",
]

_LAZY = {
    "Blob": "blobs",
    "Event": "events",
    "LivePipeline": "live_pipeline",
    "Pipeline": "pipeline",
    "RunnerOptions": "options",
    "RunningServer": "serving",
    "make_app": "app",
    "running": "serving",
    "serve": "serving",
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
