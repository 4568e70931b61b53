"""The exchange around a paid request: 402, a signer, and the request again. `payments.exchange` decides."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Generic, TypeVar

from .._urls import redact
from ..catalogue import Price
from ..errors import InsufficientBalance, LivepeerError, OrchestratorError, PaymentError, SignerError
from ..payments.exchange import Ask, Done, Pay, Sign
from ..payments.kinds import kind_of
from ..payments.ledger import Bill
from ..payments.signer import Signer
from ..payments.signing import SignRequest, is_out_of_funds, no_funds
from ..payments.wallet import PaidSession, Wallet

__all__ = ["OnPaid", "paid"]

T = TypeVar("T")
Sending = Callable[[Mapping[str, str], bool], Awaitable[T]]
OnPaid = Callable[[PaidSession], None]


async def paid(
    wallet: Wallet,
    send: Sending[T],
    *,
    orchestrator: str,
    place: str,
    price: Price,
    app: str,
    limit: Price | None,
    bill: Bill,
    request_id: str,
    on_paid: OnPaid | None = None,
    prepare: Callable[[], Awaitable[None]] | None = None,
) -> T:
    """Send a request, and pay for it when the orchestrator asks for that.

    Args:
        wallet: What pays.
        send: Sends the request with these headers more, over a connection of its own where the second
            argument says so; raises `payments.exchange.Asked` for the orchestrator's 402.
        orchestrator: The URL of the orchestrator.
        place: The runner's URL.
        price: Its price, as discovery has it; what the challenge says is held against `limit`, too.
        app: The capability's name there.
        limit: The most that a unit may cost.
        bill: The call's.
        request_id: The call's.
        on_paid: Is told of the session when a payment leaves for it; not for what turns out to be free.
        prepare: Begins what the paid request needs, before its payment is signed.

    Raises:
        PriceExceeded, BudgetExceeded, InsufficientBalance, SignerError: It was not paid.
        PaymentError: The payment was not accepted.
        LivepeerError: What `send` raises.
    """
    await wallet.ready()
    paying = _Paying(
        wallet, send,
        orchestrator=orchestrator, place=place, price=price, app=app, limit=limit, bill=bill,
        request_id=request_id, on_paid=on_paid, prepare=prepare,
    )  # fmt: skip
    return await paying.go()


class _Paying(Generic[T]):
    """One paid request on its way."""

    def __init__(
        self,
        wallet: Wallet,
        send: Sending[T],
        *,
        orchestrator: str,
        place: str,
        price: Price,
        app: str,
        limit: Price | None,
        bill: Bill,
        request_id: str,
        on_paid: OnPaid | None,
        prepare: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self._wallet = wallet
        self._send = send
        self._orchestrator = orchestrator
        self._app = app
        self._limit = limit
        self._bill = bill
        self._request_id = request_id
        self._on_paid = on_paid
        self._prepare = prepare
        self._kind = kind_of(price)
        self._machine = wallet.exchange(orchestrator, place, self._kind, app=app, limit=limit, bill=bill)
        self._others: Iterator[Signer] = wallet.in_turn()
        self._signer: Signer = next(self._others)
        self._answers: list[T] = []

    async def go(self) -> T:
        """Do what the machine says, to its end."""
        try:
            while not isinstance(step := self._machine.step, Done):
                if self._bill.closed:
                    raise PaymentError("It was not paid: its caller has gone.", request_id=self._request_id)
                match step:
                    case Ask():
                        await self._ask()
                    case Sign(request):
                        await self._sign(request)
                    case Pay():
                        await self._pay(step)
        except BaseException:
            self._machine.abandoned()
            self._bill.unpaid = self._machine.asked and not self._bill.sent
            raise
        return self._answers.pop()

    async def _ask(self) -> None:
        try:
            address, _ = await self._signer.payer(request_id=self._request_id)
        except SignerError as error:
            await self._refused(error)
            return
        try:
            answer = await self._send({"Livepeer-Payer-Address": address}, False)
        except LivepeerError as error:
            if isinstance(error, OrchestratorError) and is_out_of_funds(error.body):
                poor = no_funds(f"{redact(self._orchestrator)} takes no payment", error.body, address)
                poor.orchestrator = self._orchestrator
                await self._refused(poor)
            else:
                self._machine.failed(error)
        else:
            self._answered(answer)

    async def _sign(self, request: SignRequest) -> None:
        if self._prepare is not None:
            await self._prepare()
        try:
            signed = await self._signer.sign(request, request_id=self._request_id)
        except LivepeerError as error:
            await self._refused(error)
        else:
            self._machine.signed(signed, self._signer)
            self._wallet.worked(self._signer)

    async def _pay(self, step: Pay) -> None:
        if self._on_paid is not None:
            assert isinstance(step.owner, Signer)
            self._on_paid(
                PaidSession(
                    self._wallet, step.owner, step.challenge, self._kind, step.signed,
                    app=self._app, limit=self._limit, bill=self._bill,
                )
            )  # fmt: skip
        try:
            answer = await self._send(step.signed.headers, True)
        except LivepeerError as error:
            self._machine.failed(error)
        else:
            self._answered(answer)

    def _answered(self, answer: T) -> None:
        self._answers.append(answer)
        self._machine.answered()

    async def _refused(self, error: LivepeerError) -> None:
        """The signer failed, or has no funds: let the next one sign, if there is one and it may help.

        Raises:
            LivepeerError: Nobody can sign.
        """
        may_help = isinstance(error, SignerError | InsufficientBalance)
        another = next(self._others, None) if may_help else None
        if another is None:
            self._machine.refused(error)
            return
        before, self._signer = self._signer.address, another
        same = False
        if isinstance(self._machine.step, Sign):
            with contextlib.suppress(SignerError):  # which it raises again when it is asked in its turn
                same = (await another.payer(request_id=self._request_id))[0] == before
        self._machine.refused(error, another=True, same_wallet=same)
