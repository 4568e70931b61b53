"""What an orchestrator remembers of a runner and of a session."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Any

__all__ = ["HEARTBEAT_TTL", "Runner", "Session", "random_name"]

HEARTBEAT_TTL = 20.0  # seconds


def random_name(count: int) -> str:
    """`count` random bytes as go-livepeer writes them in names: base32, lower case."""
    return _base32(secrets.token_bytes(count))


@dataclass
class Session:
    """One reservation of a runner's capacity."""

    id: str
    created_at: float
    price_info: dict[str, str] | None = None
    channels: dict[str, dict[str, str]] = field(default_factory=dict)
    proxies: dict[str, str] = field(default_factory=dict)


@dataclass
class Runner:
    """A registered runner: what its last heartbeat said, and its sessions."""

    id: str
    fields: dict[str, Any]
    heartbeat_at: float
    keepalive_at: float
    seed: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    sessions: dict[str, Session] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether calls may go to it."""
        return self.fields["status"] in ("", "ready")

    @property
    def url(self) -> str:
        """Where the orchestrator reaches it."""
        return str(self.fields["runner_url"])

    @property
    def mode(self) -> str:
        """``"persistent"`` or ``"single-shot"``."""
        return str(self.fields["mode"])

    @property
    def capacity(self) -> int:
        """How many sessions it takes at once."""
        return int(self.fields["capacity"])

    @property
    def heartbeat_secret(self) -> str:
        """What its heartbeats after the first authenticate with."""
        return self._derive("heartbeat")

    @property
    def o2r(self) -> str:
        """The name of the channel on which the orchestrator tells it of its sessions."""
        return f"{self.id}-{self._derive('trickle:o2r')[:16]}-o2r"

    def session_token(self, session_id: str) -> str:
        """What it authenticates with when it asks for something during a session."""
        return self._derive(f"session:{session_id}")

    def expired(self, now: float) -> bool:
        """Whether it has been silent for longer than its time to live."""
        return now - self.heartbeat_at > HEARTBEAT_TTL

    def _derive(self, label: str) -> str:
        return _base32(hmac.digest(self.seed, label.encode(), hashlib.sha256))


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
