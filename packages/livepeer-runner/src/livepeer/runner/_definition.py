"""What both kinds of pipeline share: names, versions, and checks when the class is defined."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from .errors import PipelineDefinitionError

__all__ = ["Definition", "check_name", "kebab"]

_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._~/-]*[A-Za-z0-9_~])?")
_RESERVED = {"docs", "health", "live", "openapi.json", "run", "schema"}


class Definition:
    """The class attributes that an author may set on a pipeline of either kind."""

    name: ClassVar[str | None] = None
    """The capability's name; absent, it is the class's name in kebab-case. ``serve(name=…)`` wins."""

    version: ClassVar[str | None] = None
    """The runner's version, advertised to clients."""

    capacity: ClassVar[int] = 1
    """How many calls or sessions at once; ``serve(capacity=…)`` wins."""

    def setup(self) -> Any:
        """Load models. Called once, before the runner is healthy and registered; may be ``async``."""

    @classmethod
    def app_name(cls) -> str:
        """The name under which this class is served when none is given."""
        return check_name(cls.name or kebab(cls.__name__), cls.__name__)


def kebab(name: str) -> str:
    """A class's name in kebab-case: ``TextReverse`` is ``text-reverse``, ``LLMChat`` is ``llm-chat``."""
    return (
        re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name.strip("_"))
        .replace("_", "-")
        .lower()
    )


def check_name(name: str, owner: str) -> str:
    """The name, when a URL and discovery can carry it; `PipelineDefinitionError` otherwise."""
    if not _NAME.fullmatch(name) or "//" in name:
        raise PipelineDefinitionError(
            f"{owner}: {name!r} can't be a capability's name. Use letters, digits and - . _ ~, and / between "
            "parts, as in 'text-to-image' or 'sentiment/distilbert'."
        )
    if name in _RESERVED:
        raise PipelineDefinitionError(
            f'{owner}: the name {name!r} is a path of every runner. Set another one: name = "my-{name}".'
        )
    return name


def resolve_now_or_later(resolve: Callable[[dict[str, Any]], _T], depth: int) -> _T | None:
    """Resolve annotations with the names around the class statement; None when one isn't defined yet."""
    frame = sys._getframe(depth)
    try:
        return resolve({**frame.f_globals, **frame.f_locals})
    except NameError:
        return None
    finally:
        del frame
