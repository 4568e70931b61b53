"""``livepeer demo``: progress on standard error, one table (or JSON) on standard output."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from livepeer.trickle.errors import ConfigurationError, LivepeerError

from .output import complain, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from ..demo.clip import Clip
    from ..demo.report import Report

__all__ = ["demo"]

_LONGEST = 30.0  # seconds of a user's own video


def demo(
    *,
    out: Path,
    video: Path | None,
    image: Path | None,
    seconds: float,
    orch_url: str | None,
    orch_secret: str | None,
    as_json: bool,
) -> None:
    """Perform the demo; exits with 1 when anything in it went wrong."""
    with _sigterm():
        try:
            report = _perform(
                out=out,
                video=video,
                image=image,
                seconds=seconds,
                orch_url=orch_url,
                orch_secret=orch_secret,
            )
        except LivepeerError as error:
            if as_json:
                print_json({"ok": False, "error": str(error)})
            raise
    if as_json:
        print_json(report.as_json())
    else:
        _show(report)
    for check in report.checks:
        if not check.ok:
            complain(f"not so: {check.name} ({check.detail or 'no more is known'})")
    if not report.ok:
        sys.exit(1)


def _perform(
    *,
    out: Path,
    video: Path | None,
    image: Path | None,
    seconds: float,
    orch_url: str | None,
    orch_secret: str | None,
) -> Report:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    if orch_url is not None and orch_secret is None:
        raise ConfigurationError(
            "--orch-url needs --orch-secret too: the samples register there.",
            hint="It is the value of the orchestrator's -orchSecret.",
        )
    logging.getLogger("livepeer").addHandler(logging.NullHandler())  # the checks say what is wrong
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True)
    )
    with progress:
        starting = progress.add_task("starting the network", total=1)
        with _network(orch_url, orch_secret) as url:
            clip = _inputs(out, video, image, seconds)  # while the processes load
            place = url()
            progress.update(starting, completed=1, description=f"the network is up: {place}")
            tasks = {}

            def tell(capability: str, share: float) -> None:
                if capability not in tasks:
                    tasks[capability] = progress.add_task(capability, total=1)
                progress.update(tasks[capability], completed=share)

            from ..demo.play import play

            return asyncio.run(play(place, out, clip, image, tell))


@contextlib.contextmanager
def _network(orch_url: str | None, orch_secret: str | None) -> Iterator[Callable[[], str]]:
    from ..network import LocalNetwork
    from ..samples import SampleRunners

    with contextlib.ExitStack() as stack:
        if orch_url is None:
            network = LocalNetwork()
            stack.callback(network.stop)
            yield lambda: network.start().orch_url
        else:
            samples = SampleRunners(orch_url=orch_url, secret=orch_secret)
            stack.callback(samples.stop)

            def start() -> str:
                samples.start()
                return orch_url

            yield start


def _inputs(out: Path, video: Path | None, image: Path | None, seconds: float) -> Clip:
    """Open what the user gave before anything is done with it."""
    from ..demo import clip, picture

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{out} can't be a folder for the results: {error.strerror}.") from error
    if image is not None:
        picture.opened(image)
    return clip.made(seconds) if video is None else clip.opened(video, _LONGEST)


def _show(report: Report) -> None:
    from rich.console import Console

    # a pipe has no width; the table is for people, but should not be cut there
    console = Console(width=None if sys.stdout.isatty() else 170)
    table = _table(report)
    if console.measure(table, options=console.options.update(width=1000)).maximum > console.width:
        table = _table(report, narrow=True)
    console.print(table)
    good = sum(check.ok for check in report.checks)
    print(f"{good} of {len(report.checks)} checks passed in {report.seconds:.1f} s.")
    for name, path in report.files.items():
        print(f"The {name} that came back: {path}")


def _table(report: Report, *, narrow: bool = False) -> Table:
    """A row for each call; or, where that has no room, a column for each."""
    from rich.table import Table

    headings = ("capability", "orchestrator", "route", "first result", "total")
    lines: list[tuple[str, ...]] = [
        (*headings, "sent", "received", "lost", "p50", "p95", "sound p50", "sound p95")
    ]
    for row in report.rows:
        frames = [_number(value) for value in (row.frames_sent, row.frames_received, row.frames_lost)]
        times = [_time(one) for one in (row.latency_p50, row.latency_p95, row.sound_p50, row.sound_p95)]
        name = f"{row.verb} {row.capability}"
        first, total = _time(row.first_result), _time(row.total)
        lines.append((name, row.orchestrator, row.route, first, total, *frames, *times))
    table = Table(title="livepeer demo", padding=0 if narrow else (0, 1))
    for index, heading in enumerate([line[0] for line in lines] if narrow else lines[0]):
        numeric = index > 2 and not narrow
        table.add_column(
            heading,
            justify="right" if numeric else "left",
            overflow="fold",
            no_wrap=narrow and index == 0,  # where there is too little room, the values give way
        )
    for cells in list(zip(*lines, strict=True))[1:] if narrow else lines[1:]:
        table.add_row(*cells)
    return table


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "–"  # noqa: RUF001
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _number(value: int | None) -> str:
    return "–" if value is None else str(value)  # noqa: RUF001


@contextlib.contextmanager
def _sigterm() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that nothing is left running."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
