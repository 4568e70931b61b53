"""The exchange of ``GetOrchestrator``, and what each way in which it can fail is called.

Source: ``net/lp_rpc.proto`` and ``server/rpc.go`` of go-livepeer v0.9.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from yarl import URL

from livepeer.trickle.transport import CertificateChanged

from .._failures import as_livepeer_error, way_out
from .._observing import asking
from .._urls import redact
from .._version import __version__
from ..errors import (
    CapacityError,
    ConfigurationError,
    ConnectionFailed,
    ConnectTimeout,
    FirstByteTimeout,
    LivepeerError,
    OrchestratorError,
    ResponseError,
)
from . import GET_ORCHESTRATOR
from .lp_rpc_pb2 import OrchestratorInfo, OrchestratorRequest
from .unary import BadAnswer, Unary

if TYPE_CHECKING:
    from .._http import Pool
    from .._payer import Identity

__all__ = ["ask"]

_CONNECT = 10.0  # seconds for TCP and TLS
_ANSWER = 15.0  # seconds for the answer; a paid orchestrator asks its chain meanwhile
_LONGEST_NAME = 4096  # bytes of a model's name

# The names of gRPC's statuses, and the HTTP statuses that they stand for.
_STATUSES = {
    1: ("CANCELLED", 499),
    2: ("UNKNOWN", 500),
    3: ("INVALID_ARGUMENT", 400),
    4: ("DEADLINE_EXCEEDED", 504),
    5: ("NOT_FOUND", 404),
    6: ("ALREADY_EXISTS", 409),
    7: ("PERMISSION_DENIED", 403),
    8: ("RESOURCE_EXHAUSTED", 429),
    9: ("FAILED_PRECONDITION", 400),
    10: ("ABORTED", 409),
    11: ("OUT_OF_RANGE", 400),
    12: ("UNIMPLEMENTED", 501),
    13: ("INTERNAL", 500),
    14: ("UNAVAILABLE", 503),
    15: ("DATA_LOSS", 500),
    16: ("UNAUTHENTICATED", 401),
}
_DEADLINE, _EXHAUSTED, _UNIMPLEMENTED, _UNAVAILABLE = 4, 8, 12, 14


async def ask(
    orchestrator: str,
    pool: Pool,
    *,
    capability: int | None,
    model: str | None,
    request_id: str | None,
    payer: Identity | None = None,
) -> OrchestratorInfo:
    """See `get_orchestrator`."""
    details: dict[str, Any] = {"orchestrator": orchestrator, "request_id": request_id}
    call = _call(orchestrator, capability, model, payer)
    with asking(pool, "grpc", "POST", orchestrator + GET_ORCHESTRATOR, **details) as answered:
        await _exchange(call, orchestrator, pool, details)
        answered(call.http_status)
        if call.status != 0:
            raise _refusal(call, orchestrator, details)
    try:
        return OrchestratorInfo.FromString(call.message())
    except (BadAnswer, DecodeError) as error:
        raise ResponseError(
            f"{redact(orchestrator)} answered GetOrchestrator with what can't be read: {error}.", **details
        ) from error


def _call(orchestrator: str, capability: int | None, model: str | None, payer: Identity | None) -> Unary:
    request = OrchestratorRequest(ignoreCapacityCheck=True)
    if payer is not None:
        request.address = bytes.fromhex(payer.address.removeprefix("0x"))
        request.sig = bytes.fromhex(payer.signature.removeprefix("0x"))
    if capability is not None:
        words = [0] * (capability // 64 + 1)
        words[-1] = 1 << capability % 64
        request.capabilities.bitstring.extend(words)
        request.capabilities.capacities[capability] = 1
        if model is not None:
            if len(model.encode()) > _LONGEST_NAME:
                raise ConfigurationError(f"model={model[:40]!r}… is longer than {_LONGEST_NAME} bytes.")
            constraints = request.capabilities.constraints.PerCapability[capability]
            constraints.models[model].warm = False
    return Unary(
        URL(orchestrator),
        GET_ORCHESTRATOR,
        request.SerializeToString(),
        user_agent=f"livepeer-client/{__version__}",
        timeout=_ANSWER,
    )


async def _exchange(call: Unary, orchestrator: str, pool: Pool, details: dict[str, Any]) -> None:
    """Send the call, and feed it its answer."""
    where = redact(orchestrator)
    transport = await pool.transport()
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(_CONNECT) as connecting:
            reader, writer = await transport.dial(URL(orchestrator), "h2")
        _check_protocol(writer, where, details)
        async with asyncio.timeout(_ANSWER) as answering:
            writer.write(call.to_send())
            while not call.done:
                data = await reader.read(65536)
                if not data:
                    raise ConnectionResetError
                call.feed(data)
                writer.write(call.to_send())
                await writer.drain()  # who asks for acknowledgements without reading any gets no more
    except TimeoutError as error:
        if connecting.expired():
            raise ConnectTimeout(
                f"No connection to {where} within {_CONNECT:g} s.", waited=_CONNECT, retryable=True, **details
            ) from error
        if writer is None or not answering.expired():
            raise _failure(error, where, details) from error  # the system's own timeout
        raise FirstByteTimeout(
            f"{where} did not answer GetOrchestrator within {_ANSWER:g} s.",
            waited=_ANSWER,
            retryable=True,
            **details,
        ) from error
    except BadAnswer as error:
        raise OrchestratorError(
            f"{where} gave no answer to GetOrchestrator: {error}.", hint=_NO_GRPC, status=0, **details
        ) from error
    except (OSError, CertificateChanged) as error:
        if writer is not None:
            raise ConnectionFailed(
                f"{where} closed the connection before it answered GetOrchestrator.",
                hint="Nothing was begun there, so it can be asked again.",
                retryable=True,
                **details,
            ) from error
        raise _failure(error, where, details) from error
    finally:
        if writer is not None:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


_NO_GRPC = "An orchestrator speaks gRPC on the port of its HTTPS; a proxy in front of it may not."


def _check_protocol(writer: asyncio.StreamWriter, where: str, details: dict[str, Any]) -> None:
    tls = writer.get_extra_info("ssl_object")
    if tls is not None and tls.selected_alpn_protocol() != "h2":
        raise OrchestratorError(f"{where} speaks no HTTP/2, so no gRPC.", hint=_NO_GRPC, status=0, **details)


def _failure(error: Exception, where: str, details: dict[str, Any]) -> LivepeerError:
    """What a failure to connect is called; most is as in HTTP."""
    if isinstance(error, ssl.SSLError | CertificateChanged):
        return as_livepeer_error(error, where, **details)
    if isinstance(error, socket.gaierror):
        return ConnectionFailed(
            f"The host of {where} has no address: {error.strerror}.",
            hint="Check the URL for a typing mistake, and that this machine can resolve names.",
            **details,
        )
    number = error.errno if isinstance(error, OSError) else None
    return ConnectionFailed(
        f"No connection to {where}: {os.strerror(number) if number else error}.",
        hint=way_out(error),
        retryable=True,  # whatever broke off, nothing was begun
        **details,
    )


def _refusal(call: Unary, orchestrator: str, details: dict[str, Any]) -> LivepeerError:
    """What an answer other than gRPC's OK means."""
    where = redact(orchestrator)
    text = " ".join(call.text.split())[:500]
    if call.status is None:
        return OrchestratorError(
            f"{where} answered GetOrchestrator with HTTP {call.http_status}, which is no answer of gRPC.",
            hint=_NO_GRPC,
            status=call.http_status,
            body=text,
            **details,
        )
    name, status = _STATUSES.get(call.status, (str(call.status), 500))
    if "OrchestratorCapped" in text or call.status == _EXHAUSTED:
        return CapacityError(f"{where} is full ({text}).", hint="Try again later.", **details)
    if call.status == _DEADLINE:
        return FirstByteTimeout(
            f"{where} did not finish GetOrchestrator in time ({text}).", retryable=True, **details
        )
    hint = "It is no orchestrator, or one of another kind." if call.status == _UNIMPLEMENTED else None
    return OrchestratorError(
        f"{where} refused GetOrchestrator: {name}, {text or 'without a text'}.",
        hint=hint,
        status=status,
        body=text,
        retryable=call.status == _UNAVAILABLE,
        **details,
    )
