"""Payments: what makes the embedded network an on-chain one, without a chain.

- `wallets` and `chain`: who has what, and what a node learns from the chain;
- `tickets` and `recipient`: ticket parameters, and tickets that come back;
- `balances`, `prices`, `meter` and `cashier`: what is credited, what things cost, and how it is charged;
- `reservations`, `payment_calls` and `till`: an orchestrator's calls that have to do with money;
- `sender`, `signer_request`, `signer_state` and `remote_signer`: how a remote signer makes a payment;
- `webhook`, `signer_discovery` and `signer_service`: its calls;
- `control`, `telling`, `signer_host` and `signers`: the processes, and what their starter may do to them.
"""

from __future__ import annotations

__all__: list[str] = []
