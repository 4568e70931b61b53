"""The embedded network: an orchestrator that answers as go-livepeer v0.9.1 does, in a process of its own.

One module per part of the orchestrator:

- `registry`: which runners and sessions there are, without I/O;
- `heartbeat`: the registration side, what runners call;
- `discovery` and `apps`: the client side;
- `sessions`: what a runner may ask for during a session;
- `byoc_registry`, `byoc_jobs` and `byoc_events`: what there is to know of BYOC, without I/O;
- `byoc`, `byoc_streams` and `byoc_workers`: its calls, its streams, and the way to its workers;
- `lv2v`, `ai_worker`, `containers` and `models`: live video-to-video, and what runs it;
- `description`, `rpc` and `credentials`: what it says of itself over gRPC, and the tokens that it hands out;
- `paid`: payments, on a network where there are any;
- `proxying` and `upgrading`: HTTP and WebSockets carried to the runner;
- `mux`, `paths`, `answers` and `gojson`: the habits of Go's standard library that clients can see;
- `certificate`, `one_port` and `orchestrator`: TLS, HTTP beside gRPC, and all of it together;
- `process`, `host` and `local`: the process around it, and `LocalNetwork`.

It is a development tool, measured against go-livepeer; it is no orchestrator for production.
"""

from __future__ import annotations

from .local import LocalNetwork
from .paid.signers import PaidMode, Signer

__all__ = ["LocalNetwork", "PaidMode", "Signer"]
