"""``livepeer doctor``: what works of a configuration, and what to do about the rest."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from livepeer.client import Diagnosis, Finding, Gateway
from livepeer.client.prices import in_words
from livepeer.trickle.errors import ConfigurationError

from .output import print_json

__all__ = ["doctor"]

_MARKS = {True: "[green]ok[/green]", False: "[red]FAILED[/red]", None: "[yellow]?[/yellow]"}


def doctor(*, sign: bool, as_json: bool, **places: Any) -> None:
    """Check everything, print it, and exit with 1 when something doesn't work."""
    try:
        given: dict[str, Any] = {name: value or None for name, value in places.items()}
        with Gateway(**given) as gateway:
            found = gateway.check(sign=sign)
    except ConfigurationError as error:
        found = Diagnosis((Finding("configuration", "", False, error.message, error.hint),))
    if as_json:
        print_json({"ok": found.ok} | dataclasses.asdict(found))
    else:
        _print(found)
    if not found.ok:
        sys.exit(1)


def _print(found: Diagnosis) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table("", "what", "where", "found")
    for one in found.findings:
        hint = f"\n[dim]{escape(one.hint)}[/dim]" if one.hint else ""
        table.add_row(_MARKS[one.ok], one.subject, escape(one.where), escape(one.detail) + hint)
    console.print(table)
    if found.capabilities:
        costs = Table("capability", "model", "transport", "costs")
        for capability in found.capabilities:
            costs.add_row(
                escape(capability.name),
                escape(capability.model or ""),
                capability.transport,
                in_words(capability),
            )
        console.print(costs)
