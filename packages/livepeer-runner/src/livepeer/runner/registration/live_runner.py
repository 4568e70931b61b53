"""A live runner's registration: the heartbeats and the orchestrator's messages, over HTTP and trickle."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import aiohttp

from livepeer.trickle.errors import TrickleError

from .heartbeats import Description, Heartbeats, Request, Step

if TYPE_CHECKING:
    from .._host import Host

__all__ = ["LiveRunnerRegistration"]

_logger = logging.getLogger("livepeer.runner")

_TIMEOUT = 10.0  # seconds for one answer
_AGAIN, _AGAIN_MAX = 1.0, 10.0  # seconds before the orchestrator's messages are asked for again
_SPREAD = 0.25  # seconds within which all runners ask an orchestrator why its messages ended


class LiveRunnerRegistration:
    """Keeps one host registered at one orchestrator, until `aclose`.

    It waits for the host's ``setup``, registers, sends heartbeats, registers again when it was forgotten, and
    ends the host's streams whose sessions the orchestrator released.

    Args:
        host: What to register.
        orchestrator: The orchestrator's URL.
        secret: The secret with which it registers runners.
        description: What it is told.
    """

    def __init__(self, host: Host, orchestrator: str, secret: str, description: Description) -> None:
        self._host = host
        self._machine = Heartbeats(orchestrator, secret, description)
        self._changed = asyncio.Event()
        self._hurry = asyncio.Event()
        self._o2r: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._run(), name=f"registration of {host.name}")

    @property
    def runner_id(self) -> str | None:
        """The id that the orchestrator gave; None while it doesn't know this runner."""
        return self._machine.runner_id

    async def registered(self) -> str:
        """Wait until the orchestrator knows this runner, and return its runner id.

        Raises:
            RegistrationError: The orchestrator refuses; the runner goes on trying.
            ConfigurationError: ``setup`` failed, so nothing will be registered.
        """
        while self._machine.runner_id is None:
            if self._machine.refusal is not None:
                raise self._machine.refusal
            if self._host.failure is not None:
                await self._host.until_ready()
            self._changed.clear()
            await self._changed.wait()
        return self._machine.runner_id

    async def aclose(self) -> None:
        """End the heartbeats, and tell the orchestrator."""
        self._task.cancel()
        await asyncio.wait({self._task})
        await self._end_o2r()
        request = self._machine.unregistration()
        if request is not None:
            self._machine.runner_id = None
            try:
                status, _ = await self._post(request)
                _logger.debug("Unregistered %s: %d", self._host.name, status)
            except (aiohttp.ClientError, OSError, TimeoutError):
                _logger.debug("Could not unregister %s", self._host.name, exc_info=True)
        if self._ending:
            await asyncio.wait(self._ending)

    async def _run(self) -> None:
        await self._host.ready.wait()
        if self._host.failure is not None:
            self._changed.set()
            return
        while True:
            asked_at = time.monotonic()
            self._hurry.clear()
            try:
                step = self._machine.answered(*await self._post(self._machine.request(self._host.sessions)))
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                _logger.debug("No answer from %s: %r", self._machine.orchestrator, error)
                step = self._machine.failed()
            except Exception:
                _logger.exception(
                    "A heartbeat to %s failed; the next one follows", self._machine.orchestrator
                )
                step = self._machine.failed()
            await self._apply(step, asked_at)
            if step.firm:
                await asyncio.sleep(step.delay)
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), step.delay)

    async def _apply(self, step: Step, asked_at: float) -> None:
        if step.warning:
            _logger.error("%s", step.warning)
        self._host.refused("live-runner", self._machine.refusal)
        if step.lost:
            _logger.info("%s forgot %s, which registers again", self._machine.orchestrator, self._host.name)
            await self._end_o2r()
        if step.session_ids is not None or step.lost:
            known = step.session_ids or frozenset()
            for stream in self._host.sessions.values():
                # A session that began after we asked can't be in the answer.
                if stream.session_id not in known and stream.began_at < asked_at:
                    self._release(stream.session_id)
            for session_id, stop in list(self._host.unstopped.items()):
                del self._host.unstopped[session_id]
                if session_id in known:
                    self._begin(stop())
        if step.o2r:
            await self._end_o2r()
            self._o2r = asyncio.create_task(self._listen(step.o2r), name="o2r")
        self._changed.set()

    async def _post(self, request: Request) -> tuple[int, bytes]:
        async with (
            asyncio.timeout(_TIMEOUT),
            self._host.transport.request(
                "POST", request.url, json=request.body, headers={"Authorization": request.authorization}
            ) as response,
        ):
            return response.status, await response.read()

    async def _listen(self, url: str) -> None:
        """Follow the orchestrator's messages; their end means that it restarted or forgot us: ask it now."""
        from livepeer.trickle import ChannelReader

        start, pause = 0, _AGAIN
        while True:
            reader = ChannelReader(url, transport=self._host.transport, start=start)
            try:
                async for message in reader:
                    pause = _AGAIN
                    if isinstance(message, dict) and message.get("event") == "released":
                        _logger.debug("%s released session %s", url, message.get("session"))
                        self._release(str(message.get("session")))
            except TrickleError as error:
                _logger.debug("The orchestrator's messages broke off: %r", error)
            finally:
                await reader.aclose()
            await asyncio.sleep(random.uniform(0, _SPREAD))
            self._hurry.set()
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))
            start, pause = -2, min(2 * pause, _AGAIN_MAX)

    async def _end_o2r(self) -> None:
        if self._o2r is not None:
            self._o2r.cancel()
            await asyncio.wait({self._o2r})
            self._o2r = None

    def _release(self, session_id: str) -> None:
        stream = self._host.sessions.get(session_id)
        if stream is not None:
            self._begin(stream.end("released"))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
