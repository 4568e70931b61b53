"""``LIVEPEER_LOG=debug``: what the SDK's loggers say, on stderr, without a line of the application's code."""

from __future__ import annotations

import logging
import os
import sys

from .errors import ConfigurationError

__all__ = ["configure"]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def configure(level: str | None = None) -> None:
    """Show the records of the ``livepeer`` loggers from a level on; without one nothing happens.

    Where the application has given one of them a level or a handler, that counts and nothing happens either.
    A handler that it gives to the root logger, before or after, gets the records, and stderr doesn't.

    Args:
        level: ``"debug"``, ``"info"``, ``"warning"`` or ``"error"``; ``LIVEPEER_LOG`` when absent.

    Raises:
        ConfigurationError: It is something else.
    """
    wanted = (level if level is not None else os.environ.get("LIVEPEER_LOG", "")).strip().lower()
    if not wanted:
        return
    if wanted not in _LEVELS:
        raise ConfigurationError(
            f"LIVEPEER_LOG={wanted!r} is no level; it is one of {', '.join(_LEVELS)}.",
            hint="Unset it to see warnings only.",
        )
    if any(logger.handlers or logger.level for logger in _ours()):
        return
    root = logging.getLogger("livepeer")
    root.addHandler(_Stderr())
    root.setLevel(_LEVELS[wanted])


def _ours() -> list[logging.Logger]:
    """The loggers of the SDK that exist."""
    known = logging.Logger.manager.loggerDict.items()
    return [
        logger
        for name, logger in list(known)
        if isinstance(logger, logging.Logger) and (name == "livepeer" or name.startswith("livepeer."))
    ]


class _Stderr(logging.Handler):
    """Writes to whatever `sys.stderr` is at the moment, unless another handler shows the record anyhow."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        if self._shown(record.name) or sys.stderr is None:
            return
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)

    def _shown(self, name: str) -> bool:
        """Whether one of the application's handlers gets this logger's records."""
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False
