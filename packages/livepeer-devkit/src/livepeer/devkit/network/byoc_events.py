"""A worker's event stream on its way to the caller, without I/O (``byoc/job_orchestrator.go``, v0.9.1).

go-livepeer reads it line by line with Go's ``bufio.Scanner`` and knows nothing of events. So each line loses
a carriage return at its end, one of 64 KiB ends everything, and before a line with ``[DONE]`` anywhere in it
comes a line with the caller's balance and two newlines, glued to the event before unless that had ended.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["EventLines"]

_MAX_LINE = 64 * 1024  # bytes, the newline among them


class EventLines:
    """The lines of one stream.

    Args:
        balance: What the caller has left, in wei with three decimals; offchain nobody has anything.

    Attributes:
        too_long: Whether a line was too long; nothing behind it is read.
    """

    def __init__(self, balance: Callable[[], str] = lambda: "0.000") -> None:
        self._balance = balance
        self.too_long: bool = False
        self._rest = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the worker; what goes to the caller now."""
        out: list[bytes] = []
        self._rest += data
        while not self.too_long:
            end = self._rest.find(b"\n", 0, _MAX_LINE)
            if end < 0:
                self.too_long = len(self._rest) >= _MAX_LINE
                break
            out.append(self._forwarded(bytes(self._rest[:end])))
            del self._rest[: end + 1]
        return b"".join(out)

    def end(self) -> bytes:
        """Take the worker's end, however it went; what goes to the caller then."""
        rest = b"" if self.too_long else bytes(self._rest)
        return self._forwarded(rest) if rest else b""

    def _forwarded(self, line: bytes) -> bytes:
        line = line.removesuffix(b"\r") + b"\n"
        if b"[DONE]" not in line:
            return line
        return f'data: {{"balance": {self._balance()}}}\n\n\n'.encode() + line
