"""What works of a configuration and what doesn't, as `Gateway.check` finds it."""

from __future__ import annotations

from dataclasses import dataclass

from .catalogue import Capability
from .prices import in_words

__all__ = ["Diagnosis", "Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What: ``"configuration"``, ``"gateway node"``, ``"signer"``, ``"funds"``, ``"discovery"``,
            ``"orchestrator"`` or ``"capabilities"``.
        where: The URL, without a password and without a query, or the wallet's address; "" where there is
            none.
        ok: Whether it works; None where that can't be told.
        detail: What was found.
        hint: What could be done about it.
    """

    subject: str
    where: str
    ok: bool | None
    detail: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `Gateway.check` found; as text, a table. It holds no secrets.

    Attributes:
        findings: What was looked at, in the order in which calls depend on it.
        capabilities: What can be called, with prices, as `Gateway.capabilities` has them.
    """

    findings: tuple[Finding, ...]
    capabilities: tuple[Capability, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was found that doesn't work."""
        return all(finding.ok is not False for finding in self.findings)

    def __str__(self) -> str:
        rows = [(_MARKS[one.ok], one.subject, one.where, _sentence(one)) for one in self.findings]
        rows += [
            ("", one.name + (f" ({one.model})" if one.model else ""), one.transport, in_words(one))
            for one in self.capabilities
        ]
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + f"  {row[3]}"
            for row in rows
        )


_MARKS = {True: "ok", False: "FAILED", None: "?"}


def _sentence(finding: Finding) -> str:
    detail = finding.detail.removesuffix(".")
    return f"{detail}. {finding.hint}" if finding.hint else detail
