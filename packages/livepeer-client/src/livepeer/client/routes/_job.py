"""The `Livepeer` header: which capability a BYOC request is for (go-livepeer v0.9.1, ``byoc/``)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from .._secrets import Secret
from ..errors import ConfigurationError

__all__ = ["job_header"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def job_header(
    capability: str,
    *,
    job_id: str,
    request: Mapping[str, Any] = _NOTHING,
    parameters: Mapping[str, Any] = _NOTHING,
    timeout_seconds: int,
    sender: str = "",
    signature: str = "",
) -> dict[str, str]:
    """The header of one job, as go-livepeer's `JobRequest` has it (``byoc/types.go``).

    It goes to the orchestrator alone, in clear and into its logs; a caller's data belongs into the body.

    Args:
        capability: The name that its worker registered.
        job_id: Names the job; for a stream it is the stream's id and the base of its channels' names.
        request: What the job's own calls need, such as ``{"stream_id": …}``.
        parameters: What the orchestrator needs to know, such as ``{"enable_video_ingress": True}``.
        timeout_seconds: How long the orchestrator waits for the head of the worker's answer, whole seconds.
        sender: The address of who pays; "" offchain.
        signature: Of the request and the parameters, by the sender.

    Returns:
        ``{"Livepeer": …}``: JSON in standard base64, with its padding.

    Raises:
        ConfigurationError: The orchestrator refuses a time that isn't a whole number over 0.
    """
    if isinstance(timeout_seconds, bool) or not isinstance(timeout_seconds, int) or timeout_seconds < 1:
        raise ConfigurationError(
            f"timeout_seconds={timeout_seconds!r} can't be; an orchestrator takes whole seconds from 1 up."
        )
    job = {
        "id": job_id,
        "request": json.dumps(dict(request)),
        "parameters": json.dumps(dict(parameters)),
        "capability": capability,
        "timeout_seconds": timeout_seconds,
    }
    if sender:
        job |= {"sender": sender, "sig": signature}
    header = base64.b64encode(json.dumps(job).encode()).decode()
    return {"Livepeer": Secret(header) if sender else header}
