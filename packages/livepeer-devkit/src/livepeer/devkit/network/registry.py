"""Which runners an orchestrator knows, and their sessions, without I/O.

As ``ai/runner/live_runner.go`` (v0.9.1) does it. The clocks are given, and what happens outside (the trickle
channels) goes through `Channels`. Every refusal is a `Refused` with go-livepeer's status and words.
"""

from __future__ import annotations

import contextlib
import hmac
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from livepeer.trickle.errors import LivepeerError

from . import gojson
from .records import HEARTBEAT_TTL, Runner, Session, random_name
from .validation import Refused, channel_name, checked_target, normalize

if TYPE_CHECKING:
    from .paid.prices import Price, Prices

__all__ = [
    "HEARTBEAT_INTERVAL",
    "HEARTBEAT_TTL",
    "KEEPALIVE_INTERVAL",
    "Channels",
    "Refused",
    "Registry",
    "Runner",
    "Session",
]

HEARTBEAT_INTERVAL = 5.0  # seconds, also between two sweeps of silent runners
KEEPALIVE_INTERVAL = 10.0  # seconds between the orchestrator's messages to a runner


class Channels(Protocol):
    """The trickle channels of the orchestrator, as `livepeer.trickle.TrickleServer` has them."""

    def create(self, name: str, mime_type: str = ...) -> None:
        """Make a channel."""
        ...

    def close_channel(self, name: str) -> bool:
        """End a channel; whether there was one."""
        ...

    def publish(self, name: str, data: bytes) -> int:
        """Write one whole segment."""
        ...


class Registry:
    """The runners of one orchestrator.

    Args:
        secret: What a runner's first heartbeat authenticates with.
        channels: Where the runners' channels are made.
        public_url: The orchestrator's address, without a trailing slash.
        clock: The monotonic time in seconds.
        prices: What checks and converts the runners' prices, on a network where there are payments.
        utc: The wall clock's time as it goes on the wire.
    """

    def __init__(
        self,
        secret: str,
        channels: Channels,
        public_url: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        prices: Prices | None = None,
        utc: Callable[[], str] = lambda: datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    ) -> None:
        self._secret = secret
        self._clock = clock
        self._prices = prices
        self._utc = utc
        self._channels = channels
        self.public_url = public_url
        self._runners: dict[str, Runner] = {}

    # ------------------------------------------------------------------ registration

    def heartbeat(self, fields: dict[str, Any], authorization: str) -> dict[str, Any]:
        """Register a runner, or renew its registration with all its fields.

        Args:
            fields: The request as `livepeer.devkit.network.heartbeat` decoded it.
            authorization: The ``Authorization`` header, raw.

        Returns:
            The answer; the secret and the channel are in a runner's first one only.
        """
        runner_id = fields["runner_id"].strip() or f"runner_{random_name(5)}"
        fields = normalize(fields, runner_id)
        if self._prices is not None:
            fields["price_info"] = self._prices.normalize(fields["price_info"])
        runner = self._runners.get(runner_id)
        if runner is None:
            if not self._secret:
                raise Refused("dynamic live runner registration is disabled", 404)
            if not _same(authorization, self._secret):
                raise Refused("invalid registration authorization", 401)
            runner = Runner(runner_id, fields, heartbeat_at=self._clock(), keepalive_at=self._clock())
            self._runners[runner_id] = runner
            self._channels.create(runner.o2r, "application/json")
            return self._renewed(runner) | {
                "heartbeat_secret": runner.heartbeat_secret,
                "o2r": self._channel("o2r", runner.o2r, "application/json"),
                "session_ids": [],
            }
        if runner.expired(self._clock()):  # a sweep will forget it; until then its id is taken
            raise Refused("runner not found", 404)
        if not _same(authorization, runner.heartbeat_secret):
            raise Refused("invalid heartbeat authorization", 401)
        runner.fields = fields
        runner.heartbeat_at = self._clock()
        return self._renewed(runner) | {"session_ids": list(runner.sessions)}

    def unregister(self, runner_id: str, authorization: str) -> None:
        """Forget a runner; its sessions and channels end."""
        runner = self._alive(runner_id)
        if not _same(authorization, runner.heartbeat_secret):
            raise Refused("invalid authorization", 401)
        self._remove(runner)

    def sweep(self) -> None:
        """Forget the runners that have been silent for too long; due every `HEARTBEAT_INTERVAL`."""
        for runner in list(self._runners.values()):
            if runner.expired(self._clock()):
                self._remove(runner)

    def keep_alive(self) -> None:
        """Write to the channels of the runners whose `KEEPALIVE_INTERVAL` is over."""
        for runner in self._runners.values():
            if self._clock() - runner.keepalive_at >= KEEPALIVE_INTERVAL:
                runner.keepalive_at += KEEPALIVE_INTERVAL
                self._tell(runner, {"keep": "alive"})

    # ------------------------------------------------------------------ discovery

    def listing(self) -> list[dict[str, Any]]:
        """The runners that calls may go to, as discovery shows them, in random order."""
        found = [self._shown(runner) for runner in self._runners.values() if self._callable(runner)]
        random.shuffle(found)
        return found

    # ------------------------------------------------------------------ sessions

    def ready(self, runner_id: str) -> Runner:
        """A runner that calls may go to."""
        runner = self._alive(runner_id)
        if not runner.ready:
            raise Refused("runner not found", 404)
        return runner

    def price(self, runner: Runner) -> Price | None:
        """What the runner costs; None where nothing does. Raises `Refused` when that can't be said."""
        return self._prices.convert(runner.fields["price_info"]) if self._prices is not None else None

    def reserve(self, runner_id: str, session_id: str = "") -> tuple[Runner, Session, str]:
        """Take one unit of a runner's capacity.

        Args:
            runner_id: The runner.
            session_id: What the session is called: by its payment, or by us.

        Returns:
            The runner, the new session, and the address for the session's requests.
        """
        runner = self.ready(runner_id)
        if session_id in runner.sessions:
            raise Refused("session already exists", 409)
        if len(runner.sessions) >= runner.capacity:
            raise Refused("no capacity available for runner", 503)
        session = Session(session_id or f"session_{random_name(5)}", created_at=self._clock())
        session.price_info = runner.fields["price_info"]
        app_url = f"{self.public_url}/apps/{runner.id}/session/{session.id}/app"
        if runner.mode == "single-shot":
            app_url = runner.url
        elif runner.fields["proxy"]:
            app_url = self._add_proxy(runner, session, "")["url"]
        runner.sessions[session.id] = session
        self._tell(runner, {"event": "reserved", "session": session.id, "timestamp": self._utc()})
        return runner, session, app_url

    def release(self, runner_id: str, session_id: str) -> None:
        """Give a session's capacity back and end its channels; an unknown session is no error."""
        self._release(self._alive(runner_id), session_id)

    def drop(self, runner: Runner, session: Session) -> None:
        """Give back what a single-shot call reserved; the runner may have gone meanwhile."""
        self._release(runner, session.id)

    def session(self, runner_id: str, session_id: str) -> tuple[Runner, Session]:
        """A session that is under way."""
        runner = self.ready(runner_id)
        found = runner.sessions.get(session_id)
        if found is None:
            raise Refused("runner session not found", 404)
        return runner, found

    def authorized(self, runner_id: str, session_id: str, token: str) -> tuple[Runner, Session]:
        """The session whose token this is."""
        runner, session = self.session(runner_id, session_id)
        if not _same(token, runner.session_token(session_id)):
            raise Refused("invalid authorization", 401)
        return runner, session

    def add_channel(self, session: Session, name: str, mime_type: str) -> dict[str, str]:
        """Make a trickle channel that ends with the session; the same name gives the same channel."""
        name = channel_name(name)
        if name not in session.channels:
            mime_type = mime_type if mime_type.strip() else "application/octet-stream"
            full_name = f"{session.id}-{name}"
            self._channels.create(full_name, mime_type)
            session.channels[name] = self._channel(name, full_name, mime_type, internal=True)
        return session.channels[name]

    def remove_channel(self, session: Session, name: str) -> None:
        """End a channel of the session."""
        channel = session.channels.get(channel_name(name))
        if channel is None:
            raise Refused("trickle channel not found", 404)
        if not self._channels.close_channel(channel["channel_name"]):
            raise Refused("Invalid stream", 500)  # somebody closed it over HTTP; it stays listed
        del session.channels[channel["name"]]

    def add_proxy(self, runner: Runner, session: Session, target_url: str) -> dict[str, str]:
        """Make an address under ``/run/`` which ends with the session and doesn't show its id."""
        return self._add_proxy(runner, session, target_url)

    def proxy_target(self, proxy_id: str) -> tuple[Runner, Session | None, str]:
        """Where a ``/run/`` address leads: a session's target, or a single-shot runner by its id."""
        for runner in self._runners.values():
            if self._callable(runner):
                for session in runner.sessions.values():
                    if proxy_id in session.proxies:
                        return runner, session, session.proxies[proxy_id]
        direct = self._runners.get(proxy_id)
        if direct is not None and direct.fields["proxy"] and direct.mode == "single-shot":
            return direct, None, ""
        raise Refused("live runner proxy not found", 404)

    # ------------------------------------------------------------------ inside

    def _alive(self, runner_id: str) -> Runner:
        runner = self._runners.get(runner_id)
        if runner is None or runner.expired(self._clock()):
            raise Refused("runner not found", 404)
        return runner

    def _callable(self, runner: Runner) -> bool:
        return runner.ready and not runner.expired(self._clock())

    def _remove(self, runner: Runner) -> None:
        self._channels.close_channel(runner.o2r)
        for session_id in list(runner.sessions):
            self._release(runner, session_id)
        del self._runners[runner.id]

    def _release(self, runner: Runner, session_id: str) -> None:
        session = runner.sessions.pop(session_id, None)
        if session is not None:
            self._tell(runner, {"event": "released", "session": session_id, "timestamp": self._utc()})
            for channel in session.channels.values():
                self._channels.close_channel(channel["channel_name"])

    def _tell(self, runner: Runner, message: dict[str, Any]) -> None:
        try:
            self._channels.publish(runner.o2r, gojson.encode(message))
        except (KeyError, LivepeerError):  # closed with the runner, or by anybody who knew its name
            return

    def _renewed(self, runner: Runner) -> dict[str, Any]:
        return {
            "runner_id": runner.id,
            "orchestrator": self.public_url,
            "heartbeat_interval": f"{HEARTBEAT_INTERVAL:.0f}s",
            "heartbeat_ttl": f"{HEARTBEAT_TTL:.0f}s",
        }

    def _channel(
        self, name: str, full_name: str, mime_type: str, *, internal: bool = False
    ) -> dict[str, str]:
        url = f"{self.public_url}/ai/trickle/{full_name}"
        inside = {"internal_url": url} if internal else {}
        return {"name": name, "channel_name": full_name, "url": url, **inside, "mime_type": mime_type}

    def _add_proxy(self, runner: Runner, session: Session, target_url: str) -> dict[str, str]:
        target = runner.url
        if target_url.strip():
            target = checked_target(target_url, runner.url)
        proxy_id = random_name(16)
        session.proxies[proxy_id] = target
        return {"proxy_id": proxy_id, "url": f"{self.public_url}/run/{proxy_id}"}

    def _shown(self, runner: Runner) -> dict[str, Any]:
        if runner.mode == "single-shot":
            part = f"run/{runner.id}" if runner.fields["proxy"] else f"apps/{runner.id}/app"
        else:
            part = f"apps/{runner.id}/session"
        shown: dict[str, Any] = {"url": f"{self.public_url}/{part}"}
        if runner.fields["gpu"] is not None:
            shown["gpu"] = runner.fields["gpu"]
        shown["app"] = runner.fields["app"]
        for name in ("version", "metadata"):
            if runner.fields[name]:
                shown[name] = runner.fields[name]
        used = len(runner.sessions)
        shown |= {
            "mode": runner.mode,
            "capacity": runner.capacity,
            "capacity_used": used,
            "capacity_available": runner.capacity - used,
        }
        with contextlib.suppress(Refused):  # it goes unsaid
            price = self.price(runner)
            if price is not None:
                shown["price_info"] = {"price": price.wei, "currency": "wei", "unit": price.unit}
        return shown


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())
