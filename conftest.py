"""Options of the test command; the fixtures are beside the tests."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings

RELEASES = "releases of github.com/livepeer/go-livepeer"
LIVE = re.compile("live|lv2v")  # in the names of files in tests/conformance


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of `./dev test`."""
    parser.addoption(
        "--go-livepeer",
        metavar="PATH",
        default=os.environ.get("LIVEPEER_GO_BIN"),
        help=f"a go-livepeer v0.9.1 binary ({RELEASES}); tests/conformance then runs on it too",
    )

    parser.addoption(
        "--silence",
        metavar="SECONDS",
        type=float,
        default=65.0,
        help="how long long polls of tests/conformance wait without a byte; 400 sees idle channels swept",
    )

    parser.addoption(
        "--fail-on-skip",
        action="store_true",
        help="fail when a test was skipped, other than for want of a go-livepeer",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Watch for skipped tests, when asked to; share the tests out, when there are several workers."""
    if config.getoption("--fail-on-skip"):
        config.pluginmanager.register(_NoSkips())
    if hasattr(config, "workerinput") or config.getoption("dist", "no") != "no":
        config.pluginmanager.register(_Shares(config))
    # A busy machine is no fault. Each run has the same examples; scripts/fuzz_parsers.py looks for others.
    patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("tests", derandomize=True, max_examples=60, **patient)
    settings.load_profile("tests")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job ignores Ctrl-C, and so would the processes that the tests interrupt.
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _Shares:
    """What one worker of pytest-xdist takes at a time (`-n NUMBER`), and what comes first.

    Tests that only wait are one share for each network; they begin at once, and cost nothing. Live media are
    paced by the clock, and too many such tests at once disturb each other: they are one share for each
    network, too. Of the others, each file is one. The first worker tells the scheduler, in a file, in whose
    share each test is.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._worker: dict[str, Any] | None = getattr(config, "workerinput", None)
        self._folder = None if self._worker else tempfile.TemporaryDirectory(prefix="livepeer-tests-")

    def pytest_configure_node(self, node: Any) -> None:
        assert self._folder is not None
        node.workerinput["shares"] = str(Path(self._folder.name) / "shares.json")

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None]:
        yield
        if self._worker is not None:
            shares = {item.nodeid: _share(item) for item in items}
            items.sort(key=lambda item: shares[item.nodeid][0])
            if self._worker["workerid"] == "gw0":
                names = {nodeid: name for nodeid, (_, name) in shares.items()}
                Path(self._worker["shares"]).write_text(json.dumps(names))

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        from xdist.scheduler import LoadScopeScheduling

        class Scheduling(LoadScopeScheduling):
            """By share, in the order of the tests."""

            shares: ClassVar[dict[str, str]] = {}

            def _split_scope(self, nodeid: str) -> str:
                return self.shares[nodeid]

            def schedule(self) -> None:
                self.shares.update(json.loads(file.read_text()))
                super().schedule()

        assert self._folder is not None
        file = Path(self._folder.name) / "shares.json"
        config.option.loadscopereorder = False
        return Scheduling(config, log)

    def pytest_unconfigure(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()


def _share(item: pytest.Item) -> tuple[int, str]:
    """The order and the name of a test's share."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    network = parameters.get("network_kind")
    if item.get_closest_marker("slow"):
        return 0, f"waits {network}"
    if item.path.parent.name == "conformance" and LIVE.search(item.path.stem):
        return 1, f"live {network}"
    return (2, f"{item.path.stem} {network}") if network else (3, item.path.stem)


class _NoSkips:
    """Fails a run in which something was skipped for want of something that the project installs."""

    def __init__(self) -> None:
        self._skipped: list[str] = []

    def _look(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if (
            report.skipped
            and not hasattr(report, "wasxfail")
            and "--go-livepeer PATH" not in str(report.longrepr)
        ):
            self._skipped.append(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._look(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._look(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._skipped and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for nodeid in self._skipped:
            terminalreporter.write_line(f"skipped, which --fail-on-skip does not allow: {nodeid}", red=True)


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
    """Say which networks the tests run on."""
    binary = go_binary(config)
    if binary is None:
        return f"networks: embedded (go-livepeer is skipped: give --go-livepeer PATH; see the {RELEASES})"
    return f"networks: embedded, go-livepeer ({binary})"
