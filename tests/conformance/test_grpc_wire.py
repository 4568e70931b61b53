"""`GetOrchestrator` on the wire: a bare gRPC client."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import grpc
import pytest
from harness import Network

from livepeer.client._grpc import lp_rpc_pb2 as net

METHOD = "/net.Orchestrator/GetOrchestrator"


class Caller:
    """A channel to an orchestrator, with its certificate as the only one that is trusted."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        certificate = ssl.get_server_certificate((address.hostname or "", address.port or 0))
        credentials = grpc.ssl_channel_credentials(certificate.encode())
        self.channel = grpc.aio.secure_channel(address.netloc, credentials)
        self._call = self.channel.unary_unary(
            METHOD,
            request_serializer=net.OrchestratorRequest.SerializeToString,
            response_deserializer=net.OrchestratorInfo.FromString,
        )

    async def ask(self, request: net.OrchestratorRequest | None = None) -> net.OrchestratorInfo:
        return await self._call(request or net.OrchestratorRequest(), timeout=10)


@pytest.fixture
async def caller(ai_network: Network) -> AsyncIterator[Caller]:
    made = Caller(ai_network.url)
    yield made
    await made.channel.close()


async def test_an_orchestrator_says_what_it_has(caller: Caller, ai_network: Network) -> None:
    info = await caller.ask()
    assert info.transcoder == ai_network.url
    models = info.capabilities.constraints.PerCapability[35].models
    assert set(models) == {"noop", "other"}
