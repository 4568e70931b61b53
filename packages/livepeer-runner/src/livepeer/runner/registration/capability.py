"""The decisions of a BYOC registration, without I/O.

`Capability` says what to ask the orchestrator next and, given the answer, when to ask again. Source:
go-livepeer v0.9.1, ``byoc/job_orchestrator.go`` (``RegisterCapability``, ``UnregisterCapability``,
``GetJobToken``) and ``core/external_capabilities.go``:

- There are no heartbeats: a capability stays until its worker could not be reached, answered 401, or the
  orchestrator restarted, and nobody tells the worker. So we look: ``GET /process/token`` names no
  ``available_capacity`` for a capability that isn't there, nor for one that is full.
- A registration resets the orchestrator's count of running jobs, and writes a map that other requests read
  without a lock: registrations in a fast loop crash it. So two of them are at least 20 s apart, and while
  the orchestrator is down it is only looked at.
- A wrong secret is a 400, ``invalid authorization``. An orchestrator with payments answers 400 to our look,
  which is not signed: there a capability that was forgotten can't be told from one that was not.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import RegistrationError

__all__ = ["Ask", "Capability", "Look", "Offer"]

_PACE = 20.0  # seconds between two registrations
_LOOK = 10.0  # seconds between two looks
_RETRY_MIN, _RETRY_MAX = 0.25, 5.0  # seconds between looks while the orchestrator is down
_REFUSED = 30.0  # seconds between tries while it refuses us: a mended configuration is found by itself
_SPREAD = 1.0  # seconds within which forgotten workers register again, spread over them
_BLIND = 300.0  # seconds after which an idle worker registers again where it can't look
_NOBODY = base64.b64encode(json.dumps({"addr": "0x" + "0" * 40, "sig": ""}).encode()).decode()


@dataclass(frozen=True)
class Offer:
    """What the orchestrator is told about a capability.

    It is free: ``currency`` is ``"wei"``, because an orchestrator without payments drops the connection of a
    registration in ``"USD"``.

    Args:
        name: The capability's name.
        url: Where the orchestrator reaches the worker, without a slash at the end.
        capacity: How many jobs at once. Gateway nodes keep to it; direct calls are not counted.
        description: Text for people.
    """

    name: str
    url: str
    capacity: int = 1
    description: str = ""

    def body(self) -> dict[str, Any]:
        """The body of the registration."""
        return {
            "name": self.name,
            "description": self.description,
            "url": self.url,
            "capacity": self.capacity,
            "price_per_unit": 0,
            "price_scaling": 1,
            "currency": "wei",
        }


@dataclass(frozen=True)
class Ask:
    """A request to make."""

    kind: Literal["register", "look", "unregister"]
    method: Literal["GET", "POST"]
    url: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = b""


@dataclass(frozen=True)
class Look:
    """What to do after an answer.

    Args:
        delay: After how many seconds to ask again.
        warning: What to log, once per change.
    """

    delay: float
    warning: str | None = None


class Capability:
    """The state of one capability at one orchestrator.

    Args:
        orchestrator: Its URL.
        secret: The secret that it registers capabilities with.
        offer: What it is told.
        uniform: The random choice between two numbers, for tests.
    """

    def __init__(
        self,
        orchestrator: str,
        secret: str,
        offer: Offer,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.orchestrator: str = orchestrator.rstrip("/")
        self.offer = offer
        self.registered: bool = False
        self.refusal: RegistrationError | None = None
        self._secret = secret
        self._uniform = uniform
        self._wanted = True  # whether a registration is due, as soon as the pace allows it
        self._sent_at = float("-inf")  # when the last registration was sent
        self._known = False  # whether the orchestrator may know this capability from us
        self._asking = False  # whether a registration waits for its answer
        self._empty_at: float | None = None  # when the first of the empty looks was
        self._broke_off = False  # whether the orchestrator has been down since the last good look
        self._failures = 0

    def ask(self, now: float) -> Ask:
        """The request to make now (`now` in seconds of a monotonic clock)."""
        # Whether it is up again is found by looking, which costs the orchestrator nothing.
        if self._wanted and self._failures == 0 and now >= self._sent_at + _PACE:
            body = json.dumps(self.offer.body()).encode()
            self._sent_at, self._asking = now, True
            return self._post("register", body)
        headers = {"Livepeer-Eth-Address": _NOBODY, "Livepeer-Capability": self.offer.name}
        return Ask("look", "GET", f"{self.orchestrator}/process/token", headers)

    def unregistration(self) -> Ask | None:
        """What to post at the end; None when there is nothing to undo."""
        if not (self._known or self._asking):
            return None
        return self._post("unregister", self.offer.name.encode())

    def _post(self, kind: Literal["register", "unregister"], body: bytes) -> Ask:
        url = f"{self.orchestrator}/capability/{kind}"
        headers = {"Authorization": self._secret}
        if kind == "register":
            headers["Content-Type"] = "application/json"
        return Ask(kind, "POST", url, headers, body)

    def answered(self, ask: Ask, status: int, body: bytes, *, now: float, busy: bool) -> Look:
        """Take the answer to a request.

        Args:
            ask: The request.
            status: The answer's HTTP status.
            body: The answer's body.
            now: When it came.
            busy: Whether a request is in flight here, which may be what fills the capability.
        """
        if status >= 500:
            return self.failed(ask)
        self._failures = 0
        if ask.kind == "register":
            self._asking = False
            return self._taken() if status < 300 else self._refused(status, body)
        self._look(status, body, now=now, busy=busy)
        if not self._wanted:
            return Look(_LOOK * self._uniform(0.9, 1.1))
        return Look(max(0.0, self._sent_at + _PACE - now) + self._uniform(0.0, _SPREAD))

    def failed(self, ask: Ask, *, sent: bool = True) -> Look:
        """Take it that there was no answer: the orchestrator is down, or was restarted.

        Args:
            ask: The request.
            sent: Whether it may have arrived, so that a registration counts for the pace.
        """
        if ask.kind == "register":
            self._known, self._asking = self._known or sent, False
            if not sent:
                self._sent_at = float("-inf")
        self._failures += 1
        self._broke_off = True
        self._empty_at = None
        delay = min(_RETRY_MAX, _RETRY_MIN * 2.0 ** min(self._failures - 1, 10))
        return Look(delay * self._uniform(0.75, 1.25))

    def _taken(self) -> Look:
        self.registered, self._known, self._wanted = True, True, False
        self.refusal, self._empty_at, self._broke_off = None, None, False
        return Look(_LOOK * self._uniform(0.9, 1.1))

    def _look(self, status: int, body: bytes, *, now: float, busy: bool) -> None:
        if self._wanted:
            return
        if status >= 300:  # it lets us see nothing
            if self._broke_off or (not busy and now - self._sent_at >= _BLIND):
                self._forgotten()
            return
        if _capacity(body) > 0:
            self._empty_at, self._broke_off = None, False
        elif self._broke_off:
            self._forgotten()  # restarted: what may be in flight here is from before
        elif busy:
            self._empty_at = None
        elif self._empty_at is None:
            self._empty_at = now
        elif now - self._empty_at >= 0.85 * _LOOK:
            self._forgotten()

    def _forgotten(self) -> None:
        self.registered, self._wanted = False, True
        self._empty_at, self._broke_off = None, False

    def _refused(self, status: int, body: bytes) -> Look:
        said = body.decode("utf-8", "replace").strip()[:300]
        hint: str | None = None
        if status == 400 and said == "invalid authorization":
            text = f"The orchestrator refuses the secret ({said})."
            hint = "Give the value of its -orchSecret as secret= or LIVEPEER_ORCH_SECRET."
        elif status in (404, 405):
            text = f"The orchestrator registers no capabilities ({said or status})."
            hint = "Check the URL: it is the orchestrator's own (-serviceAddr), https://host:8935."
        else:
            text = f"The orchestrator refuses the capability {self.offer.name!r}: {said or status}."
        first = self.refusal is None or self.refusal.message != text
        self.registered = False
        self.refusal = RegistrationError(text, status=status, orchestrator=self.orchestrator, hint=hint)
        delay = _REFUSED * self._uniform(0.8, 1.2)
        return Look(delay, warning=f"{self.refusal} Trying again every {_REFUSED:.0f} s." if first else None)


def _capacity(body: bytes) -> int:
    """The free places that a look tells of; 0 when it tells of none."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return 0
    capacity = answer.get("available_capacity") if isinstance(answer, dict) else None
    return capacity if isinstance(capacity, int) else 0
