"""The requests to remote signers: who pays, and a payment. What their answers mean is `signing`'s to say.

To ask twice for a signature costs nothing: tickets have a worth only for the orchestrator that gets them. So
a signer that is restarting is asked again, and where that doesn't help, the next one is.
"""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

from .._bodies import SMALL, whole
from .._headers import HeaderSource
from .._http import Pool, within
from .._observing import asking
from .._urls import is_loopback, redact
from ..errors import ConfigurationError, LivepeerError, PaymentError, SignerError
from .signing import Signed, SignRequest, read_payer, refusal

__all__ = ["Payer", "Signer"]

_PATIENCE = 20.0  # seconds for an answer: a signer may ask a webhook, and a chain
_PAUSES = (0.2, 0.5)  # seconds before it is asked again

Payer = tuple[str, str]
"""A wallet's address and its signature, which proves to an orchestrator who will pay; both in hex."""


class Signer:
    """One remote signer.

    Args:
        url: Its URL, to whose path the names of its calls are added.
        headers: Its headers, which go nowhere else.
        pool: The gateway's connections.

    Attributes:
        url: Its URL.
    """

    def __init__(self, url: str, headers: HeaderSource, pool: Pool) -> None:
        self.url: str = url
        self._headers = headers
        self._pool = pool
        self._payer: Payer | None = None

    @property
    def address(self) -> str:
        """The wallet's address; empty as long as it wasn't asked for."""
        return self._payer[0] if self._payer is not None else ""

    async def payer(self, *, request_id: str | None = None) -> Payer:
        """The address and signature of its wallet; asked for once.

        Raises:
            SignerError: It can't be reached, or doesn't say.
        """
        payer = self._payer
        if payer is None:
            body = await self.ask("/sign-orchestrator-info", b"{}", request_id)
            payer = self._payer = read_payer(body, self.url)
        return payer

    async def sign(self, request: SignRequest, *, request_id: str | None = None) -> Signed:
        """Have a payment signed. A signer whose wallet isn't known yet is asked for that first by nobody.

        Raises:
            RefreshNeeded, NoTicketNeeded: See `signing`.
            PriceExceeded, InsufficientBalance: It refused.
            SignerError: It can't be reached, or refused for another reason.
        """
        return Signed.parse(await self.ask("/generate-live-payment", request.body(), request_id), self.url)

    async def ask(self, path: str, body: bytes, request_id: str | None) -> bytes:
        """The body of its answer of 200."""
        renewed = False
        pauses = iter(_PAUSES)
        while True:
            try:
                status, answer = await self._post(path, body, request_id, renew=renewed)
                if status == 200:
                    return answer
                error: PaymentError = refusal(status, answer, self.url, self.address)
                again = status == 503
                if status == 401 and self._headers.renewable and not renewed:
                    renewed = True
                    continue
            except ConfigurationError:
                raise
            except LivepeerError as failure:
                error = SignerError(
                    f"The signer {redact(self.url)} can't be asked: {failure.message}",
                    hint="Nothing was paid. Check that it runs, or name another one beside it.",
                    retryable=True,
                )
                error.__cause__ = failure
                again = not isinstance(failure, TimeoutError)
            pause = next(pauses, None) if again else None
            if pause is None:
                error.request_id = request_id
                raise error
            await asyncio.sleep(pause)

    async def _post(
        self, path: str, body: bytes, request_id: str | None, *, renew: bool
    ) -> tuple[int, bytes]:
        url = _below(self.url, path)
        async with within(_PATIENCE, url):
            given = await self._headers.get(renew=renew)
        headers = {**given, "Content-Type": "application/json"}
        transport = await self._pool.transport()
        with asking(self._pool, "signer", "POST", url, request_id=request_id) as answered:
            async with within(_PATIENCE, url):
                context = await self._verified(url)
                sending = transport.send("POST", url, headers=headers, body=body, context=context)
                async with await sending as answer:
                    answered(answer.status)
                    return answer.status, await whole(answer, SMALL, f"The answer of {redact(url)}")

    async def _verified(self, url: str) -> ssl.SSLContext | None:
        """A signer gets a key, so it has to prove its name by an ordinary certificate, off this machine."""
        parts = urlsplit(url)
        if parts.scheme != "https" or self._pool.tls.mode == "verify":
            return None
        if self._pool.tls.mode == "insecure" and is_loopback(parts.hostname or ""):
            return None
        return await self._pool.tls.verifying()


def _below(signer: str, path: str) -> str:
    """The URL of a call; the signer's own path and query stay."""
    parts = urlsplit(signer)
    return parts._replace(path=parts.path.rstrip("/") + path, fragment="").geturl()
