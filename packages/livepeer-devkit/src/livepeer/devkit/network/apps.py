"""The client side: single-shot calls, sessions, and what leads to a runner (``ai_http.go``, v0.9.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from . import answers, paths
from .mux import Mux, split_target
from .proxying import Cut, Proxy, Target
from .records import Runner, Session
from .registry import Registry
from .validation import Refused

if TYPE_CHECKING:
    from .paid.reservations import Reservations

__all__ = ["Apps"]

_RUN = "/run/"


class Apps:
    """The calls under ``/apps/`` and ``/run/``."""

    def __init__(self, registry: Registry, proxy: Proxy, paid: Reservations | None = None) -> None:
        self._registry = registry
        self._proxy = proxy
        self._paid = paid

    def add_routes(self, mux: Mux) -> None:
        """Serve these calls, except ``/run/``, which goes before the table of patterns (`run`)."""
        mux.handle("POST /apps/{runner_id}/session", self.reserve)
        mux.handle("POST /apps/{runner_id}/session/{session_id}/stop", self.stop)
        mux.handle("POST /apps/{runner_id}/session/{session_id}/payment", self.pay)
        mux.handle("/apps/{runner_id}/session/{session_id}/app/{app_path...}", self.session)
        mux.handle("/apps/{runner_id}/app/{app_path...}", self.single_shot)

    async def reserve(self, request: web.Request, values: Mapping[str, bytes]) -> web.StreamResponse:
        """Begin a session of a persistent runner."""
        runner_id = _text(values["runner_id"])
        if self._registry.ready(runner_id).mode != "persistent":
            raise Refused("only persistent runners have sessions", 400)
        reserve = self._registry.reserve if self._paid is None else partial(self._paid.reserve, request)
        runner, session, app_url = reserve(runner_id)
        control_url = f"{self._registry.public_url}/apps/{runner.id}/session/{session.id}"
        return answers.json_answer({"session_id": session.id, "app_url": app_url, "control_url": control_url})

    async def stop(self, _request: web.Request, values: Mapping[str, bytes]) -> web.StreamResponse:
        """End a session; one that is over, or never was, ends just so."""
        self._registry.release(_text(values["runner_id"]), _text(values["session_id"]))
        return answers.no_content()

    async def pay(self, request: web.Request, values: Mapping[str, bytes]) -> web.StreamResponse:
        """Take a payment for a session; offchain there is nothing to pay."""
        runner_id, session_id = _text(values["runner_id"]), _text(values["session_id"])
        if self._paid is None:
            self._registry.session(runner_id, session_id)
            return answers.error("missing auth token", 403)
        from .paid.payment_calls import payment_result

        return payment_result(self._paid.top_up(request, runner_id, session_id))

    async def session(self, request: web.Request, values: Mapping[str, bytes]) -> web.StreamResponse:
        """Carry a request of a session to its runner."""
        runner, session = self._registry.session(_text(values["runner_id"]), _text(values["session_id"]))
        return await self._carry(request, runner, session, runner.url, values["app_path"])

    async def single_shot(self, request: web.Request, values: Mapping[str, bytes]) -> web.StreamResponse:
        """Carry one request to a runner, in a session that lasts as long."""
        runner_id = _text(values["runner_id"])
        if self._registry.ready(runner_id).mode != "single-shot":
            raise Refused("runner is not single-shot", 400)
        cut = Cut()
        if self._paid is None:
            runner, session, url = self._registry.reserve(runner_id)
        else:
            runner, session, url = self._paid.reserve(request, runner_id, cut.now)
        try:
            carrying = self._carry(request, runner, session, url, values["app_path"], on_answer=cut.answered)
            return await cut.carry(request, carrying)
        finally:
            self._registry.drop(runner, session)

    async def run(self, request: web.Request) -> web.StreamResponse | None:
        """Carry a request to a session's own address; None when it isn't one of ours."""
        path, query = split_target(request.raw_path)
        if not path.startswith(_RUN) or request.host.lower() != self._registry.public_url.partition("://")[2]:
            return None
        proxy_id, _, rest = paths.unescape(path[len(_RUN) :]).partition(b"/")
        if not proxy_id:
            return None
        runner, session, url = self._registry.proxy_target(_text(proxy_id))
        if session is not None:
            return await self._carry(request, runner, session, url, rest)
        try:
            once = paths.join("", rest).encode("utf-8", "surrogateescape")[1:]
        except paths.PathError:
            raise Refused("invalid live runner proxy path", 502) from None
        if not once:
            return answers.redirect(f"/apps/{runner.id}/app/{query}", request.method)
        return await self.single_shot(request, {"runner_id": runner.id.encode(), "app_path": once})

    async def _carry(
        self,
        request: web.Request,
        runner: Runner,
        session: Session,
        url: str,
        app_path: bytes,
        *,
        on_answer: Callable[[], object] = lambda: None,
    ) -> web.StreamResponse:
        control_url = f"{self._registry.public_url}/runner/{runner.id}/session/{session.id}"
        token = runner.session_token(session.id)
        target = Target(url, app_path, runner.id, session.id, token, control_url)
        return await self._proxy.carry(request, target, on_answer)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
