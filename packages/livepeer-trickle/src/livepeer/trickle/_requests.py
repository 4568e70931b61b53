"""Requests of any kind, over the connections that channels use: what is sent, and the answer that is read.

Where a call is small, a general client's objects cost more than the network does; and aiohttp's take as long
to load as whole programs of other libraries need from their start to their end.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache

from ._exchange import Exchange, ExchangeClosed
from ._fields import Fields
from ._inflating import CODINGS, inflater_for
from ._targets import Target

__all__ = ["BodyBroken", "Reply", "request_head"]

_CHARSET = re.compile(r""";\s*charset\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))""", re.IGNORECASE)
_TYPE = re.compile(r"[^/\s]+/[^/\s]+")
_OURS = frozenset({"host", "user-agent", "accept", "accept-encoding"})  # unless the caller has his own
_FRAMING = frozenset({"content-length", "transfer-encoding"})


class BodyBroken(ConnectionError):
    """An answer's body did not come to its end."""


def request_head(
    method: str,
    target: Target,
    user_agent: str,
    headers: Mapping[str, str],
    *,
    size: int | None,
    absolute: bool = False,
    more: Mapping[str, str] | None = None,
) -> bytes:
    """The head of a request, to the empty line.

    Args:
        method: Such as ``"POST"``.
        target: Where to.
        user_agent: What the request calls itself.
        headers: Its headers; the length of its body isn't theirs to say.
        size: Bytes of its body; None where there is none.
        absolute: Whether a proxy takes it, which needs the whole URL.
        more: Headers beside those, unless they are there.

    Raises:
        ValueError: A header has a line break in it, or frames the body.
    """
    fields = dict(headers)
    names = {name.lower() for name in fields}
    if not names.isdisjoint(_FRAMING):
        fields = {name: value for name, value in fields.items() if name.lower() != "content-length"}
        if "transfer-encoding" in names:
            raise ValueError("Transfer-Encoding is not the caller's to say")
    if more:
        fields.update({name: value for name, value in more.items() if name.lower() not in names})
    ours = _start(method, target, user_agent, absolute)
    if not names.isdisjoint(_OURS):
        line, *lines = ours.split("\r\n")[:-1]
        kept = [one for one in lines if one.partition(":")[0].lower() not in names]
        ours = "".join(f"{one}\r\n" for one in (line, *kept))
    if size is not None:
        fields["Content-Length"] = str(size)
    rest = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
    if rest.count("\n") != len(fields) or rest.count("\r") != len(fields) or "\0" in rest:
        del rest  # tracebacks that show local variables don't show secrets
        raise ValueError("a header has a line break in it")
    return f"{ours}{rest}\r\n".encode()


@lru_cache(maxsize=64)
def _start(method: str, target: Target, user_agent: str, absolute: bool) -> str:
    where = target.origin + target.path if absolute else target.path
    return (
        f"{method} {where} HTTP/1.1\r\nHost: {target.authority}\r\nUser-Agent: {user_agent}\r\n"
        f"Accept: */*\r\nAccept-Encoding: {CODINGS}\r\n"
    )


class Reply:
    """An answer whose head is there; its body is read with it. The names are aiohttp's, as far as they go.

    Attributes:
        url: Where it came from.
        status: The HTTP status.
        headers: Its headers; names are case-insensitive.
        content_type: The media type, without parameters; ``"application/octet-stream"`` where it has none.
        charset: The charset that its type names.
    """

    __slots__ = ("_ended", "_exchange", "_inflater", "charset", "content_type", "headers", "status", "url")

    def __init__(self, url: str, exchange: Exchange) -> None:
        self.url: str = url
        self.status: int = exchange.status
        self.headers: Fields = exchange.headers
        self.content_type: str
        self.charset: str | None
        self.content_type, self.charset = _media_type(exchange.headers.get("Content-Type", ""))
        self._exchange = exchange
        self._inflater = inflater_for(exchange.headers.get("Content-Encoding", ""))
        self._ended = False

    @property
    def content(self) -> Reply:
        """Its body: this object too."""
        return self

    def at_eof(self) -> bool:
        """Whether all of the body was read, as far as that is known."""
        return self._exchange.at_eof if self._inflater is None else self._ended

    async def readany(self) -> bytes:
        """The next bytes of the body as they come; b"" at its end.

        Raises:
            BodyBroken: The rest doesn't come.
            ExchangeClosed: The connection was closed on this side.
            zlib.error: What came can't be uncompressed.
        """
        if self._inflater is None:
            return await self._some()
        while not self._ended:
            if not self._inflater.waiting:
                data = await self._some()
                if not data:
                    self._ended = True
                    self._inflater.finish()
                    break
                self._inflater.feed(data)
            if found := self._inflater.next():
                return found
        return b""

    async def iter_any(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        while data := await self.readany():
            yield data

    async def read(self, most: int = -1) -> bytes:
        """All of the body; or its next bytes until there are `most`, which what came last may exceed."""
        body = bytearray()
        while most < 0 or len(body) < most:
            data = await self.readany()
            body += data
            if not data:
                break
        return bytes(body)

    def release(self) -> None:
        """Nobody reads the rest: the same as `close`."""
        self.close()

    def close(self) -> None:
        """Let the connection go: to others when the body was read to its end, else it is closed, without
        TLS's goodbye, which would wait for the peer's."""
        if not self._exchange.loop_is_closed:
            self._exchange.close()

    async def __aenter__(self) -> Reply:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    async def _some(self) -> bytes:
        try:
            return await self._exchange.readany()
        except ExchangeClosed:
            raise
        except OSError as error:
            raise BodyBroken(str(error) or type(error).__name__) from error


@lru_cache(maxsize=64)
def _media_type(value: str) -> tuple[str, str | None]:
    kind = value.partition(";")[0].strip().lower()
    charset = _CHARSET.search(value)
    return (
        kind if _TYPE.fullmatch(kind) else "application/octet-stream",
        (charset[1] or charset[2]) if charset else None,
    )
