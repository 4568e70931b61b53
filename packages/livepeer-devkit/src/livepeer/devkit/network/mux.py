"""Which handler a request goes to: the rules of Go's ``http.ServeMux`` that a client can see (Go 1.25).

A missing trailing slash and an unclean path are answered with 307, a wrong method with 405 and ``Allow``,
the rest with ``404 page not found``; HEAD goes where GET goes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from . import answers, paths

__all__ = ["Handler", "Mux", "split_target"]

Handler = Callable[[web.Request, Mapping[str, bytes]], Awaitable[web.StreamResponse]]


def split_target(target: str) -> tuple[str, str]:
    """The path of a request's target, and its query with the question mark."""
    path, mark, query = target.partition("?")
    return path, mark + query


class Mux:
    """A table of patterns such as ``POST /apps/{id}/session`` or ``/apps/{id}/app/{rest...}``."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, list[str], Handler]] = []

    def handle(self, pattern: str, handler: Handler) -> None:
        """Send requests that match the pattern to this handler; the first pattern added wins."""
        method, _, path = pattern.rpartition(" ")
        self._routes.append((method, path.split("/")[1:], handler))

    async def dispatch(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        target, query = split_target(request.raw_path)
        path = paths.clean(target)
        handler, values = self._find(request.method, path)
        if handler is None and not path.endswith("/"):
            with_slash, _ = self._find(request.method, path + "/")
            if with_slash is not None:
                return self._redirect(request, path + "/" + query)
        if path != target:
            return self._redirect(request, path + query)
        if handler is not None:
            return await handler(request, values)
        allowed = sorted(set(self._methods(path)))
        if allowed:
            return answers.error("Method Not Allowed", 405, Allow=", ".join(allowed))
        return answers.not_found()

    def _find(self, method: str, path: str) -> tuple[Handler | None, dict[str, bytes]]:
        for wanted, segments, handler in self._routes:
            if wanted in ("", method) or (wanted == "GET" and method == "HEAD"):
                values = _match(segments, path)
                if values is not None:
                    return handler, values
        return None, {}

    def _methods(self, path: str) -> list[str]:
        found = []
        for method, segments, _ in self._routes:
            if _match(segments, path) is not None:
                found += ["GET", "HEAD"] if method == "GET" else [method]
        return found

    @staticmethod
    def _redirect(request: web.Request, location: str) -> web.Response:
        return answers.redirect(location, request.method)


def _match(segments: list[str], path: str) -> dict[str, bytes] | None:
    parts = path.split("/")[1:]
    values: dict[str, bytes] = {}
    for index, segment in enumerate(segments):
        if segment.endswith("...}"):
            if len(parts) <= index:
                return None
            values[segment[1:-4]] = paths.unescape("/".join(parts[index:]))
            return values
        if index >= len(parts):
            return None
        if segment.startswith("{"):
            if not parts[index]:
                return None
            values[segment[1:-1]] = paths.unescape(parts[index])
        elif segment.encode() != paths.unescape(parts[index]):
            return None
    return values if len(parts) == len(segments) else None
