"""Whose wallet pays: signers are asked in turn, their headers stay theirs, and orchestrators are shown it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from livepeer.client import Gateway, PaymentUnsupported, SignerError

ADDRESS, SIGNATURE = "0x" + "Ab" * 20, "0x" + "cd" * 65
GOOD = {"address": ADDRESS, "signature": SIGNATURE}


class Signer:
    """A bare socket that answers POST requests. It signs no BYOC jobs, as no released signer does.

    Args:
        serve: The fixture `raw_server`.
        answers: The status and the JSON or text of each answer, the last one for ever.
    """

    def __init__(self, serve: Callable[..., str], *answers: tuple[int, Any]) -> None:
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self._answers = list(answers)
        self.url = serve(self._answer)

    def _answer(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += connection.recv(65536)
        if "/sign-byoc-job" in first:
            status, told = 404, "404 page not found"
        else:
            self.asked.append((first.split()[1], headers, body))
            status, told = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        content = (told if isinstance(told, str) else json.dumps(told)).encode()
        connection.sendall(
            f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode()
            + content
        )


@pytest.fixture
def tokens(orch: Any) -> list[dict[str, str]]:
    """An orchestrator on a chain, which has "job" at a price: what it was told of the callers' wallets."""
    senders: list[dict[str, str]] = []

    async def answer(_: Any, request: web.Request) -> web.Response:
        assert request.path == "/process/token"
        senders.append(json.loads(base64.b64decode(request.headers["Livepeer-Eth-Address"])))
        if not senders[-1]["sig"]:
            return web.Response(status=400, text="Invalid eth address header \n")
        told: dict[str, Any] = {"ticket_params": {"recipient": ""}, "price": {"pixelsPerUnit": 1}}
        if request.headers["Livepeer-Capability"] == "job":
            told |= {"price": {"pricePerUnit": 7, "pixelsPerUnit": 1}, "available_capacity": 1}
        return web.json_response(told)

    orch.byoc = answer
    return senders


async def test_an_orchestrator_is_shown_the_wallet(
    orch: Any, tokens: list[dict[str, str]], raw_server: Any
) -> None:
    signer = Signer(raw_server, (200, GOOD))
    headers = {"Authorization": "Bearer hush"}
    async with Gateway(orch_url=orch.url, signer_url=f"{signer.url}/p?k=v", signer_headers=headers) as gw:
        with pytest.raises(PaymentUnsupported, match="costs 7 wei/second"):
            await gw.run_async("job")
        await asyncio.gather(*(gw.explain_async(f"job{number}") for number in range(5)))
    assert tokens[0] == {"addr": ADDRESS, "sig": SIGNATURE}
    [(target, sent, body)] = signer.asked  # once for all
    assert (target, sent["authorization"], body) == ("/p/sign-orchestrator-info?k=v", "Bearer hush", b"{}")
    assert not any("authorization" in {name.lower() for name in seen.headers} for seen in orch.seen)


async def test_the_next_signer_is_asked_when_one_fails(
    orch: Any, tokens: list[dict[str, str]], raw_server: Any
) -> None:
    bad, good = Signer(raw_server, (500, "oh")), Signer(raw_server, (200, GOOD))
    async with Gateway(orch_url=orch.url, signer_url=[bad.url, good.url]) as gw:
        with pytest.raises(PaymentUnsupported, match="costs"):
            await gw.run_async("job")
    assert (len(bad.asked), len(good.asked)) == (1, 1)


async def test_a_signer_that_fails_hides_prices_and_stops_nothing(
    orch: Any, tokens: list[dict[str, str]], raw_server: Any
) -> None:
    bad = Signer(raw_server, (500, "oh"))
    async with Gateway(orch_url=orch.url, signer_url=bad.url) as gw:
        for _ in range(3):
            with pytest.raises(PaymentUnsupported, match="to a signed wallet alone"):
                await gw.run_async("job")
        assert await gw.run_async("echo", input={"a": 1}) is not None  # a free live runner
    assert len(bad.asked) == 1  # for some seconds it isn't asked again
    assert {sender["sig"] for sender in tokens} == {""}


async def test_headers_are_asked_for_again(orch: Any, tokens: list[dict[str, str]], raw_server: Any) -> None:
    signer = Signer(raw_server, (401, "expired"), (200, GOOD))
    made: list[str] = []

    def headers() -> dict[str, str]:
        made.append(f"Bearer {len(made)}")
        return {"Authorization": made[-1]}

    async with Gateway(orch_url=orch.url, signer_url=signer.url, signer_headers=headers) as gw:
        with pytest.raises(PaymentUnsupported, match="costs"):
            await gw.run_async("job")
    assert [sent["authorization"] for _, sent, _ in signer.asked] == ["Bearer 0", "Bearer 1"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((401, {"error": {"message": "no key"}}), r"401 \(no key\)"),
        ((403, "not you"), r"403 \(not you\)"),
        ((404, "404 page not found"), "does not answer as a signer"),
        ((503, "later"), r"503 \(later\)"),
        ((200, "hello"), "does not answer as a signer"),
        ((200, {"address": "0x12", "signature": SIGNATURE}), "does not answer as a signer"),
        ((200, {"address": ADDRESS, "signature": 7}), "does not answer as a signer"),
        ((200, {"address": ADDRESS, "signature": "no hex"}), "told no signature"),
        ((200, []), "does not answer as a signer"),
    ],
)
async def test_what_a_signer_may_answer(orch: Any, raw_server: Any, answer: Any, says: str) -> None:
    signer = Signer(raw_server, answer)
    async with Gateway(orch_url=orch.url, signer_url=f"{signer.url}/?key=hush") as gw:
        with pytest.raises(SignerError, match=says) as caught:
            await gw._calls._resolver.payer.identity()
        found = await gw.check_async()
    [finding] = [one for one in found.findings if one.subject == "signer"]
    assert (found.ok, finding.ok) == (False, False)
    assert re.search(says, finding.detail)
    assert "hush" not in str(found) + str(caught.value)


async def test_nothing_shows_the_signature(orch: Any, tokens: list[dict[str, str]], raw_server: Any) -> None:
    signer = Signer(raw_server, (200, GOOD))
    async with Gateway(orch_url=orch.url, signer_url=signer.url) as gw:
        identity = await gw._calls._resolver.payer.identity()
        found = await gw.check_async()
    assert ADDRESS in repr(identity) + str(found)
    assert SIGNATURE not in repr(identity) + str(found)
