"""JSON as Go's ``encoding/json`` reads and writes it: an orchestrator's answers and complaints.

`decode` reads a body into the fields a handler declares, ignores the others and says of a wrong one what Go
says (Go 1.25, ``encoding/json``: ``decode.go``, ``scanner.go``). Only the first value of a body counts for
it; `unmarshal` wants nothing behind that.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["GoJSONError", "Kind", "decode", "decode_base64", "encode", "unmarshal"]

_ALPHABET = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")

Kind = (
    Literal[
        "string",
        "string?",
        "bool",
        "int",
        "int64",
        "number",
        "int?",
        "strings",
        "object",
        "any",
        "gpu",
        "bytes",
    ]
    | Mapping[str, Any]
)
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_KEY_BEFORE = re.compile(r'[{,]\s*"[^"]*"$')
_PLAIN: dict[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "string"),
    "string?": ((str,), "string"),
    "bool": ((bool,), "bool"),
    "int": ((int,), "int"),
    "int?": ((int,), "int"),
    "int64": ((int,), "int64"),
    "number": ((int, float, str), "json.Number"),
    "object": ((dict,), "map[string]interface {}"),
    "any": ((object,), "interface {}"),
}
_ZERO: dict[str, Any] = {
    "string": "",
    "number": "",
    "bool": False,
    "int": 0,
    "int64": 0,
    "strings": [],
    "bytes": b"",
}
_SPACE = " \t\r\n"
_LITERALS = {"t": "true", "f": "false", "n": "null"}


class GoJSONError(ValueError):
    """A body that Go's decoder refuses; the text is Go's."""


def encode(value: Any) -> bytes:
    """The value as compact JSON with HTML's special characters escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text.encode()


def decode(body: bytes, struct: str, fields: Mapping[str, Kind]) -> dict[str, Any]:
    """Read a JSON object into declared fields; absent and null ones keep their zero value.

    Args:
        body: The request's body.
        struct: The name of the Go type, which stands in the errors.
        fields: The kind of each field by its JSON name. ``string?`` and ``int?`` are None when absent. A
            mapping is a nested object (its Go type under the empty name), and ``{"[]": kind}`` a list.

    Raises:
        GoJSONError: The body is empty, isn't JSON, or has a field of a wrong type.
    """
    value, _ = _first_value(body)
    return _fields(value, struct, fields)


def decode_base64(text: str) -> bytes:
    """Base64 as Go reads it: padded, of the standard alphabet. Raises `binascii.Error`."""
    data = text.encode("utf-8", "surrogateescape").translate(None, b"\r\n")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        wrong = next((at for at, byte in enumerate(data) if byte not in _ALPHABET), len(data))
        raise binascii.Error(f"illegal base64 data at input byte {wrong}") from None


def unmarshal(body: bytes | str, struct: str, fields: Mapping[str, Kind]) -> dict[str, Any]:
    """The same for a body that is one JSON value and nothing else, as ``json.Unmarshal`` reads it."""
    try:
        value, rest = _first_value(body.encode("utf-8", "replace") if isinstance(body, str) else body)
    except GoJSONError as error:
        short = str(error) in ("EOF", "unexpected EOF")
        raise GoJSONError("unexpected end of JSON input") if short else error from None
    if rest:
        raise GoJSONError(f"invalid character {_quoted(rest[0])} after top-level value")
    return _fields(value, struct, fields)


def _first_value(body: bytes) -> tuple[Any, str]:
    text = body.decode("utf-8", "replace").lstrip(_SPACE)
    if not text:
        raise GoJSONError("EOF")
    try:
        value, end = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise GoJSONError(_complaint(text, getattr(error, "pos", 0))) from None
    return value, text[end:].lstrip(_SPACE)


def _fields(value: Any, struct: str, fields: Mapping[str, Kind]) -> dict[str, Any]:
    if value is None:
        return {name: _zero(kind) for name, kind in fields.items()}
    if not isinstance(value, dict):
        raise GoJSONError(f"json: cannot unmarshal {_type_of(value)} into Go value of type {struct}")
    return _read(value, struct.rpartition(".")[2], "", fields)


def _read(value: dict[str, Any], struct: str, path: str, fields: Mapping[str, Kind]) -> dict[str, Any]:
    by_name = {name.lower(): name for name in fields}  # Go matches names without case
    found: dict[str, Any] = {name: _zero(kind) for name, kind in fields.items()}
    for key, item in value.items():
        name = by_name.get(key.lower())
        if name is not None and item is not None:
            found[name] = _convert(item, fields[name], struct, f"{path}{name}")
    return found


def _convert(item: Any, kind: Kind, struct: str, path: str) -> Any:
    if not isinstance(kind, str):
        return _converted_container(item, kind, struct, path)
    if kind == "strings":
        if not isinstance(item, list):
            raise _wrong(item, "[]string", struct, path)
        return [_convert(one, "string", struct, path) for one in item]
    if kind == "bytes":
        if not isinstance(item, str):
            raise _wrong(item, "[]uint8", struct, path)
        try:
            return decode_base64(item)
        except binascii.Error as error:
            raise GoJSONError(str(error)) from None
    if kind == "gpu":  # an index of a local device stands for an object
        if isinstance(item, int) and not isinstance(item, bool):
            return {"id": str(item)}
        if not isinstance(item, dict):
            raise _wrong(item, "runner.gpuAlias", struct, path)
        gpu = _read(item, struct, f"{path}.", {"id": "string", "name": "string", "vram_mb": "int"})
        return {name: value for name, value in gpu.items() if value}
    types, go_type = _PLAIN[kind]
    if not isinstance(item, types) or (isinstance(item, bool) and kind not in ("bool", "any")):
        shown = f"number {item}" if isinstance(item, float) else None
        raise _wrong(item, go_type, struct, path, shown)
    if kind == "number" and isinstance(item, str) and not _is_number(item):
        literal = json.dumps(json.dumps(item))
        raise GoJSONError(f"json: invalid number literal, trying to unmarshal {literal} into Number")
    return item


def _converted_container(item: Any, kind: Mapping[str, Any], struct: str, path: str) -> Any:
    if "[]" in kind:
        element = kind["[]"]
        if not isinstance(item, list):
            raise _wrong(item, f"[]{element['']}", struct, path)
        return [_convert(one, element, struct, path) for one in item]
    go_type = str(kind[""])
    if not isinstance(item, dict):
        raise _wrong(item, go_type, struct, path)
    inner = {name: one for name, one in kind.items() if name}
    return _read(item, go_type.rpartition(".")[2], f"{path}.", inner)


def _wrong(item: Any, go_type: str, struct: str, path: str, shown: str | None = None) -> GoJSONError:
    where = f"Go struct field {struct}.{path} of type {go_type}"
    return GoJSONError(f"json: cannot unmarshal {shown or _type_of(item)} into {where}")


def _zero(kind: Kind) -> Any:
    return _ZERO.get(kind) if isinstance(kind, str) else None


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _is_number(text: str) -> bool:
    try:
        return isinstance(json.loads(text), int | float) and text == text.strip()
    except ValueError:
        return False


def _refuse_constant(_: str) -> Any:
    raise json.JSONDecodeError("not JSON", "", 0)


def _complaint(text: str, position: int) -> str:
    """What Go's scanner says of text which Python's decoder refused at this position."""
    if text[position : position + 1] == "," and text[position + 1 :].lstrip()[:1] in ("}", "]"):
        # Python 3.13 points at a trailing comma; Go, like Python before, at what follows it.
        position = len(text) - len(text[position + 1 :].lstrip())
    if position >= len(text) or (text[position] == '"' and '"' not in text[position + 1 :]):
        return "unexpected EOF"
    character = text[position]
    word = _LITERALS.get(character)
    if word:
        for index, expected in enumerate(word):
            if position + index >= len(text):
                return "unexpected EOF"
            found = text[position + index]
            if found != expected:
                return f"invalid character {_quoted(found)} in literal {word} (expecting {_quoted(expected)})"
    if ord(character) < 0x20:
        return f"invalid character {_quoted(character)} in string literal"
    before = text[:position].rstrip()
    if not before or before[-1] in "[:":
        place = "looking for beginning of value"
    elif before[-1] == "{":
        place = "looking for beginning of object key string"
    elif before[-1] == ",":
        inside = text[:position].count("{") - text[:position].count("}")
        place = f"looking for beginning of {'object key string' if inside > 0 else 'value'}"
    elif _KEY_BEFORE.search(before):
        place = "after object key"
    else:
        place = "after object key:value pair"
    return f"invalid character {_quoted(character)} {place}"


def _quoted(character: str) -> str:
    escapes = {"'": r"\'", '"': '"', "\n": r"\n", "\r": r"\r", "\t": r"\t"}
    return f"'{escapes.get(character, character)}'"
