"""Bodies that come compressed, uncompressed in pieces of a bounded size: a little can become very much."""

from __future__ import annotations

import zlib

__all__ = ["CODINGS", "Inflater", "inflater_for"]

CODINGS = "gzip, deflate"
"""What a request says that its answer may be compressed by."""

_PIECE = 256 * 1024  # bytes
_GZIP = 16 + zlib.MAX_WBITS


def inflater_for(coding: str) -> Inflater | None:
    """What reads a ``Content-Encoding``; None where the body is taken as it is."""
    return Inflater(coding) if (coding := coding.strip().lower()) in ("gzip", "x-gzip", "deflate") else None


class Inflater:
    """Uncompresses one body.

    Args:
        coding: ``"gzip"`` or ``"deflate"``.
    """

    def __init__(self, coding: str) -> None:
        self._gzip = coding != "deflate"
        self._machine: zlib._Decompress | None = None
        self._rest = b""

    @property
    def waiting(self) -> bool:
        """Whether `next` has something to go on with, without being fed."""
        return bool(self._rest)

    def feed(self, data: bytes) -> None:
        """More of the compressed body is there."""
        self._rest = self._rest + data if self._rest else data

    def next(self) -> bytes:
        """Some of what came, uncompressed; it may be nothing. Raises `zlib.error`."""
        if self._machine is None:
            self._machine = zlib.decompressobj(_GZIP if self._gzip else self._bits())
        found = self._machine.decompress(self._rest, _PIECE)
        self._rest = self._machine.unconsumed_tail
        if self._machine.eof:
            # What follows the end of a gzip stream is another one; of the others, nothing that counts.
            self._rest = self._machine.unused_data.lstrip(b"\0") if self._gzip else b""
            if self._rest:
                self._machine = zlib.decompressobj(_GZIP)
        return found

    def finish(self) -> None:
        """The compressed body is at its end; raises `zlib.error` where it must not be."""
        if self._machine is not None and not self._machine.eof:
            raise zlib.error("the compressed body was cut")

    def _bits(self) -> int:
        """Of a deflate body, whether it begins as zlib's do, as it should, or without that."""
        return zlib.MAX_WBITS if self._rest[0] & 0xF == 8 else -zlib.MAX_WBITS
