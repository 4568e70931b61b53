from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from livepeer.runner import (
    Blob,
    ConfigurationError,
    Event,
    HTTPError,
    LivePipeline,
    Pipeline,
    PipelineDefinitionError,
)
from livepeer.runner._definition import kebab
from livepeer.runner.events import encode_event
from livepeer.runner.results import encode_result

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers


class Box(BaseModel):
    width: int


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")


class Fields(Pipeline):
    def run(
        self,
        json: str,
        box: Box,
        copy: Annotated[int, Field(ge=1)] = 3,
        parts: tuple[bytes, ...] = (),
        mask: bytes | None = None,
    ) -> dict[str, int]:
        return {}


class WholeBody(Pipeline):
    def run(self, box: Box) -> Box:
        return box


class AnyBody(Pipeline):
    def run(self, body: Loose) -> dict[str, Any]:
        return {}


class Raw(Pipeline):
    def run(self, data: Blob, gain: float = 1.0) -> Blob:
        return data


class Tokens(Pipeline):
    def run(self, text: str) -> Iterator[str]:
        yield text


class AsyncTokens(Pipeline):
    async def run(self, text: str) -> AsyncIterator[Event]:
        yield Event(text)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def run(self, a): ...", "has no annotation"),
        ("def run(self, *a: int): ...", r"takes \*a"),
        ("def run(self, **a: int): ...", 'extra="allow"'),
        ("def run(self, a: int, /): ...", "Remove the '/'"),
        ("def run(self, a: bytes, b: bytearray): ...", "two parameters that take the raw body"),
        ("def run(self, a: bytes | None): ...", "Write = None"),
        ("def run(self, a: object()): ...", "is not a type|no type"),
        ("def run(self, a: type(print)): ...", "no type that JSON can fill"),
        ("x = 1", "abstract=True"),
        ("run = staticmethod(lambda a: a)", "ordinary method"),
        ("run = 3", "ordinary method"),
        ("name = 'run'\n def run(self): ...", "Set another one"),
        ("name = 'a b'\n def run(self): ...", "can't be a capability's name"),
    ],
)
def test_mistakes_are_refused_when_the_class_is_defined(body: str, says: str) -> None:
    with pytest.raises(PipelineDefinitionError, match=says):
        exec(f"class Bad(Pipeline):\n {body}", dict(globals()))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("x = 1", "no process_video"),
        ("def process_video(self): ...", "1 argument"),
        ("def process_video(self, frame, more): ...", "1 argument"),
        ("def process_video(self, frame): yield frame", "generator"),
        ("def process_audio(self): ...", "1 argument"),
        ("process_audio = 3", "is a int"),
        ("def process_video(self, frame): ...\n def setup(self, x): ...", "0 argument"),
    ],
)
def test_live_mistakes_are_refused_when_the_class_is_defined(body: str, says: str) -> None:
    with pytest.raises(PipelineDefinitionError, match=says):
        exec(f"class Bad(LivePipeline):\n {body}", {"LivePipeline": LivePipeline})


def test_a_base_class_may_lack_run() -> None:
    class Base(Pipeline, abstract=True):
        pass

    class Done(Base):
        def run(self, text: str) -> str:
            return text

    assert Done.signature().bind(b'{"text": "a"}') == {"text": "a"}


def test_an_annotation_for_type_checkers_only_says_how_to_mend_it() -> None:
    class Odd(Pipeline):
        def run(self, amount: OnlyForCheckers) -> str:
            return ""

    with pytest.raises(PipelineDefinitionError, match="at runtime"):
        Odd.signature()


def test_an_annotation_may_name_what_comes_later() -> None:
    class Later(Pipeline):
        def run(self, box: DefinedBelow) -> str:
            return box.colour

    assert Later.signature().bind(b'{"colour": "red"}') == {"box": DefinedBelow(colour="red")}


class DefinedBelow(BaseModel):
    colour: str


def test_names_come_from_the_class() -> None:
    assert [kebab(n) for n in ("Sentiment", "TextReverse", "LLMChat", "SDXLTurbo2Fast", "snake_Case")] == [
        "sentiment",
        "text-reverse",
        "llm-chat",
        "sdxl-turbo2-fast",
        "snake-case",
    ]


def test_parameters_may_have_names_that_pydantic_uses() -> None:
    bound = Fields.signature().bind(b'{"json": "x", "box": {"width": 1}, "model": "dropped"}')
    assert bound == {"json": "x", "box": Box(width=1), "copy": 3, "parts": (), "mask": None}
    properties = Fields.signature().input["properties"]
    assert properties["copy"] == {"default": 3, "minimum": 1, "title": "Copy", "type": "integer"}
    assert properties["parts"]["items"] == {"type": "string", "format": "base64"}


def test_nested_bytes_are_base64_in_either_alphabet() -> None:
    data = b"\xfb\xff\xfe"
    for encoded in (base64.b64encode(data), base64.urlsafe_b64encode(data)):
        body = {"json": "", "box": {"width": 1}, "parts": [encoded.decode()], "mask": encoded.decode()}
        bound = Fields.signature().bind(json.dumps(body).encode(), "application/json")
        assert (bound["parts"], bound["mask"]) == ((data,), data)


@pytest.mark.parametrize(
    ("body", "says", "field"),
    [
        (b'{"json": 1, "box": {"width": 1}}', "valid string", "json"),
        (b'{"json": "", "box": {"width": "x"}}', "valid integer", "box.width"),
        (b'{"json": "", "box": {"width": 1}, "colour": 1}', "not permitted", "colour"),
        (b'{"json": "", "box": {"width": 1}, "copy": 0}', "greater than", "copy"),
        (b'{"json": "", "box": {"width": 1}, "mask": "?"}', "base64", "mask"),
        (b"", "Field required", "json"),
        (b"[1]", "is a JSON list; it should be an object with: json, box", None),
        (b'"text"', "is a JSON string", None),
        (b"text", "is not JSON", None),
        (b"{", "Invalid JSON", "body"),
    ],
)
def test_wrong_input_names_its_field(body: bytes, says: str, field: str | None) -> None:
    with pytest.raises(HTTPError, match=says) as raised:
        Fields.signature().bind(body, "application/json")
    assert raised.value.status == 422
    if field:
        assert raised.value.fields
        assert raised.value.fields[0]["field"] == field


def test_one_model_is_the_whole_body() -> None:
    assert WholeBody.signature().bind(b'{"width": 2, "model": "dropped"}') == {"box": Box(width=2)}
    assert WholeBody.signature().input["properties"] == {"width": {"title": "Width", "type": "integer"}}
    kept = AnyBody.signature().bind(b'{"model": "kept", "x": 1}')["body"]
    assert kept.model_extra == {"model": "kept", "x": 1}


def test_a_raw_body_leaves_the_other_parameters_to_the_query_or_to_json() -> None:
    signature = Raw.signature()
    bound = signature.bind(b"\0\1", "audio/wav", [("gain", "2.5"), ("other", "x")])
    assert (bound["data"], bound["data"].content_type, bound["gain"]) == (b"\0\1", "audio/wav", 2.5)
    assert signature.bind(b'{"data": "AAE=", "gain": 3}', "application/json; charset=utf-8") == {
        "data": b"\0\1",
        "gain": 3.0,
    }
    assert signature.accepts == ["application/octet-stream", "application/json"]
    with pytest.raises(HTTPError, match="gain"):
        signature.bind(b"", None, [("gain", "loud")])


def test_schemas_tell_the_result() -> None:
    assert (Tokens.signature().streams, Tokens.signature().output) == (True, {"type": "string"})
    assert (AsyncTokens.signature().streams, AsyncTokens.signature().returns) == (True, "text/event-stream")
    assert WholeBody.signature().output["properties"]["width"]["type"] == "integer"
    assert Raw.signature().output == {"type": "string", "format": "binary"}


class Odd:
    pass


def test_results_become_bodies() -> None:
    assert encode_result({"a": [b"\xfb\xff", float("nan")]}) == (b'{"a":["+/8=",null]}', "application/json")
    assert encode_result(Box(width=1)) == (b'{"width":1}', "application/json")
    assert encode_result([Box(width=1)])[0] == b'[{"width":1}]'
    assert encode_result("é") == ("é".encode(), "text/plain; charset=utf-8")
    assert encode_result(b"x") == (b"x", "application/octet-stream")
    assert encode_result(Blob(b"x", "audio/wav")) == (b"x", "audio/wav")
    assert encode_result(None) == (b"null", "application/json")
    with pytest.raises(TypeError, match="Odd is not a JSON value"):
        encode_result({"a": Odd()})


def test_arrays_become_lists() -> None:
    numpy = pytest.importorskip("numpy")
    assert encode_result({"score": numpy.float32(0.5), "v": numpy.arange(2)})[0] == b'{"score":0.5,"v":[0,1]}'


@pytest.mark.parametrize(
    ("item", "sent"),
    [
        ("a", b"data: a\n\n"),
        ("", b"data: \n\n"),
        (" a\r\nb\rc\n", b"data:  a\ndata: b\ndata: c\ndata: \n\n"),
        ({"a": 1}, b'data: {"a":1}\n\n'),
        (None, b"data: null\n\n"),
        ("[DONE]", b'data: "[DONE]"\n\n'),
        (Event("x", event="e", id="1", retry=5), b"event: e\nid: 1\nretry: 5\ndata: x\n\n"),
    ],
)
def test_events_are_framed(item: Any, sent: bytes) -> None:
    assert encode_event(item) == sent


def test_an_events_name_is_one_line() -> None:
    with pytest.raises(ConfigurationError, match="one line"):
        Event("x", event="a\ndata: injected")


def test_importing_the_package_loads_no_framework() -> None:
    code = (
        "import sys, livepeer.runner\n"
        "heavy = {'fastapi', 'pydantic', 'starlette', 'uvicorn', 'aiohttp', 'av', 'numpy', 'PIL'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "names = [getattr(livepeer.runner, name) for name in livepeer.runner.__all__]\n"
        "from livepeer.runner import running, serve\n"
        "assert callable(serve)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
