"""`LocalNetwork`: an orchestrator and sample capabilities on this machine, in processes of their own."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import secrets
import ssl
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from livepeer.trickle.errors import ConfigurationError, LivepeerError

from ..samples import SampleRunners
from .models import PIPELINE, START_TIMEOUT, checked_models
from .paid.signers import GatewayNode, PaidMode, Signer, Signers
from .process import Child

__all__ = ["LocalNetwork"]

_STARTING = 60.0  # seconds for the orchestrator itself
_NOBODY = base64.b64encode(b"{}").decode()  # offchain nobody has to be somebody
_RETRIES = 40  # times the port of a killed orchestrator is asked for again, 50 ms apart


class LocalNetwork:
    """A Livepeer network on this machine: one orchestrator, and the sample capabilities registered with it.

    Each is a process of its own, so a caller whose thread is blocked doesn't stop it, and none outlives the
    caller, also when the caller is killed. Nothing is downloaded and no account is needed. The orchestrator
    answers as go-livepeer v0.9.1 does offchain, or with `paid` as it does on-chain.

    Use it as a context manager (``with`` or ``async with``), or call `start` and `stop`.

    Args:
        samples: Which sample capabilities to serve: all, none, or those named.
        tls: Whether the orchestrator speaks HTTPS, with a certificate of its own making as real ones do.
        port: The orchestrator's port; 0 is any free one.
        secret: What runners register with; a random one when absent.
        host: The address to listen on, a loopback one.
        lv2v: The models of live video-to-video, and where their containers are:
            ``{"model_id": "noop", "url": "http://127.0.0.1:9000"}``, as go-livepeer's ``-aiModels`` has them
            (with ``pipeline``, ``capacity`` and ``warm`` if you like). When the orchestrator starts, it asks
            each container for ``/health``, ``/hardware/info`` and ``/version``, and waits two minutes at
            most. With no model it has no AI worker. A model's ``price_per_unit`` is in wei per pixel.
        paid: What makes everything cost something (`PaidMode`, or True for its defaults): runners need a
            price in US dollars, callers a payment by one of the signers. The samples then cost a tenth of a
            cent a call, or 36 cents an hour.

    Raises:
        ConfigurationError: A sample of that name doesn't exist, or a model can't be meant so.
    """

    def __init__(
        self,
        *,
        samples: bool | Sequence[str] = True,
        tls: bool = True,
        port: int = 0,
        secret: str | None = None,
        host: str = "127.0.0.1",
        lv2v: Sequence[Mapping[str, Any]] = (),
        paid: PaidMode | bool = False,
    ) -> None:
        self._names = SampleRunners.checked_names(samples)
        self._tls = tls
        self._port = port
        self._host = host
        self._models = checked_models(lv2v)
        self._secret = secret or secrets.token_hex(16)
        self._paid = PaidMode() if paid is True else paid or None
        self._signers = Signers(self._paid) if self._paid is not None else None
        self._url = ""
        self._orchestrator: Child | None = None
        self._samples: SampleRunners | None = None

    # ------------------------------------------------------------------ what it is

    @property
    def orch_url(self) -> str:
        """The orchestrator's address, ``https://127.0.0.1:PORT``."""
        self._running()
        return self._url

    @property
    def orch_secret(self) -> str:
        """What runners register with."""
        return self._secret

    @property
    def pid(self) -> int:
        """The process id of the orchestrator."""
        return self._running().pid

    @property
    def samples(self) -> SampleRunners | None:
        """The process of the sample capabilities, unless there are none."""
        return self._samples

    def env(self) -> dict[str, str]:
        """The environment variables that point the client, ``serve()`` and the command at this network."""
        variables = {"LIVEPEER_ORCH_URL": self.orch_url, "LIVEPEER_ORCH_SECRET": self.orch_secret}
        return variables | ({"LIVEPEER_SIGNER_URL": self.signer_url} if self._signers is not None else {})

    # ------------------------------------------------------------------ what it costs

    @property
    def signers(self) -> Mapping[str, Signer]:
        """The signers of a paid network by their names."""
        return self._money().by_name

    @property
    def signer_url(self) -> str:
        """The address of a paid network's first signer, which is rich by default."""
        self._running()
        return next(iter(self.signers.values())).url

    @property
    def gateways(self) -> Mapping[str, GatewayNode]:
        """The gateway nodes of a paid network by their names."""
        return self._money().gateways

    @property
    def gateway_url(self) -> str:
        """The address of a paid network's first gateway node, which is rich by default."""
        self._running()
        return next(iter(self.gateways.values())).url

    def credited(self, manifest_id: str) -> Fraction:
        """What the orchestrator credited for a session, in wei: the expected value of every good ticket."""
        return self._money().account(manifest_id)["credited"]

    def debited(self, manifest_id: str) -> Fraction:
        """What it charged for it, in wei."""
        return self._money().account(manifest_id)["debited"]

    def balance(self, manifest_id: str) -> Fraction:
        """What is left of it, in wei; the account of a session that nobody paid for has nothing."""
        return self._money().account(manifest_id)["amount"]

    def mine(self, blocks: int) -> None:
        """Let blocks pass on the chain; 41 of them end every ticket parameter."""
        self._money().mine(blocks)

    def raise_prices(self, factor: float) -> None:
        """Let the orchestrator ask for so many times as much as it lists, of sessions under way, too.

        A fault: go-livepeer keeps the price of a session. 1 ends it.
        """
        self._money().tell_orchestrator("surcharge", factor)

    def set_eth_usd(self, eth_usd: float) -> None:
        """Change what ETH costs in US dollars, and with it what runners cost in wei, for new sessions."""
        self._money().changed(eth_usd=eth_usd)

    # ------------------------------------------------------------------ what it does

    def start(self) -> LocalNetwork:
        """Start everything, and return when every sample is registered.

        Raises:
            LivepeerError: A process did not start, such as because the port is taken.
        """
        if self._orchestrator is not None:
            return self
        orchestrator = Child("livepeer.devkit.network.host", "The embedded orchestrator")
        # They load while the other starts. A restart is no attack here, and there may be many in a minute.
        samples = SampleRunners(self._names, tls="insecure") if self._names else None
        try:
            if self._signers is not None:
                self._signers.start()
            self._say_hello(orchestrator)
            if samples is not None:
                samples.start(self._url, self._secret, paid=self._paid is not None)
                self._samples = samples
        except BaseException:
            orchestrator.kill()
            if self._signers is not None:
                self._signers.kill()
            if samples is not None:
                samples.kill()
            self._orchestrator = None
            raise
        return self

    def stop(self) -> None:
        """End everything; nothing is left of it when this returns. Stopping twice is no error."""
        samples, self._samples = self._samples, None
        orchestrator, self._orchestrator = self._orchestrator, None
        try:
            if samples is not None:
                samples.stop()
        finally:
            if self._signers is not None:
                self._signers.kill()
            if orchestrator is not None:
                orchestrator.stop()

    def restart(self) -> None:
        """Kill the orchestrator and start it again: same port, new certificate, everything forgotten.

        Calls under way are cut without an answer. The samples notice and register again (`wait_for`). The
        signers of a paid network stay.
        """
        self._running().kill()
        self._orchestrator = None
        for attempt in range(_RETRIES):
            child = Child("livepeer.devkit.network.host", "The embedded orchestrator")
            try:
                self._say_hello(child)
            except LivepeerError:
                if attempt + 1 == _RETRIES:
                    raise
                time.sleep(0.05)
            else:
                return

    def wait_for(self, app: str, timeout: float = 30.0) -> None:
        """Wait until a capability is listed by the orchestrator's discovery, or free as a BYOC capability.

        Args:
            app: The capability's name.
            timeout: In seconds.

        Raises:
            LivepeerError: It isn't there in time.
        """
        deadline = time.monotonic() + timeout
        while True:
            listed = [runner["app"] for runner in self._discovered()]
            if app in listed or self._free(app):
                return
            if time.monotonic() > deadline:
                raise LivepeerError(
                    f"No runner registered {app!r} within {timeout:g} s; registered are {listed or 'none'}.",
                    orchestrator=self._url,
                )
            time.sleep(0.05)

    def __enter__(self) -> LocalNetwork:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> LocalNetwork:
        starting = asyncio.create_task(asyncio.to_thread(self.start))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait({starting})  # a thread can't be cancelled, and what it started must end
            if not starting.cancelled():
                starting.exception()
            await asyncio.to_thread(self.stop)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.shield(asyncio.to_thread(self.stop))

    # ------------------------------------------------------------------ inside

    def _running(self) -> Child:
        if self._orchestrator is None:
            raise ConfigurationError(
                "The network isn't running.", hint="Enter it with `with LocalNetwork() as network:` first."
            )
        return self._orchestrator

    def _money(self) -> Signers:
        if self._signers is None:
            raise ConfigurationError(
                "Nothing costs anything on this network.", hint="Make it with LocalNetwork(paid=True)."
            )
        return self._signers

    def _say_hello(self, child: Child) -> None:
        settings = {
            "host": self._host,
            "port": self._port,
            "secret": self._secret,
            "tls": self._tls,
            "models": self._models,
            "paid": self._signers.orchestrator_settings if self._signers is not None else None,
        }
        patience = START_TIMEOUT * len(self._models) + _STARTING
        told = child.start(settings, timeout=patience)
        self._orchestrator, self._url, self._port = child, told["url"], told["port"]
        if self._signers is not None:
            models = sorted({f"{PIPELINE}/{model['model_id']}" for model in self._models})
            self._signers.meet(self._url, models, told["control"])

    def _discovered(self) -> list[dict[str, Any]]:
        listed = self._ask("/discovery", {})
        return list(listed[0].get("runners", [])) if listed else []

    def _free(self, capability: str) -> int:
        headers: dict[str, str | bytes] = {
            "Livepeer-Eth-Address": _NOBODY,
            "Livepeer-Capability": capability.encode(),
        }
        return int((self._ask("/process/token", headers) or {}).get("available_capacity", 0))

    def _ask(self, path: str, headers: Mapping[str, str | bytes]) -> Any:
        """The JSON of an answer; None when there is none."""
        self._running()
        parts = urlsplit(self._url)
        host, port = parts.hostname or "", parts.port
        connection = http.client.HTTPConnection(host, port, timeout=5)
        if parts.scheme == "https":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it signs for itself
            connection = http.client.HTTPSConnection(host, port, timeout=5, context=context)
        try:
            connection.request("GET", path, headers=headers)
            return json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()
