"""``livepeer capabilities``, ``livepeer explain``, ``livepeer schema`` and ``livepeer run``."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from livepeer.client import Capability, Gateway
from livepeer.trickle.errors import ConfigurationError

from .output import print_json, say

__all__ = ["capabilities", "explain", "run", "schema"]


def capabilities(orch_url: list[str] | None, as_json: bool) -> None:
    """List what the network can do."""
    with Gateway(orch_url=orch_url or None) as gateway:
        found = gateway.capabilities()
    if as_json:
        print_json([dataclasses.asdict(one) for one in found])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("capability", "model", "transport", "mode", "free", "price", "orchestrators")
    for one in found:
        table.add_row(
            one.name,
            one.model or "",
            one.transport,
            one.mode,
            _places(one),
            str(one.price) if one.price else "free",
            ", ".join(one.orchestrators),
        )
    Console().print(table)


def explain(
    capability: str,
    *,
    model: str | None,
    live: bool,
    max_price: str | None,
    orch_url: list[str] | None,
    as_json: bool,
) -> None:
    """Show every candidate for a call."""
    with Gateway(orch_url=orch_url or None) as gateway:
        found = gateway.explain(capability, model=model, live=live, max_price=max_price)
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        print(found)


def schema(
    capability: str, *, model: str | None, pay: bool, timeout: float, orch_url: list[str] | None
) -> None:
    """Print what a capability takes and gives."""
    with Gateway(orch_url=orch_url or None) as gateway:
        print_json(gateway.schema(capability, model=model, pay=pay, timeout=timeout))


def run(
    capability: str,
    given: str | None,
    *,
    model: str | None,
    output: Path | None,
    timeout: float,
    orch_url: list[str] | None,
) -> None:
    """Call a capability and print its result."""
    with Gateway(orch_url=orch_url or None) as gateway:
        result = gateway.run(capability, input=_input(given), model=model, timeout=timeout)
    if isinstance(result, list) and all(hasattr(event, "data") for event in result):
        result = [event.data for event in result]
    if output is not None:
        content = result if isinstance(result, bytes) else _text(result).encode()
        output.write_bytes(content)
        say(f"{len(content)} bytes in {output}")
    elif isinstance(result, bytes):
        if sys.stdout.isatty():
            raise ConfigurationError(
                f"The result is {len(result)} bytes that a terminal can't show.", hint="Use --output FILE."
            )
        sys.stdout.buffer.write(result)
    else:
        print(_text(result))


def _places(capability: Capability) -> str:
    """Free places, and how many there are, as far as anybody tells."""
    if capability.available is None:
        return "?"
    return f"{capability.available}/{'?' if capability.capacity is None else capability.capacity}"


def _input(given: str | None) -> Any:
    if given is None:
        return None
    if given == "-":
        return sys.stdin.buffer.read()
    if given.startswith("@"):
        path = Path(given[1:])
        if not path.is_file():
            raise ConfigurationError(f"There is no file {path}.")
        return path
    try:
        return json.loads(given)
    except ValueError as error:
        raise ConfigurationError(
            f"The input is not JSON ({error}).", hint="Quote it, or use @FILE to send a file's content."
        ) from error


def _text(result: Any) -> str:
    return result if isinstance(result, str) else json.dumps(result, indent=2, ensure_ascii=False)
