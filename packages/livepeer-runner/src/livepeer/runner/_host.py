"""One pipeline being served: its setup, its health and its places, shared by the app and the registration."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Literal, Protocol

from livepeer.trickle.transport import TLSPolicy, Transport

from ._definition import Definition, check_name
from ._version import __version__
from ._workers import Lease, Slots, Worker
from .errors import ConfigurationError, LivepeerError, Unavailable

__all__ = ["Contract", "Health", "Host", "Stream"]

_logger = logging.getLogger("livepeer.runner")

_PATIENCE = 1.0  # seconds to wait for a place: whoever had it may be ending

Contract = Literal["live-runner", "byoc", "lv2v"]
Health = Literal["LOADING", "OK", "ERROR", "IDLE"]


class Stream(Protocol):
    """A live session, as the host and the registration see it."""

    contract: Contract
    session_id: str
    began_at: float

    async def end(self, reason: str) -> None:
        """End it, and return when it has ended."""


class Host:
    """One pipeline being served.

    Args:
        pipeline: The pipeline, an instance.
        name: The capability's name; the pipeline's own when None.
        capacity: How many calls or sessions at once; the pipeline's own when None.
    """

    def __init__(self, pipeline: Definition, *, name: str | None = None, capacity: int | None = None) -> None:
        if isinstance(pipeline, type):
            raise ConfigurationError(
                f"{pipeline.__name__} is a class; give an instance of it: {pipeline.__name__}()."
            )
        if not isinstance(pipeline, Definition):
            raise ConfigurationError(
                f"A {type(pipeline).__name__} can't be served; give a Pipeline or LivePipeline."
            )
        self.pipeline = pipeline
        self.name: str = check_name(name, type(pipeline).__name__) if name else type(pipeline).app_name()
        self.capacity: int = pipeline.capacity if capacity is None else capacity
        if self.capacity < 1:
            raise ConfigurationError(f"capacity={self.capacity}: a runner takes at least one call at a time.")
        self.slots: Slots = Slots(self.capacity, self.name)
        self.streams: dict[tuple[Contract, str], Stream] = {}
        # What stops the live-runner sessions that are over here, and that the orchestrator may still have.
        self.unstopped: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}
        self.refusals: dict[str, LivepeerError] = {}
        self.stopping: bool = False
        self.ready: asyncio.Event = asyncio.Event()
        self.failure: BaseException | None = None
        self.tls: TLSPolicy = TLSPolicy()
        self.orchestrator: str | None = None
        self.byoc: bool = False  # whether it is registered for BYOC
        self.gpu: dict[str, Any] | None = None
        self._transport: Transport | None = None
        self._setup: asyncio.Task[None] | None = None

    @property
    def sessions(self) -> dict[str, Stream]:
        """The live sessions of live runners, by the session's id; the other contracts have streams too."""
        return {id: stream for (contract, id), stream in self.streams.items() if contract == "live-runner"}

    @property
    def refusal(self) -> LivepeerError | None:
        """Why an orchestrator doesn't register us; None when every registration stands, or may yet."""
        return next(iter(self.refusals.values()), None)

    def refused(self, registration: str, refusal: LivepeerError | None) -> None:
        """Take it that a registration is refused, or no more."""
        if refusal is None:
            self.refusals.pop(registration, None)
        else:
            self.refusals[registration] = refusal

    @property
    def transport(self) -> Transport:
        """The HTTP session to the orchestrator; made at first use, on the running loop."""
        if self._transport is None:
            self._transport = Transport(tls=self.tls, user_agent=f"livepeer-runner/{__version__}")
        return self._transport

    def start(self) -> None:
        """Begin ``setup()``, in a worker thread unless it is ``async``."""
        self._setup = asyncio.create_task(self._set_up(), name=f"setup of {self.name}")

    async def _set_up(self) -> None:
        worker = Worker(f"livepeer-runner {self.name} setup")
        try:
            if inspect.iscoroutinefunction(self.pipeline.setup):
                await self.pipeline.setup()
            else:
                await worker.submit(self.pipeline.setup)
        except Exception as error:
            self.failure = error
            _logger.error(
                "%s.setup raised %s", type(self.pipeline).__name__, type(error).__name__, exc_info=error
            )
        finally:
            worker.close()
            self.ready.set()

    async def until_ready(self) -> None:
        """Wait for ``setup()``; raises `ConfigurationError` when it failed."""
        await self.ready.wait()
        if self.failure is not None:
            raise ConfigurationError(
                f"{type(self.pipeline).__name__}.setup raised {type(self.failure).__name__}: {self.failure}"
            ) from self.failure

    @property
    def status(self) -> Health:
        """``LOADING`` during setup, ``ERROR`` when it failed or the orchestrator refuses us, ``IDLE`` when
        nothing runs, else ``OK``."""
        if not self.ready.is_set():
            return "LOADING"
        if self.failure is not None or self.refusal is not None:
            return "ERROR"
        return "OK" if self.slots.in_use else "IDLE"

    def health(self) -> dict[str, Any]:
        """The answer of ``GET /health``."""
        answer: dict[str, Any] = {
            "status": self.status,
            "name": self.name,
            "capacity": self.capacity,
            "in_use": self.slots.in_use,
        }
        if self.failure is not None:
            answer["error"] = f"setup raised {type(self.failure).__name__}; the runner's log has the details."
        elif self.refusal is not None:
            answer["error"] = self.refusal.message
        return answer

    async def lease(self) -> Lease:
        """A place for a call, for which it waits a little; raises `Unavailable` (503) when there is none."""
        if not self.ready.is_set():
            raise Unavailable(f"{self.name} is loading.", retry_after=2)
        if self.failure is not None:
            raise Unavailable(f"{self.name} could not be set up; see its log.", retry_after=30)
        if self.stopping:
            raise Unavailable(f"{self.name} is stopping.", retry_after=5)
        place = await self.slots.take(_PATIENCE)
        if place is None:
            raise Unavailable(f"All {self.capacity} places of {self.name} are taken.")
        return place

    async def stop(self) -> None:
        """End the live sessions and let no new call in."""
        self.stopping = True
        await asyncio.gather(*(stream.end("shutdown") for stream in list(self.streams.values())))

    async def aclose(self) -> None:
        """`stop`, and give everything back."""
        await self.stop()
        if self._setup is not None:
            self._setup.cancel()
            await asyncio.wait({self._setup})
        self.slots.close()
        if self._transport is not None:
            await self._transport.aclose()
            self._transport = None
