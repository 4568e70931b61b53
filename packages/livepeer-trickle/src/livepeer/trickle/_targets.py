"""URLs as requests need them, read without a library that has to be loaded first.

Most are plain: their parts go into a request as they are. The others (names with other letters than ASCII's,
paths that have to be escaped, dot segments) are read by yarl.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["InvalidURL", "Target", "target_of"]

_URL = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_PLAIN = re.compile(r"[A-Za-z0-9._~:/?@!$&'()*,;=-]*")
_BREAKS = re.compile(r"[\0-\x20\x7f]")  # what would end a request's first line, or a word of it
_PORTS = {"http": 80, "https": 443}


class InvalidURL(ValueError):
    """No request can go there."""


class Target:
    """Where a request goes.

    Attributes:
        scheme: ``"http"`` or ``"https"``.
        host: The host's name or address, without brackets.
        port: The port.
        authority: Host and port as the ``Host`` header has them.
        path: The escaped path with its query.
    """

    __slots__ = ("authority", "host", "path", "port", "scheme")

    def __init__(self, scheme: str, host: str, port: int, authority: str, path: str) -> None:
        self.scheme: str = scheme
        self.host: str = host
        self.port: int = port
        self.authority: str = authority
        self.path: str = path

    @property
    def origin(self) -> str:
        """Scheme, host and port as one text, the scheme's own port left out."""
        return f"{self.scheme}://{self.authority}"

    def __repr__(self) -> str:
        return f"<Target {self.origin}>"  # paths and queries may hold keys


@lru_cache(maxsize=128)
def target_of(url: str, *, escaped: bool = False) -> Target:
    """The parts of a URL.

    Args:
        url: One of http or https.
        escaped: Whether its path goes as it is; else what needs it is escaped, and dot segments are resolved.

    Raises:
        InvalidURL: It is no such URL.
    """
    found = _URL.fullmatch(url)
    host = _HOST.fullmatch(found[2]) if found else None
    if not found or not host:
        return _by_yarl(url, escaped)
    path, query = found[3] or "/", found[4] or ""
    if escaped:
        if _BREAKS.search(path) or _BREAKS.search(query):
            raise InvalidURL("its path has white space in it")
    elif not _PLAIN.fullmatch(path) or not _PLAIN.fullmatch(query) or "/." in path:
        return _by_yarl(url, escaped)
    scheme, name = found[1].lower(), host[1].lower()
    standard = _PORTS[scheme]
    port = int(host[2] or standard)
    if port > 65535:
        raise InvalidURL(f"there is no port {port}")
    authority = name if port == standard else f"{name}:{port}"
    return Target(scheme, name.strip("[]"), port, authority, path + ("" if query == "?" else query))


def _by_yarl(url: str, escaped: bool) -> Target:
    from yarl import URL

    try:
        read = URL(url, encoded=escaped)
        scheme, host, port = read.scheme, read.host, read.port
        origin = str(read.origin()) if host else ""
    except ValueError as error:
        raise InvalidURL(str(error)) from error
    if scheme not in _PORTS or not host or not port:
        raise InvalidURL("it is no URL of http or https")
    path = read.raw_path_qs
    if _BREAKS.search(path):
        raise InvalidURL("its path has white space in it")
    return Target(scheme, host, port, origin.partition("://")[2], path)
