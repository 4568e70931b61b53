"""gRPC: the service ``net.Orchestrator`` with the one method that clients call."""

from __future__ import annotations

from typing import Any

import grpc

from livepeer.client._grpc import GET_ORCHESTRATOR
from livepeer.client._grpc import lp_rpc_pb2 as net

from .description import RequestRefused, SelfDescription

__all__ = ["RPCServer"]


class RPCServer:
    """A gRPC server on a loopback port of its own, without TLS: the orchestrator's port leads to it."""

    def __init__(self, description: SelfDescription) -> None:
        self._description = description
        self._server: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Listen; the port."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handler = grpc.unary_unary_rpc_method_handler(
            self._get_orchestrator,
            request_deserializer=net.OrchestratorRequest.FromString,
            response_serializer=net.OrchestratorInfo.SerializeToString,
        )
        service, _, method = GET_ORCHESTRATOR[1:].partition("/")
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return int(port)

    async def aclose(self) -> None:
        """End it and what is under way."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)

    async def _get_orchestrator(
        self, request: net.OrchestratorRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> net.OrchestratorInfo:
        try:
            return self._description.answer(request)
        except RequestRefused as refused:
            await context.abort(grpc.StatusCode.UNKNOWN, str(refused))
