"""Which URLs that came over the network may be called. Pure decisions, without I/O."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from .errors import ConfigurationError, OrchestratorError

__all__ = ["check_path", "forbidden", "is_loopback", "join_path", "redact"]

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")


def forbidden(url: object, giver: str) -> str | None:
    """Why a URL that `giver` handed out must not be called; None when it may be.

    Raising the scheme from https to http would give up the encryption; an address of the caller's own
    machine or network, handed out by a public orchestrator, would make the caller its proxy.
    """
    if not isinstance(url, str):
        return "it is not a text"
    try:
        parts, base = urlsplit(url), urlsplit(giver)
        _ = parts.port
    except ValueError as error:
        return f"it can't be read: {error}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "it is not an http or https URL"
    if parts.username or parts.password:
        return "it carries a password"
    if base.scheme == "https" and parts.scheme == "http":
        return "it gives up the encryption of the one that handed it out"
    if _is_private(parts.hostname) and not _is_private(base.hostname or ""):
        return "it names an address of your own network, and came from outside of it"
    return None


def allowed(url: object, giver: str, what: str) -> str:
    """The URL, when it may be called.

    Raises:
        OrchestratorError: It may not.
    """
    reason = forbidden(url, giver)
    if reason is None:
        return str(url)
    raise OrchestratorError(
        f"The orchestrator's {what} {url!r} is refused: {reason}.", status=200, orchestrator=giver
    )


def check_path(path: str) -> str:
    """A path below a runner, beginning with a slash.

    Raises:
        ConfigurationError: Its path part has characters that orchestrators alter (they escape it twice).
    """
    if not isinstance(path, str) or not path:
        raise ConfigurationError(f'path={path!r} is not a path such as "/run".')
    return _checked(path)


@lru_cache(maxsize=256)
def _checked(path: str) -> str:
    pure, question, query = path.partition("?")
    pure = "/" + pure.lstrip("/")
    odd = sorted(set(pure) - _UNRESERVED)
    if odd or "/../" in pure + "/" or "/./" in pure + "/":
        raise ConfigurationError(
            f"path={path!r} would reach the worker altered: orchestrators escape "
            f"{' '.join(map(repr, odd)) or 'dot segments'} in another way.",
            hint="Keep to letters, digits, '-', '.', '_', '~' and '/', and put data in the query.",
        )
    if any(ord(character) <= 32 or ord(character) == 127 for character in query) or "#" in query:
        raise ConfigurationError(
            f"path={path!r} has white space or a fragment in its query; escape it first."
        )
    return pure + question + query


def join_path(base: str, path: str) -> str:
    """The URL of a path below a base."""
    return base.rstrip("/") + path


def redact(url: str) -> str:
    """The URL without its password and its query, which may hold keys, for messages."""
    if "@" not in url and "?" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return "***"
    if "@" in parts.netloc:
        parts = parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}")
    return parts._replace(query="***" if parts.query else "").geturl()


def is_loopback(host: str) -> bool:
    """Whether this host is the caller's own machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_private(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False  # a name: where it leads is its owner's word, checked nowhere else either
    return not address.is_global
