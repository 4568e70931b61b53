"""Which BYOC capabilities an orchestrator knows and how busy they are, without I/O.

As ``core/external_capabilities.go`` and ``core/ai_orchestrator.go`` (v0.9.1) do it: the load is counted and
told, and nobody is held to it; a registration begins the count anew, so work that was under way gives back
what the new count never took.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from .gojson import Kind, unmarshal

__all__ = ["UNKNOWN", "Capabilities", "Capability", "UnknownCurrency"]

UNKNOWN = "No capacity available for capability"  # what callers of an unknown one are told

_FIELDS: Mapping[str, Kind] = {
    "name": "string",
    "description": "string",
    "url": "string",
    "capacity": "int",
    "price_per_unit": "int64",
    "price_scaling": "int64",
    "currency": "string",
    "token": "string",
}
_WEI = {"": 1, "wei": 1, "eth": 10**18}


class UnknownCurrency(Exception):
    """A price in a currency for which an offchain orchestrator has no rate; there go-livepeer panics."""


@dataclass
class Capability:
    """A registered capability.

    Args:
        name: What callers ask for.
        url: Where its worker is.
        capacity: How much it says that it takes at once.
        price: In wei per second of work.
        token: What the orchestrator authenticates with at the worker; may be empty.
        load: How much is under way; below 0 after a registration beside running work.
    """

    name: str
    url: str
    capacity: int
    price: Fraction
    token: str
    load: int = 0


class Capabilities:
    """The BYOC capabilities of one orchestrator, by name."""

    def __init__(self) -> None:
        self._known: dict[str, Capability] = {}

    def register(self, body: bytes) -> None:
        """Know a capability, or replace all that is known of it.

        Raises:
            GoJSONError: The body isn't such a registration.
            UnknownCurrency: Its price can't be told in wei.
        """
        fields = unmarshal(body, "core.ExternalCapability", _FIELDS)
        wei = _WEI.get(fields["currency"].lower())
        if wei is None:
            raise UnknownCurrency(fields["currency"])
        price = Fraction(fields["price_per_unit"], fields["price_scaling"] or 1) * wei
        name = fields["name"]
        self._known[name] = Capability(name, fields["url"], fields["capacity"], price, fields["token"])

    def forget(self, name: str) -> None:
        """Know a capability no longer; an unknown one is no error."""
        self._known.pop(name, None)

    def get(self, name: str) -> Capability | None:
        """A capability, if it is known."""
        return self._known.get(name)

    def reserve(self, name: str) -> bool:
        """Count one more piece of work; False when the capability is unknown."""
        known = self._known.get(name)
        if known is None:
            return False
        known.load += 1
        return True

    def release(self, name: str) -> None:
        """Count one piece of work less."""
        known = self._known.get(name)
        if known is not None:
            known.load -= 1

    def free(self, name: str) -> int:
        """How much more the capability says that it takes; 0 also when it is unknown."""
        known = self._known.get(name)
        return 0 if known is None else max(known.capacity - known.load, 0)

    def prices(self) -> list[tuple[str, int]]:
        """Name and price of each capability, as ``GetOrchestrator`` lists them: in whole wei per second.

        Whether a worker is alive is nowhere known, so dead ones are among them.
        """
        return [(one.name, int(one.price // 1)) for one in self._known.values() if one.price >= 0]
