"""What a BYOC orchestrator does to a stream, undone: cut at every byte, and over any stream at all."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livepeer.client import CapabilityError, InsufficientBalance, StreamError, StreamEvent
from livepeer.client.events import SSEDecoder
from livepeer.client.routes._byoc_events import BYOCDecoder

INJECTED = b'data: {"balance": 0.000}\n\n\n'
FLOOD = b"\n" * 5000


def forwarded(body: bytes, balance: bytes = b"0.000") -> bytes:
    """A worker's stream as go-livepeer v0.9.1 forwards it: line by line, for ever (job_orchestrator.go)."""
    out = bytearray()
    lines = body.split(b"\n")
    for line in lines[:-1] if not lines[-1] else lines:
        line = line.removesuffix(b"\r")
        if len(line) >= 64 * 1024:
            break
        if b"[DONE]" in line:
            out += INJECTED.replace(b"0.000", balance)
        out += line + b"\n"
    return bytes(out)


def decode(*pieces: bytes, end: bool = True) -> tuple[list[StreamEvent], BYOCDecoder]:
    decoder = BYOCDecoder("it", 30)
    events: list[StreamEvent] = []
    for piece in pieces:
        if decoder.done:
            break
        events += decoder.feed(piece)
    if end and not decoder.done:
        events += decoder.finish()
    return events, decoder


def plain(body: bytes) -> tuple[list[StreamEvent], bool]:
    decoder = SSEDecoder()
    return decoder.feed(body), decoder.done


CASES = {
    "ordinary": b"data: a\n\ndata: b\n\ndata: [DONE]\n\n",
    "an application's own balance": b'data: {"balance": 5.000}\n\ndata: [DONE]\n\n',
    "its own balance in the middle": b'data: {"balance": 5.000}\n\ndata: b\n\n'
    b'data: {"balance": 1.250}\n\n\n\ndata: [DONE]\n\n',
    "glued to an event": b"data: a\ndata: [DONE]\n\ndata: [DONE]\n\n",
    "an event's name before it": b"data: a\n\nevent: done\ndata: [DONE]\n\n",
    "inside JSON": b'data: {"text": "say [DONE] twice: [DONE]"}\n\ndata: b\n\ndata: [DONE]\n\n',
    "inside JSON, with an id before it": b'id: 7\nevent: x\ndata: {"t": "[DONE]"}\ndata: more\n\n'
    b"data: [DONE]\n\n",
    "in a comment": b": [DONE]\n\ndata: a\n\ndata: [DONE]\n\n",
    "carriage returns": b"data: a\r\n\r\ndata: [DONE]\r\n\r\n",
    "what follows is not read": b"data: a\n\ndata: [DONE]\n\ndata: never\n\n",
    "a balance in two lines": b'data: {"balance": 5.000}\ndata: x\n\ndata: [DONE]\n\n',
    "no space, other digits": b'data:{"balance": 5.000}\n\ndata: {"balance": 5.0}\n\ndata: [DONE]\n\n',
}


@pytest.mark.parametrize("body", CASES.values(), ids=CASES.keys())
def test_the_workers_events_come_out_wherever_the_pieces_are_cut(body: bytes) -> None:
    expected, ended = plain(body.replace(b"\r\n", b"\n"))
    assert ended
    sent = forwarded(body)
    for cut in range(len(sent) + 1):
        events, decoder = decode(sent[:cut], sent[cut:], FLOOD)
        assert events == expected, cut
        assert (decoder.done, decoder.incomplete, decoder.failure) == (True, False, None), cut
        assert decoder.metadata == {"balance": 0.0}
    assert decode(*(bytes([byte]) for byte in sent))[0] == expected


LINES = st.one_of(
    st.sampled_from(
        [
            b"",
            b"data: x",
            b"data: [DONE]",
            b"data:[DONE]",
            b'data: {"t": "[DONE]"}',
            b'data: {"balance": 0.000}',
            b'data: {"balance": -12.500}',
            b'data: {"balance": 0}',
            b"event: e",
            b"event: insufficient",
            b": [DONE]",
            b"id: 1",
        ]
    ),
    st.binary(max_size=8).map(lambda line: line.replace(b"\n", b"").replace(b"\r", b"")),
)


@given(st.lists(LINES, max_size=12), st.lists(st.integers(0, 400), max_size=6))
def test_whatever_a_worker_sends_comes_out_as_it_was(lines: list[bytes], cuts: list[int]) -> None:
    body = b"".join(line + b"\n" for line in lines)
    expected, ended = plain(body + b"\n" * 3)  # the flood gives the last event its blank line
    sent = forwarded(body)
    edges = sorted({0, len(sent), *(cut % (len(sent) + 1) for cut in cuts)})
    events, decoder = decode(*(sent[a:b] for a, b in pairwise(edges)), FLOOD)
    assert events == expected
    assert decoder.done
    assert (decoder.failure is None) is ended


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_no_bytes_raise(body: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    pieces = [body[a:b] for a, b in pairwise(edges)]
    events, decoder = decode(*pieces)
    whole, other = decode(body)
    assert events == whole
    assert (decoder.metadata, str(decoder.failure)) == (other.metadata, str(other.failure))


def test_events_come_at_once() -> None:
    """Nothing waits for what follows it, but a line that could be the orchestrator's."""
    decoder = BYOCDecoder("it", 30)
    assert decoder.feed(b"data: a\n\n") == [StreamEvent("a")]
    assert decoder.feed(b'data: {"balance": 1.000, "x": 1}\n\n') == [
        StreamEvent('{"balance": 1.000, "x": 1}')
    ]
    assert decoder.feed(b'data: {"balance": 1.000}\n\n') == []
    assert decoder.feed(b"data: b\n\n") == [StreamEvent('{"balance": 1.000}'), StreamEvent("b")]


def test_the_last_balance_is_kept() -> None:
    sent = forwarded(b'data: {"t": "[DONE]"}\n\n', b"9.250") + forwarded(b"data: [DONE]\n\n", b"-3.125")
    events, decoder = decode(sent)
    assert events == [StreamEvent('{"t": "[DONE]"}')]
    assert decoder.metadata == {"balance": -3.125}


def test_blank_lines_without_end_are_an_end() -> None:
    decoder = BYOCDecoder("it", 30)
    assert decoder.feed(b"data: a\n\n") == [StreamEvent("a")]
    count = 0
    while not decoder.done:
        assert decoder.feed(b"\n") == []
        count += 1
    assert 500 < count < 2000
    assert decoder.incomplete
    assert isinstance(decoder.failure, StreamError)
    assert "64 KiB" in str(decoder.failure)
    assert decoder.feed(b"data: never\n\n") == []


def test_blank_lines_between_events_are_none() -> None:
    decoder = BYOCDecoder("it", 30)
    for _ in range(5):
        decoder.feed(b"\n" * 900)
        assert decoder.feed(b"data: a\n\n") == [StreamEvent("a")]
    assert not decoder.done


def test_a_line_that_is_too_long_ends_it() -> None:
    body = b"data: a\n\ndata: " + b"x" * 65_536 + b"\n\ndata: [DONE]\n\n"
    events, decoder = decode(forwarded(body), FLOOD)
    assert events == [StreamEvent("a")]
    assert decoder.incomplete
    assert "64 KiB" in str(decoder.failure)


def test_an_end_without_a_word() -> None:
    events, decoder = decode(b"data: a\n\ndata: half")
    assert events == [StreamEvent("a")]
    assert decoder.incomplete
    assert isinstance(decoder.failure, StreamError)
    assert "30 s" in str(decoder.failure)
    assert "64 KiB" not in str(decoder.failure)


def test_an_end_of_which_only_the_blank_line_is_missing() -> None:
    events, decoder = decode(forwarded(b"data: a\n\ndata: [DONE]\n"))
    assert events == [StreamEvent("a")]
    assert (decoder.done, decoder.failure) == (True, None)


def test_a_held_line_is_the_workers_when_the_stream_ends() -> None:
    for end in (b"", FLOOD):
        events, decoder = decode(b'data: {"balance": 1.000}\n\n', end)
        assert events == [StreamEvent('{"balance": 1.000}')]
        assert (decoder.incomplete, decoder.metadata) == (True, {})


@pytest.mark.parametrize("before", [b"data: a\n\n", b"data: a\n\ndata: half\n", b""])
def test_out_of_funds(before: bytes) -> None:
    sent = before + b'event: insufficient balance\ndata: {"balance": 0}\n\ndata: [DONE]\n\n'
    for cut in range(len(sent) + 1):
        events, decoder = decode(sent[:cut], sent[cut:])
        assert events == [StreamEvent("a")] * (b"a" in before)
        assert isinstance(decoder.failure, InsufficientBalance)
        assert not decoder.incomplete


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "no such model"}}', "no such model"),
        (b'{"detail": "bad"}\n', "bad"),
        (b"Internal Server Error", "Internal Server Error"),
    ],
)
def test_an_error_whose_status_was_lost(body: bytes, message: str) -> None:
    for end in (b"", FLOOD):
        events, decoder = decode(forwarded(body), end)
        assert events == []
        assert isinstance(decoder.failure, CapabilityError)
        assert message in str(decoder.failure)
        assert decoder.failure.body == body.strip()
        assert not decoder.incomplete


def test_odd_lines_after_an_event_are_no_error() -> None:
    events, decoder = decode(b"data: a\n\nnonsense\n\n", FLOOD)
    assert events == [StreamEvent("a")]
    assert isinstance(decoder.failure, StreamError)
