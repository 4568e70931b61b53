"""Paths as Go's ``net/url`` escapes them, and what go-livepeer's proxy does to them (Go 1.25).

The proxy joins the runner's path and the request's with ``url.JoinPath``, which escapes the result, and
stores that as an *unescaped* path, which is escaped again when it is sent. So only unreserved ASCII reaches
a worker as it was sent: ``%20`` arrives as ``%2520``, ``!`` as ``%21``, and a lone ``%`` is an error.
"""

from __future__ import annotations

import posixpath
import string

__all__ = ["PathError", "clean", "escape", "join", "twice", "unescape", "valid_escaped"]

_UNESCAPED = frozenset((string.ascii_letters + string.digits + "$&+,-./:;=@_~").encode())
_ALSO_VALID = frozenset(b"!$&'()*+,;=:@[]%")
_HEX = frozenset(string.hexdigits.encode())


class PathError(ValueError):
    """A path with a malformed escape; the text is Go's."""


def escape(path: bytes) -> str:
    """The path with everything escaped that Go escapes in a path."""
    return "".join(chr(byte) if byte in _UNESCAPED else f"%{byte:02X}" for byte in path)


def unescape(path: str) -> bytes:
    """The path without its escapes.

    Raises:
        PathError: A ``%`` is not followed by two hexadecimal digits.
    """
    data, out, position = path.encode("utf-8", "surrogateescape"), bytearray(), 0
    while position < len(data):
        if data[position] != ord("%"):
            out.append(data[position])
            position += 1
            continue
        digits = data[position + 1 : position + 3]
        if len(digits) < 2 or not _HEX.issuperset(digits):
            bad = data[position : position + 3].decode("utf-8", "replace")
            raise PathError(f'invalid URL escape "{bad}"')
        out.append(int(digits, 16))
        position += 3
    return bytes(out)


def valid_escaped(path: str) -> bool:
    """Whether Go keeps an escaped path as it was written instead of escaping the unescaped one anew."""
    return all(byte in _UNESCAPED or byte in _ALSO_VALID for byte in path.encode("utf-8", "surrogateescape"))


def clean(path: str) -> str:
    """The shortest equivalent path, its trailing slash kept; what a `ServeMux` redirects to."""
    cleaned = _shorten(path if path.startswith("/") else "/" + path)
    return cleaned + "/" if path.endswith("/") and cleaned != "/" else cleaned


def twice(runner_path: str, app_path: bytes) -> str:
    """The path that a request to a runner is sent with, escaped twice as go-livepeer does.

    Args:
        runner_path: The path of the registered ``runner_url``, as it was written there.
        app_path: The rest of the request's path behind ``/app/``, without its escapes.

    Raises:
        PathError: What is left after one unescaping holds a malformed escape.
    """
    return escape(join(runner_path, app_path).encode("utf-8", "surrogateescape"))


def join(runner_path: str, app_path: bytes) -> str:
    """Two paths as one, escaped as ``url.JoinPath`` does; raises `PathError`."""
    parts = [unescape(runner_path), app_path]
    text = [part.decode("utf-8", "surrogateescape") for part in parts]
    joined = _shorten("/" + "/".join(part for part in text if part))
    if text[-1].endswith("/") and not joined.endswith("/"):
        joined += "/"
    path = unescape(joined)
    return joined if valid_escaped(joined) else escape(path)


def _shorten(path: str) -> str:
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned  # POSIX keeps two leading slashes
