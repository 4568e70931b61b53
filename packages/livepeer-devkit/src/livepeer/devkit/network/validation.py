"""What an orchestrator checks in what runners send, and its words (``live_runner.go``, v0.9.1)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

__all__ = ["Refused", "channel_name", "checked_target", "normalize"]

_MAX_METADATA = 1024  # bytes


class Refused(Exception):
    """A refusal in go-livepeer's words.

    Args:
        text: The body of the answer, without its newline.
        status: The HTTP status.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


def normalize(fields: dict[str, Any], runner_id: str) -> dict[str, Any]:
    """The fields of a heartbeat as they are kept: checked, with their defaults."""
    if not _absolute(fields["runner_url"]):
        raise Refused("invalid runner_url", 400)
    if not fields["app"] or fields["app"] != fields["app"].strip():
        raise Refused("app must be trimmed", 400)
    if len(fields["metadata"].encode("utf-8", "replace")) > _MAX_METADATA:
        raise Refused(f"metadata must be at most {_MAX_METADATA} bytes", 400)
    if "\ufffd" in fields["metadata"]:
        raise Refused("metadata must not contain Unicode replacement character U+FFFD", 400)
    if fields["status"] != fields["status"].strip().lower():
        raise Refused("status must be lowercase and trimmed", 400)
    mode = {"": "persistent", "single_shot": "single-shot"}.get(fields["mode"], fields["mode"])
    if mode not in ("persistent", "single-shot"):
        raise Refused('mode must be "persistent" or "single-shot"', 400)
    if fields["capacity"] < 0:
        raise Refused("capacity must be >= 0", 400)
    return fields | {"runner_id": runner_id, "mode": mode, "capacity": fields["capacity"] or 1}


def _absolute(url: str) -> bool:
    """Whether Go's ``url.ParseRequestURI`` takes it as an absolute HTTP URL."""
    if any(character <= " " or character == "\x7f" for character in url):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    port = parts.netloc.rpartition("@")[2].rpartition("]")[2].partition(":")[2]
    digits = not port or (port.isascii() and port.isdigit())
    return parts.scheme in ("http", "https") and bool(parts.netloc) and digits


def checked_target(target_url: str, runner_url: str) -> str:
    """The target of a proxy address, which must be on the runner's own host."""
    target_url = target_url.strip()
    parts = urlsplit(target_url)
    if not parts.scheme or not parts.netloc:
        raise Refused("target_url must be an absolute URL", 400)
    if parts.scheme not in ("http", "https"):
        raise Refused("target_url scheme must be http or https", 400)
    if (parts.hostname or "") != (urlsplit(runner_url).hostname or ""):
        raise Refused("target_url hostname must match registered runner_url hostname", 400)
    return target_url


def channel_name(name: str) -> str:
    """The name of a session's channel as it is kept."""
    name = name.strip().replace("/", "-")
    if not name:
        raise Refused("trickle channel name is required", 400)
    if not all(character.isascii() and (character.isalnum() or character in "_-") for character in name):
        raise Refused("trickle channel name may only contain alphanumerics, underscores, or hyphens", 400)
    return name
