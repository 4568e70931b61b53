"""The process of the signers, started by `LocalNetwork`: all of them, each on a port of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from ..process import run_child
from .chain import Chain
from .control import Answer, Control
from .signer_service import SignerService

__all__: list[str] = []


@contextlib.asynccontextmanager
async def _serve(settings: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    chain, services = Chain(settings["chain"]), {}
    for name, of_one in settings["signers"].items():
        services[name] = SignerService(bytes.fromhex(of_one["address"]), chain, of_one)

    def learn_orchestrators(told: list[dict[str, Any]]) -> None:
        for service in services.values():
            service.discovery.learn(told)

    answers: dict[str, Answer] = {
        "chain": chain.learn,
        "orchestrators": learn_orchestrators,
        "kill": lambda name: services[name].kill(),
        "restart": lambda name: services[name].start(),
        "hang": lambda told: services[told["name"]].hang(told["hanging"]),
        "script": lambda told: services[told["name"]].script(told),
        "signed": lambda name: services[name].signed,
    }
    async with Control(answers) as control, contextlib.AsyncExitStack() as stack:
        for service in services.values():
            await service.start()
            stack.push_async_callback(service.kill)
        yield {
            "control": control.url,
            "urls": {name: f"http://127.0.0.1:{service.port}" for name, service in services.items()},
        }


if __name__ == "__main__":
    run_child(_serve, unwinding=0)
