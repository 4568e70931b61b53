"""A bare caller who pays: a 402, a signer, and what comes of it, step by step."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple, Self

import aiohttp
from harness import UNVERIFIED
from paid_harness import PaidNetwork
from paid_workers import Runner

from livepeer.client._grpc import lp_rpc_pb2 as net

__all__ = ["Answer", "Payer", "message", "payment_in", "value_of"]

Headers = dict[str, str]
_CERTAIN = 2**256 - 1  # the win probability of a ticket that always wins


class Answer(NamedTuple):
    """What came back."""

    status: int
    text: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def said(self) -> tuple[int, str]:
        """Status and text."""
        return self.status, self.text

    def json(self) -> Any:
        return json.loads(self.body)


class Payer:
    """A caller of a network by one of its signers."""

    def __init__(self, network: PaidNetwork, signer: str) -> None:
        self.network = network
        self.signer = network.signers[signer]
        self._http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._http.close()

    @property
    def known(self) -> Headers:
        """The header that says who will pay."""
        return {"Livepeer-Payer-Address": self.signer.address}

    async def post(self, url: str, method: str = "POST", **options: Any) -> Answer:
        """A request; nothing is expected of the answer."""
        options.setdefault("timeout", aiohttp.ClientTimeout(total=240))
        async with self._http.request(
            method, url, ssl=UNVERIFIED, allow_redirects=False, **options
        ) as answer:
            body = await answer.read()
            return Answer(answer.status, body.decode("utf-8", "replace"), answer.headers, body)

    async def challenge(self, url: str) -> dict[str, Any]:
        """The 402 of a call."""
        answer = await self.post(url, headers=self.known)
        assert answer.status == 402, answer
        told: dict[str, Any] = answer.json()
        return told

    async def ask_signer(self, **fields: Any) -> Answer:
        """``POST /generate-live-payment`` with these fields."""
        return await self.post(f"{self.signer.url}/generate-live-payment", json=fields)

    async def try_to_sign(
        self,
        challenge: Mapping[str, Any],
        kind: str,
        state: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Answer:
        """Ask for a payment; nothing is expected of the answer."""
        asked = {
            "orchestrator": challenge["payment_params"],
            "ManifestID": challenge["manifest_id"],
            "type": kind,
            **({"state": state} if state is not None else {}),
            **fields,
        }
        url = f"{self.signer.url}/generate-live-payment"
        return await self.post(url, json=asked, headers=headers)

    async def sign(
        self,
        challenge: Mapping[str, Any],
        kind: str,
        state: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> tuple[Headers, dict[str, str]]:
        """A payment's two headers, and the signer's state after it."""
        answer = await self.try_to_sign(challenge, kind, state, **fields)
        assert answer.status == 200, answer
        told = answer.json()
        return {"Livepeer-Payment": told["payment"], "Livepeer-Segment": told["segCreds"]}, told["state"]

    async def session(self, runner: Runner) -> tuple[dict[str, Any], Headers, dict[str, str], dict[str, Any]]:
        """Reserve a paid session: the challenge, the payment, the state, and what the orchestrator said."""
        challenge = await self.challenge(runner.entry)
        headers, state = await self.sign(challenge, runner.kind)
        answer = await self.post(runner.entry, headers=headers)
        assert answer.status == 200, answer
        return challenge, headers, state, answer.json()

    async def refresh(self, challenge: Mapping[str, Any], sender: str | None = None) -> Answer:
        """``POST /refresh-payment`` for a challenge's session."""
        asked = {"sender": sender or self.signer.address, "manifest_id": challenge["manifest_id"]}
        return await self.post(f"{self.network.url}/refresh-payment", json=asked)


def payment_in(headers: Mapping[str, str]) -> net.Payment:
    """What is in the payment header."""
    return net.Payment.FromString(base64.b64decode(headers["Livepeer-Payment"]))


def value_of(headers: Mapping[str, str]) -> Fraction:
    """The expected value of a payment in wei, computed from what is in it."""
    payment = payment_in(headers)
    face_value = int.from_bytes(payment.ticket_params.face_value, "big")
    win_prob = int.from_bytes(payment.ticket_params.win_prob, "big")
    return len(payment.ticket_sender_params) * Fraction(face_value * win_prob, _CERTAIN)


def message(answer: Answer) -> str:
    """The message of an error in JSON."""
    text: str = answer.json()["error"]["message"]
    return text
