"""The route to live video-to-video, the built-in pipeline of orchestrators with an AI worker.

Source: ``server/ai_http.go`` of go-livepeer v0.9.1 (``StartLiveVideoToVideo``). The orchestrator names the
job; nobody who has not read its answer can end it. So the answer is waited for as long as the container takes
to start, and whoever is cancelled meanwhile leaves the wait to `Lifecycle`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from .._http import Pool, unsent
from .._urls import allowed, join_path
from ..errors import ConfigurationError, ConnectionFailed, LivepeerError
from ..records import place_of
from ..timeouts import Timeout
from . import Answer, Call, LiveCall, Started
from ._health import ask_channels
from ._lv2v_verdict import PIPELINE, dropped, job_refused, unknown_model
from ._sending import send
from ._starting import CHANNELS, json_object, start_body, tell

if TYPE_CHECKING:
    from .._grpc.lp_rpc_pb2 import OrchestratorInfo
    from .._payer import Identity
    from ..payments.keeper import Keeper
    from ..payments.wallet import Wallet

__all__ = ["PIPELINE", "LV2VRoute"]

_CAPABILITY = 35  # its number in gRPC
_NAME = re.compile(r"[A-Za-z0-9_-]+")


class LV2VRoute:
    """Starts live video-to-video at one orchestrator.

    Args:
        orchestrator: Its URL.
        pool: The gateway's connections.
        wallet: What pays; None where no signer is configured.
    """

    name = "lv2v"

    def __init__(self, orchestrator: str, pool: Pool, wallet: Wallet | None = None) -> None:
        self.orchestrator: str = orchestrator
        self.place: str = place_of(orchestrator, PIPELINE)
        self._pool = pool
        self._wallet = wallet
        self.begun: bool = False
        """Whether a job was asked for."""

    async def open(self, call: Call) -> Answer:
        """Not here: it has sessions only."""
        raise ConfigurationError(f"{call.capability!r} takes no calls: it is live, for gw.live(…).")

    async def open_live(self, call: LiveCall) -> Started:
        """Get a token, start a job with it, and take its four channels.

        Raises:
            CapabilityNotFound: The orchestrator has no such model, or no AI worker.
            CapabilityError: The container refused, with its status.
            CapacityError: All places are taken.
            OrchestratorError: The container is not there, or the orchestrator refused.
            ConnectionFailed: Nobody is there; or the connection dropped, and the job may have begun.
            ConfigurationError: `model` is missing where there are several.
        """
        from .._grpc.orchestrator import get_orchestrator

        if call.path is not None:
            raise ConfigurationError(f"path={call.path!r} means nothing to {PIPELINE!r}; leave it out.")
        details: dict[str, Any] = {"orchestrator": self.orchestrator, "request_id": call.request_id}
        info = await get_orchestrator(
            self.orchestrator,
            self._pool,
            capability=_CAPABILITY,
            model=call.model,
            request_id=call.request_id,
            payer=await self._identity(call),
        )
        model, models = _choose_model(info, call.model, details)
        transcoder = allowed(info.transcoder or self.orchestrator, self.orchestrator, "transcoder URL")

        def judge(status: int, _: Mapping[str, str], content: bytes) -> LivepeerError:
            return job_refused(status, content, model=model, models=models, details=details)

        headers = {"Livepeer-Payment": "", "Livepeer-Segment": _segment(info)}
        payment = None
        if self._wallet is not None and info.HasField("ticket_params") and info.price_info.pricePerUnit:
            from ._lv2v_payment import FirstPayment

            payment = FirstPayment(self._pool, self._wallet, self.orchestrator, call)
            headers = dict(await payment.headers(info, model, join_path(transcoder, "/payment")))
        # What it advertises of its capacity is not looked at: external containers advertise none.
        body = start_body(
            model_id=model,
            params=call.params,
            gateway_request_id=call.request_id,
            stream_id=call.stream_id,
        )
        self.begun = True
        paid = payment is not None
        try:
            async with (
                contextlib.nullcontext() if payment is None else payment.leaving(),
                self._pool.reserving(transcoder, **details),
            ):
                response, _ = await send(
                    self._pool,
                    join_path(transcoder, f"/{PIPELINE}"),
                    Call(PIPELINE, body, Timeout(), call.request_id, paid=paid),
                    route=self.name,
                    headers=headers,
                    orchestrator=self.orchestrator,
                    judge=judge,
                )
                answer = await json_object(response, f"The start of {model!r}", **details)
        except ConnectionFailed as error:
            if isinstance(error.__cause__, OSError) and not unsent(error):
                raise dropped(model, details) from error
            raise
        keeper = payment.keep(str(answer.get("manifest_id", ""))) if payment is not None else None
        return await self._started(answer, transcoder, model, keeper)

    async def _identity(self, call: LiveCall) -> Identity | None:
        """The wallet, which an orchestrator on a chain wants to know before it tells what it has."""
        if self._wallet is None:
            return None
        from .._payer import identity_of

        return identity_of(*await self._wallet.payer(request_id=call.request_id))

    async def _started(
        self, answer: dict[str, Any], transcoder: str, model: str, keeper: Keeper | None = None
    ) -> Started:
        manifest_id = str(answer.get("manifest_id", ""))
        started = Started(
            answer,
            self.orchestrator,
            f"{PIPELINE}/{model}",
            manifest_id,
            self._stop_of(answer, transcoder, keeper),
            ask_channels,
            input_ends_all=True,
            keeper=keeper,
        )
        if keeper is not None:

            def end(_: LivepeerError) -> None:
                self._pool.adopt(started.stop)

            keeper.on_over.append(end)
        try:
            for role in CHANNELS:
                url = answer.get(f"{role}_url")
                if url:
                    started.urls[role] = allowed(url, self.orchestrator, f"{role} URL")
        except LivepeerError:
            await asyncio.shield(self._pool.adopt(started.stop))
            raise
        return started

    def _stop_of(
        self, answer: dict[str, Any], transcoder: str, keeper: Keeper | None
    ) -> Callable[[], Coroutine[Any, Any, None]]:
        """What ends the job: the end of its media-in channel."""
        manifest_id = str(answer.get("manifest_id", ""))
        # By its name at the orchestrator's own address, where the URL that came may not be called.
        url = join_path(transcoder, f"/ai/trickle/{manifest_id}") if _NAME.fullmatch(manifest_id) else None
        with contextlib.suppress(LivepeerError):
            url = allowed(answer.get("publish_url"), self.orchestrator, "publish URL")

        async def stop() -> None:
            if keeper is not None:
                await keeper.stop()
            if url is not None:
                await tell(self._pool, "DELETE", url)

        return stop


def _segment(info: OrchestratorInfo) -> str:
    """The header that says which token a job has."""
    from .._grpc.lp_rpc_pb2 import SegData

    return base64.b64encode(SegData(auth_token=info.auth_token).SerializeToString()).decode()


def _choose_model(
    info: OrchestratorInfo, model: str | None, details: dict[str, Any]
) -> tuple[str, tuple[str, ...]]:
    """The model to ask for, and those that there are."""
    there = any(bits >> _CAPABILITY % 64 & 1 for bits in info.capabilities.bitstring[:1])
    models = tuple(sorted(info.capabilities.constraints.PerCapability[_CAPABILITY].models)) if there else ()
    if not there:
        raise unknown_model(model, (), details)
    if model is not None:
        return model, models
    if len(models) == 1:
        return models[0], models
    if not models:
        raise unknown_model(None, (), details)
    raise ConfigurationError(
        f"{PIPELINE!r} needs a model here: model= one of {', '.join(models)}.", **details
    )
