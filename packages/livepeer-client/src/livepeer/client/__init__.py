"""Call any capability of the Livepeer network by its name: `run`, `stream`, `live`.

    from livepeer.client import Gateway

    gw = Gateway(orch_url="https://127.0.0.1:8935")
    print(gw.run("text-reverse", input={"text": "hello"}))

Importing this package loads nothing but itself: each name loads its module at first use, a WebSocket
loads aiohttp, and live media loads PyAV.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from livepeer.trickle.media import AudioFrame, MediaOutput, MediaPublish, VideoFrame

    from ._observing import RequestRecord
    from .catalogue import Capability, Gpu, Price
    from .diagnosis import Diagnosis, Finding
    from .errors import (
        Attempt,
        BudgetExceeded,
        CapabilityError,
        CapabilityNotFound,
        CapacityError,
        ChannelClosed,
        ChannelNotFound,
        ConfigurationError,
        ConnectionFailed,
        ConnectTimeout,
        DeadlineExceeded,
        FirstByteTimeout,
        IdleTimeout,
        InputError,
        InsufficientBalance,
        LivepeerError,
        LivepeerTimeout,
        MediaError,
        NoOrchestratorError,
        OrchestratorError,
        PaymentError,
        PaymentUnsupported,
        PriceExceeded,
        Rejection,
        ResponseError,
        SessionEnded,
        SessionLost,
        SessionStalled,
        SignerError,
        StreamError,
        TrickleConnectionError,
        TrickleError,
    )
    from .events import StreamEvent
    from .explanation import Candidate, Explanation
    from .gateway import Gateway
    from .live import ChannelStats, Latency, LiveSession, SessionStats
    from .results import Blob, Response
    from .stream import AsyncStreamResponse, StreamResponse
    from .timeouts import Timeout

__all__ = [
    "AsyncStreamResponse",
    "Attempt",
    "AudioFrame",
    "Blob",
    "BudgetExceeded",
    "Candidate",
    "Capability",
    "CapabilityError",
    "CapabilityNotFound",
    "CapacityError",
    "ChannelClosed",
    "ChannelNotFound",
    "ChannelStats",
    "ConfigurationError",
    "ConnectTimeout",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Diagnosis",
    "Explanation",
    "Finding",
    "FirstByteTimeout",
    "Gateway",
    "Gpu",
    "IdleTimeout",
    "InputError",
    "InsufficientBalance",
    "Latency",
    "LiveSession",
    "LivepeerError",
    "LivepeerTimeout",
    "MediaError",
    "MediaOutput",
    "MediaPublish",
    "NoOrchestratorError",
    "OrchestratorError",
    "PaymentError",
    "PaymentUnsupported",
    "Price",
    "PriceExceeded",
    "Rejection",
    "RequestRecord",
    "Response",
    "ResponseError",
    "SessionEnded",
    "SessionLost",
    "SessionStalled",
    "SessionStats",
    "SignerError",
    "StreamError",
    "StreamEvent",
    "StreamResponse",
    "Timeout",
    "TrickleConnectionError",
    "TrickleError",
    "VideoFrame",
    "__version__",
]

_MODULES = {
    "._observing": ("RequestRecord",),
    ".catalogue": (
        "Capability",
        "Gpu",
        "Price",
    ),
    ".errors": (
        "Attempt",
        "BudgetExceeded",
        "CapabilityError",
        "CapabilityNotFound",
        "CapacityError",
        "ChannelClosed",
        "ChannelNotFound",
        "ConfigurationError",
        "ConnectTimeout",
        "ConnectionFailed",
        "DeadlineExceeded",
        "FirstByteTimeout",
        "IdleTimeout",
        "InputError",
        "InsufficientBalance",
        "LivepeerError",
        "LivepeerTimeout",
        "MediaError",
        "NoOrchestratorError",
        "OrchestratorError",
        "PaymentError",
        "PaymentUnsupported",
        "PriceExceeded",
        "Rejection",
        "ResponseError",
        "SessionEnded",
        "SessionLost",
        "SessionStalled",
        "SignerError",
        "StreamError",
        "TrickleConnectionError",
        "TrickleError",
    ),
    ".events": ("StreamEvent",),
    ".diagnosis": (
        "Diagnosis",
        "Finding",
    ),
    ".explanation": (
        "Candidate",
        "Explanation",
    ),
    ".gateway": ("Gateway",),
    ".live": (
        "ChannelStats",
        "Latency",
        "LiveSession",
        "SessionStats",
    ),
    ".results": (
        "Blob",
        "Response",
    ),
    ".stream": (
        "AsyncStreamResponse",
        "StreamResponse",
    ),
    ".timeouts": ("Timeout",),
    "livepeer.trickle.media": (
        "AudioFrame",
        "MediaOutput",
        "MediaPublish",
        "VideoFrame",
    ),
}
_LAZY = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
