"""A BYOC registration over HTTP: `Capability` decides, this asks."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import aiohttp

from livepeer.trickle.transport import CertificateChanged

from .capability import Ask, Capability, Look, Offer

if TYPE_CHECKING:
    from .._host import Host

__all__ = ["ByocRegistration"]

_logger = logging.getLogger("livepeer.runner")

_TIMEOUT = 10.0  # seconds for one answer
_NEVER_SENT = (aiohttp.ClientConnectorError, CertificateChanged)


class ByocRegistration:
    """Keeps the capability of one host registered at one orchestrator, until `aclose`.

    It waits for the host's ``setup``, registers, looks every 10 s whether it still is registered, and
    registers again when it was forgotten, at most once in 20 s.

    Args:
        host: What to register.
        orchestrator: The orchestrator's URL.
        secret: The secret with which it registers capabilities.
        offer: What it is told.
    """

    def __init__(self, host: Host, orchestrator: str, secret: str, offer: Offer) -> None:
        self._host = host
        self._machine = Capability(orchestrator, secret, offer)
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"BYOC registration of {host.name}")

    @property
    def runner_id(self) -> None:
        """There is none: a capability is known by its name."""

    async def registered(self) -> str:
        """Wait until the orchestrator has this capability, and return its name.

        Raises:
            RegistrationError: The orchestrator refuses; the runner goes on trying.
            ConfigurationError: ``setup`` failed, so nothing will be registered.
        """
        while not self._machine.registered:
            if self._machine.refusal is not None:
                raise self._machine.refusal
            if self._host.failure is not None:
                await self._host.until_ready()
            self._changed.clear()
            await self._changed.wait()
        return self._machine.offer.name

    async def aclose(self) -> None:
        """End the looks, and tell the orchestrator."""
        self._task.cancel()
        await asyncio.wait({self._task})
        ask = self._machine.unregistration()
        self._machine.registered = False
        if ask is None:
            return
        try:
            status, _ = await self._send(ask)
            _logger.debug("Unregistered %s: %d", self._host.name, status)
        except (aiohttp.ClientError, OSError, TimeoutError):
            _logger.debug("Could not unregister %s", self._host.name, exc_info=True)

    async def _run(self) -> None:
        await self._host.ready.wait()
        if self._host.failure is not None:
            self._changed.set()
            return
        while True:
            ask, before = self._machine.ask(time.monotonic()), self._machine.registered
            look = await self._asked(ask)
            if look.warning:
                _logger.error("%s", look.warning)
            elif before and not self._machine.registered:
                _logger.info("%s forgot %s, which registers again", ask.url, self._host.name)
            self._host.refused("byoc", self._machine.refusal)
            self._changed.set()
            await asyncio.sleep(look.delay)

    async def _asked(self, ask: Ask) -> Look:
        busy = self._host.slots.in_use > 0
        try:
            status, body = await self._send(ask)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            _logger.debug("No answer from %s: %r", self._machine.orchestrator, error)
            return self._machine.failed(ask, sent=not isinstance(error, _NEVER_SENT))
        except Exception:
            _logger.exception("Asking %s failed; the next try follows", self._machine.orchestrator)
            return self._machine.failed(ask)
        busy = busy or self._host.slots.in_use > 0
        return self._machine.answered(ask, status, body, now=time.monotonic(), busy=busy)

    async def _send(self, ask: Ask) -> tuple[int, bytes]:
        async with (
            asyncio.timeout(_TIMEOUT),
            self._host.transport.request(
                ask.method, ask.url, data=ask.body or None, headers=ask.headers
            ) as response,
        ):
            return response.status, await response.read()
