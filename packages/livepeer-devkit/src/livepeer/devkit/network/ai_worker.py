"""The AI worker of an orchestrator: the containers of its models, and what it makes of their answers.

As ``ai/worker`` (v0.9.1) does it for external containers: each is asked how it is while the node starts, and
never again; a container takes any number of jobs, whatever capacity its model was configured with.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import aiohttp

from livepeer.trickle.errors import ConfigurationError, LivepeerError

from . import gojson

__all__ = ["PIPELINE", "START_TIMEOUT", "AIWorker", "ContainerFailed", "Model", "NoAnswer", "checked_models"]

PIPELINE = "live-video-to-video"
START_TIMEOUT = 120.0  # seconds a container may take to say that it is there
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

    `hardware` is ``{"pipeline", "model_id", "gpu_info": {"0": {"id", "name", "major", …}}}``.
    """

    model_id: str
    url: str
    capacity: int = 1
    warm: bool = False
    version: str = "0.0.0"
    hardware: dict[str, Any] = field(default_factory=dict)


def checked_models(configured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The entries as they are kept: with what ``-aiModels`` has for the containers of live pipelines.

    Raises:
        ConfigurationError: An entry has another pipeline, or no model or address.
    """
    known = {"pipeline", "model_id", "url", "capacity", "warm"}
    checked = []
    for entry in configured:
        wrong = sorted(set(entry) - known)
        if wrong or entry.get("pipeline", PIPELINE) != PIPELINE:
            what = f"has {', '.join(wrong)}" if wrong else f"is of the pipeline {entry['pipeline']!r}"
            raise ConfigurationError(
                f"The model {entry.get('model_id')!r} {what}; the embedded network runs {PIPELINE} only.",
                hint=f"Give each model its {', '.join(sorted(known))}.",
            )
        if not entry.get("model_id") or not str(entry.get("url", "")).startswith(("http://", "https://")):
            raise ConfigurationError(
                f"A model needs its model_id and the url of its container, not {dict(entry)!r}.",
                hint='Such as {"model_id": "noop", "url": "http://127.0.0.1:9000"}.',
            )
        checked.append({**entry, "pipeline": PIPELINE, "url": str(entry["url"]).rstrip("/")})
    return checked


class AIWorker:
    """The models of one orchestrator.

    Args:
        configured: The entries of ``-aiModels`` (`checked_models`); none: there is no AI worker.
    """

    def __init__(self, configured: Sequence[Mapping[str, Any]] = ()) -> None:
        self.models = [
            Model(entry["model_id"], entry["url"], entry.get("capacity") or 1, bool(entry.get("warm")))
            for entry in configured
        ]
        self._http: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Wait for each container.

        Raises:
            LivepeerError: A container isn't there in time, or says that it is broken.
        """
        self._http = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
            headers={"User-Agent": "Go-http-client/1.1"},
        )
        try:
            for model in self.models:
                await self._wait_for(model)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the connections to the containers."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    def has_capacity(self, model_id: str) -> bool:
        """Whether a job for a model may come: for every one, known or not, where there is an AI worker.

        The worker believes that it could start a container of its own (``docker.go``, ``HasCapacity``).
        """
        return bool(self.models)

    def constraints(self) -> dict[str, Model]:
        """What is advertised, by model id; of several containers the lowest version."""
        found: dict[str, Model] = {}
        for model in self.models:
            other = found.get(model.model_id)
            if other is None or _order(model.version) < _order(other.version):
                found[model.model_id] = model
        return found

    def address(self, model_id: str) -> str:
        """Where a job for the model goes, to any of its containers. Raises `ContainerFailed` without one."""
        containers = [model for model in self.models if model.model_id == model_id]
        if not containers:
            raise ContainerFailed(f"no container image found for live pipeline {model_id}")
        return f"{random.choice(containers).url}/{PIPELINE}"

    async def run(self, url: str, body: Mapping[str, Any]) -> None:
        """Give a job to the container at this address.

        Raises:
            ContainerFailed: It is down, or refuses; the text says which.
            NoAnswer: It answered what nobody foresaw.
        """
        assert self._http is not None
        try:
            async with self._http.post(
                url, data=gojson.encode(body), headers={"Content-Type": "application/json"}
            ) as answer:
                status, kind = answer.status, answer.headers.get("Content-Type", "")
                data = await answer.read()
        except (aiohttp.ClientError, OSError) as error:
            raise ContainerFailed(f'Post "{url}": {_connection_error(error, url)}') from None
        _judge(status, kind, data)

    # ------------------------------------------------------------------ inside

    async def _wait_for(self, model: Model) -> None:
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
        assert self._http is not None
        timeout = aiohttp.ClientTimeout(total=_PATIENCE)
        try:
            async with self._http.get(model.url + path, timeout=timeout) as answer:
                if "json" in answer.headers.get("Content-Type", ""):
                    return answer.status, json.loads(await answer.read())
                return answer.status, await answer.text()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return 0, str(error) or type(error).__name__


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


def _order(version: str) -> tuple[int, ...]:
    numbers = re.split(r"[-+]", version)[0].split(".")
    return tuple(int(number) for number in numbers if number.isdigit())
