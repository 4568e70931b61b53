"""Bytes to events, without sockets: the framing is cut at every byte and compared with the whole."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livepeer.client import StreamError, StreamEvent
from livepeer.client.events import decoder_for

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"


def decode(content_type: str, *pieces: bytes, charset: str | None = None) -> tuple[list[StreamEvent], bool]:
    decoder = decoder_for(content_type, charset)
    events: list[StreamEvent] = []
    for piece in pieces:
        if decoder.done:
            break
        events += decoder.feed(piece)
    if not decoder.done:
        events += decoder.finish()
    return events, decoder.done


def events_of(body: str | bytes, content_type: str = SSE) -> list[StreamEvent]:
    return decode(content_type, body.encode() if isinstance(body, str) else body)[0]


RICH = (
    "\ufeff: a comment\n"
    "data: first\n\n"
    "event: note\ndata: héllo 🎬 wörld\nid: 7\nretry: 1500\n\n"
    "data:no space\ndata:  two\ndata\n\n"
    ": keep-alive\n\n"
    "event: only a type\n\n"
    "data: a [DONE] inside\n\n"
    "data: [DONE]x\n\ndata:  [DONE]\n\n"
    "data: [DONE]\ndata: two lines\n\n"
    "id\ndata: no id\n\n"
    "unknown: field\nretry: soon\ndata: {\"n\": 1}\n\n"
    "data: last\n\n"
    "data: [DONE]\n\n"
    "data: never\n\n"
)  # fmt: skip
EXPECTED = [
    StreamEvent("first"),
    StreamEvent("héllo 🎬 wörld", "note", "7", 1500),
    StreamEvent("no space\n two\n", None, "7"),
    StreamEvent("a [DONE] inside", None, "7"),
    StreamEvent("[DONE]x", None, "7"),
    StreamEvent(" [DONE]", None, "7"),
    StreamEvent("[DONE]\ntwo lines", None, "7"),
    StreamEvent("no id", None, ""),
    StreamEvent('{"n": 1}', None, ""),
    StreamEvent("last", None, ""),
]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_framing_cut_at_every_byte(newline: str) -> None:
    body = RICH.replace("\n", newline).encode()
    assert decode(SSE, body) == (EXPECTED, True)
    for cut in range(len(body) + 1):
        assert decode(SSE, body[:cut], body[cut:]) == (EXPECTED, True), cut
    assert decode(SSE, *(bytes([byte]) for byte in body)) == (EXPECTED, True)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [2, 3, 5, 64])
def test_framing_cut_into_pieces(newline: str, size: int) -> None:
    body = RICH.replace("\n", newline).encode()
    assert decode(SSE, *(body[i : i + size] for i in range(0, len(body), size))) == (EXPECTED, True)


@given(
    st.lists(
        st.lists(
            st.one_of(
                st.sampled_from(
                    [
                        "data: x",
                        "data",
                        "data:",
                        "event: e",
                        "id: 1",
                        "retry: 5",
                        ": c",
                        "data: [DONE] ",
                        "é: ü",
                    ]
                ),
                st.text(
                    alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=6
                ),
            ),
            max_size=4,
        ),
        max_size=5,
    ),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_pieces_never_matter(blocks: list[list[str]], newline: str, cuts: list[int]) -> None:
    body = "".join(newline.join(block) + newline * 2 for block in blocks).encode()
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    pieces = [body[a:b] for a, b in pairwise(edges)]
    assert decode(SSE, *pieces) == decode(SSE, body)
    assert decode(NDJSON, *pieces) == decode(NDJSON, body)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4))
def test_no_bytes_raise(body: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    pieces = [body[a:b] for a, b in pairwise(edges)]
    for content_type in (SSE, NDJSON, "text/plain", "application/json", "application/octet-stream"):
        decode(content_type, *pieces)
    assert decode(SSE, *pieces) == decode(SSE, body)


@given(
    st.lists(
        st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5),
        max_size=8,
    )
)
def test_whatever_is_json_comes_back(values: list[Any]) -> None:
    body = "".join(f"data: {json.dumps(value)}\n\n" for value in values)
    assert [event.json() for event in events_of(body)] == values
    assert [
        event.json() for event in events_of("".join(f"{json.dumps(value)}\n" for value in values), NDJSON)
    ] == values


def test_an_event_that_the_end_cut_off_is_dropped() -> None:
    assert events_of("data: whole\n\ndata: half\n") == [StreamEvent("whole")]
    assert events_of("data: whole\n\ndata: [DONE]\n") == [StreamEvent("whole")]


def test_nothing_after_done_counts() -> None:
    assert decode(SSE, b"data: [DONE]\n\n\xff\xfe garbage") == ([], True)
    assert decode(SSE, b"event: end\ndata: [DONE]\n\n") == ([], True)


def test_odd_bytes_become_replacement_characters() -> None:
    assert events_of(b"data: \xff\n\n") == [StreamEvent("\ufffd")]


@pytest.mark.parametrize("line", ["id: a\0b", "retry: -1", "retry: 1.5", "retry: ", "retry: 9" * 1])
def test_fields_that_the_standard_ignores(line: str) -> None:
    event = events_of(f"{line}\ndata: x\n\n")[0]
    assert event in (StreamEvent("x"), StreamEvent("x", retry=9))


def test_a_retry_of_thousands_of_digits_does_no_harm() -> None:
    assert len(events_of("retry: " + "9" * 10_000 + "\ndata: x\n\n")) == 1


@pytest.mark.timeout(20)
def test_a_long_line_is_not_searched_again_and_again() -> None:
    decoder = decoder_for(SSE)
    assert decoder.feed(b"data: ") == []
    for _ in range(2000):
        assert decoder.feed(b"x" * 1000) == []
    assert len(decoder.feed(b"\n\n")[0].data) == 2_000_000


@pytest.mark.parametrize("content_type", [SSE, NDJSON])
def test_a_stream_without_line_ends_is_refused(content_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livepeer.client.events.MAX_EVENT", 1000)
    decoder = decoder_for(content_type)
    for _ in range(10):
        decoder.feed(b"x" * 100)
    with pytest.raises(StreamError, match="without a line end"):
        decoder.feed(b"x")


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livepeer.client.events.MAX_EVENT", 1000)
    decoder = decoder_for(SSE)
    for _ in range(100):
        decoder.feed(b"data: xxxxxxxxxx\n")
    with pytest.raises(StreamError, match="over 1000 bytes"):
        decoder.feed(b"data: x\n")


@pytest.mark.parametrize(
    "content_type",
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/jsonlines"],
)
def test_json_lines_cut_at_every_byte(content_type: str) -> None:
    body = '{"a": "é"}\n\n  \r\n[1]\r\n"last"'.encode()
    expected = [StreamEvent('{"a": "é"}'), StreamEvent("[1]"), StreamEvent('"last"')]
    for cut in range(len(body) + 1):
        assert decode(content_type, body[:cut], body[cut:]) == (expected, False)


def test_chunks_of_text_keep_characters_whole() -> None:
    body = "aé🎬".encode()
    for cut in range(len(body) + 1):
        events, _ = decode("text/plain", body[:cut], body[cut:])
        assert "".join(str(event.data) for event in events) == "aé🎬"
    assert decode("text/plain", body[:-1])[0][-1].data.endswith("\ufffd")  # type: ignore[arg-type]


def test_the_charset_of_a_text_counts() -> None:
    assert decode("text/plain", "é".encode("latin-1"), charset="latin-1")[0] == [StreamEvent("é")]
    assert decode("text/plain", b"x", charset="no-such")[0] == [StreamEvent(b"x")]


def test_chunks_of_bytes_are_bytes() -> None:
    assert decode("image/png", b"\xff", b"\xfe")[0] == [StreamEvent(b"\xff"), StreamEvent(b"\xfe")]


@pytest.mark.parametrize("content_type", ["application/json", "application/problem+json"])
def test_json_is_one_event(content_type: str) -> None:
    body = b'{"a": [1, 2]}'
    for cut in range(len(body) + 1):
        events, _ = decode(content_type, body[:cut], body[cut:])
        assert [event.json() for event in events] == [{"a": [1, 2]}]


def test_an_event_that_is_no_json_says_what_it_is() -> None:
    with pytest.raises(StreamError, match=r"not JSON.*'<html>'"):
        StreamEvent("<html>").json()
    with pytest.raises(StreamError):
        StreamEvent("[" * 100_000).json()
    with pytest.raises(StreamError):
        StreamEvent(b"\xff").json()
