"""`SampleRunners`: the sample capabilities in one process, each registered as a runner of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from livepeer.trickle.errors import ConfigurationError

if TYPE_CHECKING:
    from livepeer.trickle.transport import TLSMode

    from ..network.process import Child

__all__ = ["NAMES", "SampleRunners"]

NAMES = ("echo", "text-reverse", "llm-chat", "image-invert", "video-filter", "word-count")


class SampleRunners:
    """One process that serves sample capabilities and registers each with an orchestrator.

    Works with the embedded orchestrator and with a real go-livepeer. Making it starts the process, which
    loads while the caller does other things; `start` tells it where to register. As a context manager it
    needs the address and secret beforehand.

    Args:
        names: Which samples; all of them by default.
        orch_url: The orchestrator's address.
        secret: What runners register with there.
        tls: Which certificates of the orchestrator are accepted, as for `livepeer.runner.serve`.

    Raises:
        ConfigurationError: A sample of that name doesn't exist.
    """

    def __init__(
        self,
        names: bool | Sequence[str] = True,
        *,
        orch_url: str | None = None,
        secret: str | None = None,
        tls: TLSMode = "pin",
    ) -> None:
        from ..network.process import Child

        self.names: tuple[str, ...] = self.checked_names(names)
        self._orch_url = orch_url
        self._secret = secret
        self._tls = tls
        self._child: Child | None = Child("livepeer.devkit.samples.host", "The process of the samples")

    @staticmethod
    def checked_names(names: bool | Sequence[str]) -> tuple[str, ...]:
        """The samples that a `samples=` argument names."""
        if isinstance(names, bool):
            return NAMES if names else ()
        wanted = (names,) if isinstance(names, str) else tuple(names)
        for name in wanted:
            if name not in NAMES:
                raise ConfigurationError(f"There is no sample {name!r}; the samples are {', '.join(NAMES)}.")
        return wanted

    @property
    def pid(self) -> int:
        """The process id."""
        if self._child is None:
            raise ConfigurationError("The samples aren't running.")
        return self._child.pid

    def start(
        self, orch_url: str | None = None, secret: str | None = None, *, paid: bool = False
    ) -> SampleRunners:
        """Register every sample, and return when the orchestrator has accepted each.

        Args:
            orch_url: The orchestrator's address.
            secret: What runners register with there.
            paid: Whether the samples cost something, as they must on an on-chain orchestrator.

        Raises:
            LivepeerError: The orchestrator can't be reached, or refused the secret.
        """
        orch_url, secret = orch_url or self._orch_url, secret or self._secret
        if not orch_url or secret is None or self._child is None:
            raise ConfigurationError("The samples need an orchestrator's address and its secret.")
        settings = {"orch_url": orch_url, "secret": secret, "names": list(self.names), "tls": self._tls}
        self._child.start({**settings, "paid": paid})
        return self

    def stop(self) -> None:
        """Unregister the samples and end the process."""
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    def kill(self) -> None:
        """End the process at once; the orchestrator notices when its heartbeats stay away."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()

    def __enter__(self) -> SampleRunners:
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> SampleRunners:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)
