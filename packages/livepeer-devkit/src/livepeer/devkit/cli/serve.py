"""``livepeer serve FILE:CLASS``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from livepeer.runner import LivePipeline, Pipeline
from livepeer.runner import serve as serve_pipeline
from livepeer.runner.options import Way
from livepeer.trickle.errors import ConfigurationError

__all__ = ["serve"]


def serve(
    target: str,
    *,
    name: str | None,
    host: str,
    port: int,
    capacity: int | None,
    orch_url: str | None,
    secret: str | None,
    register: list[str],
) -> None:
    """Serve the class of a file or module."""
    pipeline = _pipeline(target)()
    serve_pipeline(
        pipeline,
        name=name,
        host=host,
        port=port,
        capacity=capacity,
        orch_url=orch_url,
        secret=secret,
        register=cast(list[Way], register),
    )


def _pipeline(target: str) -> type[Pipeline] | type[LivePipeline]:
    place, _, wanted = target.rpartition(":")
    if not place or not wanted:
        raise ConfigurationError(f"{target!r} names no class; write it as my_runner.py:Upscale.")
    module = _module(place)
    found: Any = getattr(module, wanted, None)
    if not (isinstance(found, type) and issubclass(found, Pipeline | LivePipeline)):
        have = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type)
            and issubclass(value, Pipeline | LivePipeline)
            and value.__module__ == module.__name__
        ]
        raise ConfigurationError(
            f"{place} has no pipeline class {wanted!r}; it has {', '.join(have) or 'none'}."
        )
    return found


def _module(place: str) -> ModuleType:
    path = Path(place)
    if path.suffix != ".py":
        sys.path.insert(0, "")
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise ConfigurationError(f"There is no module {place!r}.") from error
    if not path.is_file():
        raise ConfigurationError(f"There is no file {place}.")
    sys.path.insert(0, str(path.resolve().parent))  # so that the file can import its neighbours
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
