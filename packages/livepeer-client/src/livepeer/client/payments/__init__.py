"""Payments: who is asked for one gets it by a remote signer, once, and never more than the caller allows.

Decisions come first, without I/O: `challenge` (what a 402 asks for), `tickets` (what a payment is worth),
`ledger` (what may still be spent), `exchange` (what is done after each event), `signing` (what a signer
says). Then `signer` and `wallet`, which talk to signers. Importing this package loads none of them, and
protobuf is loaded by the first payment.
"""

__all__: list[str] = []
