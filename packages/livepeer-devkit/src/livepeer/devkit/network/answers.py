"""The answers of an orchestrator as Go's ``net/http`` puts them on the wire (Go 1.25, ``server.go``)."""

from __future__ import annotations

import html
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from .gojson import encode

__all__ = [
    "BareResponse",
    "BareStream",
    "PaymentRequired",
    "canonical",
    "dropped",
    "error",
    "json_answer",
    "json_error",
    "no_content",
    "not_found",
    "prepare_headers",
    "reason",
    "redirect",
]


_ADDED = ("Content-Type", "Server")  # what aiohttp puts into an answer that lacks it


class PaymentRequired(Exception):
    """A call must be paid for first.

    Args:
        answer: The 402, or why there can't be one.
    """

    def __init__(self, answer: web.Response) -> None:
        super().__init__()
        self.answer = answer


class BareResponse(web.Response):
    """An answer that carries a content type and a server's name only when it has set them itself."""

    unset: Sequence[str] = _ADDED

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Begin the answer."""
        self.unset = [name for name in _ADDED if name not in self.headers]
        return await super().prepare(request)


class BareStream(web.StreamResponse):
    """The same, written in pieces."""

    unset: Sequence[str] = _ADDED

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Begin the answer."""
        self.unset = [name for name in _ADDED if name not in self.headers]
        return await super().prepare(request)


def error(text: str, status: int, **headers: str) -> web.Response:
    """An error as ``http.Error`` writes it: plain text with a newline behind it."""
    return web.Response(
        body=text.encode("utf-8", "replace") + b"\n",
        status=status,
        reason=reason(status),
        headers={
            "Content-Type": "text/plain; charset=utf-8",
            "X-Content-Type-Options": "nosniff",
            **headers,
        },
    )


def dropped(request: web.Request) -> web.Response:
    """No answer: where go-livepeer's handler panics, the connection ends without a word."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def not_found() -> web.Response:
    """What a path without a handler gets."""
    return error("404 page not found", 404)


def json_answer(value: Any) -> web.Response:
    """A successful answer of an orchestrator's handlers."""
    return web.Response(body=encode(value), headers={"Content-Type": "application/json"})


def json_error(text: str, status: int) -> web.Response:
    """An error as go-livepeer's ``respondJsonError`` writes it: what is its own fault goes unsaid."""
    hidden = {500: "Internal Server Error", 503: "Service Unavailable Error"}
    return web.Response(
        body=encode({"error": {"message": hidden.get(status, text)}}) + b"\n",
        status=status,
        reason=reason(status),
        headers={"Content-Type": "application/json"},
    )


def canonical(name: str) -> str:
    """A header's name as Go writes it: ``Livepeer-Payment``."""
    return "-".join(part.capitalize() for part in name.split("-"))


def no_content() -> web.Response:
    """204 without a content type."""
    return BareResponse(status=204)


def redirect(location: str, method: str) -> web.Response:
    """307 as ``http.Redirect`` writes it: a page for GET, nothing for the others."""
    if method not in ("GET", "HEAD"):
        return BareResponse(status=307, headers={"Location": location})
    answer = web.Response(status=307, headers={"Location": location})
    answer.headers["Content-Type"] = "text/html; charset=utf-8"
    if method == "GET":
        answer.body = f'<a href="{html.escape(location)}">Temporary Redirect</a>.\n\n'.encode()
    return answer


async def prepare_headers(_: web.BaseRequest, answer: web.StreamResponse) -> None:
    """Drop the headers that aiohttp adds and Go doesn't; a signal of the application."""
    unset = answer.unset if isinstance(answer, BareResponse | BareStream) else ("Server",)
    for name in unset:
        answer.headers.pop(name, None)


def reason(status: int) -> str:
    """The words behind a status, as Go writes them."""
    if status == 418:
        return "I'm a teapot"
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status code {status}"
