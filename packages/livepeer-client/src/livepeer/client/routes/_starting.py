"""What the starts of live sessions share: their body, their channels, and a stop that is tried again."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._bodies import SMALL, skip, whole
from .._http import Pool, translated, within
from .._observing import asking
from .._urls import redact
from ..errors import LivepeerError, ResponseError
from ..inputs import Body, encode_input

if TYPE_CHECKING:
    from livepeer.trickle.transport import Reply

__all__ = ["CHANNELS", "json_object", "start_body", "tell"]

CHANNELS = ("publish", "subscribe", "control", "events", "data")

_logger = logging.getLogger("livepeer.client")
_TRIES = 3
_PATIENCE = 5.0  # seconds for one try
_BODY_PATIENCE = 30.0  # seconds for the rest of a small answer whose head is there


def start_body(**fields: Any) -> Body:
    """The JSON object of a start, without the fields that are None.

    Raises:
        InputError: A value of the parameters has no JSON form.
    """
    return encode_input({name: value for name, value in fields.items() if value is not None})


async def json_object(response: Reply, what: str, **details: Any) -> dict[str, Any]:
    """The JSON object that an answer has to be.

    Args:
        response: The answer, whose head is there.
        what: What it should have been, for the error.
        details: `orchestrator` and `request_id`.

    Raises:
        ResponseError: It is something else, or too long.
        FirstByteTimeout: Its rest doesn't come.
    """
    url = response.url
    with translated(url, **details):
        async with within(_BODY_PATIENCE, url, **details):
            body = await whole(response, SMALL, f"The answer to {what[0].lower()}{what[1:]}", **details)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ResponseError(
            f"{what} was answered with something else than a JSON object.", body=body, **details
        )
    return value


async def tell(
    pool: Pool,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    patience: float = _PATIENCE,
) -> None:
    """Tell an orchestrator that a session is over; whatever it answers, it has heard it.

    Tried three times, because a session that isn't ended can hold a worker's place for ever.
    """
    for attempt in range(_TRIES):
        try:
            transport = await pool.transport()
            with asking(pool, "stop", method, url) as answered:
                async with (
                    within(patience, url),
                    await transport.send(method, url, headers=headers) as response,
                ):
                    answered(response.status)
                    await skip(response)
            return
        except LivepeerError as error:
            _logger.debug("%s was not ended: %s", redact(url), error)
            await asyncio.sleep(0.1 * 2**attempt)
