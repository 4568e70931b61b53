"""The webhook that a remote signer asks (``server/remote_signer.go``, ``authLivePayment``, v0.9.1)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import web

from .. import gojson
from ..answers import canonical
from .remote_signer import Draft
from .signer_request import SigningRefused, check_ceiling, read_max_price

__all__ = ["Webhook"]

_PATIENCE = 5.0  # seconds
_ANSWER: Mapping[str, gojson.Kind] = {
    "status": "int?",
    "reason": "string",
    "expiry": "int64",
    "auth_id": "string",
    "maxPrice": {
        "": "runner.LiveRunnerPriceInfo",
        "price": "number",
        "currency": "string",
        "unit": "string",
    },
}


class Webhook:
    """Asks before a payment is handed out.

    Args:
        url: Where; nobody is asked when it is empty.
        headers: What goes with the question.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url
        self._headers = dict(headers)

    async def allow(self, request: web.Request, draft: Draft) -> None:
        """Ask, unless an earlier answer is still good, and note the answer in the new state.

        Raises:
            SigningRefused: The webhook said no, or nothing that can be understood.
        """
        state, told = draft.state, None
        if self._url and not (state.auth_expiry and time.time() < state.auth_expiry + 1):
            told = await self._ask(request, draft)
            state.auth_expiry = told["expiry"]
            if told["maxPrice"] is not None:
                self._check_price(draft, told["maxPrice"])
        who = request.headers.get("Signer-Auth-Id", "")
        if told is not None and told["auth_id"]:
            who = told["auth_id"]
        if who and state.auth_id != who:
            if state.auth_id:
                raise SigningRefused("remote signer auth ID changed", 500)
            state.auth_id = who

    async def _ask(self, request: web.Request, draft: Draft) -> dict[str, Any]:
        headers: dict[str, list[str]] = {}
        for name, value in request.headers.items():
            if name.lower() != "host":
                headers.setdefault(canonical(name), []).append(value)
        body = gojson.encode({"headers": dict(sorted(headers.items())), "state": draft.state.fields})
        sent = {"Content-Type": "application/json"} | self._headers
        timeout = aiohttp.ClientTimeout(total=_PATIENCE)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(self._url, data=body, headers=sent) as answer,
            ):
                text = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise SigningRefused(f"failed to call remote signer webhook: {error}", 500) from None
        if answer.status != 200:
            raise SigningRefused(f"signer auth error status {answer.status}", 500)
        try:
            told = gojson.unmarshal(text, "server.authResponse", _ANSWER)
        except gojson.GoJSONError as error:
            raise SigningRefused(f"signer auth invalid response: {error}", 500) from None
        status = told["status"]
        if status is None or status <= 0:
            raise SigningRefused("signer auth invalid status", 500)
        if status != 200:
            reason = told["reason"] or f"signer auth rejected request with status {status}"
            raise SigningRefused(reason, status)
        return told

    @staticmethod
    def _check_price(draft: Draft, told: Mapping[str, Any]) -> None:
        try:
            limit = read_max_price(told, draft.kind)
        except ValueError as error:
            raise SigningRefused(f"signer auth invalid maxPrice: {error}", 502) from None
        check_ceiling(draft.price, limit, "auth webhook maxPrice")
