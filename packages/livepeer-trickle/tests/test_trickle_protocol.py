"""The reader's, the writer's and the server's decisions, without sockets."""

from __future__ import annotations

import pytest
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
    backoff,
)
from livepeer.trickle.ring import Channel


def test_reader_takes_one_segment_after_the_other() -> None:
    state = ReaderState()
    assert state.on_response(200, {SEQ: "0"}) == Take(0)
    assert state.want == 1
    state.on_segment_end()
    assert state.on_response(200, {SEQ: "1"}) == Take(1)


@pytest.mark.parametrize("start", [-1, -2])
def test_reader_learns_its_number_from_the_first_answer(start: int) -> None:
    state = ReaderState(start)
    assert state.want == start
    assert state.on_response(200, {SEQ: "41"}) == Take(41)
    assert state.want == 42


@pytest.mark.parametrize("status", [200, 470])
def test_terminated_is_the_end_whatever_the_status(status: int) -> None:
    state = ReaderState(7)
    assert state.on_response(status, {CLOSED: "terminated", SEQ: "7", LATEST: "7"}) == End()


def test_404_is_an_ordinary_end_once_the_channel_was_seen() -> None:
    state = ReaderState()
    assert state.on_response(404, {}) == End(found=False)
    state.on_response(200, {SEQ: "0"})
    assert state.on_response(404, {}) == End(found=True)


def test_470_ahead_of_the_writer_waits_longer_each_time() -> None:
    state = ReaderState(9)
    delays = []
    for _ in range(10):
        action = state.on_response(NO_SUCH_SEGMENT, {LATEST: "4"})
        assert isinstance(action, Ask)
        delays.append(action.delay)
    assert state.want == 9
    assert state.missed == 0
    assert delays == sorted(delays)
    assert delays[0] == 0.01
    assert delays[-1] == 0.5


def test_470_because_the_head_ran_backwards_is_ahead_too() -> None:
    state = ReaderState(3)
    state.on_response(200, {SEQ: "3"})
    action = state.on_response(NO_SUCH_SEGMENT, {LATEST: "3"})  # the bytes of 2 came after those of 3
    assert isinstance(action, Ask)
    assert (state.want, state.missed) == (4, 0)


def test_470_for_what_the_ring_would_still_have_is_awaited_a_moment() -> None:
    """Bytes of 3 came before those of 2: the head says 4, and 2 is not there yet."""
    state = ReaderState(2)
    for _ in range(4):
        action = state.on_response(NO_SUCH_SEGMENT, {LATEST: "4"})
        assert isinstance(action, Ask)
        assert 0 < action.delay < 0.05
    assert (state.want, state.missed) == (2, 0)
    assert state.on_response(200, {SEQ: "2"}) == Take(2)


def test_470_for_what_never_came_is_given_up_within_half_a_second() -> None:
    state, waited = ReaderState(2), 0.0
    while state.want == 2:
        action = state.on_response(NO_SUCH_SEGMENT, {LATEST: "4"})
        assert isinstance(action, Ask)
        waited += action.delay
    assert 0.1 < waited < 0.5
    assert (state.want, state.missed) == (3, 1)


def test_470_after_a_jump_of_the_writer_waits_for_no_gap() -> None:
    state, asked = ReaderState(5), []
    while state.want < 20:
        assert state.on_response(NO_SUCH_SEGMENT, {LATEST: "21"}) == Ask()
        asked.append(state.want)
    assert asked == [16, 17, 18, 19, 20]


def test_470_fallen_out_goes_to_the_oldest_there_can_be_then_nearer_to_the_head() -> None:
    state = ReaderState(2)
    asked = []
    for _ in range(5):
        assert state.on_response(NO_SUCH_SEGMENT, {LATEST: "100"}) == Ask()
        asked.append(state.want)
    assert asked == [95, 96, 97, 98, 99]
    assert state.missed == 97


def test_470_on_the_newest_number_asks_for_the_head() -> None:
    state = ReaderState(-2)
    assert state.on_response(NO_SUCH_SEGMENT, {LATEST: "6"}) == Ask()
    assert state.want == 6


def test_a_cut_segment_is_asked_again_and_what_came_is_skipped() -> None:
    state = ReaderState()
    state.on_response(200, {SEQ: "0"})
    action = state.on_break(1000)
    assert isinstance(action, Ask)
    assert state.want == 0
    assert state.on_response(200, {SEQ: "0"}) == Take(0, skip=1000)


def test_a_cut_segment_that_fell_out_is_missed() -> None:
    state = ReaderState(5)
    state.on_response(200, {SEQ: "5"})
    state.on_break(10)
    state.on_response(NO_SUCH_SEGMENT, {LATEST: "20"})
    assert state.missed == 10  # 5 to 14
    assert state.on_response(200, {SEQ: "15"}) == Take(15)


def test_breaks_without_progress_give_up_within_two_seconds() -> None:
    state = ReaderState()
    state.on_response(200, {SEQ: "0"})
    state.on_segment_end()
    waited = 0.0
    while isinstance(action := state.on_break(), Ask):
        waited += action.delay
    assert isinstance(action, Fail)
    assert action.connection
    assert 1.0 < waited < 2.0


def test_breaks_of_long_polls_never_give_up() -> None:
    state = ReaderState()
    for _ in range(100):
        assert isinstance(state.on_break(elapsed=60.0), Ask)


def test_a_proxy_that_says_504_after_a_minute_of_silence_is_no_failure() -> None:
    state = ReaderState()
    for _ in range(100):
        assert isinstance(state.on_response(504, {}, elapsed=60.0), Ask)
    while isinstance(action := state.on_response(504, {}), Ask):
        pass
    assert isinstance(action, Fail)


def test_a_refused_first_connection_fails_at_once() -> None:
    assert isinstance(ReaderState().on_break(refused=True), Fail)


@pytest.mark.parametrize(
    ("status", "again"), [(500, True), (502, True), (504, True), (400, False), (307, False)]
)
def test_other_statuses(status: int, again: bool) -> None:
    action = ReaderState().on_response(status, {})
    assert isinstance(action, Ask if again else Fail)


def test_reader_survives_headers_that_are_no_numbers() -> None:
    state = ReaderState(3)
    assert state.on_response(200, {SEQ: "x"}) == Take(3)
    assert isinstance(state.on_response(NO_SUCH_SEGMENT, {LATEST: ""}), Ask)


def test_start_is_checked() -> None:
    with pytest.raises(ValueError, match="-3"):
        ReaderState(-3)
    with pytest.raises(ValueError, match="-1"):
        WriterState(-1)


def test_backoff_grows_to_its_limit() -> None:
    assert [backoff(n) for n in (1, 2, 3, 99)] == [0.05, 0.1, 0.2, 0.8]


def test_writer_asks_for_its_number_and_counts_on() -> None:
    state = WriterState()
    assert state.seq is None
    assert state.on_next(200, {LATEST: "12"}, "12") is Outcome.DONE
    assert state.seq == 12
    assert state.headers("video/MP2T") == {"Content-Type": "video/MP2T"}
    assert state.on_answer(12, 200, {SEQ: "12"}, sent=5, complete=True) is Outcome.DONE
    assert (state.seq, state.confirmed) == (13, 1)


def test_writer_begins_a_channel_that_is_not_there_at_0() -> None:
    state = WriterState()
    assert state.on_next(404, {}, "Stream not found\n") is Outcome.DONE
    assert state.seq == 0
    assert state.on_answer(0, 404, {}, sent=5, complete=True) is Outcome.NOT_FOUND


def test_writer_learns_that_the_channel_closed() -> None:
    state = WriterState(0)
    state.on_answer(0, 200, {}, sent=5, complete=True)
    assert state.on_answer(1, 404, {}, sent=5, complete=True) is Outcome.CLOSED
    assert state.on_answer(1, 200, {CLOSED: "terminated"}, sent=0, complete=True) is Outcome.CLOSED
    assert state.on_next(404, {}, "") is Outcome.CLOSED
    assert state.on_next(200, {CLOSED: "terminated"}, "3") is Outcome.CLOSED


@pytest.mark.parametrize(
    ("headers", "complete"), [({"Connection": "close"}, True), ({"Connection": "close"}, False), ({}, False)]
)
def test_writer_notices_that_a_closed_segment_swallowed_its_data(
    headers: dict[str, str], complete: bool
) -> None:
    state = WriterState(3)
    assert state.on_answer(3, 200, headers, sent=5, complete=complete) is Outcome.SWALLOWED
    assert state.seq is None  # to be asked
    state.on_next(200, {}, "8")
    assert state.headers("a/b")[RESET] == "1"
    assert state.on_answer(8, 200, {}, sent=5, complete=True) is Outcome.DONE
    assert RESET not in state.headers("a/b")


def test_a_proxy_that_keeps_no_connection_swallows_nothing() -> None:
    """Where every answer says "Connection: close" only an early one tells of a closed segment."""
    state, close = WriterState(), {"Connection": "close"}
    state.on_next(200, close, "3")
    assert state.on_answer(3, 200, close, sent=5, complete=True) is Outcome.DONE
    assert state.on_answer(4, 200, close, sent=5, complete=False) is Outcome.SWALLOWED


def test_an_empty_segment_is_answered_like_a_closed_one_and_loses_nothing() -> None:
    state = WriterState(3)
    assert state.on_answer(3, 200, {"Connection": "close"}, sent=0, complete=True) is Outcome.DONE


def test_a_broken_segment_is_followed_by_its_successor_with_reset() -> None:
    state = WriterState(3)
    state.on_break(3)
    assert state.seq == 4
    assert state.headers("a/b")[RESET] == "1"


def test_a_connection_that_was_never_made_changes_nothing() -> None:
    state = WriterState(3)
    state.on_break(3, sent=False)
    assert state.seq == 3
    assert RESET not in state.headers("a/b")


def test_a_segment_that_was_written_to_nobody_leaves_no_hole() -> None:
    state = WriterState(3)
    state.on_sent(3)
    state.on_break(3, sent=False)
    assert state.seq == 3
    for seq in (3, 4):
        state.on_sent(seq)
    for seq in (3, 4):
        state.on_break(seq, sent=False)
    assert state.seq == 4
    assert state.headers("a/b")[RESET] == "1"  # whoever waits for 3 must not wait for ever


def test_a_reset_is_not_forgotten_for_an_answer_to_a_post_without_it() -> None:
    state = WriterState(3)
    state.headers("a/b")
    state.on_sent(3)
    state.headers("a/b")
    state.on_sent(4)
    state.on_break(3)
    assert state.on_answer(4, 200, {}, sent=5, complete=True) is Outcome.DONE
    assert state.seq == 5
    assert state.headers("a/b")[RESET] == "1"
    assert state.on_answer(5, 200, {}, sent=5, complete=True) is Outcome.DONE
    assert RESET not in state.headers("a/b")


def test_a_servers_failure_can_be_tried_again_and_a_refusal_not() -> None:
    assert WriterState(0).on_answer(0, 500, {}, sent=1, complete=True) is Outcome.BROKEN
    assert WriterState(0).on_answer(0, 400, {}, sent=1, complete=True) is Outcome.REFUSED


# The ring


def write(channel: Channel, seq: int, data: bytes) -> None:
    segment = channel.for_write(seq)
    channel.begin(segment, 0.0)
    segment.append(data)
    segment.close()


def test_the_ring_keeps_five_and_a_reader_at_the_head_takes_a_place() -> None:
    channel = Channel("c", "a/b", 0.0)
    for seq in range(7):
        write(channel, seq, b"x")
    assert [seq for seq in range(7) if channel.segment(seq)] == [2, 3, 4, 5, 6]
    assert channel.for_read(7) is not None
    assert [seq for seq in range(7) if channel.segment(seq)] == [3, 4, 5, 6]
    assert channel.for_read(8) is None


def test_numbers_below_0() -> None:
    channel = Channel("c", "a/b", 0.0)
    current, following = channel.for_read(-2), channel.for_read(-1)
    assert current is not None
    assert current is following
    write(channel, 0, b"x")
    current, following = channel.for_read(-2), channel.for_read(-1)
    assert current is not None
    assert following is not None
    assert (current.seq, following.seq) == (0, 1)
    assert channel.for_write(-1).seq == 1
    for bad in (-3, -100):
        with pytest.raises(IndexError):
            channel.for_read(bad)
    with pytest.raises(IndexError):
        channel.for_write(-2)


def test_the_second_segment_of_a_fresh_channel_can_be_awaited() -> None:
    channel = Channel("c", "a/b", 0.0)
    assert channel.for_read(1) is not None
    assert channel.for_read(2) is None


def test_the_head_runs_backwards() -> None:
    channel = Channel("c", "a/b", 0.0)
    third, second = channel.for_write(3), channel.for_write(2)
    channel.begin(third, 1.0)
    channel.begin(second, 2.0)
    assert channel.next_write == 3
    assert channel.for_read(4) is None  # although 3 is being written


def test_reset_closes_earlier_segments_only() -> None:
    channel = Channel("c", "a/b", 0.0)
    segments = [channel.for_write(seq) for seq in range(3)]
    channel.reset(1)
    assert [segment.closed for segment in segments] == [True, False, False]


def test_a_closed_segment_swallows() -> None:
    segment = Channel("c", "a/b", 0.0).for_write(0)
    segment.close()
    segment.append(b"x")
    assert segment.chunks == []


def test_closing_the_channel_wakes_its_readers_and_empties_the_ring() -> None:
    channel = Channel("c", "a/b", 0.0)
    segment = channel.for_write(0)
    woken: list[bool] = []
    segment.watch(lambda: woken.append(True))
    channel.close()
    assert woken
    assert segment.closed
    assert list(channel) == []
    assert channel.for_read(0) is None


def answer(channel: Channel, seq: int) -> tuple[int, dict[str, str]]:
    """What the server answers now; 0 for nothing yet."""
    latest = channel.next_write
    segment = channel.for_read(seq)
    if segment is None:
        return NO_SUCH_SEGMENT, {LATEST: str(latest), SEQ: str(seq)}
    return (200 if segment.chunks else 0), {SEQ: str(segment.seq)}


@settings(max_examples=80, deadline=None)
@given(steps=st.lists(st.booleans(), max_size=80), start=st.sampled_from([0, -1, -2, 3]))
def test_a_reader_gets_every_segment_or_counts_it_as_missed(steps: list[bool], start: int) -> None:
    channel, state, got, written = Channel("c", "a/b", 0.0), ReaderState(start), [], 0
    for is_write in [*steps, *[False] * 12]:
        if is_write:
            write(channel, written, b"x")
            written += 1
            continue
        status, headers = answer(channel, state.want)
        if status:
            action = state.on_response(status, headers)
            assert isinstance(action, Take | Ask)
            if isinstance(action, Take):
                got.append(action.seq)
                state.on_segment_end()
    assert got == sorted(set(got))
    if start >= 0:
        # Missed are exactly the numbers between the start and the last one read that were not read.
        expected = set(range(start, max(got) + 1 if got else start)) - set(got)
        assert state.missed >= len(expected)
        if got and got[-1] == written - 1:
            assert state.missed == len(expected)
            assert state.want == written


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([200, 404, 470, 500, 302, 0]),
            st.dictionaries(
                st.sampled_from([SEQ, LATEST, CLOSED]), st.text(max_size=3) | st.integers().map(str)
            ),
        ),
        max_size=30,
    )
)
def test_a_reader_never_goes_back_whatever_it_is_told(answers: list[tuple[int, dict[str, str]]]) -> None:
    state, missed = ReaderState(), 0
    for status, headers in answers:
        action = state.on_response(status, headers) if status else state.on_break()
        assert isinstance(action, Take | Ask | End | Fail)
        assert state.missed >= missed
        missed = state.missed
        if isinstance(action, End | Fail):
            return
        if isinstance(action, Take):
            state.on_segment_end()
