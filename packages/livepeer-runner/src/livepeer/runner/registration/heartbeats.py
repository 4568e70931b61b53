"""The decisions of a live runner's registration, without I/O.

`Heartbeats` says what to post next and, given the answer, when to post again and what changed. Source:
go-livepeer v0.9.1, ``ai/runner/live_runner.go`` (``Heartbeat``, ``normalizeHeartbeat``, ``Unregister``):

- A registration goes with the orchestrator's secret; the answer brings the secret of later heartbeats and the
  ``o2r`` channel, once, and an id, where the runner didn't choose one.
- A heartbeat replaces every field, so each carries all of them.
- 401 and 404 mean that the orchestrator has forgotten us (it restarted, or 20 s passed without a heartbeat).
- A 401 to a registration means that the secret is wrong (``invalid registration authorization``), or that the
  chosen id is taken (``invalid heartbeat authorization``): by another runner, or by this one's life before.
  What nobody keeps alive is found to be dead after 20 s (then it is a 404, ``runner not found``) and removed
  up to 5 s later, which gives its id free. A 400 means that a field is wrong.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import ConfigurationError, RegistrationError

__all__ = ["Description", "Heartbeats", "Request", "Step", "go_duration"]

_RETRY_MIN, _RETRY_MAX = 0.25, 5.0  # seconds between tries while the orchestrator is down
_REFUSED = 30.0  # seconds between tries while it refuses us: a mended configuration is found by itself
_TAKEN = 2.5  # seconds between tries while the chosen id is taken
_TAKEN_MAX = 40.0  # seconds after which it isn't by a dead runner: those are removed within 25
_FORGOTTEN = 0.5  # seconds within which a forgotten runner registers again, spread over the runners
_SHORT = 30.0  # seconds; who is forgotten sooner than that, again and again, registers ever more slowly
_INTERVAL_MIN, _INTERVAL_MAX = 0.05, 60.0  # seconds between heartbeats, whatever the orchestrator says
_METADATA_LIMIT = 1024  # bytes
_OLD_LIFE = ((401, "invalid heartbeat authorization"), (404, "runner not found"))

Mode = Literal["single-shot", "persistent"]


@dataclass(frozen=True)
class Description:
    """What the orchestrator is told about this runner, in every heartbeat.

    Args:
        app: The capability's name.
        runner_url: Where the orchestrator reaches the runner.
        mode: ``"single-shot"`` for one request a session, ``"persistent"`` for many.
        capacity: How many sessions at once.
        price: In US dollars per `price_unit`; an orchestrator with payments wants more than 0.
        price_unit: ``"hour"``, ``"720p"`` or ``"fixed"`` (a call).
        metadata: Public text for clients, at most 1024 bytes.
        version: The runner's version.
        label: The operator's own name for this runner.
        gpu: ``{"id", "name", "vram_mb"}``.
        runner_id: The id to register under; the orchestrator chooses one when None.
    """

    app: str
    runner_url: str
    mode: Mode = "single-shot"
    capacity: int = 1
    price: float = 0.0
    price_unit: Literal["hour", "720p", "fixed"] = "hour"
    metadata: str = ""
    version: str | None = None
    label: str | None = None
    gpu: dict[str, Any] | None = None
    runner_id: str | None = None

    def __post_init__(self) -> None:
        if len(self.metadata.encode()) > _METADATA_LIMIT:
            raise ConfigurationError(
                f"The metadata has {len(self.metadata.encode())} bytes; {_METADATA_LIMIT} are allowed."
            )
        if self.price < 0:
            raise ConfigurationError(f"price={self.price}: a price is 0 or more US dollars.")
        if self.runner_id is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.runner_id):
            raise ConfigurationError(
                f"runner_id={self.runner_id!r}: an id has 1 to 64 letters, digits, hyphens and underscores."
            )

    def body(self, runner_id: str | None, session_ids: Iterable[str]) -> dict[str, Any]:
        """The body of a heartbeat; `runner_id` is what the orchestrator calls this runner, if it knows it."""
        optional = {
            "runner_id": runner_id or self.runner_id,
            "label": self.label,
            "version": self.version,
            "metadata": self.metadata,
            "gpu": self.gpu,
        }
        return {
            "runner_url": self.runner_url,
            "app": self.app,
            "mode": self.mode,
            "status": "ready",
            "capacity": self.capacity,
            "price_info": {"price": self.price, "currency": "usd", "unit": self.price_unit},
            "session_ids": sorted(session_ids),
        } | {key: value for key, value in optional.items() if value}


@dataclass(frozen=True)
class Request:
    """A POST to make."""

    url: str
    authorization: str = field(repr=False)
    body: dict[str, Any] | None


@dataclass(frozen=True)
class Step:
    """What an answer means.

    Args:
        delay: After how many seconds to post again.
        session_ids: The sessions that the orchestrator knows; None when it didn't say.
        o2r: The URL of a new channel of the orchestrator's messages, of a new registration.
        lost: Whether the orchestrator has forgotten us, and with us every session.
        firm: Whether nothing shortens the delay: it is a pause between tries.
        warning: What to log, once per change.
    """

    delay: float
    session_ids: frozenset[str] | None = None
    o2r: str | None = None
    lost: bool = False
    firm: bool = False
    warning: str | None = None


class Heartbeats:
    """The state of one runner at one orchestrator.

    Args:
        orchestrator: Its URL.
        secret: The secret that it registers runners with.
        description: What it is told.
        uniform: The random choice between two numbers, for tests.
        clock: The time in seconds, for tests.
    """

    def __init__(
        self,
        orchestrator: str,
        secret: str,
        description: Description,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.orchestrator: str = orchestrator.rstrip("/")
        self.description = description
        self._registered_at = float("-inf")
        self._losses = 0  # in a row, each soon after a registration
        self._taken_since: float | None = None
        self._clock = clock
        self.runner_id: str | None = None
        self.refusal: RegistrationError | None = None
        self._secret = secret
        self._heartbeat_secret = ""
        self._interval = 5.0
        self._failures = 0
        self._uniform = uniform

    @property
    def registered(self) -> bool:
        """Whether the orchestrator knows this runner, as far as it has said."""
        return self.runner_id is not None

    def request(self, session_ids: Iterable[str] = ()) -> Request:
        """The heartbeat to post now."""
        secret = self._heartbeat_secret if self.registered else self._secret
        return Request(
            f"{self.orchestrator}/runners/heartbeat",
            secret,
            self.description.body(self.runner_id, session_ids),
        )

    def unregistration(self) -> Request | None:
        """What to post at the end; None when there is nothing to undo."""
        if self.runner_id is None:
            return None
        url = f"{self.orchestrator}/runners/{self.runner_id}/unregister"
        return Request(url, self._heartbeat_secret, None)

    def answered(self, status: int, body: bytes) -> Step:
        """Take the answer to the last request."""
        if 200 <= status < 300:
            return self._accepted(body)
        if self.registered:
            return self._lost() if status in (401, 404) else self.failed()
        if status in (400, 401, 403, 404):
            message = _message(body)
            if self.description.runner_id is not None and (status, message) in _OLD_LIFE:
                return self._taken(status)
            return self._refused(status, message)
        return self.failed()

    def failed(self) -> Step:
        """Take it that there was no answer, or one that says nothing: the orchestrator is down."""
        self._failures += 1
        delay = min(_RETRY_MAX, _RETRY_MIN * 2.0 ** min(self._failures - 1, 10))
        return Step(delay * self._uniform(0.75, 1.25), firm=True)

    def _lost(self) -> Step:
        # Two orchestrators behind one address, say: each would be told of this runner many times a second.
        self._losses = self._losses + 1 if self._clock() - self._registered_at < _SHORT else 0
        self.runner_id = None
        self._failures = 0
        if self._losses == 0:
            return Step(self._uniform(0, _FORGOTTEN), lost=True, firm=True)
        delay = min(_RETRY_MAX, _FORGOTTEN * 2.0 ** min(self._losses - 1, 10))
        return Step(delay * self._uniform(0.75, 1.25), lost=True, firm=True)

    def _accepted(self, body: bytes) -> Step:
        answer = _json_object(body)
        runner_id = answer.get("runner_id")
        if not isinstance(runner_id, str) or not runner_id:
            return self.failed()
        o2r = None
        if not self.registered:
            secret = answer.get("heartbeat_secret")
            if not isinstance(secret, str) or not secret:
                return self.failed()
            self._heartbeat_secret, self._registered_at = secret, self._clock()
            channel = answer.get("o2r")
            url = channel.get("url") if isinstance(channel, dict) else None
            o2r = url if isinstance(url, str) else None
        self.runner_id = runner_id
        self.refusal = None
        self._taken_since = None
        self._failures = 0
        asked = go_duration(answer.get("heartbeat_interval")) or 5.0
        self._interval = min(max(asked, _INTERVAL_MIN), _INTERVAL_MAX)
        known = answer.get("session_ids")
        sessions = frozenset(str(item) for item in known) if isinstance(known, list) else None
        return Step(self._interval, session_ids=sessions, o2r=o2r)

    def _taken(self, status: int) -> Step:
        now = self._clock()
        since = self._taken_since = now if self._taken_since is None else self._taken_since
        if now - since < _TAKEN_MAX:
            return Step(_TAKEN * self._uniform(0.8, 1.2), firm=True)
        return self._refuse(
            status,
            f"Another runner is registered at the orchestrator as {self.description.runner_id!r}.",
            "Give each runner a runner_id of its own, or leave it out: the orchestrator chooses one then.",
        )

    def _refused(self, status: int, message: str) -> Step:
        if status == 404:
            text, hint = (
                f"The orchestrator registers no live runners ({message or 'no such path'}).",
                "Start it with -useLiveRunners and -orchSecret, and check the URL.",
            )
        elif status == 400:
            text, hint = f"The orchestrator refuses what this runner says of itself: {message}.", None
        else:
            text, hint = (
                f"The orchestrator refuses the secret ({message or status}).",
                "Give the value of its -orchSecret as secret= or LIVEPEER_ORCH_SECRET.",
            )
        return self._refuse(status, text, hint)

    def _refuse(self, status: int, text: str, hint: str | None) -> Step:
        first = self.refusal is None or self.refusal.message != text
        self.refusal = RegistrationError(text, status=status, orchestrator=self.orchestrator, hint=hint)
        delay = _REFUSED * self._uniform(0.8, 1.2)
        warning = f"{self.refusal} Trying again every {_REFUSED:.0f} s." if first else None
        return Step(delay, firm=True, warning=warning)


def go_duration(text: object) -> float | None:
    """The seconds of a Go duration (``"5s"``, ``"1m30s"``, ``"500ms"``); None when it is none."""
    if not isinstance(text, str):
        return None
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
    parts = re.findall(r"(\d+(?:\.\d+)?)(h|ms|us|µs|ns|m|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * units[unit] for number, unit in parts)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _message(body: bytes) -> str:
    """The text of an error: plain, or in ``{"error": {"message"}}``."""
    error = _json_object(body).get("error")
    if isinstance(error, dict):
        return str(error.get("message", ""))[:300]
    if isinstance(error, str):
        return error[:300]
    return body.decode("utf-8", "replace").strip()[:300]
