"""The route to live runners: any HTTP application behind an orchestrator (go-livepeer v0.9.1, /apps)."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from .._http import Pool
from .._observing import Observation
from .._urls import allowed, check_path, join_path
from ..catalogue import Runner
from ..errors import CapabilityError, LivepeerError
from ..inputs import Body
from ..payments.ledger import Bill
from ..timeouts import Timeout, out_of_time
from . import Answer, Call, LiveCall, Started, paying
from ._health import ask_worker
from ._sending import send
from ._starting import CHANNELS, json_object, start_body, tell
from ._verdict import verdict

if TYPE_CHECKING:
    from livepeer.trickle._exchange import Exchange
    from livepeer.trickle.transport import Reply

    from ..payments.keeper import Keeper
    from ..payments.wallet import Wallet

__all__ = ["LiveRunnerRoute"]

T = TypeVar("T", bound=tuple[Any, ...])
Stop = Callable[[], Coroutine[Any, Any, None]]

_logger = logging.getLogger("livepeer.client")
_GIVE_BACK = 10.0  # seconds that the gateway waits for it then, and its closing with it
_NOTHING = Body(b"", "application/json")
_NONE: Mapping[str, str] = MappingProxyType({})
_STOP_PATIENCE = 5.0  # seconds that a cancelled caller waits for a reservation in flight


class LiveRunnerRoute:
    """Calls one runner of one orchestrator."""

    name = "live_runner"

    def __init__(self, runner: Runner, pool: Pool, wallet: Wallet | None = None) -> None:
        self.orchestrator: str = runner.orchestrator
        self.place: str = runner.url
        self._runner = runner
        self._pool = pool
        self._wallet = wallet

    async def open(self, call: Call) -> Answer:
        """Send a request; on a persistent runner in a session of its own, ended with the answer."""
        path = check_path(call.path if call.path is not None else self._advertised("run") or "/run")
        if self._runner.mode == "single-shot":
            url = join_path(self._runner.url, path)
            sent, keeper = await self._send_paid(url, call, control=False)
            return self._answer(*sent, keeper=keeper)
        _, app_url, stop, keeper = await self._unless_abandoned(self._reserve(call), call.bill)
        try:
            async with paying(keeper):
                sent = await self._send(join_path(app_url, path), call, control=False)
        except BaseException:
            self._pool.adopt(stop)  # in the gateway's care, so that a cancelled caller doesn't wait for it
            raise
        return self._answer(*sent, stop, keeper=keeper)

    async def open_live(self, call: LiveCall) -> Started:
        """Reserve a session and ask the worker to open its channels."""
        advertised = self._advertised("live")
        path = check_path(call.path if call.path is not None else advertised or "/live")
        body = start_body(
            model_id=call.model,
            params=call.params,
            gateway_request_id=call.request_id,
            stream_id=call.stream_id,
        )
        reserving = Call(
            call.capability, _NOTHING, Timeout(), call.request_id, max_price=call.max_price, bill=call.bill
        )
        session_id, app_url, stop, keeper = await self._reserve(reserving)
        started = Started(
            {},
            self._runner.orchestrator,
            self._runner.app,
            session_id,
            stop,
            ask_worker,
            app_url,
            takes_lines="livepeer" in self._runner.metadata,  # runners of this SDK say so
            keeper=keeper,
        )
        request = Call(call.capability, body, Timeout(), call.request_id)
        try:
            async with paying(keeper):
                response, _ = await self._send(join_path(app_url, path), request)
                started.raw = await self._object(response, request, "The start of a session")
            for role in CHANNELS:
                url = started.raw.get(f"{role}_url")
                if url:
                    started.urls[role] = allowed(url, self._runner.orchestrator, f"{role} URL")
        except CapabilityError as error:
            if error.status in (404, 405) and call.path is None and advertised is None:
                return started  # an application with sessions, and no channels
            await stop()
            raise
        except BaseException:
            self._pool.adopt(stop)
            raise
        return started

    def _answer(
        self,
        response: Reply,
        seen: Observation | None,
        stop: Stop | None = None,
        *,
        keeper: Keeper | None = None,
    ) -> Answer:
        runner = self._runner
        answer = Answer(
            response,
            orchestrator=runner.orchestrator,
            app=runner.app,
            price=str(runner.price) if runner.price else None,
            release=(lambda: self._pool.adopt(stop)) if stop else None,
            seen=seen,
            keeper=keeper,
        )
        self._pool.track(answer)
        return answer

    def _advertised(self, name: str) -> str | None:
        """The path that the runner's metadata names for a verb."""
        path = self._runner.metadata.get(name)
        return path if isinstance(path, str) else None

    async def _reserve(self, call: Call) -> tuple[str, str, Stop, Keeper | None]:
        """Reserve a session for a call; its id, its app's URL, what ends it, and what goes on paying."""
        call = dataclasses.replace(call, capability=self._runner.app, body=_NOTHING, method="POST")
        details = {"orchestrator": self._runner.orchestrator, "request_id": call.request_id}
        async with self._pool.reserving(self._runner.url, **details):
            (response, _), keeper = await self._send_paid(self._runner.url, call)
            try:
                answer = await self._object(response, call, "The reservation of a session")
                control = allowed(answer.get("control_url"), self._runner.orchestrator, "control URL")
                app_url = allowed(answer.get("app_url"), self._runner.orchestrator, "app URL")
            except BaseException:
                if keeper is not None:
                    keeper.halt()
                raise

        async def stop() -> None:
            if keeper is not None:
                await keeper.stop()
            await tell(self._pool, "POST", join_path(control, "/stop"))

        if keeper is not None:

            def end(_: LivepeerError) -> None:
                self._pool.adopt(stop)

            keeper.on_over.append(end)
        return str(answer.get("session_id", "")), app_url, stop, keeper

    async def _unless_abandoned(self, reserving: Coroutine[Any, Any, T], bill: Bill) -> T:
        """Await a reservation; when the caller is cancelled meanwhile, end the session it brings.

        Nothing is paid for it then that hasn't been paid yet.
        """
        task = asyncio.ensure_future(reserving)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            bill.closed = True

            async def give_back() -> None:
                try:
                    async with asyncio.timeout(_GIVE_BACK):
                        _, _, stop, _ = await task
                except (LivepeerError, TimeoutError):
                    return
                await stop()

            giving_back = self._pool.adopt(give_back)
            if not out_of_time():
                # Waited for, as nothing brings the session's name once `asyncio.run` has cancelled this.
                await asyncio.wait({giving_back}, timeout=_STOP_PATIENCE)
            raise

    async def _send_paid(
        self, url: str, call: Call, *, control: bool = True
    ) -> tuple[tuple[Reply, Observation | None], Keeper | None]:
        """Send what the orchestrator may want to be paid for, and go on paying."""
        runner, wallet = self._runner, self._wallet
        if wallet is None or runner.price is None:
            return await self._send(url, call, control=control), None
        from ..payments.keeper import Keeper
        from ._paid import paid

        keeper = Keeper(self._pool, runner.orchestrator, call.request_id)
        ahead: list[Exchange] = []

        async def prepare() -> None:
            if not ahead:
                transport = await self._pool.transport()
                ahead.append(transport.ahead(url, escaped=True, connect=call.timeout.connect))

        async def send(headers: Mapping[str, str], leaves: bool) -> tuple[Reply, Observation | None]:
            return await self._send(
                url, dataclasses.replace(call, paid=leaves), control=control, headers=headers, asked=True,
                ahead=ahead.pop() if leaves and ahead else None,
            )  # fmt: skip

        try:
            async with keeper.guard():
                sent = await paid(
                    wallet, send,
                    orchestrator=runner.orchestrator, place=runner.url, price=runner.price, app=runner.app,
                    limit=call.max_price, bill=call.bill, request_id=call.request_id, on_paid=keeper.begin,
                    prepare=prepare,
                )  # fmt: skip
        except BaseException:
            keeper.halt()
            raise
        finally:
            for one in ahead:
                one.close()
        return sent, keeper

    async def _send(
        self,
        url: str,
        call: Call,
        *,
        control: bool = True,
        headers: Mapping[str, str] = _NONE,
        asked: bool = False,
        ahead: Exchange | None = None,
    ) -> tuple[Reply, Observation | None]:
        """Send, and return the response when its head is there; a status outside of 2xx raises."""
        orchestrator = self._runner.orchestrator
        details = {"orchestrator": orchestrator, "request_id": call.request_id}

        def judge(status: int, headers: Mapping[str, str], body: bytes) -> LivepeerError:
            if asked:
                from ._paid_verdict import paid_verdict

                error = paid_verdict(status, headers, body, paid=call.paid, **details)
                if error is not None:
                    return error
            return verdict(
                status, headers, body, capability=call.capability, pays=self._wallet is not None, **details
            )  # fmt: skip

        return await send(
            self._pool, url, call, route=self.name, control=control,
            headers={"X-Request-Id": call.request_id, **headers}, orchestrator=orchestrator, judge=judge,
            ahead=ahead,
        )  # fmt: skip

    async def _object(self, response: Reply, call: Call, what: str) -> dict[str, Any]:
        return await json_object(
            response, what, orchestrator=self._runner.orchestrator, request_id=call.request_id
        )
