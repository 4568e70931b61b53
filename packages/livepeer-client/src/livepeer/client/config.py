"""Where a gateway looks for capabilities: arguments, then the token, then the environment."""

from __future__ import annotations

import base64
import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ._headers import HeadersLike, check_headers
from ._secrets import Address, Secret, hidden, hidden_urls
from ._urls import is_loopback, redact
from .errors import ConfigurationError

__all__ = ["Config", "Urls", "read_config"]

Urls = str | Sequence[str]

_WAYS = """Say where to call, in one of these ways:
  Gateway(orch_url="https://…")       an orchestrator, or a list of them   (LIVEPEER_ORCH_URL)
  Gateway(discovery_url="https://…")  a list of orchestrators              (LIVEPEER_DISCOVERY_URL)
  Gateway(signer_url="https://…")     a signer that lists orchestrators    (LIVEPEER_SIGNER_URL)
  Gateway(token="…")                  what a dashboard hands out           (LIVEPEER_TOKEN)
  Gateway(gateway_url="http://…")     a gateway node that pays, beside one of these (LIVEPEER_GATEWAY_URL)
Or start a network on this machine: pip install livepeer-devkit, then run `livepeer dev`."""


@dataclass(frozen=True, slots=True)
class Config:
    """A gateway's places to ask.

    Attributes:
        gateways: Base URLs of gateway nodes, of which the next one is called when one can't be reached. Where
            there are some, calls go through them, to the orchestrators that the other fields lead to.
        orchestrators: Base URLs of orchestrators, in the order in which to prefer them.
        discovery: URLs that answer with a list of orchestrators, in the shape of their own `/discovery`; the
            first one that answers is believed.
        discovery_headers: Sent to the discovery's origins and nowhere else.
        signers: Base URLs of signers; asked for orchestrators where nothing above is configured.
        signer_headers: Sent to the signers' origins and nowhere else.
        source: Where the places to call came from: ``"arguments"``, ``"token"`` or ``"environment"``.
        credentials: The ``Authorization`` of each origin that a URL was given with a password for. The URLs
            themselves have none, as they go into errors, results and logs.
    """

    orchestrators: tuple[str, ...] = ()
    discovery: tuple[str, ...] = ()
    discovery_headers: HeadersLike = field(default_factory=dict, repr=False)
    signers: tuple[str, ...] = ()
    signer_headers: HeadersLike = field(default_factory=dict, repr=False)
    source: str = "arguments"
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    gateways: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """The URLs that are asked for what there is."""
        return self.orchestrators or self.discovery or self.signers


def read_config(
    *,
    token: str | None = None,
    signer_url: Urls | None = None,
    signer_headers: HeadersLike | None = None,
    discovery_url: Urls | None = None,
    discovery_headers: HeadersLike | None = None,
    orch_url: Urls | None = None,
    gateway_url: Urls | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """The first source of arguments, token and environment that names a place to call is used for routing.

    Inside one source orchestrators come before discovery, and discovery before the signer. The signer, with
    its headers, is that of the first source that names one. A gateway node is used where the source that
    names it decides; the orchestrators behind it are those of the first source that leads to some.

    Raises:
        ConfigurationError: Nothing is configured, or a value can't be used.
    """
    # Every name here is of what may be shown: a traceback with local variables shows them all.
    token, signer_headers, discovery_headers = map(hidden, (token, signer_headers, discovery_headers))
    signer_url, discovery_url, orch_url = map(hidden_urls, (signer_url, discovery_url, orch_url))
    gateway_url = hidden_urls(gateway_url)
    sources = [
        _from_arguments(
            signer_url, signer_headers, discovery_url, discovery_headers, orch_url, gateway_url=gateway_url
        ),
        *([_from_token(token, "token")] if token is not None else []),
    ]
    if not any(source.places for source in sources):
        sources += _from_environment(environ)
    elif not any(source.signers for source in sources):
        sources += _signers_of_environment(environ)
    deciding = next((source for source in sources if source.places or source.gateways), None)
    if deciding is None:
        raise ConfigurationError(f"No orchestrator is configured. {_WAYS}")
    routing = next((source for source in sources if source.places), None)
    if routing is None:
        raise ConfigurationError(
            f"Nothing says which orchestrators the gateway node {redact(deciding.gateways[0])} is to use. It "
            "tells nobody which it knows, and left to itself it makes a call that fails again on each.",
            hint="Name one, spelt as in the node's -orchAddr: Gateway(gateway_url=…, orch_url=…), or "
            "LIVEPEER_ORCH_URL; or name a discovery or a signer that lists them. On the node's own machine "
            "OrchestratorPool in http://127.0.0.1:5935/status (its -cliAddr) has them.",
        )
    signing = next((source for source in sources if source.signers), routing)
    credentials: dict[str, str] = {}
    return Config(
        _without_passwords(routing.orchestrators, credentials),
        _without_passwords(routing.discovery, credentials),
        routing.discovery_headers,
        _without_passwords(signing.signers, credentials),
        signing.signer_headers,
        deciding.source,
        credentials,
        _without_passwords(deciding.gateways, credentials),
    )


def _without_passwords(urls: tuple[str, ...], credentials: dict[str, str]) -> tuple[str, ...]:
    """The URLs without the passwords in them, which are put where they belong."""
    return tuple(_without_password(url, credentials) for url in urls)


def _without_password(url: str, credentials: dict[str, str]) -> str:
    if "@" not in url or "@" not in urlsplit(url).netloc:
        return url
    from yarl import URL

    plain = Address(URL(url).with_user(None))
    secret = Secret(f"{unquote(urlsplit(url).username or '')}:{unquote(urlsplit(url).password or '')}")
    credentials[str(URL(plain).origin())] = Secret(f"Basic {base64.b64encode(secret.encode()).decode()}")
    return plain


def _from_arguments(
    signer_url: Urls | None,
    signer_headers: HeadersLike | None,
    discovery_url: Urls | None,
    discovery_headers: HeadersLike | None,
    orch_url: Urls | None,
    *,
    gateway_url: Urls | None,
) -> Config:
    for name, headers, url in (
        ("discovery", discovery_headers, discovery_url),
        ("signer", signer_headers, signer_url),
    ):
        if headers is not None and not callable(headers):
            check_headers(headers, f"{name}_headers=")
        if headers and url is None:
            raise ConfigurationError(
                f"{name}_headers= was given without {name}_url=; a URL and its headers belong together."
            )
    return Config(
        orchestrators=as_urls(orch_url, "orch_url"),
        discovery=as_services(discovery_url, "discovery_url"),
        discovery_headers=_copied(discovery_headers),
        signers=as_services(signer_url, "signer_url"),
        signer_headers=_copied(signer_headers),
        source="arguments",
        gateways=as_urls(gateway_url, "gateway_url"),
    )


def _copied(headers: HeadersLike | None) -> HeadersLike:
    return headers if callable(headers) else dict(headers or {})


def _from_token(text: str, source: str) -> Config:
    from .token import parse_token

    token = parse_token(text)
    config = Config(
        orchestrators=as_urls(token.orchestrators, f"{source}: orchestrators"),
        discovery=as_services(token.discovery, f"{source}: discovery"),
        discovery_headers=check_headers(token.discovery_headers, f"{source}: discovery_headers"),
        signers=as_services(token.signer, f"{source}: signer"),
        signer_headers=check_headers(token.signer_headers, f"{source}: signer_headers"),
        source=source,
    )
    for name, urls in (("discovery", config.discovery), ("signer", config.signers)):
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
                raise ConfigurationError(
                    f"The {source} has {redact(url)} for its {name}, which would be called unencrypted.",
                    hint=f"Ask who made the token for an https URL; or give {name}_url= yourself.",
                )
    return config


def _from_environment(environ: Mapping[str, str] | None) -> list[Config]:
    gateways = as_urls(_variable(environ, "LIVEPEER_GATEWAY_URL"), "LIVEPEER_GATEWAY_URL")
    return [
        *(dataclasses.replace(token, gateways=gateways) for token in _token_of_environment(environ)),
        Config(
            orchestrators=as_urls(_variable(environ, "LIVEPEER_ORCH_URL"), "LIVEPEER_ORCH_URL"),
            discovery=as_services(_variable(environ, "LIVEPEER_DISCOVERY_URL"), "LIVEPEER_DISCOVERY_URL"),
            signers=_signer_url_of_environment(environ),
            source="environment",
            gateways=gateways,
        ),
    ]


def _signers_of_environment(environ: Mapping[str, str] | None) -> list[Config]:
    """The environment when where to call is said elsewhere: its other variables aren't even read."""
    signers = _signer_url_of_environment(environ)
    return [*_token_of_environment(environ), Config(signers=signers, source="environment")]


def _token_of_environment(environ: Mapping[str, str] | None) -> list[Config]:
    token = hidden(_variable(environ, "LIVEPEER_TOKEN"))
    return [_from_token(token, "LIVEPEER_TOKEN")] if token else []


def _signer_url_of_environment(environ: Mapping[str, str] | None) -> tuple[str, ...]:
    return as_services(_variable(environ, "LIVEPEER_SIGNER_URL"), "LIVEPEER_SIGNER_URL")


def _variable(environ: Mapping[str, str] | None, name: str) -> str | None:
    """A variable of the environment, which as a whole is no argument: it holds everybody's secrets."""
    value = (os.environ if environ is None else environ).get(name)
    return Address(value) if value else None


def as_urls(value: Urls | None, name: str) -> tuple[str, ...]:
    """The base URLs of an argument that takes one or several; in one text, with commas."""
    return tuple(Address(url.rstrip("/")) for url in _several(value, name, r","))


def as_services(value: Urls | None, name: str) -> tuple[str, ...]:
    """The same for URLs that are called as they are: a comma inside of one, or a slash at its end, stays."""
    return _several(value, name, r",(?=\s*https?://)")


def _several(value: Urls | None, name: str, separator: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        value = [Address(part.strip()) for part in re.split(separator, value) if part.strip()]
        if not value:
            raise ConfigurationError(f"{name} is empty; it is a URL such as https://orchestrator:8935.")
    return tuple(dict.fromkeys(check_url(url, name) for url in value))


def check_url(url: str, name: str) -> str:
    """The URL, when it is one with http or https and a host."""
    if not isinstance(url, str):
        raise ConfigurationError(f"{name} holds a {type(url).__name__}; it takes URLs as texts.")
    if not _callable(url):
        raise ConfigurationError(
            f"{name}={redact(str(url))!r} is not a URL that can be called.",
            hint="It needs a scheme and a host, such as https://orchestrator:8935.",
        )
    return url


def _callable(url: str) -> bool:
    """Whether it is a URL of http or https, with a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
