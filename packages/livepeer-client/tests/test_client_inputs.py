"""What can be sent and what can't, without a network."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest

from livepeer.client import ConfigurationError, InputError
from livepeer.client.inputs import encode_input


@dataclasses.dataclass
class Node:
    name: str
    child: Any = None
    read: bool = False


class Broken(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        raise OSError("the disk is gone")


class Later:
    async def read(self) -> bytes:
        return b""


def circular() -> Any:
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


def deep() -> Any:
    value: Any = []
    for _ in range(200_000):
        value = [value]
    return value


def closed() -> Any:
    file = io.BytesIO()
    file.close()
    return file


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: {1, 2}, "builtins.set"),
        (lambda: {"a": {1}}, "builtins.set"),
        (lambda: object(), "builtins.object"),
        (lambda: {"a": [lambda: 1]}, "function"),
        (lambda: float("nan"), "no JSON form"),
        (lambda: {"a": float("inf")}, "no JSON form"),
        (circular, "ircular"),
        (deep, "contains itself"),
        (lambda: Node("a", {1}), "set"),
        (lambda: {(1, 2): 3}, "keys"),
        (lambda: {b"a": 1}, "keys"),
        (lambda: "\ud800", "surrogate"),
        (lambda: {"a": "\udfff"}, "surrogate"),
        (lambda: 1j, "complex"),
        (lambda: Path("/no/such/file"), "No such file"),
        (lambda: {"image": Path("/no/such/file")}, "No such file"),
        (lambda: Path("/"), "can't be read"),
        (Broken, "the disk is gone"),
        (closed, "can't be read"),
        (Later, "asynchronous files"),
        (lambda: [Later()], "asynchronous files"),
        (lambda: Node, "has no JSON form"),
    ],
)
def test_what_cannot_be_sent(make: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        encode_input(make())
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ConfigurationError)


def test_objects() -> None:
    assert json.loads(encode_input(Node("a", Node("b"))).content) == {
        "name": "a",
        "child": {"name": "b", "child": None, "read": False},
        "read": False,
    }
    assert json.loads(encode_input([Node("c")]).content)[0]["name"] == "c"
    assert encode_input({"t": (1, 2), "k": {1: 2}}).content == b'{"t":[1,2],"k":{"1":2}}'


def test_text_files(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("é")
    with path.open() as file:
        body = encode_input(file)
    assert (body.content, body.content_type) == ("é".encode(), "text/plain")
    with path.open() as file:
        assert encode_input({"f": file}).content == b'{"f":"w6k="}'


def test_a_memoryview_of_every_second_byte() -> None:
    assert encode_input(memoryview(b"abcd")[::2]).content == b"ac"


def test_pillow_images() -> None:
    image_module = pytest.importorskip("PIL.Image")
    image = image_module.new("RGB", (2, 2), "red")
    body = encode_input(image)
    assert body.content_type == "image/png"
    assert body.content.startswith(b"\x89PNG")
    assert json.loads(encode_input({"image": image}).content)["image"].startswith("iVBOR")
    with pytest.raises(InputError, match="RGB"):
        encode_input(image_module.new("HSV", (2, 2)))


def test_numpy() -> None:
    numpy = pytest.importorskip("numpy")
    body = encode_input(numpy.zeros((2, 2), numpy.uint8))
    assert numpy.load(io.BytesIO(body.content)).shape == (2, 2)
    assert json.loads(encode_input({"n": numpy.int64(3), "f": numpy.float32(0.5)}).content) == {
        "n": 3,
        "f": 0.5,
    }
    assert json.loads(encode_input([numpy.ones(1)]).content)[0].startswith("k05VTV")
    assert encode_input(numpy.float64(1.5)).content == b"1.5"
    for bad in (numpy.array([object()]), {"n": numpy.float32("nan")}, [numpy.complex64(1)]):
        with pytest.raises(InputError):
            encode_input(bad)


def test_pydantic_models() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Asked", text=(str, ...), raw=(Any, None))
    assert json.loads(encode_input(model(text="x"), "m").content) == {"text": "x", "raw": None, "model": "m"}
    assert json.loads(encode_input([model(text="x")]).content)[0]["text"] == "x"
    for bad in (model(text="x", raw=b"\xff"), [model(text="x", raw=object())]):
        with pytest.raises(InputError):
            encode_input(bad)
