"""431 for a request whose head is too large, where aiohttp says 400 (Go 1.25, ``server.go``)."""

from __future__ import annotations

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

__all__ = ["refuse_oversize"]

_TEXT = "431 Request Header Fields Too Large"


class _Handler(web.RequestHandler):
    """One connection; aiohttp has no hook for what is said of a head that it can't read."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if not isinstance(exc, LineTooLong):
            return super().handle_error(request, status, exc, message)
        headers = {"Content-Type": "text/plain; charset=utf-8", "Connection": "close"}
        answer = web.Response(status=431, body=_TEXT.encode(), headers=headers)
        answer.force_close()
        return answer


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        handler = super().__call__()
        handler.__class__ = _Handler
        return handler


def refuse_oversize(runner: web.AppRunner) -> None:
    """Make a runner that was set up answer so; to call before it listens."""
    assert isinstance(runner.server, web.Server)
    runner.server.__class__ = _Server
