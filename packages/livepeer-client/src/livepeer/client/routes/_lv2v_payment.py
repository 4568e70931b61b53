"""The payment that a job of live video-to-video begins with.

There is no 402: what the orchestrator wants comes by gRPC, and the first payment names no session, because
the job gets its name in the answer; later payments bear that (go-livepeer v0.9.1, ``server/ai_http.go``).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

from .._http import Pool, unsent
from ..errors import CapacityError, InsufficientBalance, LivepeerError, PaymentError, SignerError
from ..payments.challenge import Challenge
from ..payments.keeper import Keeper
from ..payments.ledger import Reservation
from ..payments.signing import NoTicketNeeded, RefreshNeeded, Signed, SignRequest
from ..payments.wallet import PaidSession, Wallet
from . import LiveCall

if TYPE_CHECKING:
    from .._grpc.lp_rpc_pb2 import OrchestratorInfo
    from ..payments.signer import Signer

__all__ = ["FirstPayment"]


class FirstPayment:
    """One job's.

    Args:
        pool: The gateway's connections.
        wallet: What pays.
        orchestrator: The orchestrator's URL.
        call: What is started.
    """

    def __init__(self, pool: Pool, wallet: Wallet, orchestrator: str, call: LiveCall) -> None:
        self._pool = pool
        self._wallet = wallet
        self._orchestrator = orchestrator
        self._call = call
        self._details: dict[str, Any] = {"orchestrator": orchestrator, "request_id": call.request_id}
        self._app = ""
        self._challenge: Challenge | None = None
        self._signer: Signer | None = None
        self._signed: Signed | None = None
        self._reservation: Reservation | None = None

    async def headers(self, info: OrchestratorInfo, model: str, payment_url: str) -> Mapping[str, str]:
        """Have it signed.

        Args:
            info: What the orchestrator wants of the wallet of the first signer that answers.
            model: What is started.
            payment_url: Where the further payments go.

        Raises:
            PriceExceeded, BudgetExceeded, InsufficientBalance, SignerError: It can't be; nothing was paid.
        """
        await self._wallet.ready()
        call, self._app = self._call, f"live-video-to-video/{model}"
        challenge = self._challenge = Challenge.of_info(
            info.SerializeToString(), self._orchestrator, manifest_id="", payment_url=payment_url,
            request_id=call.request_id,
        )  # fmt: skip
        challenge.check(call.max_price, "lv2v", request_id=call.request_id)
        request = SignRequest(challenge, "lv2v", self._app, call.max_price)
        reservation = self._wallet.ledger.reserve(challenge.first_bound("lv2v"), call.bill)
        try:
            signed = await self._sign(request)
            signed.check(request, reservation.amount)
        except BaseException:
            reservation.release()
            raise
        self._reservation, self._signed = reservation, signed
        return signed.headers

    @contextlib.asynccontextmanager
    async def leaving(self) -> AsyncGenerator[None, None]:
        """Inside, the payment is on its way with the job's start."""
        reservation, signed = self._reservation, self._signed
        assert reservation is not None
        assert signed is not None
        reservation.settle(signed.tickets.wei)
        self._call.bill.sent = True
        try:
            yield
        except LivepeerError as error:
            if unsent(error):
                reservation.release()
            elif isinstance(error, CapacityError):
                reservation.held()  # it says so before it looks at a payment
            else:
                reservation.unknown()
            raise
        except BaseException:
            reservation.unknown()
            raise
        reservation.unknown()  # which is: spent

    def keep(self, manifest_id: str) -> Keeper:
        """What goes on paying for the job of this name."""
        assert self._challenge is not None
        assert self._signed is not None
        assert self._signer is not None
        session = PaidSession(
            self._wallet, self._signer, self._challenge, "lv2v", self._signed,
            app=self._app, limit=self._call.max_price, bill=self._call.bill, manifest_id=manifest_id,
        )  # fmt: skip
        keeper = Keeper(self._pool, self._orchestrator, self._call.request_id)
        keeper.begin(session)
        return keeper

    async def _sign(self, request: SignRequest) -> Signed:
        """By the first signer that does, of those with the wallet that the orchestrator was told of."""
        failure: LivepeerError | None = None
        told: str | None = None
        for signer in self._wallet.in_turn():
            try:
                address, _ = await signer.payer(request_id=self._call.request_id)
                told = told or address
                if address != told:
                    continue
                signed = await signer.sign(request, request_id=self._call.request_id)
            except (RefreshNeeded, NoTicketNeeded) as error:
                raise SignerError(
                    f"{error.message} That was not to be expected here.",
                    hint="Check the signer's clock, and that it is on the orchestrator's chain.",
                    **self._details,
                ) from error
            except (SignerError, InsufficientBalance) as error:
                failure = failure or error
            else:
                self._signer = signer
                self._wallet.worked(signer)
                return signed
        raise failure or PaymentError("No signer could be asked.", **self._details)
