"""A session's payments over a day, against books as a signer and an orchestrator keep them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction

import pytest

from livepeer.client import CapabilityError, LivepeerError, PaymentError, SignerError
from livepeer.client.payments.kinds import FIRST_UNITS, PIXELS_A_SECOND, Kind
from livepeer.client.payments.topup import DEBITS, Over, Refresh, Send, Sign, Step, TopUp, Wait

EV = Fraction(8 * 10**9)
DAY = 86_400.0
TOKEN = 1800.0  # seconds that an orchestrator's token lasts
BLOCKS = 600.0  # seconds that its parameters do
PRICES: dict[Kind, list[Fraction]] = {
    "live": [Fraction(5 * 10**10), Fraction(79 * 10**9), Fraction(10**9), Fraction(10**5)],
    "lv2v": [Fraction(300), Fraction(480), Fraction(1)],
}


class Books:
    """What go-livepeer's signer and orchestrator note of one session."""

    def __init__(self, kind: Kind, price: Fraction) -> None:
        self.kind, self.price = kind, price
        self.second = PIXELS_A_SECOND if kind == "lv2v" else 1
        self.now = 1000.0
        self.paid = Fraction(0)  # what the orchestrator was credited
        self.dropped = False
        self.payments = 0
        self.refreshes = 0
        self.most_nonces = 0
        self._nonces = 0
        self._state: tuple[float, Fraction] | None = None  # the signer's: when it signed, and the balance
        self._debited_at = self.began = self.now
        self._debited = Fraction(0)
        self._expires = self._stale = self.now

    def parameters(self) -> None:
        """Fresh ones."""
        self._nonces = 0
        self._expires, self._stale = self.now + TOKEN, self.now + BLOCKS

    def forget(self) -> None:
        """The signer's state is lost."""
        self._state = None

    def sign(self) -> tuple[int, Fraction] | int:
        """Tickets and balance; or the status of a refusal."""
        if self.now > self._expires - TOKEN / 10 or self.now > self._stale:
            return 480
        if self._state is None:
            units, balance = FIRST_UNITS[self.kind], Fraction(0)
        else:
            since = self.now - self._state[0]
            units = math.ceil(since) if self.kind == "live" else int(PIXELS_A_SECOND * since)
            balance = self._state[1]
        fee = units * self.price
        count = math.ceil((max(fee, EV) - balance) / EV)
        if count <= 0:
            return 482
        if count > 100:
            return 400
        self._state = (self.now, balance + count * EV - fee)
        return count, self._state[1]

    def credit(self, count: int) -> bool:
        """A payment arrives; whether its nonces are allowed."""
        self._nonces += count
        self.most_nonces = max(self.most_nonces, self._nonces)
        if self.dropped or self._nonces > 600:
            return False
        self.paid += count * EV
        self.payments += 1
        return True

    def pass_time(self, seconds: float) -> None:
        """Debits fall due."""
        end = self.now + seconds
        while self._debited_at + DEBITS <= end:
            self._debited_at += DEBITS
            self._debited += self.price * int(DEBITS * self.second)
            self.dropped = self.dropped or self._debited > self.paid
        self.now = end

    @property
    def ahead(self) -> Fraction:
        """What was paid for time to come, in wei."""
        return self.paid - Fraction(self.now - self.began) * self.second * self.price


def first(books: Books) -> TopUp:
    """A session's first payment."""
    books.parameters()
    answer = books.sign()
    assert isinstance(answer, tuple)
    count, balance = answer
    assert books.credit(count)
    return TopUp(
        books.kind, books.price, EV,
        now=books.now, tickets=count, balance=balance, expires=books.now + TOKEN,
    )  # fmt: skip


def do(machine: TopUp, books: Books, step: Step, way: Callable[[], float]) -> None:
    """What the keeper does, where all goes well; each way takes its time."""
    match step:
        case Wait(until):
            books.pass_time(min(max(until - books.now, 0.01), 9.0))
        case Refresh(_, forget):
            books.pass_time(way())
            books.parameters()
            books.refreshes += 1
            if forget:
                books.forget()
            machine.refreshed(books.now + TOKEN)
        case Sign():
            asked = books.now
            books.pass_time(way())
            match books.sign():
                case 480:
                    machine.refresh_needed(books.now, PaymentError("480"))
                case 482:
                    machine.not_needed(books.now)
                case (int(count), balance):
                    books.count = count  # type: ignore[attr-defined]
                    machine.signed(asked, count, balance)
                case status:
                    machine.spoilt(SignerError(f"{status}"))
        case Send():
            books.pass_time(way())
            assert books.credit(books.count)  # type: ignore[attr-defined]
            machine.sent(books.now)
        case Over(error):
            raise error


@pytest.mark.parametrize(("kind", "price"), [(kind, price) for kind in PRICES for price in PRICES[kind]])
def test_a_day_is_paid_in_time_and_not_early(kind: Kind, price: Fraction) -> None:
    books = Books(kind, price)
    machine = first(books)
    prepaid = books.paid
    luck = random.Random(f"{kind} {price}")
    most = Fraction(0)
    while books.now - books.began < DAY:
        do(machine, books, machine.step(books.now), lambda: luck.uniform(0.005, 0.06))
        assert not books.dropped, f"after {books.now - books.began:.1f} s"
        assert books.most_nonces <= 600
        most = max(most, books.ahead - prepaid)
    used = Fraction(DAY) * books.second * price
    assert books.paid - prepaid <= used * Fraction(105, 100) + EV, float((books.paid - prepaid) / used)
    assert books.payments <= DAY / machine._period * 1.1
    assert books.refreshes >= DAY / TOKEN


@pytest.mark.parametrize("kind", ["live", "lv2v"])
@pytest.mark.parametrize("gone", [0.3, 3.0])
def test_a_signer_that_is_away_for_a_while(kind: Kind, gone: float) -> None:
    """Every two minutes it restarts, answers 500, or hangs; what is paid ahead lasts for that."""
    books = Books(kind, PRICES[kind][0])
    machine = first(books)
    away_until, next_time = books.now, books.now + 60
    while books.now - books.began < 3600:
        step = machine.step(books.now)
        if books.now > next_time:
            away_until, next_time = books.now + gone, next_time + 120
        if isinstance(step, Sign) and books.now < away_until:
            books.pass_time(min(0.01, step.limit))
            machine.failed(books.now, SignerError("503", retryable=True))
            continue
        do(machine, books, step, lambda: 0.02)
        assert not books.dropped


def test_twenty_seconds_without_a_signer() -> None:
    """By the pixel they are covered; by the second ten are, and it ends with what the signer said."""
    for kind in ("lv2v", "live"):
        books = Books(kind, PRICES[kind][0])
        machine = first(books)
        error = SignerError("It hangs.", retryable=True)
        hung: float | None = None
        over: LivepeerError | None = None
        while books.now - books.began < 200 and over is None:
            step = machine.step(books.now)
            if isinstance(step, Over):
                over = step.error
            elif isinstance(step, Sign) and (hung is None or books.now < hung + 20):
                hung = hung or books.now
                books.pass_time(step.limit)
                machine.failed(books.now, error)
            else:
                do(machine, books, step, lambda: 0.02)
        if kind == "lv2v":
            assert (over, books.dropped) == (None, False)
        else:
            assert over is error
            assert books.now - books.began <= 10 + DEBITS + 2.5  # a debit after what was paid, and one try


@pytest.mark.parametrize(("kind", "price"), [("live", PRICES["live"][0]), ("live", PRICES["live"][2])])
def test_a_laptop_that_slept(kind: Kind, price: Fraction) -> None:
    """Its bill would have too many tickets: one new beginning, which a session that is over doesn't take."""
    books = Books(kind, price)
    machine = first(books)
    while books.now - books.began < 62:
        do(machine, books, machine.step(books.now), lambda: 0.02)
    before = books.paid
    books.now += 600  # neither of them is awake: no debits
    asleep = books.refreshes
    books._debited_at += 600
    while books.now - books.began < 720:
        do(machine, books, machine.step(books.now), lambda: 0.02)
    assert not books.dropped
    if price == PRICES["live"][0]:
        assert books.refreshes > asleep
        assert books.paid - before < price * 90


def test_a_state_that_is_lost_is_begun_anew_once() -> None:
    books = Books("live", PRICES["live"][0])
    machine = first(books)
    refused = SignerError("400 (invalid sig)")
    step: Step
    for _ in range(2):
        while not isinstance(step := machine.step(books.now), Sign):
            do(machine, books, step, lambda: 0.02)
        machine.spoilt(refused)
    assert machine.step(books.now) == Over(refused)

    machine = first(books := Books("live", PRICES["live"][0]))
    while not isinstance(step := machine.step(books.now), Sign):
        do(machine, books, step, lambda: 0.02)
    machine.spoilt(refused)
    step = machine.step(books.now)
    assert isinstance(step, Refresh)
    assert step.forget
    while books.now - books.began < 300:
        do(machine, books, machine.step(books.now), lambda: 0.02)
    assert not books.dropped
    assert books.ahead < 2 * books.price * 10 + 2 * books.price + EV


def test_a_payment_without_an_answer_goes_again_as_it_is() -> None:
    books = Books("live", PRICES["live"][0])
    machine = first(books)
    while not isinstance(step := machine.step(books.now), Send):
        do(machine, books, step, lambda: 0.02)
    for _ in range(3):
        machine.failed(books.now, CapabilityError("502", status=502))
        step = machine.step(books.now)
        assert isinstance(step, Wait)
        books.pass_time(step.until - books.now)
        assert isinstance(machine.step(books.now), Send)
        assert machine.trouble is not None
    machine.sent(books.now)
    assert machine.trouble is None
    assert isinstance(machine.step(books.now), Wait)


def test_early_refreshes_that_fail_hold_up_no_payment() -> None:
    """A payer's very first session has none before its second payment (409)."""
    books = Books("live", PRICES["live"][0])
    machine = first(books)
    machine._expires = books.now  # wanted at once
    refused = 0
    while books.payments < 3:
        step = machine.step(books.now)
        if isinstance(step, Refresh):
            refused += 1
            books.pass_time(0.01)
            machine.failed(books.now, PaymentError("409"))
            assert machine.trouble is None
        else:
            do(machine, books, step, lambda: 0.02)
    assert 2 <= refused <= 4


def test_a_signer_that_is_never_content_ends_it() -> None:
    books = Books("live", PRICES["live"][0])
    machine = first(books)
    asked = 0
    while not isinstance(step := machine.step(books.now), Over):
        if isinstance(step, Sign):
            asked += 1
            books.pass_time(0.01)
            machine.refresh_needed(books.now, PaymentError("480"))
        else:
            do(machine, books, step, lambda: 0.01)
    assert str(step.error).startswith("480")
    assert asked < 30
    assert books.now - books.began <= 10 + DEBITS + 2
