"""Reader and writer against the ring, in whatever order things happen: nothing hangs, nothing comes twice.

The wire of this model is what the server would answer at that moment; the tests of sockets are beside it.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from livepeer.trickle.protocol import (
    CLOSED,
    LATEST,
    NO_SUCH_SEGMENT,
    RESET,
    SEQ,
    Ask,
    End,
    Fail,
    Outcome,
    ReaderState,
    Take,
    WriterState,
)
from livepeer.trickle.ring import Channel, Segment

ANY = "application/octet-stream"


class Reader:
    """A reader: `step` is one turn of it, with whatever the server would answer now."""

    def __init__(self, channel: Channel, start: int) -> None:
        self.channel = channel
        self.state = ReaderState(start)
        self.numbers: list[int] = []
        self.data: dict[int, bytes] = {}
        self.over = False
        self._reading: Segment | None = None
        self._waiting: Segment | None = None
        self._latest = 0
        self._position = 0

    def step(self) -> None:
        if self.over:
            return
        if self._reading is None:
            self._ask()
        else:
            self._read()

    def cut(self) -> None:
        """The connection breaks; what was asked is asked again."""
        if self.over:
            return
        received = len(self.data[self._reading.seq]) if self._reading is not None else 0
        self._reading = self._waiting = None
        action = self.state.on_break(received, elapsed=60.0)
        assert isinstance(action, Ask)

    def _ask(self) -> None:
        if self._waiting is None:
            if self.channel.closed:
                return self._decide(404, {})
            self._latest = self.channel.next_write
            self._waiting = self.channel.for_read(self.state.want)
            if self._waiting is None:
                seq = str(self.state.want)
                return self._decide(NO_SUCH_SEGMENT, {LATEST: str(self._latest), SEQ: seq})
        segment = self._waiting
        headers = {SEQ: str(segment.seq)}
        if segment.chunks:
            if segment.seq != self._latest:
                headers[LATEST] = str(self._latest)
        elif not segment.closed:
            return None  # blocked
        else:
            headers[LATEST] = str(self.channel.next_write)
            if self.channel.closed:
                headers[CLOSED] = "terminated"
        return self._decide(200, headers)

    def _decide(self, status: int, headers: dict[str, str]) -> None:
        segment, self._waiting = self._waiting, None
        action = self.state.on_response(status, headers)
        assert not isinstance(action, Fail)
        if isinstance(action, End):
            self.over = True
        elif isinstance(action, Take):
            assert segment is not None
            assert action.seq == segment.seq
            self._reading, self._position = segment, action.skip
            if action.seq in self.data:
                assert self.numbers[-1] == action.seq, "an older segment came again"
                assert len(self.data[action.seq]) == action.skip, "a cut repeats or loses bytes"
            else:
                assert action.skip == 0
                self.numbers.append(action.seq)
                self.data[action.seq] = b""

    def _read(self) -> None:
        segment = self._reading
        assert segment is not None
        body = b"".join(segment.chunks)
        self.data[segment.seq] += body[self._position :]
        self._position = len(body)
        if segment.closed:
            self._reading = None
            self.state.on_segment_end()


class Writer:
    """A writer that does as it is told by `WriterState`, on connections that break."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.state = WriterState(0)
        self.seq = 0
        self.open: Segment | None = None
        self.sent: dict[int, bytes] = {}

    def write(self, data: bytes) -> None:
        for _ in range(10):  # what a closed segment swallows is written again
            if self.open is not None or self._begin(len(data)):
                break
        assert self.open is not None
        self.open.append(data)
        self.sent[self.seq] = b"".join(self.open.chunks)

    def _begin(self, size: int) -> bool:
        if self.state.seq is None:
            number = str(self.channel.next_write)
            assert self.state.on_next(200, {LATEST: number}, number) is Outcome.DONE
        assert self.state.seq is not None
        self.seq = self.state.seq
        segment = self.channel.for_write(self.seq)
        if RESET in self.state.headers(ANY):
            self.channel.reset(self.seq)
        self.channel.begin(segment, 0.0)
        if segment.closed:
            answer = {"Connection": "close", SEQ: str(self.seq)}
            outcome = self.state.on_answer(self.seq, 200, answer, sent=size, complete=True)
            assert outcome is Outcome.SWALLOWED
            return False
        self.open = segment
        return True

    def finish(self) -> None:
        if self.open is not None:
            self.open.close()
            self.open = None
            answered = self.state.on_answer(self.seq, 200, {SEQ: str(self.seq)}, sent=1, complete=True)
            assert answered is Outcome.DONE

    def cut(self, *, unseen: bool) -> None:
        """The connection breaks in mid-segment, or before the server saw anything of the next one."""
        if self.open is not None:
            self.open = None
            self.state.on_break(self.seq)
        elif unseen and self.state.seq is not None:
            self.state.on_break(self.state.seq)


steps = st.lists(
    st.one_of(
        st.sampled_from(["read", "write", "finish", "cut reader", "cut writer", "unseen", "close segment"]),
        st.integers(1, 8),
    ),
    max_size=120,
)


@settings(max_examples=120, deadline=None)
@given(steps=steps, start=st.sampled_from([0, 0, 0, -1, -2, 3]), ends=st.booleans())
def test_nothing_hangs_and_nothing_comes_twice(steps: list[str | int], start: int, ends: bool) -> None:
    channel = Channel("c", ANY, 0.0)
    reader, writer = Reader(channel, start), Writer(channel)
    for step in steps:
        if step == "read":
            reader.step()
        elif step == "write":
            writer.write(b"%d;" % len(writer.sent))
        elif step == "finish":
            writer.finish()
        elif step == "cut reader":
            reader.cut()
        elif step in ("cut writer", "unseen"):
            writer.cut(unseen=step == "unseen")
        elif step == "close segment":
            for segment in list(channel)[:1]:
                segment.close()
        else:
            assert isinstance(step, int)
            for _ in range(step):  # a burst
                writer.write(b"burst")
                writer.finish()
    # Whatever went before: a healthy writer of a few more segments is read to its last one.
    writer.finish()
    last = -1
    for _ in range(8):
        writer.write(b"after")
        writer.finish()
        last = max(writer.sent)
        for _ in range(40):
            reader.step()
    assert reader.numbers[-1:] == [last]
    assert reader.numbers == sorted(set(reader.numbers))
    for seq, data in reader.data.items():
        assert writer.sent.get(seq, b"").startswith(data)
    first = reader.numbers[0] if start < 0 else start
    skipped = set(range(first, last + 1)) - set(reader.numbers)
    assert reader.state.missed >= len(skipped)
    if ends:
        channel.close()
        for _ in range(3):
            reader.step()
        assert reader.over


@settings(max_examples=60, deadline=None)
@given(
    order=st.permutations(range(5)),
    reads=st.lists(st.integers(0, 3), min_size=5, max_size=5),
)
def test_segments_that_overtake_each_other_are_read_in_order(order: list[int], reads: list[int]) -> None:
    """Five writers at once, whose first bytes come in any order: the head runs to and fro."""
    channel = Channel("c", ANY, 0.0)
    reader = Reader(channel, 0)
    for seq, turns in zip(order, reads, strict=True):
        segment = channel.for_write(seq)
        channel.begin(segment, 0.0)
        segment.append(b"%d" % seq)
        segment.close()
        for _ in range(turns):
            reader.step()
    for seq in range(5, 9):
        for _ in range(20):
            reader.step()
        segment = channel.for_write(seq)
        channel.begin(segment, 0.0)
        segment.append(b"%d" % seq)
        segment.close()
    for _ in range(20):
        reader.step()
    assert reader.numbers == sorted(set(reader.numbers))
    assert reader.numbers[-1] == 8
    assert reader.state.missed == 9 - len(reader.numbers)
    assert all(data == b"%d" % seq for seq, data in reader.data.items())
