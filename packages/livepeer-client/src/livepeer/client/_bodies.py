"""Bodies of answers that are read as a whole, as far as a limit.

What orchestrators, services and signers answer to the SDK's own questions is small. One that has no end, by
fault or by malice, or a few kilobytes that unpack to gigabytes, must not fill this machine's memory. So the
limit is fixed, counts what comes of compressed bytes, and is looked at as they come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import ResponseError

if TYPE_CHECKING:
    from livepeer.trickle.transport import Reply

__all__ = ["SMALL", "one_line", "skip", "whole"]

SMALL = 1024 * 1024
"""Bytes for the answer to a question of the SDK's own, such as a job token, a reservation or a start; on a
go-livepeer v0.9.1 these have a few kilobytes at most."""

_UNREAD = 64 * 1024  # bytes to read for a connection that can be used again; a new one costs less than more


async def whole(
    response: Reply, most: int | None, what: str, *, hint: str | None = None, **details: Any
) -> bytes:
    """A body to its end.

    Args:
        response: The answer, whose head is there.
        most: How many bytes it may have, uncompressed; None is any number.
        what: What it is, for the error.
        hint: What to do, for the error.
        details: `request_id` and `orchestrator` for the error.

    Raises:
        ResponseError: It has more; the connection is closed.
    """
    body = bytearray()
    while chunk := await response.content.readany():
        body += chunk
        if most is not None and len(body) > most:
            _hang_up(response)
            raise ResponseError(
                f"{what} has more than {most} bytes, or no end.",
                hint=hint or "Whoever answers there isn't what it should be.",
                **details,
            )
    return bytes(body)


async def skip(response: Reply) -> None:
    """Read a body that nobody looks at, so that its connection can be used again; a long one isn't worth it.

    The connection of a long one is closed.
    """
    size = 0
    while chunk := await response.content.readany():
        size += len(chunk)
        if size > _UNREAD:
            _hang_up(response)
            return


def one_line(body: bytes, most: int) -> str:
    """The text of an error's body, as far as so many bytes, in one line."""
    return " ".join(body[:most].decode("utf-8", "replace").split())


def _hang_up(response: Reply) -> None:
    from livepeer.trickle.transport import hang_up

    hang_up(response)
