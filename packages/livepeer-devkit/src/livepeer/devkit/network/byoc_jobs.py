"""The headers that say what a BYOC request is for, without I/O (``byoc/job_orchestrator.go``, v0.9.1)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .gojson import GoJSONError, Kind, unmarshal
from .validation import Refused

__all__ = ["HEADER", "Job", "hex_bytes", "parse_job", "parse_sender"]

HEADER = "Livepeer"

_FIELDS: Mapping[str, Kind] = {
    "id": "string",
    "request": "string",
    "parameters": "string",
    "capability": "string",
    "capability_url": "string",
    "sender": "string",
    "sig": "string",
    "timeout_seconds": "int",
}
_SENDER: Mapping[str, Kind] = {"addr": "string", "sig": "string"}
_HEX = re.compile(r"([0-9a-fA-F]{2})*")
_MAX_SIGNATURE = 130  # hexadecimal digits; a longer one begins with 0x


@dataclass(frozen=True)
class Job:
    """What a ``Livepeer`` header says.

    Args:
        id: The caller's name for it; a stream's id.
        request: JSON in a string.
        parameters: JSON in a string.
        capability: The capability's name.
        timeout: In seconds, never 0.
        sender: The address of who pays, if anybody does.
        signature: Of the request and the parameters, by the sender, in hexadecimal digits.
    """

    id: str
    request: str
    parameters: str
    capability: str
    timeout: int
    sender: str = ""
    signature: str = ""

    def stream_id(self) -> str:
        """The stream that the job is about; raises `Refused` when `request` isn't a JSON object."""
        try:
            details = unmarshal(self.request, "byoc.JobRequestDetails", {"stream_id": "string"})
        except GoJSONError as error:
            raise Refused(f"Unable to unmarshal job request details err={error}", 400) from None
        return str(details["stream_id"])


def parse_job(header: str) -> Job:
    """Read a ``Livepeer`` header, whose signature has to be hexadecimal at least. Raises `Refused`."""
    try:
        fields = _decoded(header, "byoc.JobRequest", _FIELDS)
        if fields["timeout_seconds"] == 0:
            raise Refused("no timeout_seconds set with request, timeout_seconds is required", 400)
        hex_bytes(fields["sig"])
    except ValueError:
        raise Refused("Could not verify job creds", 400) from None
    return Job(
        id=fields["id"],
        request=fields["request"],
        parameters=fields["parameters"],
        capability=fields["capability"],
        timeout=fields["timeout_seconds"],
        sender=fields["sender"],
        signature=fields["sig"],
    )


def parse_sender(header: str) -> dict[str, str]:
    """Read a ``Livepeer-Eth-Address`` header. Raises `Refused`."""
    if not header:
        text = "Must have eth address and signature on address in Livepeer-Eth-Address header"
        raise Refused(text, 400)
    try:
        fields = _decoded(header, "byoc.JobSender", _SENDER)
        hex_bytes(fields["sig"])
    except ValueError:
        raise Refused("Invalid eth address header ", 400) from None
    return fields


def _decoded(header: str, struct: str, fields: Mapping[str, Kind]) -> dict[str, Any]:
    return unmarshal(base64.b64decode(header, validate=True), struct, fields)


def hex_bytes(text: str) -> bytes:
    """A signature's bytes; one of full length may begin with ``0x``. Raises `ValueError`."""
    digits = text[2:] if len(text) > _MAX_SIGNATURE else text
    if not _HEX.fullmatch(digits):
        raise ValueError(text)
    return bytes.fromhex(digits)
