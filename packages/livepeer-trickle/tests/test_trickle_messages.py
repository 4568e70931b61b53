"""JSON out of bytes that are cut anywhere."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livepeer.trickle.messages import MessageDecoder


def decode(*parts: bytes) -> tuple[list[Any], int]:
    decoder = MessageDecoder()
    messages = [message for part in parts for message in decoder.feed(part)]
    return messages + decoder.finish(), decoder.malformed


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        (b'{"a": 1}', [{"a": 1}]),
        (b'{"a": 1}\n', [{"a": 1}]),
        (b'{"a": 1}\n\n{"b": "\xc3\xa4\xe2\x82\xac"}\r\n[]\n', [{"a": 1}, {"b": "ä€"}, []]),
        (json.dumps({"a": [1, {"b": "x"}]}, indent=2).encode(), [{"a": [1, {"b": "x"}]}]),
        (b'{"a": 1} {"b": 2}', [{"a": 1}, {"b": 2}]),
        (b"12\n3", [12, 3]),
        (b"", []),
        (b"\n \n", []),
    ],
)
def test_cut_at_every_byte(data: bytes, messages: list[Any]) -> None:
    for cut in range(len(data) + 1):
        assert decode(data[:cut], data[cut:]) == (messages, 0)
    assert decode(*(data[i : i + 1] for i in range(len(data)))) == (messages, 0)


@pytest.mark.parametrize(
    "data", [b"nope\n", b'{"a": \n', b'{"a": 1', b"\xff\xfe\n", b"}\n", b"[" * 100_000 + b"\n"]
)
def test_what_is_no_json_is_counted(data: bytes) -> None:
    assert decode(data) == ([], 1)


def test_a_malformed_line_does_not_take_its_neighbours_with_it() -> None:
    assert decode(b'{"a": 1}\nnope\n{"b": 2}\n') == ([{"a": 1}, {"b": 2}], 1)


def test_lines_come_out_as_they_end() -> None:
    decoder = MessageDecoder()
    assert decoder.feed(b'{"a": 1}\n{"b"') == [{"a": 1}]
    assert decoder.feed(b": 2}\n") == [{"b": 2}]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
)


@settings(max_examples=40, deadline=None)
@given(messages=st.lists(values, max_size=5), cuts=st.lists(st.integers(0, 200), max_size=4))
def test_any_values_cut_anywhere(messages: list[Any], cuts: list[int]) -> None:
    data = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert decode(*parts) == (messages, 0)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    decode(data)
