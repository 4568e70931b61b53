"""The token that a dashboard hands out: base64 of a JSON object, every field of it optional."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Any

from ._secrets import Secret, hidden, hidden_urls
from .errors import ConfigurationError

__all__ = ["Token", "parse_token"]

_FIELDS = ("signer", "signer_headers", "discovery", "discovery_headers", "orchestrators")


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says; its headers are secrets and stay out of the repr."""

    signer: str | None = None
    signer_headers: dict[str, str] = field(default_factory=dict, repr=False)
    discovery: str | None = None
    discovery_headers: dict[str, str] = field(default_factory=dict, repr=False)
    orchestrators: tuple[str, ...] = ()


def parse_token(text: str) -> Token:
    """Read a token; white space around it, missing padding and the URL-safe alphabet are accepted.

    Raises:
        ConfigurationError: It is no token. The message never repeats it, because it holds secrets.
    """
    if not isinstance(text, str):
        raise ConfigurationError(f"token= is a {type(text).__name__}; it is a text.")
    text = Secret("".join(text.split()))
    content = hidden(_decode(text))
    if not isinstance(content, dict) or not any(name in content for name in _FIELDS):
        raise ConfigurationError(
            "The token has none of the fields that a Livepeer token has.",
            hint=f"It is base64 of a JSON object with one or more of: {', '.join(_FIELDS)}.",
        )
    orchestrators = content.get("orchestrators") or ()
    if isinstance(orchestrators, str):
        orchestrators = (orchestrators,)
    if not isinstance(orchestrators, list | tuple) or not all(isinstance(o, str) for o in orchestrators):
        raise ConfigurationError("The token's 'orchestrators' is not a list of URLs.")
    return Token(
        signer=_text(content, "signer"),
        signer_headers=_headers(content, "signer_headers"),
        discovery=_text(content, "discovery"),
        discovery_headers=_headers(content, "discovery_headers"),
        orchestrators=tuple(hidden_urls(str(url)) for url in orchestrators),
    )


def _decode(text: Secret) -> Any:
    try:
        return json.loads(base64.b64decode(_padded(text), validate=True))
    except (binascii.Error, UnicodeError, ValueError, RecursionError):
        pass
    # Raised out here: as its context, the error above would show the token in a traceback.
    raise ConfigurationError(
        "The token can't be read: it is not base64 of JSON.",
        hint="Copy it whole, as the dashboard shows it.",
    )


def _padded(text: str) -> str:
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    return standard + "=" * (-len(standard) % 4)


def _text(content: dict[str, Any], name: str) -> str | None:
    value = content.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ConfigurationError(f"The token's {name!r} is not a URL.")
    url: str = hidden_urls(str(value))
    return url


def _headers(content: dict[str, Any], name: str) -> dict[str, str]:
    value = content.get(name) or {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ConfigurationError(f"The token's {name!r} is not an object of texts.")
    return dict(value)
