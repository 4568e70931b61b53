"""Call any capability of the Livepeer network by its name: `run`, `stream`, `live`.

    from livepeer.client import Gateway

    gw = Gateway(orch_url="https://127.0.0.1:8935")
    print(gw.run("text-reverse", input={"text": "hello"}))

Importing this package loads neither aiohttp nor PyAV; `Gateway()` loads the first, live media the second.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .catalogue import Capability, Gpu, Price
from .errors import (
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
    SignerError,
    StreamError,
    TrickleConnectionError,
    TrickleError,
)
from .events import StreamEvent
from .gateway import Gateway
from .live import ChannelStats, LiveSession, SessionStats
from .results import Blob, Response
from .stream import AsyncStreamResponse, StreamResponse
from .timeouts import Timeout

if TYPE_CHECKING:
    from livepeer.trickle.media import MediaOutput, MediaPublish, VideoFrame

__all__ = [
    "AsyncStreamResponse",
    "Blob",
    "BudgetExceeded",
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
    "FirstByteTimeout",
    "Gateway",
    "Gpu",
    "IdleTimeout",
    "InputError",
    "InsufficientBalance",
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
    "Response",
    "ResponseError",
    "SessionEnded",
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

_MEDIA = ("MediaOutput", "MediaPublish", "VideoFrame")


def __getattr__(name: str) -> Any:
    if name not in _MEDIA:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module("livepeer.trickle.media"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
