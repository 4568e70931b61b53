"""The process of the signers, started by `LocalNetwork`: all of them, each on a port of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from ..process import run_child
from .chain import Chain
from .control import Answer, Control
from .gateway_service import GatewayService
from .signer_service import SignerService

__all__: list[str] = []


@contextlib.asynccontextmanager
async def _serve(settings: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    chain, services = Chain(settings["chain"]), {}
    for name, of_one in settings["signers"].items():
        services[name] = SignerService(bytes.fromhex(of_one["address"]), chain, of_one)

    nodes = {
        name: GatewayService(bytes.fromhex(address), chain) for name, address in settings["gateways"].items()
    }

    def learn_orchestrators(told: list[dict[str, Any]]) -> None:
        for service in services.values():
            service.discovery.learn(told)
        for one in nodes.values():
            one.node.orchestrators = [entry["url"] for entry in told]

    def know(told: dict[str, Any]) -> None:
        nodes[told["name"]].node.orchestrators = told["orchestrators"]

    answers: dict[str, Answer] = {
        "chain": chain.learn,
        "orchestrators": learn_orchestrators,
        "know": know,
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
        for one in nodes.values():
            await one.start()
            stack.push_async_callback(one.kill)
        yield {
            "control": control.url,
            "urls": {name: f"http://127.0.0.1:{service.port}" for name, service in services.items()},
            "gateways": {name: f"http://127.0.0.1:{one.port}" for name, one in nodes.items()},
        }


if __name__ == "__main__":
    run_child(_serve, unwinding=0)
