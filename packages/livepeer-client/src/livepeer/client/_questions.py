"""The requests behind discovery: to orchestrators, and to services and signers with their headers."""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import quote, urlsplit

from ._bodies import whole
from ._headers import HeaderSource
from ._http import Pool, same_slash, within
from ._observing import asking
from ._urls import redact
from .config import Config
from .errors import ConfigurationError

__all__ = ["Questions"]

_PATIENCE = 10.0  # seconds for a place to answer, and for a function to return headers
_LARGEST = 32 * 1024 * 1024  # bytes of an answer


class Questions:
    """Asks the places of a configuration; what they say is for others to judge.

    Attributes:
        services: URLs that list orchestrators, in the order in which to ask them; none where orchestrators
            are configured themselves.
        by_name: Whether they are signers, which are asked for what is looked for.
    """

    def __init__(self, config: Config, pool: Pool) -> None:
        self._pool = pool
        self.by_name: bool = not config.orchestrators and not config.discovery
        self.services: tuple[str, ...] = config.signers if self.by_name else config.discovery
        self._headers = (
            HeaderSource(config.signer_headers, "signer_headers")
            if self.by_name
            else HeaderSource(config.discovery_headers, "discovery_headers")
        )

    async def orchestrator(self, place: str) -> tuple[int, bytes]:
        """The status and body of an orchestrator's own ``/discovery``.

        Raises:
            LivepeerError: There was no answer.
        """
        return await self._get(f"{place}/discovery", {}, None, redact(place))

    async def service(self, place: str, apps: tuple[str, ...] = ()) -> tuple[int, bytes]:
        """The status and body of a service's, or a signer's, list of orchestrators.

        Its headers go to this URL alone: no redirect is followed, but the one that adds a slash. When they
        come from a function and the service refuses them, the function is asked once more.

        Raises:
            ConfigurationError: The function that makes the headers failed.
            LivepeerError: There was no answer.
        """
        url = _discover_url(place, apps) if self.by_name else place
        context = await self._verified(url)
        status, body = await self._get(url, await self._headers_of_now(renew=False), context, redact(place))
        if status == 401 and self._headers.renewable:
            headers = await self._headers_of_now(renew=True)
            status, body = await self._get(url, headers, context, redact(place))
        return status, body

    async def _get(
        self, url: str, headers: dict[str, str], context: ssl.SSLContext | None, place: str
    ) -> tuple[int, bytes]:
        transport = await self._pool.transport()
        with asking(self._pool, "discovery", "GET", url, orchestrator=place) as answered:
            async with within(_PATIENCE, url, orchestrator=place):
                async with await transport.send("GET", url, headers=headers, context=context) as answer:
                    answered(answer.status)
                    location = answer.headers.get("Location", "") if 300 <= answer.status < 400 else ""
                    moved = same_slash(url, location) if location else None
                    if moved is None:
                        return answer.status, await whole(answer, _LARGEST, f"The list of {place}")
                async with await transport.send(
                    "GET", moved, headers=headers, escaped=True, context=context
                ) as answer:
                    answered(answer.status)
                    return answer.status, await whole(answer, _LARGEST, f"The list of {place}")

    async def _headers_of_now(self, *, renew: bool) -> dict[str, str]:
        try:
            async with asyncio.timeout(_PATIENCE) as limit:
                return await self._headers.get(renew=renew)
        except TimeoutError:
            if not limit.expired():
                raise
        raise ConfigurationError(
            f"The function that makes the headers for {redact(self.services[0])} did not return within "
            f"{_PATIENCE:.0f} s."
        )

    async def _verified(self, url: str) -> ssl.SSLContext | None:
        """A service gets a key, so it has to prove its name by an ordinary certificate."""
        if urlsplit(url).scheme != "https" or self._pool.tls.mode in ("insecure", "verify"):
            return None
        return await self._pool.tls.verifying()


def _discover_url(signer: str, apps: tuple[str, ...]) -> str:
    """Where a signer lists orchestrators; its own path and query stay."""
    parts = urlsplit(signer)
    wanted = "&".join(f"caps={quote(app, safe='/')}" for app in apps)
    return parts._replace(
        path=parts.path.rstrip("/") + "/discover-orchestrators",
        query="&".join(part for part in (parts.query, wanted) if part),
        fragment="",
    ).geturl()
