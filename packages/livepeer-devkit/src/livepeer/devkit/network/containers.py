"""Containers as an AI worker talks to them: how it asks them at its start, what it makes of their answers.

``ai/worker/container.go``, ``worker.go`` and the client made from their OpenAPI, ``runner.gen.go`` (v0.9.1).
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import aiohttp

from livepeer.trickle.errors import LivepeerError

from . import gojson
from .models import PIPELINE, START_TIMEOUT

__all__ = ["ContainerFailed", "Containers", "Model", "NoAnswer"]

_POLL = 0.5  # seconds between two questions
_PATIENCE = 5.0  # seconds for one answer about health or hardware
_NUMBERS = re.compile(r"\d+(?:\.\d+){0,2}(?:[-+][0-9A-Za-z.+-]+)?")
_PLAIN_ERROR = {"detail": {"": "worker.APIError", "msg": "string"}}
_PROBLEM = {"": "worker.ValidationError", "loc": "any", "msg": "string", "type": "string"}
_ACCEPTED: dict[str, gojson.Kind] = dict.fromkeys(
    ("control_url", "events_url", "manifest_id", "publish_url", "request_id", "subscribe_url"), "string"
)


class ContainerFailed(Exception):
    """A job that its container did not take; the text is the AI worker's."""


class NoAnswer(Exception):
    """A container answered what go-livepeer does not foresee: its handler panics, the connection drops."""


@dataclass
class Model:
    """One entry of ``-aiModels``, and what its container said of itself at the start.

    `price` is in wei per pixel, 0 where the node's own price counts, and `hardware`
    ``{"pipeline", "model_id", "gpu_info": {"0": {"id", "name", "major", …}}}``.
    """

    model_id: str
    url: str
    capacity: int = 1
    warm: bool = False
    version: str = "0.0.0"
    price: int = 0
    hardware: dict[str, Any] = field(default_factory=dict)


class Containers:
    """The way to the containers: one pool of connections."""

    def __init__(self) -> None:
        self._http = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
            headers={"User-Agent": "Go-http-client/1.1"},
        )

    async def aclose(self) -> None:
        """Close the pool."""
        await self._http.close()

    async def wait_for(self, model: Model) -> None:
        """Wait until a container says that it is there, and note what it says of itself.

        Raises:
            LivepeerError: It isn't there in time, or says that it is broken.
        """
        deadline = time.monotonic() + START_TIMEOUT
        said: object = None
        while True:
            status, said = await self._ask(model, "/health")
            if status == 200:
                break
            if time.monotonic() > deadline:
                raise LivepeerError(
                    f"The container of the model {model.model_id!r} at {model.url} was not there within "
                    f"{START_TIMEOUT:g} s: GET /health gave {said!r}.",
                    hint="Start it before the network, or leave the model away.",
                )
            await asyncio.sleep(_POLL)
        if not isinstance(said, dict) or said.get("status") == "ERROR":
            raise LivepeerError(
                f"The container of the model {model.model_id!r} at {model.url} answers GET /health with "
                f"{said!r}; a status of OK, IDLE or LOADING is needed.",
                hint="See what the container logs.",
            )
        status, hardware = await self._ask(model, "/hardware/info")
        unknown = {"pipeline": PIPELINE, "model_id": model.model_id, "gpu_info": {}}
        model.hardware = hardware if status == 200 and _is_hardware(hardware) else unknown
        status, version = await self._ask(model, "/version")
        if status == 200 and isinstance(version, dict):
            text = str(version.get("version", ""))
            about_this = (version.get("pipeline"), version.get("model_id")) == (PIPELINE, model.model_id)
            model.version = text if about_this and _NUMBERS.fullmatch(text) else ""

    async def _ask(self, model: Model, path: str) -> tuple[int, object]:
        """A status and the JSON (or the text); 0 and the reason when nothing came."""
        timeout = aiohttp.ClientTimeout(total=_PATIENCE)
        try:
            async with self._http.get(model.url + path, timeout=timeout) as answer:
                if "json" in answer.headers.get("Content-Type", ""):
                    return answer.status, json.loads(await answer.read())
                return answer.status, await answer.text()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return 0, str(error) or type(error).__name__

    async def run(self, url: str, body: Mapping[str, Any]) -> None:
        """Give a job to the container at this address.

        Raises:
            ContainerFailed: It is down, or refuses; the text says which.
            NoAnswer: It answered what nobody foresaw.
        """
        try:
            async with self._http.post(
                url, data=gojson.encode(body), headers={"Content-Type": "application/json"}
            ) as answer:
                status, kind = answer.status, answer.headers.get("Content-Type", "")
                data = await answer.read()
        except (aiohttp.ClientError, OSError) as error:
            raise ContainerFailed(f'Post "{url}": {_connection_error(error, url)}') from None
        _judge(status, kind, data)


def _is_hardware(told: object) -> TypeGuard[dict[str, Any]]:
    """Whether a container's answer about its GPUs can be passed on."""
    if not isinstance(told, dict) or not isinstance(told.get("gpu_info") or {}, dict):
        return False
    fields = [told.get("pipeline", ""), told.get("model_id", "")]
    for gpu in (told.get("gpu_info") or {}).values():
        if not isinstance(gpu, dict):
            return False
        fields += [gpu.get("id", ""), gpu.get("name", "")]
        numbers = [gpu.get(name, 0) for name in ("major", "minor", "memory_free", "memory_total")]
        if not all(isinstance(number, int) and 0 <= number < 1 << 31 for number in numbers[:2]):
            return False
        if not all(isinstance(number, int) and abs(number) < 1 << 63 for number in numbers[2:]):
            return False
    return all(isinstance(text, str) for text in fields)


def _judge(status: int, kind: str, data: bytes) -> None:
    """Accept a container's answer or say what is wrong (``runner.gen.go``, ``worker.go``)."""
    if "json" not in kind or status not in (200, 400, 401, 422, 500):
        raise NoAnswer
    try:
        if status == 200:
            gojson.decode(data, "worker.LiveVideoToVideoResponse", _ACCEPTED)
            return
        if status == 422:
            told = gojson.decode(data, "worker.HTTPValidationError", {"detail": {"[]": _PROBLEM}})
            problems = {} if told["detail"] is None else {"detail": told["detail"]}
            text = gojson.encode(problems).decode()
        else:
            text = (gojson.decode(data, "worker.HTTPError", _PLAIN_ERROR)["detail"] or {}).get("msg", "")
    except gojson.GoJSONError as error:
        text = "unexpected end of JSON input" if str(error).endswith("EOF") else str(error)
        raise ContainerFailed(text) from None
    raise ContainerFailed(f"{PIPELINE} container returned {status}: {text}")


def _connection_error(error: Exception, url: str) -> str:
    number = getattr(error, "errno", None)
    host = url.partition("://")[2].partition("/")[0]
    if number == errno.ECONNREFUSED or isinstance(error, ConnectionRefusedError):
        return f"dial tcp {host}: connect: connection refused"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    return os.strerror(number).lower() if number else str(error)
