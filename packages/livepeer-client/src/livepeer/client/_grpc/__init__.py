"""gRPC and protobufs, for what asks an orchestrator for its capabilities or starts a built-in pipeline.

`lp_rpc.proto` has the messages; `lp_rpc_pb2` is made from it by scripts/generate_grpc.py. Importing this
package loads neither grpc nor protobuf; importing `lp_rpc_pb2` loads protobuf.
"""

from __future__ import annotations

__all__ = ["GET_ORCHESTRATOR"]

GET_ORCHESTRATOR = "/net.Orchestrator/GetOrchestrator"
"""The only gRPC method in use: unary, `OrchestratorRequest` to `OrchestratorInfo`."""
