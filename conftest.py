"""Options of the test command; the fixtures are beside the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

RELEASES = "releases of github.com/livepeer/go-livepeer"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--go-livepeer",
        metavar="PATH",
        default=os.environ.get("LIVEPEER_GO_BIN"),
        help=f"a go-livepeer v0.9.1 binary ({RELEASES}); tests/conformance then runs on it too",
    )


def go_binary(config: pytest.Config) -> Path | None:
    """The binary that was named, which has to be there."""
    named = config.getoption("--go-livepeer")
    if not named:
        return None
    path = Path(named).expanduser().resolve()
    if not os.access(path, os.X_OK) or path.is_dir():
        raise pytest.UsageError(f"--go-livepeer={named} is no program that can be run")
    return path


def pytest_report_header(config: pytest.Config) -> str:
    binary = go_binary(config)
    if binary is None:
        return f"networks: embedded (go-livepeer is skipped: give --go-livepeer PATH; see the {RELEASES})"
    return f"networks: embedded, go-livepeer ({binary})"
