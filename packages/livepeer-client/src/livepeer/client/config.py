"""Where a gateway looks for capabilities: arguments, then the token, then the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .errors import ConfigurationError
from .token import Token, parse_token

__all__ = ["Config", "Urls", "read_config"]

Urls = str | Sequence[str]

_WAYS = """Say where to call, in one of these ways:
  Gateway(orch_url="https://…")       an orchestrator, or a list of them   (LIVEPEER_ORCH_URL)
  Gateway(discovery_url="https://…")  a list of orchestrators              (LIVEPEER_DISCOVERY_URL)
  Gateway(token="…")                  what a dashboard hands out           (LIVEPEER_TOKEN)
Or start a network on this machine: pip install livepeer-devkit, then run `livepeer dev`."""


@dataclass(frozen=True, slots=True)
class Config:
    """A gateway's places to ask.

    Attributes:
        orchestrators: Base URLs of orchestrators, in the order in which to prefer them.
        discovery: A URL that answers with a list of orchestrators, in the shape of their own `/discovery`.
        discovery_headers: Sent to the discovery's origin and nowhere else.
        source: Where the above came from: ``"arguments"``, ``"token"`` or ``"environment"``.
    """

    orchestrators: tuple[str, ...] = ()
    discovery: str | None = None
    discovery_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    source: str = "arguments"

    @property
    def places(self) -> tuple[str, ...]:
        """Every URL that discovery will ask."""
        return self.orchestrators or ((self.discovery,) if self.discovery else ())


def read_config(
    *,
    token: str | None,
    discovery_url: str | None,
    discovery_headers: Mapping[str, str] | None,
    orch_url: Urls | None,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """The first source of arguments, token and environment that names a place to call.

    Inside one source orchestrators come before discovery.

    Raises:
        ConfigurationError: Nothing is configured, or a value can't be used.
    """
    if discovery_headers is not None and not isinstance(discovery_headers, Mapping):
        raise ConfigurationError(
            "discovery_headers= takes a dict in this version; a callable is not supported yet."
        )
    if discovery_headers and discovery_url is None:
        raise ConfigurationError(
            "discovery_headers= was given without discovery_url=; a URL and its headers belong together."
        )
    parsed = parse_token(token) if token is not None else None
    found = (
        _from_arguments(orch_url, discovery_url, discovery_headers)
        or _from_token(parsed, "token")
        or _from_environment(environ)
    )
    if found is None:
        raise ConfigurationError(f"No orchestrator is configured. {_WAYS}")
    return found


def _from_arguments(
    orch_url: Urls | None, discovery_url: str | None, headers: Mapping[str, str] | None
) -> Config | None:
    orchestrators = as_urls(orch_url, "orch_url")
    discovery = check_url(discovery_url, "discovery_url") if discovery_url is not None else None
    if not orchestrators and discovery is None:
        return None
    return Config(orchestrators, discovery, dict(headers or {}), "arguments")


def _from_token(token: Token | None, source: str) -> Config | None:
    if token is None:
        return None
    orchestrators = as_urls(token.orchestrators, f"{source}: orchestrators")
    discovery = check_url(token.discovery, f"{source}: discovery") if token.discovery else None
    if not orchestrators and discovery is None:
        if token.signer:
            raise ConfigurationError(
                "The token names only a signer, and this version can't ask a signer for orchestrators yet.",
                hint="Give orch_url= or discovery_url= beside it.",
            )
        return None
    return Config(orchestrators, discovery, token.discovery_headers, source)


def _from_environment(environ: Mapping[str, str]) -> Config | None:
    if token := environ.get("LIVEPEER_TOKEN"):
        found = _from_token(parse_token(token), "LIVEPEER_TOKEN")
        if found is not None:
            return found
    orchestrators = as_urls(environ.get("LIVEPEER_ORCH_URL") or None, "LIVEPEER_ORCH_URL")
    discovery = environ.get("LIVEPEER_DISCOVERY_URL") or None
    if discovery is not None:
        check_url(discovery, "LIVEPEER_DISCOVERY_URL")
    if not orchestrators and discovery is None:
        return None
    return Config(orchestrators, discovery, {}, "environment")


def as_urls(value: Urls | None, name: str) -> tuple[str, ...]:
    """The URLs of an argument that takes one or several; a text may hold several, with commas between."""
    if value is None:
        return ()
    if isinstance(value, str):
        value = [part for part in (part.strip() for part in value.split(",")) if part]
        if not value:
            raise ConfigurationError(f"{name} is empty; it is a URL such as https://orchestrator:8935.")
    return tuple(check_url(url, name).rstrip("/") for url in value)


def check_url(url: str, name: str) -> str:
    """The URL, when it is one with http or https and a host."""
    if not isinstance(url, str):
        raise ConfigurationError(f"{name} holds a {type(url).__name__}; it takes URLs as texts.")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(
            f"{name}={url!r} is not a URL that can be called.",
            hint="It needs a scheme and a host, such as https://orchestrator:8935.",
        )
    return url
