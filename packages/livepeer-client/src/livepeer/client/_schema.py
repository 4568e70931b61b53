"""Where a capability's JSON Schema is read: a public URL first, else its worker, which may cost money."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ._bodies import whole
from ._http import Pool
from ._merging import PIPELINES
from ._observing import asking
from ._urls import allowed, redact
from .catalogue import Price
from .errors import (
    CapabilityError,
    CapabilityNotFound,
    ConfigurationError,
    LivepeerError,
    PaymentUnsupported,
    PriceExceeded,
    ResponseError,
)
from .failover import TO_PAY
from .inputs import Body
from .resolution import Resolver
from .routes import Call
from .selection import check_names, runners_of
from .timeouts import Timeout

if TYPE_CHECKING:
    from ._calls import Calls
    from .catalogue import Runner

__all__ = ["schema"]

_LARGEST = 4 * 1024 * 1024  # bytes of a schema


async def schema(
    calls: Calls,
    resolver: Resolver,
    pool: Pool,
    *,
    capability: str,
    model: str | None,
    pay: bool,
    max_price: Price | None,
    timeout: Timeout,
    request_id: str,
) -> dict[str, Any]:
    """A capability's JSON Schema; see `Gateway.schema`."""
    check_names(capability, model)
    if resolver.through_node and not pay:
        raise PaymentUnsupported(
            f"To ask the worker of {capability!r} for its schema through a gateway node may cost money.",
            hint="schema(…, pay=True) lets the node pay for it.",
        )
    listing, asked_now = await resolver.discovery.listing()
    runners = runners_of(listing, capability, model)
    if not runners and not asked_now:
        listing, _ = await resolver.discovery.listing(fresh=True)
        runners = runners_of(listing, capability, model)
    public = [runner for runner in runners if runner.metadata.get("schema_url")]
    failure: LivepeerError | None = None
    for runner in public:
        try:
            return await _fetch(runner, pool, timeout)
        except LivepeerError as error:
            failure = failure or error
    free = [runner for runner in runners if runner.price is None]
    if failure is not None and not free:
        raise failure
    if runners and not free and not (pay and resolver.wallet is not None):
        raise PaymentUnsupported(
            f"{capability!r} names no public schema, and asking its worker for it costs {runners[0].price}.",
            hint=TO_PAY if pay else "schema(…, pay=True) pays for it, where a signer is configured.",
        )
    most = max_price if pay else _NOTHING
    return await _ask(
        calls, Call(capability, _EMPTY, timeout, request_id, "/schema", "GET", max_price=most), model
    )


_EMPTY = Body(b"{}", "application/json")
_NOTHING = Price(0, "seconds")


async def _ask(calls: Calls, call: Call, model: str | None) -> dict[str, Any]:
    """Ask the worker; over BYOC, where everything is a POST, by one."""
    try:
        response = await calls.call(call, model)
    except CapabilityError as error:
        if error.status in (404, 405):
            error.hint = "Its worker has no /schema; its author may tell what it takes."
        raise
    except PriceExceeded as error:
        if call.max_price is not _NOTHING:
            raise
        raise PaymentUnsupported(
            f"Asking the worker of {call.capability!r} for its schema costs something: {error.message}",
            hint="schema(…, pay=True) pays for it, where a signer is configured.",
        ) from None
    except CapabilityNotFound:
        if call.capability in PIPELINES.values():
            raise ConfigurationError(
                f"{call.capability!r} is a pipeline of the orchestrators' own, which has no schema to read."
            ) from None
        raise
    return _checked(response.data, call.capability)


async def _fetch(runner: Runner, pool: Pool, timeout: Timeout) -> dict[str, Any]:
    """Read a public schema.

    Its URL is the runner's word. It must not lead into the caller's own network, and what isn't the
    orchestrator itself has to prove its name by an ordinary certificate.
    """
    url = allowed(runner.metadata["schema_url"], runner.orchestrator, "schema URL")
    context: ssl.SSLContext | None = None
    there, orchestrator = urlsplit(url), urlsplit(runner.orchestrator)
    if there.scheme == "https" and there.netloc != orchestrator.netloc and pool.tls.mode != "insecure":
        context = await pool.tls.verifying()
    transport = await pool.transport()
    what = f"The schema of {runner.app!r} at {redact(url)}"
    with asking(
        pool, "schema", "GET", url, orchestrator=runner.orchestrator, connect=timeout.connect
    ) as answered:
        async with await transport.send("GET", url, connect=timeout.connect, context=context) as answer:
            answered(answer.status)
            body = await whole(answer, _LARGEST, what)
            status = answer.status
    if status != 200:
        raise ResponseError(f"{what} answered {status}.", body=body[:1000])
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    return _checked(value, runner.app)


def _checked(value: Any, capability: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ResponseError(
            f"What {capability!r} gave for its schema is no JSON object.",
            hint="This is a fault of the capability.",
        )
    return value
