"""What of Go's standard library a client can see; every expectation was taken from a real node."""

from __future__ import annotations

from typing import Any

import pytest

from livepeer.devkit.network import gojson, paths, sniffing
from livepeer.devkit.network.heartbeat import _FIELDS


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        (b"", "/base"),
        (b"a/b", "/base/a/b"),
        (b"a/b/", "/base/a/b/"),
        (b"a b", "/base/a%2520b"),
        ("ü".encode(), "/base/%25C3%25BC"),
        (b"a!b", "/base/a%21b"),
        (b"a(b)", "/base/a%28b%29"),
        (b"a:@&=+$;,~_-.", "/base/a:@&=+$;,~_-."),
        (b"../x", "/x"),
        (b"a//b", "/base/a/b"),
        (b"a%20b", "/base/a%2520b"),
    ],
)
def test_paths_are_escaped_twice(sent: bytes, arrives: str) -> None:
    assert paths.twice("/base", sent) == arrives


def test_a_percent_sign_is_an_error() -> None:
    with pytest.raises(paths.PathError, match='invalid URL escape "%b"'):
        paths.twice("", b"a%b")


@pytest.mark.parametrize(
    ("path", "clean"), [("", "/"), ("//a", "/a"), ("/a/./b/../c", "/a/c"), ("/a//", "/a/"), ("/a", "/a")]
)
def test_clean(path: str, clean: str) -> None:
    assert paths.clean(path) == clean


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "EOF"),
        (b"{", "unexpected EOF"),
        (b"tru", "unexpected EOF"),
        (b"x", "invalid character 'x' looking for beginning of value"),
        (b"trux", "invalid character 'x' in literal true (expecting 'e')"),
        (b"{a:1}", "invalid character 'a' looking for beginning of object key string"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (
            b"[]",
            "json: cannot unmarshal array into Go value of type runner.LiveRunnerHeartbeatRequest",
        ),
        (
            b'{"capacity":"a"}',
            "json: cannot unmarshal string into Go struct field "
            "LiveRunnerHeartbeatRequest.capacity of type int",
        ),
        (
            b'{"capacity":1.5}',
            "json: cannot unmarshal number 1.5 into Go struct field "
            "LiveRunnerHeartbeatRequest.capacity of type int",
        ),
        (
            b'{"price_info":{"currency":1}}',
            "json: cannot unmarshal number into Go struct field "
            "LiveRunnerPriceInfo.price_info.currency of type string",
        ),
        (
            b'{"price_info":{"price":"x"}}',
            r'json: invalid number literal, trying to unmarshal "\"x\"" into Number',
        ),
    ],
)
def test_json_complaints(body: bytes, text: str) -> None:
    with pytest.raises(gojson.GoJSONError) as caught:
        gojson.decode(body, "runner.LiveRunnerHeartbeatRequest", _FIELDS)
    assert str(caught.value) == text


def test_json_is_read_as_go_reads_it() -> None:
    body = b'{"APP":"x","mode":null,"unknown":1,"gpu":3,"price_info":{"price":1.5}} and more'
    found: dict[str, Any] = gojson.decode(body, "runner.LiveRunnerHeartbeatRequest", _FIELDS)
    assert (found["app"], found["mode"], found["gpu"], found["capacity"]) == ("x", "", {"id": "3"}, 0)


def test_json_is_written_as_go_writes_it() -> None:
    assert gojson.encode({"a": "<b>&é"}) == '{"a":"\\u003cb\\u003e\\u0026é"}'.encode()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"words", "text/plain; charset=utf-8"),
        (b"\x89PNG\r\n\x1a\n...", "image/png"),
        (b" <!doctype html>", "text/html; charset=utf-8"),
        (b"\x00\x01", "application/octet-stream"),
    ],
)
def test_sniffing(data: bytes, kind: str) -> None:
    assert sniffing.content_type(data) == kind
