"""What a benchmark finds: rows of a figure, the peer's, their ratio, and the limit."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Row", "percentile", "table", "write_json"]


@dataclass(frozen=True)
class Row:
    """One figure.

    Args:
        name: What was measured.
        ours: The figure.
        unit: Its unit, such as ``"ms"``.
        peer: The peer's figure in the same run; None where there is none to compare with.
        limit: How much of the peer's figure ours may be, or has to be with `at_least`; None where nothing is
            demanded.
        most: What ours may be at most, in its unit, where the demand is no ratio.
        at_least: Whether more is better.
        note: What a reader should know of it.
    """

    name: str
    ours: float | None
    unit: str
    peer: float | None = None
    limit: float | None = None
    most: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Our figure by the peer's."""
        return self.ours / self.peer if self.ours is not None and self.peer else None

    @property
    def verdict(self) -> str:
        """``"ok"``, ``"over"`` (``"under"`` where more is better), or nothing where nothing is demanded."""
        if self.limit is None and self.most is None:
            return ""
        if self.ours is None:
            return "no figure"
        if self.most is not None:
            return "ok" if self.ours <= self.most else "over"
        if self.ratio is None or self.limit is None:
            return "no peer"
        if self.at_least:
            return "ok" if self.ratio >= self.limit else "under"
        return "ok" if self.ratio <= self.limit else "over"


def table(rows: Iterable[Row]) -> str:
    """The rows as a table of text."""
    cells = [("", "we", "peer", "ratio", "limit", "")]
    notes = []
    for row in rows:
        cells.append((row.name, _figure(row.ours, row.unit), _figure(row.peer, row.unit), *_judged(row)))
        notes.append(row.note)
    widths = [max(len(line[column]) for line in cells) for column in range(6)]
    lines = []
    for line, note in zip(cells, ["", *notes], strict=True):
        columns = [line[0].ljust(widths[0])]
        columns += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join([*columns, note]).rstrip())
    return "\n".join(lines)


def write_json(path: Path, results: dict[str, Any]) -> None:
    """Write the rows of every benchmark, and what they were measured on, to a file."""
    path.write_text(json.dumps(results, indent=1, default=_plain) + "\n")


def percentile(values: Sequence[float], percent: float) -> float:
    """A percentile; NaN of nothing."""
    if len(values) < 2:
        return values[0] if values else float("nan")
    return statistics.quantiles(values, n=1000, method="inclusive")[min(round(percent * 10) - 1, 998)]


def _plain(value: Any) -> Any:
    if isinstance(value, Row):
        return asdict(value) | {"ratio": value.ratio, "verdict": value.verdict}
    return str(value)


def _judged(row: Row) -> tuple[str, str, str]:
    ratio = f"{row.ratio:.2f}x" if row.ratio is not None else ""
    if row.most is not None:
        return ratio, f"{row.most:g} {row.unit}".rstrip(), row.verdict
    limit = f"{row.limit:g}x" if row.limit is not None else ""
    return ratio, limit, row.verdict


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = 0 if value == round(value) else 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1
    return f"{value:.{digits}f} {unit}".rstrip()
