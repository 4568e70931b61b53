"""JSON as Go's ``encoding/json`` reads and writes it: what an orchestrator's answers and complaints look like.

`decode` reads a body into the fields a handler declares, ignores the others and says of a wrong one what Go
says (Go 1.25, ``encoding/json``: ``decode.go``, ``scanner.go``). Only the first value of a body counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["GoJSONError", "Kind", "decode", "encode"]

Kind = Literal["string", "bool", "int", "number", "strings", "gpu"] | Mapping[str, Any]
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_KEY_BEFORE = re.compile(r'[{,]\s*"[^"]*"$')
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
        fields: The kind of each field by its JSON name. A mapping is a nested object (its Go type under
            the empty name), and ``{"[]": kind}`` a list.

    Raises:
        GoJSONError: The body is empty, isn't JSON, or has a field of a wrong type.
    """
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    if not text:
        raise GoJSONError("EOF")
    try:
        value, _ = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise GoJSONError(_complaint(text, getattr(error, "pos", 0))) from None
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


def _convert(item: Any, kind: Kind, struct: str, path: str) -> Any:  # noqa: PLR0911
    def wrong(go_type: str) -> GoJSONError:
        where = f"Go struct field {struct}.{path} of type {go_type}"
        return GoJSONError(f"json: cannot unmarshal {_type_of(item)} into {where}")

    match kind:
        case "string":
            if not isinstance(item, str):
                raise wrong("string")
            return item
        case "bool":
            if not isinstance(item, bool):
                raise wrong("bool")
            return item
        case "int":
            if isinstance(item, float) and not isinstance(item, bool):
                where = f"Go struct field {struct}.{path} of type int"
                raise GoJSONError(f"json: cannot unmarshal number {item} into {where}")
            if isinstance(item, bool) or not isinstance(item, int):
                raise wrong("int")
            return item
        case "number":
            if isinstance(item, bool) or not isinstance(item, int | float | str):
                raise wrong("json.Number")
            if isinstance(item, str) and not _is_number(item):
                raise GoJSONError(
                    f"json: invalid number literal, trying to unmarshal {json.dumps(json.dumps(item))} into Number"
                )
            return item
        case "strings":
            if not isinstance(item, list):
                raise wrong("[]string")
            return [_convert(one, "string", struct, path) for one in item]
        case "gpu":  # an index of a local device stands for an object
            if isinstance(item, int) and not isinstance(item, bool):
                return {"id": str(item)}
            if not isinstance(item, dict):
                raise wrong("runner.gpuAlias")
            gpu = _read(item, struct, f"{path}.", {"id": "string", "name": "string", "vram_mb": "int"})
            return {name: value for name, value in gpu.items() if value}
        case {"[]": element}:
            if not isinstance(item, list):
                raise wrong(f"[]{element['']}")
            return [_convert(one, element, struct, path) for one in item]
        case _:
            go_type = str(kind[""])
            if not isinstance(item, dict):
                raise wrong(go_type)
            inner = {name: one for name, one in kind.items() if name}
            return _read(item, go_type.rpartition(".")[2], f"{path}.", inner)


def _zero(kind: Kind) -> Any:
    match kind:
        case "string" | "number":
            return ""
        case "bool":
            return False
        case "int":
            return 0
        case "strings":
            return []
        case _:
            return None


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return {str: "string", list: "array", dict: "object"}.get(type(value), "null")


def _is_number(text: str) -> bool:
    try:
        return isinstance(json.loads(text), int | float) and text == text.strip()
    except ValueError:
        return False


def _refuse_constant(_: str) -> Any:
    raise json.JSONDecodeError("not JSON", "", 0)


def _complaint(text: str, position: int) -> str:
    """What Go's scanner says of text which Python's decoder refused at this position."""
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
