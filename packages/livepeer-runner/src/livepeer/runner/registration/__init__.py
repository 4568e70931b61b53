"""How a runner makes itself known to an orchestrator, one module per kind of registration."""
